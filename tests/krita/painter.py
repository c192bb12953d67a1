"""A Krita with the plug-in installed, and the folder of the server that it starts: for the tests and the benchmarks."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impasto_protocol.home import launch_file, read_endpoint
from impasto_server.cli.plugin import install_krita

from tests.krita.kdrive import KritaSession, add_bridge

PRELUDE = (Path(__file__).parent / "inside.py").read_text()
"""Helpers that every test finds in Krita."""

SETTLED = """
def gen():
    yield (lambda: controller().connection.state not in ("idle", "starting", "connecting"), 90)
"""


@dataclass
class Painter:
    """A Krita with the plug-in, and the folder of the server that it starts."""

    krita: KritaSession
    home: Path

    def run(self, code: str, timeout: float = 60) -> Any:
        return self.krita.run(code, timeout)

    def server_pid(self) -> int:
        endpoint = read_endpoint(self.home)
        assert endpoint is not None, "no server is running"
        return endpoint.pid

    def focus(self) -> None:
        """Give Krita's main window the keyboard: there is no window manager that would."""
        self.krita.xdotool("windowfocus", "--sync", str(self.run("result = int(window.winId())")))

    @property
    def hold(self) -> Path:
        """While this file exists, the stub's engine waits in the middle of a job."""
        return self.home / "hold"


def make_home(home: Path) -> None:
    """A HOME with the plug-in. Its first start builds Krita's resource database; later ones are quick."""
    home.mkdir()
    install_krita(home)
    add_bridge(home)
    environment = {"IMPASTO_HOME": str(home / "nobody")}
    with KritaSession(home, environment) as session:
        session.connect(timeout=300)
        session.quit()


@contextlib.contextmanager
def painting(
    home: Path,
    impasto: Path,
    launch: list[str],
    model_files: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
    screen: str = "1600x1000x24",
) -> Iterator[Painter]:
    """A Krita in `home`, and its server in the new folder `impasto`, which `launch` starts; both end with the block."""
    impasto.mkdir(mode=0o700)
    (impasto / "models").mkdir()
    for file in model_files:
        shutil.copy(file, impasto / "models")
    launch_file(impasto).write_text(json.dumps({"argv": launch}))
    try:
        with KritaSession(home, {"IMPASTO_HOME": str(impasto), **(env or {})}, screen) as session:
            session.connect()
            session.run(PRELUDE)
            yield Painter(session, impasto)
            # A server that is only just starting has no record yet by which it could be stopped.
            session.run(SETTLED)
            assert session.quit() == 0, session.log_tail()
    finally:
        stop_server(impasto)


def stop_server(home: Path) -> None:
    """End the server of that folder, by its pid."""
    endpoint = read_endpoint(home)
    if endpoint is None:
        return
    try:
        os.kill(endpoint.pid, signal.SIGTERM)
        for _ in range(100):
            os.kill(endpoint.pid, 0)
            time.sleep(0.05)
        os.kill(endpoint.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
