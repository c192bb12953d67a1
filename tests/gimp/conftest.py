"""One warm HOME for the whole run, and at most two GIMPs that all tests share: without a display, and with one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_client.client import Client
from impasto_client.endpoint import read_endpoint as read_live_endpoint
from impasto_protocol.home import read_endpoint
from impasto_protocol.messages import ClientInfo
from impasto_server.cli.plugin_gimp import install_gimp

from tests.gimp.gdrive import GimpSession, Line, missing, until
from tests.krita import stub

HERE = Path(__file__).parent
PRELUDE = (HERE / "inside.py").read_text()
"""Helpers that every test finds in GIMP."""
PANEL = (HERE / "inside_panel.py").read_text()
"""Helpers that every test finds in the panel's process."""

OPEN = "any(w.get_name() == {0!r} for w in __import__('gi').repository.Gtk.Window.list_toplevels())"
"""Whether a process of the plug-in has a window of that name."""


@dataclass
class Painter:
    """A GIMP with the plug-in, and the folder of the server that it works with."""

    gimp: GimpSession
    home: Path
    files: Path
    """A folder that GIMP sees under the same path."""

    def run(self, code: str, timeout: float = 60) -> Any:
        return self.gimp.run(code, timeout)

    @property
    def hold(self) -> Path:
        """While this file exists, the stub's engine waits in the middle of a job."""
        return self.home / "hold"

    def received(self) -> dict[str, np.ndarray]:
        """What the stub's engine was sent last."""
        with np.load(self.home / "received.npz") as file:
            return dict(file)

    def save(self, name: str, picture: np.ndarray) -> str:
        """Raw pixels as a file that the code in GIMP can read; its path."""
        path = self.files / name
        path.write_bytes(np.ascontiguousarray(picture).tobytes())
        return str(path)

    def picture(self, name: str, height: int, width: int, channels: int = 4) -> np.ndarray:
        """Raw pixels that the code in GIMP wrote with `dump`."""
        return np.frombuffer((self.files / name).read_bytes(), np.uint8).reshape(height, width, channels)


@pytest.fixture(scope="session")
def warm_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HOME with the plug-in, which all tests of a run share. Its first start asks every plug-in of GIMP."""
    return make_warm_home(tmp_path_factory)


def make_warm_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing():
        pytest.fail(f"The tests in a real GIMP need more: {' '.join(missing())} (see dev.py)")
    home = tmp_path_factory.getbasetemp() / "gimp-warm" / "home"
    if home.exists():
        return home
    home.mkdir(parents=True)
    for folder in install_gimp(home):
        shutil.copytree(HERE / "plugins/gbridge", folder.parent / "gbridge")
    with GimpSession(home) as session:
        session.connect()
        session.quit()
    return home


@contextlib.contextmanager
def serving(launch: list[str], home: Path, model_files: list[Path] | None = None) -> Iterator[Path]:
    """A running server with `home` as its folder. It runs outside of the root in which GIMP may be."""
    home.mkdir(mode=0o700)
    (home / "models").mkdir()
    for file in model_files or []:
        shutil.copy(file, home / "models")
    with open(home / "server.out", "wb") as log:
        server = subprocess.Popen(launch, env={**os.environ, "IMPASTO_HOME": str(home)}, stdout=log, stderr=log)
    try:
        until(lambda: read_endpoint(home) is not None, 60)
        yield home
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)


@contextlib.contextmanager
def painting(warm_home: Path, folder: Path, server_home: Path, ui: bool = False) -> Iterator[Painter]:
    """A GIMP that works with the server of `server_home`; at the end it must leave by itself and without an error."""
    home, files = folder / "home", folder / "files"
    files.mkdir(parents=True)
    shutil.copytree(warm_home, home, symlinks=True, ignore=shutil.ignore_patterns("*.sock", "tmp"))
    with GimpSession(home, {"IMPASTO_HOME": str(server_home)}, ui=ui) as session:
        session.connect()
        session.run(PRELUDE)
        session.run(f"FILES = {str(files)!r}")
        yield Painter(session, server_home, files)
        session.run("close_all()")
        assert session.quit() == 0, session.log_tail()


@pytest.fixture(scope="session")
def painter(warm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Painter]:
    """A GIMP without a display, the real server, an engine that pretends."""
    folder = tmp_path_factory.mktemp("gimp")
    with serving(stub.launch_command(), folder / "impasto") as home, painting(warm_home, folder, home) as started:
        yield started


@pytest.fixture(scope="session")
def desktop(warm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Painter]:
    """A GIMP with its windows on a display of its own, the real server, an engine that pretends."""
    folder = tmp_path_factory.mktemp("desktop")
    with (
        serving(stub.launch_command(), folder / "impasto") as home,
        painting(warm_home, folder, home, ui=True) as started,
    ):
        yield started


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test leaves GIMP without images, and has let the stub's engine go."""
    yield
    for name in ("painter", "desktop"):
        if name in request.fixturenames:
            used: Painter = request.getfixturevalue(name)
            (used.home / "hold").unlink(missing_ok=True)
            (used.home / "no memory").unlink(missing_ok=True)
            used.run("close_all()")


def panel_of(painter: Painter, seconds: float = 30) -> Line:
    """The open panel's process, with the helpers of inside_panel.py."""
    line = painter.gimp.plug_in(OPEN.format("impasto_panel"), seconds)
    line.run(PANEL)
    return line


def client_of(home: Path) -> Client:
    """A connection of our own to the running server."""
    endpoint = read_live_endpoint(home)
    assert endpoint is not None
    return Client.connect(endpoint, ClientInfo("tests", "0", "pytest"), lambda _: None, lambda _: None)


def states(painter: Painter) -> list[str]:
    """The states of the jobs that the server knows, oldest first."""
    client = client_of(painter.home)
    try:
        return [job.state for job in sorted(client.jobs(), key=lambda job: job.created)]
    finally:
        client.close()
