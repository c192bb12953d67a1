"""The zip and the installation of GIMP's plug-in."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from impasto_server.cli import packing, plugin_gimp
from impasto_server.cli.main import main
from impasto_server.engine.modes import describe


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plugin_gimp.build_gimp(tmp_path_factory.mktemp("build"))


def test_the_zip_has_one_folder_whose_program_may_run_and_nothing_compiled(archive: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()
        modes = {info.filename: info.external_attr >> 16 for info in file.infolist()}
        schema = json.loads(file.read("impasto_gimp/schema.json"))
    assert {name.split("/")[0] for name in names} == {"impasto_gimp"}
    for wanted in (
        "impasto_gimp/impasto_gimp.py",
        "impasto_gimp/plugin.py",
        "impasto_gimp/_vendor/impasto_client/tasks.py",
        "impasto_gimp/_vendor/impasto_protocol/codec.py",
        "impasto_gimp/_vendor/msgpack/__init__.py",
        "impasto_gimp/_vendor/websockets/sync/client.py",
    ):
        assert wanted in names, wanted
    assert modes["impasto_gimp/impasto_gimp.py"] & stat.S_IXUSR and not modes["impasto_gimp/plugin.py"] & stat.S_IXUSR
    assert not [n for n in names if n.endswith((".pyc", ".so", ".pyd")) or "__pycache__" in n]
    described = {mode.name: mode.to_wire() for mode in describe()}
    painting = ["txt2img", "img2img", "sketch", "inpaint", "refine"]
    assert [mode["name"] for mode in schema] == [*painting, "upscale", "faceswap"]
    assert all(mode == json.loads(json.dumps(described[mode["name"]])) for mode in schema)


def test_the_same_sources_give_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    assert plugin_gimp.build_gimp(tmp_path).read_bytes() == archive.read_bytes()


def test_install_replaces_an_older_plug_in_in_every_gimp_3(tmp_path: Path) -> None:
    for version in ("2.10", "3.0", "3.2"):
        (tmp_path / ".config/GIMP" / version).mkdir(parents=True)
    flatpak = tmp_path / ".var/app/org.gimp.GIMP/config/GIMP/3.0"
    flatpak.mkdir(parents=True)
    old = tmp_path / ".config/GIMP/3.0/plug-ins/impasto_gimp/old.py"
    old.parent.mkdir(parents=True)
    old.touch()
    placed = plugin_gimp.install_gimp(tmp_path)
    assert placed == [
        tmp_path / ".config/GIMP/3.0/plug-ins/impasto_gimp",
        tmp_path / ".config/GIMP/3.2/plug-ins/impasto_gimp",
        flatpak / "plug-ins/impasto_gimp",
    ]
    assert all(os.access(folder / "impasto_gimp.py", os.X_OK) for folder in placed) and not old.exists()
    assert not (tmp_path / ".config/GIMP/2.10/plug-ins").exists()


def test_shortcuts_are_added_once_and_take_nothing_from_others(tmp_path: Path) -> None:
    file = tmp_path / "shortcutsrc"
    mine = '(file-version 1)\n(action "edit-fill-fg" "<Primary><Alt>u")\n# (action "x" "y")\n'
    file.write_text(mine)
    plugin_gimp.add_shortcuts(file)
    text = file.read_text()
    assert text.startswith(mine)
    assert '(action "plug-in-impasto-inpaint" "<Primary><Alt>Return")' in text
    assert "plug-in-impasto-upscale" not in text  # its key belongs to another action
    plugin_gimp.add_shortcuts(file)
    assert file.read_text() == text


def test_the_folders_of_the_platforms(tmp_path: Path) -> None:
    home = tmp_path
    linux = plugin_gimp.gimp_folders(home, "linux", {"XDG_CONFIG_HOME": "/elsewhere"})
    assert linux == [home / ".config/GIMP/3.0"]
    mac = plugin_gimp.gimp_folders(home, "darwin", {})
    assert mac == [home / "Library/Application Support/GIMP/3.0"]
    assert plugin_gimp.gimp_folders(home, "win32", {}) == [home / "AppData/Roaming/GIMP/3.0"]
    (home / "config/GIMP/3.0").mkdir(parents=True)  # the folder of a Flatpak, named itself
    assert plugin_gimp.gimp_folders(home, "linux", {}) == [home / "config/GIMP/3.0"]


def test_the_commands_print_paths_and_refuse_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "build", "gimp", "-o", str(tmp_path / "dist")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "dist/impasto-gimp.zip")
    (tmp_path / "file").touch()
    assert main(["plugin", "install", "gimp", "--home", str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error and "Traceback" not in error


def test_the_plug_in_does_nothing_outside_gimp() -> None:
    source = packing.package_folder("impasto_gimp").parent
    code = f"import sys; sys.path.insert(0, {str(source)!r}); import impasto_gimp; assert 'gi' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plug_in_without_its_packages_says_so(tmp_path: Path) -> None:
    source = packing.package_folder("impasto_gimp") / "impasto_gimp.py"
    copied = tmp_path / "impasto_gimp.py"
    copied.write_bytes(source.read_bytes())
    done = subprocess.run([sys.executable, str(copied)], capture_output=True, text=True)
    assert done.returncode != 0 and "impasto plugin install gimp" in done.stderr and "Traceback" not in done.stderr
