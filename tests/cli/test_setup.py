"""`impasto setup` and `impasto uninstall`: editors and folders on recorded layouts, each step alone, twice, undone."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from impasto_protocol import home as home_files
from impasto_protocol.errors import ImpastoError, ResourceError
from impasto_protocol.home import history_folder, launch_file, models_folder, read_launch
from impasto_protocol.version import PROTOCOL, VERSION
from impasto_server.cli import cards, found_editors, found_folders, plugin, plugin_gimp, setup, torch_builds, uninstall
from impasto_server.cli.asking import Asker
from impasto_server.cli.found_editors import Where
from impasto_server.cli.main import main
from impasto_server.cli.uninstall import OURS, PICTURES
from impasto_server.cli.vendor import cache_folder
from impasto_server.service.remembered import folders_file, read_folders, with_remembered
from impasto_server.service.server import catalogue_of, word_sources_of
from impasto_server.service.settings import Settings

from tests.cli.test_cards import GTX1060, answers


def tree(root: Path, *paths: str) -> Path:
    """Empty files, and folders for paths that end with a slash."""
    for path in paths:
        place = root / path
        (place if path.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            place.touch()
    return root


VENDORED = cache_folder()
"""The tester's own: the packages that travel with the plug-ins are built once for all tests."""


def nobody(name: str) -> None:
    return None


def told(editors: list[found_editors.Editor], base: Path) -> list[tuple[str, str, str]]:
    return [(e.name, e.packaging, e.resources.relative_to(base).as_posix()) for e in editors]


# --- editors on recorded layouts ------------------------------------------------------------------------------------


def test_editors_of_a_linux_package(tmp_path: Path) -> None:
    where = Where(tmp_path, "linux", {}, {"krita": "/usr/bin/krita", "gimp-3.0": "/usr/bin/gimp-3.0"}.get, tmp_path)
    assert told(found_editors.find(where), tmp_path) == [
        ("krita", "program", ".local/share/krita"),
        ("gimp", "program", ".config/GIMP/3.0"),
    ]
    tree(tmp_path, ".config/GIMP/2.10/", ".config/GIMP/3.0/", ".config/GIMP/3.2/")
    assert [e.resources.name for e in found_editors.find_gimp(where)] == ["3.0", "3.2"]


def test_a_gimp_2_is_no_gimp_3(tmp_path: Path) -> None:
    for text, count in (("GNU Image Manipulation Program version 2.10.34\n", 0), ("GIMP version 3.0.4\n", 1)):
        where = Where(tmp_path, "linux", {}, {"gimp": "/usr/bin/gimp"}.get, tmp_path, answers(gimp=(0, text)))
        assert len(found_editors.find_gimp(where)) == count
    assert found_editors.find_gimp(Where(tmp_path, "linux", {}, {"gimp": "/usr/bin/gimp"}.get, tmp_path)) == []


def test_editors_of_flatpak(tmp_path: Path) -> None:
    home = tmp_path / "home/Zoë Müller"
    tree(tmp_path, "var/lib/flatpak/app/org.kde.krita/", "var/lib/flatpak/app/org.gimp.GIMP/", "home/Zoë Müller/")
    where = Where(home, "linux", {}, nobody, tmp_path)
    assert told(found_editors.find(where), home) == [
        ("krita", "flatpak", ".var/app/org.kde.krita/data/krita"),
        ("gimp", "flatpak", ".var/app/org.gimp.GIMP/config/GIMP/3.0"),
    ]
    assert all(e.sandboxed for e in found_editors.find(where))
    tree(home, ".var/app/org.gimp.GIMP/config/GIMP/3.2/", ".config/GIMP/3.0/")
    assert told(found_editors.find_gimp(where), home) == [
        ("gimp", "settings", ".config/GIMP/3.0"),
        ("gimp", "flatpak", ".var/app/org.gimp.GIMP/config/GIMP/3.2"),
    ]


def test_editors_of_appimages_share_the_settings_of_packages(tmp_path: Path) -> None:
    tree(tmp_path, "Applications/krita-5.2.9-x86_64.appimage", "Загрузки/", "Downloads/GIMP-3.0.4-x86_64.AppImage")
    where = Where(tmp_path, "linux", {}, nobody, tmp_path)
    assert told(found_editors.find(where), tmp_path) == [
        ("krita", "appimage", ".local/share/krita"),
        ("gimp", "appimage", ".config/GIMP/3.0"),
    ]


def test_editors_of_windows(tmp_path: Path) -> None:
    home = tmp_path / "Users/Jörg"
    tree(
        tmp_path,
        "Program Files/Krita (x64)/bin/krita.exe",
        "Program Files/GIMP 3/bin/gimp-3.exe",
        "Users/Jörg/AppData/Roaming/GIMP/3.0/",
        "Users/Jörg/AppData/Local/Packages/49800Krita_RT1XAPVZX4DQ4/LocalCache/Roaming/krita/",
    )
    environ = {"ProgramFiles": str(tmp_path / "Program Files"), "LOCALAPPDATA": str(home / "AppData/Local")}
    editors = found_editors.find(Where(home, "win32", environ, nobody, tmp_path))
    assert told(editors, home) == [
        ("krita", "program", "AppData/Roaming/krita"),
        ("krita", "store", "AppData/Local/Packages/49800Krita_RT1XAPVZX4DQ4/LocalCache/Roaming/krita"),
        ("gimp", "program", "AppData/Roaming/GIMP/3.0"),
    ]
    assert editors[0].kritarc == home / "AppData/Local/kritarc"


def test_editors_of_macos(tmp_path: Path) -> None:
    tree(tmp_path, "Applications/krita.app/", "Users/ana/Applications/GIMP.app/")
    home = tmp_path / "Users/ana"
    assert told(found_editors.find(Where(home, "darwin", {}, nobody, tmp_path)), home) == [
        ("krita", "program", "Library/Application Support/krita"),
        ("gimp", "program", "Library/Application Support/GIMP/3.0"),
    ]


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    for system in ("linux", "win32", "darwin"):
        assert found_editors.find(Where(tmp_path, system, {}, nobody, tmp_path)) == []


# --- folders of other programs --------------------------------------------------------------------------------------


def test_folders_are_told_by_what_is_in_them(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "Bilder und Модели/webui.py",
        "Bilder und Модели/models/Stable-diffusion/",
        "forge/webui/launch.py",
        "forge/webui/models/Stable-diffusion/",
        "ComfyUI_windows_portable/ComfyUI/comfy/",
        "ComfyUI_windows_portable/ComfyUI/models/checkpoints/",
        "Documents/ComfyUI/custom_nodes/",
        "Documents/ComfyUI/models/checkpoints/",
        "invokeai/invokeai.yaml",
        "StabilityMatrix/Data/Packages/reforge/webui.bat",
        "StabilityMatrix/Data/Packages/reforge/launch.py",
        "StabilityMatrix/Data/Packages/reforge/models/Stable-diffusion/",
        "webui-without-models/webui.py",
        "models/Stable-diffusion/",
    )
    found = found_folders.find(found_folders.places(tmp_path, "linux", {}))
    names = {program: [p.relative_to(tmp_path).as_posix() for p in paths] for program, paths in found.items()}
    assert names == {
        "a1111": ["Bilder und Модели", "StabilityMatrix/Data/Packages/reforge", "forge/webui"],
        "comfyui": ["ComfyUI_windows_portable/ComfyUI", "Documents/ComfyUI"],
        "invokeai": ["invokeai"],
    }


def test_a_folder_that_may_not_be_looked_into_is_passed_over(tmp_path: Path, monkeypatch: Any) -> None:
    tree(tmp_path, "locked/", "open/webui.py", "open/models/Stable-diffusion/")
    real = Path.is_dir

    def is_dir(self: Path) -> bool:
        if "locked" in self.parts:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    assert found_folders.find([tmp_path])["a1111"] == (tmp_path / "open",)


# --- the steps ------------------------------------------------------------------------------------------------------


@pytest.fixture
def person(tmp_path: Path, monkeypatch: Any) -> Path:
    """A home folder with a space and letters of two alphabets, a Krita, a GIMP 3, an A1111; nothing of the tester's."""
    home = tmp_path / "Anna Бронте"
    tree(home, "webui/webui.py", "webui/models/Stable-diffusion/", ".config/GIMP/3.0/", ".config/kritarc")
    (home / ".config/kritarc").write_text("theme=dark\n[python]\nenable_other=true\n", encoding="utf-8")
    for name in [n for n in os.environ if n.startswith("XDG_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("IMPASTO_HOME", str(home / "impasto's"))
    monkeypatch.setattr("shutil.which", nobody)
    monkeypatch.setattr(found_editors, "mine", lambda: Where(home, "linux", {}, nobody, home))
    monkeypatch.setattr(found_folders, "places", lambda: (home,))
    monkeypatch.setattr("impasto_server.cli.vendor.cache_folder", lambda: VENDORED)
    cache = tmp_path / "cache/impasto/vendor"
    monkeypatch.setattr("impasto_server.cli.uninstall.cache_folder", lambda: cache)
    return home


def test_the_plug_ins_are_put_in_twice_and_taken_out(person: Path, capsys: Any) -> None:
    krita = person / ".local/share/krita/pykrita/impasto_krita"
    gimp = person / ".config/GIMP/3.0/plug-ins/impasto_gimp"
    assert main(["setup", "plugins", "--dry-run"]) == 0
    assert "no plug-in yet" in capsys.readouterr().err and not krita.exists() and not gimp.exists()
    assert main(["setup", "plugins", "--yes"]) == 0
    assert (krita / "__init__.py").exists() and (gimp / "impasto_gimp.py").stat().st_mode & stat.S_IXUSR
    assert "enable_impasto_krita=true" in (person / ".config/kritarc").read_text()
    (person / ".config/GIMP/3.0/shortcutsrc").open("a").write('(action "edit-fill-fg" "<Primary>comma")\n')
    before = sorted(p for p in person.rglob("*"))
    assert main(["setup", "plugins"]) == 0, "nothing is asked where nothing is to be done"
    assert capsys.readouterr().err.count("the plug-in is there") == 2
    assert sorted(p for p in person.rglob("*")) == before
    assert main(["uninstall", "--yes"]) == 0
    assert not krita.exists() and not gimp.exists()
    assert not list(krita.parent.glob("*impasto*"))
    assert (person / ".config/kritarc").read_text() == "theme=dark\n[python]\nenable_other=true\n"
    shortcuts = (person / ".config/GIMP/3.0/shortcutsrc").read_text()
    assert "impasto" not in shortcuts and "edit-fill-fg" in shortcuts
    assert main(["uninstall", "--yes"]) == 0, "twice"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (f'VERSION = "{VERSION}"\nPROTOCOL: Tuple[int, int] = ({PROTOCOL[0]}, {PROTOCOL[1]})\n', "current"),
        ('VERSION = "0.0.9"\nPROTOCOL: Tuple[int, int] = (1, 0)\n', "older"),
        (f'VERSION = "9.0.0"\nPROTOCOL: Tuple[int, int] = (9, {PROTOCOL[1]})\n', "another version"),
        ("", "older"),
    ],
)
def test_an_old_plug_in_is_seen_and_replaced(person: Path, text: str, state: str) -> None:
    version = person / ".local/share/krita/pykrita/impasto_krita/_vendor/impasto_protocol/version.py"
    version.parent.mkdir(parents=True)
    version.write_text(text)
    (editor, *_) = found_editors.find(found_editors.mine())
    assert setup.plug_in_state(editor) == state
    assert main(["setup", "plugins", "--yes"]) == 0
    assert setup.plug_in_state(editor) == "current"


def test_a_plug_in_folder_that_is_a_link_is_left_alone(person: Path, tmp_path: Path, capsys: Any) -> None:
    mine = tree(tmp_path / "my checkout", "precious.py")
    link = person / ".local/share/krita/pykrita/impasto_krita"
    link.parent.mkdir(parents=True)
    link.symlink_to(mine)
    assert main(["setup", "plugins", "--yes"]) == 2
    told = capsys.readouterr().err
    assert "is a link to" in told and (person / ".config/GIMP/3.0/plug-ins/impasto_gimp").exists()
    assert main(["uninstall", "--yes"]) == 0
    assert link.is_symlink() and (mine / "precious.py").exists()


def test_a_plug_in_that_cannot_be_written_whole_leaves_the_old_one(person: Path, monkeypatch: Any) -> None:
    (editor, *_) = found_editors.find(found_editors.mine())
    old = tree(editor.plug_in, "__init__.py") / "__init__.py"

    def full(*_: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("impasto_server.cli.packing.shutil.copytree", full)
    monkeypatch.setattr(plugin, "_assemble", lambda tree: tree.mkdir())
    with pytest.raises(ImpastoError) as e:
        setup.place_plug_in(editor)
    assert e.value.code == "request.bad_home" and "No space left" in e.value.message
    assert old.exists() and [p.name for p in editor.plug_in.parent.iterdir()] == ["impasto_krita"]


def test_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    """A file where the folder should be is refused by every system, to the superuser too."""
    blocked = tmp_path / "GIMP"
    blocked.touch()
    with pytest.raises(ImpastoError) as e:
        plugin_gimp.place_gimp([blocked / "3.0"])
    assert e.value.code == "request.bad_home" and str(blocked) in e.value.message


def test_folders_are_remembered_for_every_server(person: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["setup", "folders", "--dry-run"]) == 0
    assert "found" in capsys.readouterr().err and not folders_file(person / "impasto's").exists()
    assert main(["setup", "folders", "--yes"]) == 0
    extra = tree(tmp_path / "Weitere Модели", "loras/")
    assert main(["setup", "folders", str(extra)]) == 0, "what is named is not asked about"
    home = person / "impasto's"
    assert read_folders(home) == {"a1111": (person / "webui",), "comfyui": (), "invokeai": (), "models": (extra,)}
    settings = Settings(home=home)
    assert with_remembered(settings).a1111 == (person / "webui",)
    assert person / "webui/models/Stable-diffusion" in catalogue_of(settings).places()
    assert person / "webui/styles.csv" in word_sources_of(settings).styles
    comfy = tree(tmp_path / "ComfyUI", "custom_nodes/", "models/checkpoints/")
    assert main(["setup", "folders", str(comfy)]) == 0
    assert with_remembered(settings).comfyui == (comfy,), "told by what is in it"
    assert main(["setup", "folders", "--forget", str(comfy)]) == 0
    again = with_remembered(Settings(home=home, a1111=(person / "webui",)))
    assert again.a1111 == (person / "webui",), "once, though the command line names it too"
    assert main(["setup", "folders"]) == 0 and "in use" in capsys.readouterr().err
    assert main(["setup", "folders", "--forget", str(extra)]) == 0
    assert read_folders(home)["models"] == () and read_folders(home)["a1111"]
    assert main(["setup", "folders", "--forget"]) == 0 and not folders_file(home).exists()
    assert main(["setup", "folders", str(tmp_path / "nowhere")]) == 2
    assert main(["setup", "plugins", str(extra)]) == 2


def test_a_damaged_list_of_folders_is_not_passed_over(person: Path, capsys: Any) -> None:
    home = person / "impasto's"
    for text in ("{", "[]", '{"a1111": 3}'):
        home.mkdir(exist_ok=True)
        folders_file(home).write_text(text)
        assert main(["setup", "folders"]) == 1
        assert "delete it" in capsys.readouterr().err


def test_the_launch_record_is_kept_unless_its_python_is_gone(person: Path, capsys: Any) -> None:
    home = person / "impasto's"
    assert main(["setup", "launch", "--dry-run"]) == 0 and not launch_file(home).exists()
    assert main(["setup", "launch"]) == 0
    assert read_launch(home) == [sys.executable, "-m", "impasto_server.cli.main", "serve"]
    mine = [sys.executable, "-m", "impasto_server.cli.main", "serve", "--device", "cpu"]
    launch_file(home).write_text(json.dumps({"argv": mine}))
    assert main(["setup", "launch"]) == 0 and read_launch(home) == mine
    launch_file(home).write_text(json.dumps({"argv": [str(person / "gone/python"), "-m", "impasto"]}))
    assert main(["setup", "launch"]) == 0 and read_launch(home) == [*mine[:-2]]


def test_uninstall_keeps_pictures_and_models_unless_asked(person: Path, capsys: Any) -> None:
    home = person / "impasto's"
    tree(home, "token", "server.log", "spool/half", "kit/face-mesh.onnx", "tls.pem", "notes of mine.txt")
    tree(history_folder(home), "one.png")
    tree(models_folder(home), "mine.safetensors")
    cache = tree(uninstall.cache_folder().parent, "vendor/packages", "gimp-root of a developer/part")
    assert main(["uninstall", "--dry-run", "--pictures"]) == 0
    assert str(history_folder(home)) in capsys.readouterr().out and (home / "token").exists()
    assert main(["uninstall", "--yes"]) == 0
    assert "kept" in capsys.readouterr().err
    assert sorted(p.name for p in home.iterdir()) == ["history", "models", "notes of mine.txt"]
    assert [p.name for p in cache.iterdir()] == ["gimp-root of a developer"]
    assert main(["uninstall", "--yes", "--pictures", "--models"]) == 0
    assert [p.name for p in home.iterdir()] == ["notes of mine.txt"]


def test_uninstall_forgets_no_file_of_the_users_folder() -> None:
    folder = Path("/x")
    kept = {
        path.name
        for name, make in vars(home_files).items()
        if name.endswith(("_file", "_folder")) and name != "home_folder" and isinstance(path := make(folder), Path)
    }
    assert {"token", "tls.pem", "history"} <= kept
    assert kept - {*OURS, *PICTURES} == {"models"}, "each is removed, or asked about"


# --- torch ----------------------------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_exact_command(person: Path, monkeypatch: Any, capsys: Any) -> None:
    run = answers(nvidia_smi=(0, GTX1060))
    monkeypatch.setattr(setup.cards, "found", lambda: cards_found(run))
    assert main(["setup", "torch", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "GTX 1060" in told.err and "6 GiB" in told.err
    assert "--extra-index-url https://download.pytorch.org/whl/cu126 torch==2.13.0+cu126" in told.out
    assert "--resume-retries" in told.out and "spandrel" in told.out


def cards_found(run: cards.Run) -> cards.Machine:
    return REAL_FOUND(run, "linux", "x86_64", Path("/nowhere"), {})


REAL_FOUND = cards.found


def test_all_steps_in_a_dry_run_change_nothing(person: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(setup.cards, "found", lambda: cards_found(answers()))
    before = sorted(person.rglob("*"))
    assert main(["setup", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert all(title in told.err for _, title in setup.STEPS.values())
    assert "impasto txt2img" in told.out and sorted(person.rglob("*")) == before


def test_a_step_that_fails_does_not_keep_the_others_from_running(person: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(setup.cards, "found", lambda: cards.Machine("darwin", "x86_64"))
    monkeypatch.setattr(torch_builds, "installed", lambda: "")
    assert main(["setup", "--yes"]) == 1
    told = capsys.readouterr().err
    assert "another computer" in told and "impasto setup torch" in told and "impasto doctor" in told
    assert (person / ".config/GIMP/3.0/plug-ins/impasto_gimp").is_dir()
    assert read_folders(person / "impasto's")["a1111"] and read_launch(person / "impasto's")
    assert main(["setup", "torch", "--yes"]) == 1, "alone, it says so by its exit code too"


def test_the_right_torch_is_not_installed_again(person: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(setup.cards, "found", lambda: cards_found(answers()))
    monkeypatch.setattr(torch_builds, "installed", lambda: "2.12.1+cpu")
    assert main(["setup", "torch"]) == 0
    assert "right build" in capsys.readouterr().err


def test_a_full_disk_is_seen_before_the_download(person: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000_000))
    assert main(["setup", "torch", "--build", "cuda126", "--yes"]) == 1
    assert "make room" in capsys.readouterr().err


def test_a_failing_pip_is_told_with_the_command(capsys: Any) -> None:
    def fails(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 1)

    with pytest.raises(ResourceError) as e:
        torch_builds.pip_install([["python", "-m", "pip", "install", "torch"]], {}, fails)
    assert e.value.code == "resource.install_failed" and "python -m pip install torch" in e.value.message


# --- asking ---------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_questions_are_asked_on_a_terminal_alone(person: Path, capsys: Any, monkeypatch: Any) -> None:
    replies = iter(["what?", "n", "", "YES"])
    asker = Asker(False, Terminal(), lambda question: next(replies))
    assert [asker.agrees("Do it?") for _ in range(3)] == [False, True, True]
    monkeypatch.setattr(setup, "Asker", lambda yes: Asker(yes, io.StringIO()))
    assert main(["setup", "plugins"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert not (person / ".local").exists(), "nothing was done unasked"


def test_ctrl_d_is_no() -> None:
    def gone(question: str) -> str:
        raise EOFError

    assert Asker(False, Terminal(), gone).agrees("Do it?") is False
