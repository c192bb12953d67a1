"""`impasto plugin build|install krita|gimp`: an editor's plug-in as a zip, or put in its place."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from impasto_protocol.errors import RequestError

from .packing import add_vendored, copy_sources, put_folder, zip_tree
from .packing import package_folder as _package
from .plugin_gimp import build_gimp, install_gimp

__all__ = [
    "add_arguments",
    "build_krita",
    "install_krita",
    "krita_folders",
    "place_krita",
    "remove_krita",
    "run",
]

NAME = "impasto_krita"


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb `plugin` to the command line."""
    plugin = subparsers.add_parser("plugin", help="build or install an editor's plug-in")
    verbs = plugin.add_subparsers(dest="plugin_verb", required=True, metavar="build|install")
    build = verbs.add_parser("build", help="make the zip that the editor can import")
    build.add_argument("editor", choices=("krita", "gimp"))
    build.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="where the zip goes")
    install = verbs.add_parser("install", help="put the plug-in into the editor's folder and switch it on")
    install.add_argument("editor", choices=("krita", "gimp"))
    install.add_argument("--home", type=Path, metavar="DIR", help="another home folder than yours")


def run(args: argparse.Namespace) -> int:
    """Run `plugin`: the path of what was made goes to stdout."""
    krita = args.editor == "krita"
    if args.plugin_verb == "build":
        print((build_krita if krita else build_gimp)(args.output))
    elif krita:
        print(install_krita(args.home))
        print("Restart Krita; the docker is under Settings > Dockers > Impasto.", file=sys.stderr)
    else:
        print("\n".join(str(folder) for folder in install_gimp(args.home)))
        print("Restart GIMP; everything is under Filters > Impasto.", file=sys.stderr)
    return 0


def build_krita(folder: Path) -> Path:
    """Write `impasto-krita.zip` into `folder` and return its path. Same sources, same bytes.

    Raises ResourceError `resource.vendor_failed` where the vendored packages cannot be built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "impasto-krita.zip"
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        _assemble(tree)
        written = Path(scratch) / target.name
        zip_tree(tree, written)
        shutil.copyfile(written, target)
    return target


def install_krita(home: Path | None = None) -> Path:
    """Put the plug-in into Krita's folder below `home` (default: the user's), replacing an older one; enable it.

    Returns the plug-in's folder. Krita must be restarted, and should not run meanwhile: it writes its settings when
    it ends. Raises ResourceError `resource.vendor_failed`, or RequestError `request.bad_home` where the folder cannot
    be written.
    """
    return place_krita(*krita_folders(home))


def place_krita(resources: Path, kritarc: Path) -> Path:
    """As `install_krita`, for a Krita with that resource folder and that settings file."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        _assemble(tree)
        try:
            plugins, actions = resources / "pykrita", resources / "actions"
            plugins.mkdir(parents=True, exist_ok=True)
            actions.mkdir(parents=True, exist_ok=True)
            put_folder(tree / NAME, plugins / NAME)
            shutil.copy(tree / f"{NAME}.desktop", plugins)
            shutil.copy(tree / "actions" / f"{NAME}.action", actions)
            enable(kritarc)
        except OSError as error:
            raise RequestError(
                "request.bad_home", f"Krita's folder {resources} cannot be written ({error}); name another by --home."
            ) from error
    return plugins / NAME


def remove_krita(resources: Path, kritarc: Path) -> list[Path]:
    """Take the plug-in out of that Krita again; what was removed. Every other line of its settings stays."""
    places = (
        resources / "pykrita" / NAME,
        resources / "pykrita" / f"{NAME}.desktop",
        resources / "actions" / f"{NAME}.action",
    )
    removed = [path for path in places if path.exists()]
    for path in removed:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if kritarc.is_file():
        text = kritarc.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(f"enable_{NAME}=")]
        if kept != lines:
            kritarc.write_text("".join(kept), encoding="utf-8")
    return removed


def krita_folders(
    home: Path | None = None, platform: str = sys.platform, environ: Mapping[str, str] = os.environ
) -> tuple[Path, Path]:
    """(resource folder, kritarc) of the Krita whose user has this `home`.

    A Flatpak's Krita has its own below `~/.var/app/org.kde.krita`; name that as the home, with `data` and `config` in
    it, to install there.
    """
    if home is not None and (home / "data" / "krita").is_dir() and (home / "config").is_dir():
        return home / "data" / "krita", home / "config" / "kritarc"
    base = Path.home() if home is None else home
    if platform == "win32":
        roaming = Path(environ["APPDATA"]) if home is None and "APPDATA" in environ else base / "AppData" / "Roaming"
        local = Path(environ["LOCALAPPDATA"]) if home is None and "LOCALAPPDATA" in environ else base / "AppData/Local"
        return roaming / "krita", local / "kritarc"
    if platform == "darwin":
        return base / "Library" / "Application Support" / "krita", base / "Library" / "Preferences" / "kritarc"
    data = Path(environ.get("XDG_DATA_HOME", "") if home is None else "")
    config = Path(environ.get("XDG_CONFIG_HOME", "") if home is None else "")
    return (
        (data if data.is_absolute() else base / ".local" / "share") / "krita",
        (config if config.is_absolute() else base / ".config") / "kritarc",
    )


def enable(kritarc: Path) -> None:
    """Set `[python] enable_impasto_krita=true` and leave every other line of Krita's settings as it is."""
    lines = kritarc.read_text(encoding="utf-8").splitlines() if kritarc.exists() else []
    setting = f"enable_{NAME}=true"
    section = next((i for i, line in enumerate(lines) if line.strip() == "[python]"), None)
    if section is None:
        lines += ["", "[python]", setting] if lines else ["[python]", setting]
    else:
        end = next((i for i in range(section + 1, len(lines)) if lines[i].startswith("[")), len(lines))
        body = [line for line in lines[section + 1 : end] if not line.startswith(f"enable_{NAME}=")]
        lines[section + 1 : end] = [setting, *body]
    kritarc.parent.mkdir(parents=True, exist_ok=True)
    kritarc.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _assemble(tree: Path) -> None:
    """Lay out the content of the zip: NAME.desktop, NAME/ with _vendor/, actions/NAME.action."""
    source = _package(NAME)
    copy_sources(NAME, tree / NAME, "*.desktop", "*.action")
    shutil.copy(source / f"{NAME}.desktop", tree)
    (tree / "actions").mkdir()
    shutil.copy(source / f"{NAME}.action", tree / "actions")
    add_vendored(tree / NAME / "_vendor")
