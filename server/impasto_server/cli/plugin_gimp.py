"""GIMP's plug-in: a folder named like the program in it, as a zip or put in its place."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from impasto_protocol.errors import RequestError

from .packing import add_vendored, copy_sources, package_folder, put_folder, zip_tree

__all__ = ["add_shortcuts", "build_gimp", "gimp_folders", "install_gimp", "place_gimp", "remove_gimp"]

NAME = "impasto_gimp"
MODES = ("inpaint", "sketch", "txt2img", "img2img", "refine", "upscale", "faceswap")
FIRST = "3.0"
"""The folder of GIMP's first version 3."""


def build_gimp(folder: Path) -> Path:
    """Write `impasto-gimp.zip` into `folder` and return its path. Same sources, same bytes.

    Raises ResourceError `resource.vendor_failed` where the vendored packages cannot be built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "impasto-gimp.zip"
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        assemble(tree / NAME)
        written = Path(scratch) / target.name
        zip_tree(tree, written)
        shutil.copyfile(written, target)
    return target


def install_gimp(home: Path | None = None) -> list[Path]:
    """Put the plug-in into every GIMP 3 of the user with this `home` (default: yours), replacing an older one.

    Returns the plug-in's folders. Its shortcuts are added where GIMP has no others for them; GIMP must be restarted,
    and should not run meanwhile: it writes its settings when it ends. Raises ResourceError `resource.vendor_failed`,
    or RequestError `request.bad_home` where the folder cannot be written.
    """
    return place_gimp(gimp_folders(home))


def place_gimp(folders: Sequence[Path]) -> list[Path]:
    """As `install_gimp`, for GIMPs with those settings folders."""
    placed = []
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / NAME
        assemble(tree)
        for settings in folders:
            try:
                plug_ins = settings / "plug-ins"
                plug_ins.mkdir(parents=True, exist_ok=True)
                put_folder(tree, plug_ins / NAME)
                add_shortcuts(settings / "shortcutsrc")
            except OSError as error:
                raise RequestError(
                    "request.bad_home",
                    f"GIMP's folder {settings} cannot be written ({error}); name another by --home.",
                ) from error
            placed.append(plug_ins / NAME)
    return placed


def remove_gimp(settings: Path) -> list[Path]:
    """Take the plug-in and its shortcuts out of the GIMP with that settings folder; what was removed.

    A shortcut that the user changed is theirs and stays.
    """
    folder, shortcutsrc = settings / "plug-ins" / NAME, settings / "shortcutsrc"
    removed = [folder] if folder.exists() else []
    if removed:
        ours = {f'(action "{action}" "{key}")' for action, key in _shortcuts().items()}
        shutil.rmtree(folder)
        if shortcutsrc.is_file():
            lines = shortcutsrc.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.strip() not in ours]
            if kept != lines:
                shortcutsrc.write_text("".join(kept), encoding="utf-8")
    return removed


def gimp_folders(
    home: Path | None = None, platform: str = sys.platform, environ: Mapping[str, str] = os.environ
) -> list[Path]:
    """The settings folders of every GIMP 3 that this user has started, or the one that GIMP 3.0 will make.

    A Flatpak's GIMP has its own below `~/.var/app/org.gimp.GIMP`; it is found too, also where that is named
    as the home.
    """
    base = Path.home() if home is None else home
    if platform == "win32":
        roaming = Path(environ["APPDATA"]) if home is None and "APPDATA" in environ else base / "AppData" / "Roaming"
        places = [roaming / "GIMP"]
    elif platform == "darwin":
        places = [base / "Library" / "Application Support" / "GIMP"]
    else:
        config = Path(environ.get("XDG_CONFIG_HOME", "") if home is None else "")
        places = [(config if config.is_absolute() else base / ".config") / "GIMP"]
        places += [p for p in (base / ".var/app/org.gimp.GIMP/config/GIMP", base / "config/GIMP") if p.is_dir()]
    found = [folder for place in places for folder in sorted(place.glob("3.*")) if folder.is_dir()]
    return found or [places[0] / FIRST]


def add_shortcuts(shortcutsrc: Path) -> None:
    """Add the plug-in's keys to GIMP's, leaving every other line alone; keys and actions that are taken stay so."""
    text = shortcutsrc.read_text(encoding="utf-8") if shortcutsrc.exists() else "(file-version 1)\n"
    used = {line.strip() for line in text.splitlines() if line.strip().startswith("(action ")}
    for action, key in _shortcuts().items():
        taken = any(f'"{action}"' in line or f'"{key}"' in line for line in used)
        if not taken:
            text = text.rstrip("\n") + f'\n(action "{action}" "{key}")\n'
    shortcutsrc.parent.mkdir(parents=True, exist_ok=True)
    shortcutsrc.write_text(text, encoding="utf-8")


def assemble(folder: Path) -> None:
    """Lay out the plug-in in the new folder `folder`: sources, `schema.json`, `_vendor/`."""
    # The layers above the engine describe it: the plug-in knows the parameters that its arguments are made of.
    from impasto_server.engine.modes import describe

    copy_sources(NAME, folder)
    modes = [mode.to_wire() for mode in describe() if mode.name in MODES]
    (folder / "schema.json").write_text(json.dumps(modes, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    add_vendored(folder / "_vendor")
    (folder / f"{NAME}.py").chmod(0o755)


def _shortcuts() -> dict[str, str]:
    """The keys that the plug-in's sources name."""
    source = (package_folder(NAME) / "names.py").read_text(encoding="utf-8")
    block = source[source.index("SHORTCUTS") :]
    return dict(re.findall(r'"(plug-in-impasto-[a-z-]+)": "([^"]+)"', block))
