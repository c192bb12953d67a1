"""One warm HOME for the whole run, one Krita with its own server folder for each module."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.krita import stub
from tests.krita.kdrive import missing
from tests.krita.painter import Painter, make_home, painting


@pytest.fixture(scope="session")
def warm_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HOME with the plug-in. Its first start builds Krita's resource database; later ones are quick."""
    if missing():
        pytest.fail(f"The tests in the real Krita need more: apt-get install python3-pyqt5 {' '.join(missing())}")
    home = tmp_path_factory.mktemp("warm") / "home"
    make_home(home)
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
    with painting(home, impasto, launch, model_files, krita_env) as opened:
        yield opened


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
