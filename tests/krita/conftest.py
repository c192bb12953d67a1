"""One warm HOME for the whole run, one Krita with its own server folder for each module."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.home import launch_file, read_endpoint
from impasto_server.cli.plugin import install_krita

from tests.krita import stub
from tests.krita.kdrive import KritaSession, add_bridge, missing

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


@pytest.fixture(scope="session")
def warm_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HOME with the plug-in. Its first start builds Krita's resource database; later ones are quick."""
    if missing():
        pytest.fail(f"The tests in the real Krita need more: apt-get install python3-pyqt5 {' '.join(missing())}")
    home = tmp_path_factory.mktemp("warm") / "home"
    home.mkdir()
    install_krita(home)
    add_bridge(home)
    environment = {"IMPASTO_HOME": str(home / "nobody")}
    with KritaSession(home, environment) as session:
        session.connect(timeout=300)
        session.quit()
    return home


@pytest.fixture(scope="module")
def launch() -> list[str]:
    """The command that the plug-in finds in launch.json; a module with the real server has its own."""
    return stub.launch_command()


@pytest.fixture(scope="module")
def model_files() -> list[Path]:
    """Checkpoints that lie in the server's models folder."""
    return []


@pytest.fixture(scope="module")
def krita_env() -> dict[str, str]:
    """More environment variables for Krita."""
    return {}


@pytest.fixture(scope="module")
def painter(
    warm_home: Path,
    launch: list[str],
    model_files: list[Path],
    krita_env: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Painter]:
    folder = tmp_path_factory.mktemp("krita")
    home, impasto = folder / "home", folder / "impasto"
    shutil.copytree(warm_home, home, symlinks=True, ignore=shutil.ignore_patterns("bridge.sock", "run", "tmp"))
    impasto.mkdir(mode=0o700)
    (impasto / "models").mkdir()
    for file in model_files:
        shutil.copy(file, impasto / "models")
    launch_file(impasto).write_text(json.dumps({"argv": launch}))
    try:
        with KritaSession(home, {"IMPASTO_HOME": str(impasto), **krita_env}) as session:
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


@pytest.fixture(autouse=True)
def no_hidden_errors(request: pytest.FixtureRequest) -> Iterator[None]:
    """An exception in a slot ends in the bridge's list and not in a box: every test must leave that list empty."""
    yield
    if "painter" in request.fixturenames:
        painter: Painter = request.getfixturevalue("painter")
        painter.hold.unlink(missing_ok=True)
        if painter.krita.connection is not None:
            errors = painter.run("result = list(bridge.errors); bridge.errors.clear()")
            assert errors == []
