"""The zip and the installation of the plug-in; the last test asks Krita's own importer."""

from __future__ import annotations

import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from impasto_server.cli import plugin
from impasto_server.cli.main import main

from tests.krita.conftest import Painter

DESKTOP = "impasto_krita.desktop"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plugin.build_krita(tmp_path_factory.mktemp("build"))


def test_the_zip_has_what_krita_wants_and_nothing_compiled(archive: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()
        desktop = file.read(DESKTOP).decode()
    for wanted in (
        DESKTOP,
        "actions/",
        "actions/impasto_krita.action",
        "impasto_krita/",
        "impasto_krita/__init__.py",
        "impasto_krita/manual.html",
        "impasto_krita/_vendor/",
        "impasto_krita/_vendor/impasto_client/tasks.py",
        "impasto_krita/_vendor/impasto_protocol/codec.py",
        "impasto_krita/_vendor/msgpack/__init__.py",
        "impasto_krita/_vendor/websockets/sync/client.py",
    ):
        assert wanted in names, wanted
    assert not [n for n in names if n.endswith((".pyc", ".so", ".pyd")) or "__pycache__" in n]
    assert [n for n in names if n.endswith(".desktop")] == [DESKTOP]
    assert "X-KDE-Library=impasto_krita" in desktop and "%" not in desktop


def test_the_same_sources_give_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    assert plugin.build_krita(tmp_path).read_bytes() == archive.read_bytes()


def test_install_replaces_an_older_plug_in_and_keeps_other_settings(tmp_path: Path) -> None:
    kritarc = tmp_path / ".config/kritarc"
    kritarc.parent.mkdir()
    kritarc.write_text("theme=dark\n[python]\nenable_other=true\nenable_impasto_krita=false\n[tool]\nx=1\n")
    old = tmp_path / ".local/share/krita/pykrita/impasto_krita/old.py"
    old.parent.mkdir(parents=True)
    old.touch()
    folder = plugin.install_krita(tmp_path)
    assert folder == tmp_path / ".local/share/krita/pykrita/impasto_krita"
    assert (folder / "docker.py").is_file() and not old.exists()
    assert (folder.parent / DESKTOP).is_file()
    assert (tmp_path / ".local/share/krita/actions/impasto_krita.action").is_file()
    assert kritarc.read_text() == ("theme=dark\n[python]\nenable_impasto_krita=true\nenable_other=true\n[tool]\nx=1\n")
    plugin.install_krita(tmp_path)
    assert kritarc.read_text().count("impasto") == 1


def test_the_folders_of_the_platforms(tmp_path: Path) -> None:
    home = tmp_path
    assert plugin.krita_folders(home, "linux", {"XDG_DATA_HOME": "/elsewhere"}) == (
        home / ".local/share/krita",
        home / ".config/kritarc",
    )
    assert plugin.krita_folders(None, "linux", {"XDG_DATA_HOME": "/data", "XDG_CONFIG_HOME": "/config"}) == (
        Path("/data/krita"),
        Path("/config/kritarc"),
    )
    assert plugin.krita_folders(home, "darwin", {})[0] == home / "Library/Application Support/krita"
    assert plugin.krita_folders(home, "win32", {}) == (home / "AppData/Roaming/krita", home / "AppData/Local/kritarc")
    for part in ("data/krita", "config"):
        (home / part).mkdir(parents=True)
    assert plugin.krita_folders(home, "linux", {}) == (home / "data/krita", home / "config/kritarc")


def test_the_commands_print_paths_and_refuse_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "build", "krita", "-o", str(tmp_path / "dist")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "dist/impasto-krita.zip")
    (tmp_path / "file").touch()
    assert main(["plugin", "install", "krita", "--home", str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error and "Traceback" not in error
    with pytest.raises(SystemExit, match="2"):
        main(["plugin", "build", "photoshop"])


def test_the_plug_in_does_nothing_outside_krita() -> None:
    source = Path(plugin._package("impasto_krita")).parent
    code = f"import sys; sys.path.insert(0, {str(source)!r}); import impasto_krita; print(sorted(sys.modules)[:0])"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.krita
def test_kritas_own_importer_takes_the_zip(painter: Painter, archive: Path, tmp_path: Path) -> None:
    names = painter.run(
        f"archive, target = {str(archive)!r}, {str(tmp_path)!r}"
        + """
from plugin_importer.plugin_importer import PluginImporter
found = PluginImporter(archive, target, lambda plugin: True).import_all()
result = [[p["name"], p["ui_name"], p["action"]] for p in found]
"""
    )
    assert names == [["impasto_krita", "Impasto", "actions/impasto_krita.action"]]
    assert (tmp_path / "pykrita/impasto_krita/_vendor/impasto_client/tasks.py").is_file()
    assert (tmp_path / "actions/impasto_krita.action").is_file()
    assert stat.S_IMODE((tmp_path / "pykrita" / DESKTOP).stat().st_mode) & 0o400
