"""Both real editors, on displays of their own, with one server between them whose engine only pretends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from impasto_protocol.home import launch_file
from impasto_server.cli.plugin import install_krita

from tests.editors.drivers import Editor
from tests.editors.gimp_driver import GimpEditor
from tests.editors.krita_driver import KritaEditor
from tests.gimp.conftest import make_warm_home, painting, serving
from tests.krita import stub
from tests.krita.conftest import Painter as KritaPainter
from tests.krita.kdrive import KritaSession, add_bridge
from tests.krita.painter import PRELUDE, SETTLED


@pytest.fixture(scope="session")
def server_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("editors") / "impasto"
    with serving(stub.launch_command(), home):
        (home / "tags").mkdir()
        (home / "tags" / "mine.csv").write_text("impasto_brushwork,0,4200,thick_paint\n", encoding="utf-8")
        launch_file(home).write_text(json.dumps({"argv": stub.launch_command()}))
        yield home


@pytest.fixture(scope="session")
def krita(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    home = tmp_path_factory.mktemp("krita-editor") / "home"
    home.mkdir()
    install_krita(home)
    add_bridge(home)
    with KritaSession(home, {"IMPASTO_HOME": str(server_home)}) as session:
        session.connect(400)
        session.run(PRELUDE)
        session.run("def gen():\n    yield (connected, 60)")
        yield KritaEditor(KritaPainter(session, server_home))
        session.run(SETTLED)
        assert session.quit() == 0, session.log_tail()


@pytest.fixture(scope="session")
def gimp(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    folder = tmp_path_factory.mktemp("gimp-editor")
    with painting(make_warm_home(tmp_path_factory), folder, server_home, ui=True) as painter:
        yield GimpEditor(painter)


@pytest.fixture(autouse=True)
def let_go(server_home: Path) -> Iterator[None]:
    """No test leaves the stub's engine waiting."""
    yield
    for name in ("hold", "no memory"):
        (server_home / name).unlink(missing_ok=True)
    shutil.rmtree(server_home / "scratch", ignore_errors=True)
