"""The Kritas and GIMPs on this computer: where each keeps what plug-ins are made of, and how it was installed.

Plain functions of a home folder, the platform, the environment and `Where` the programs may be, so that the layouts of
other systems can be tried on any. Only the layouts of Linux packages have been seen at work; the others are written
from what their documentation and users report.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .cards import Run, run_command
from .plugin import krita_folders
from .plugin_gimp import FIRST, gimp_folders

__all__ = ["Editor", "Where", "find", "find_gimp", "find_krita", "mine", "plug_in_version"]

KRITA_FLATPAK, GIMP_FLATPAK = "org.kde.krita", "org.gimp.GIMP"


@dataclass(frozen=True)
class Editor:
    """One installation of an editor, as its user has it."""

    name: str
    """krita or gimp."""
    packaging: str
    """program, flatpak, appimage, store, or "settings" where only its settings were found."""
    program: Path | None
    resources: Path
    """Krita: the folder with pykrita/; GIMP: the settings folder with plug-ins/ (one for each version)."""
    kritarc: Path | None = None
    """Krita's settings file."""

    @property
    def plug_in(self) -> Path:
        """Where Impasto's plug-in is, or would be."""
        below = "pykrita/impasto_krita" if self.name == "krita" else "plug-ins/impasto_gimp"
        return self.resources / below

    @property
    def sandboxed(self) -> bool:
        """It cannot start programs outside its sandbox: the server has to run already."""
        return self.packaging == "flatpak"


@dataclass(frozen=True)
class Where:
    """The computer that is looked at."""

    home: Path
    system: str = sys.platform
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    which: Callable[[str], str | None] = shutil.which
    root: Path = Path("/")
    """Of the file system, for the folders that all users share."""
    run: Run | None = None
    """Asks a program for its version; None: only names tell."""


def mine() -> Where:
    """This computer, as its user has it."""
    return Where(Path.home(), run=run_command)


def find(where: Where) -> list[Editor]:
    """Every Krita and every GIMP 3."""
    return [*find_krita(where), *find_gimp(where)]


def find_krita(where: Where) -> list[Editor]:
    """Every Krita. A package, an AppImage and a program in a folder share their settings: they count once."""
    resources, kritarc = krita_folders(_other_home(where), where.system, where.environ)
    own = Editor("krita", "settings", None, resources, kritarc)
    found = []
    program = _program(where, ("krita",), ("Krita (x64)/bin/krita.exe", "Krita/bin/krita.exe"), "krita.app")
    image = next(iter(_appimages(where, "krita")), None)
    if program is not None:
        found.append(replace(own, packaging="program", program=program))
    elif image is not None:
        found.append(replace(own, packaging="appimage", program=image))
    elif kritarc.is_file():
        found.append(own)
    sandbox = where.home / ".var/app" / KRITA_FLATPAK
    if where.system == "linux" and (sandbox.is_dir() or _flatpak(where, KRITA_FLATPAK)):
        program = _flatpak(where, KRITA_FLATPAK)
        found.append(Editor("krita", "flatpak", program, sandbox / "data/krita", sandbox / "config/kritarc"))
    if where.system == "win32":
        local = Path(where.environ.get("LOCALAPPDATA") or where.home / "AppData/Local")
        for package in sorted((local / "Packages").glob("*Krita*")):
            cache = package / "LocalCache"
            found.append(Editor("krita", "store", None, cache / "Roaming/krita", cache / "Local/kritarc"))
    return found


def find_gimp(where: Where) -> list[Editor]:
    """Every version 3 of GIMP that has settings, or, where GIMP 3 is there but was never started, what it will have."""
    sandbox = where.home / ".var/app" / GIMP_FLATPAK
    flatpak = _flatpak(where, GIMP_FLATPAK) if where.system == "linux" else None
    program = _program(
        where, ("gimp-3.2", "gimp-3.0", "gimp-3"), ("GIMP 3/bin/gimp-3.exe", "GIMP 3/bin/gimp-3.0.exe"), "GIMP.app"
    )
    if program is None and where.system == "linux":
        plain = where.which("gimp")
        code, text = where.run((plain, "--version")) if plain and where.run else (1, "")
        program = Path(plain) if plain and code == 0 and re.search(r"\b3\.\d+\.\d+", text) else None
    image = next(iter(_appimages(where, "gimp-3")), None)
    found = []
    there = [f for f in gimp_folders(_other_home(where), where.system, where.environ) if f.is_dir()]
    inside = [folder for folder in there if sandbox in folder.parents]
    for folder in there:
        if folder in inside:
            found.append(Editor("gimp", "flatpak", flatpak, folder))
        else:
            packaging = "program" if program else "appimage" if image else "settings"
            found.append(Editor("gimp", packaging, program or image, folder))
    if (program or image) and len(inside) == len(there):
        fresh = next(iter(gimp_folders(_other_home(where), where.system, where.environ)), None)
        if fresh is None or fresh in inside:
            fresh = where.home / ".config/GIMP" / FIRST
        found.append(Editor("gimp", "program" if program else "appimage", program or image, fresh))
    if flatpak and not inside:
        found.append(Editor("gimp", "flatpak", flatpak, sandbox / "config/GIMP" / FIRST))
    return found


def plug_in_version(editor: Editor) -> tuple[str, tuple[int, int] | None] | None:
    """The installed plug-in's version and that of its protocol, or None where none is installed.

    Read from its files: an editor's plug-in is never imported here.
    """
    if not editor.plug_in.is_dir():
        return None
    try:
        text = (editor.plug_in / "_vendor/impasto_protocol/version.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "", None
    named = re.search(r'^VERSION = "([^"]*)"', text, re.MULTILINE)
    wire = re.search(r"^PROTOCOL\b[^=]*= \((\d+), (\d+)\)", text, re.MULTILINE)
    return named[1] if named else "", (int(wire[1]), int(wire[2])) if wire else None


def _other_home(where: Where) -> Path | None:
    """None for the user's own home: only there the XDG and Windows variables count."""
    return None if where.home == Path.home() and where.root == Path("/") else where.home


def _program(where: Where, names: tuple[str, ...], windows: tuple[str, ...], bundle: str) -> Path | None:
    if where.system == "win32":
        bases = [where.environ.get(name) for name in ("ProgramFiles", "ProgramW6432")]
        if "LOCALAPPDATA" in where.environ:
            bases.append(str(Path(where.environ["LOCALAPPDATA"]) / "Programs"))
        places = [Path(base) / name for base in bases if base for name in windows]
        return next((place for place in places if place.is_file()), None)
    if where.system == "darwin":
        places = [where.root / "Applications" / bundle, where.home / "Applications" / bundle]
        return next((place for place in places if place.is_dir()), None)
    return next((Path(there) for name in names if (there := where.which(name))), None)


def _appimages(where: Where, stem: str) -> list[Path]:
    if where.system != "linux":
        return []
    places = [where.home / n for n in ("", "Applications", "AppImages", "Downloads", "Desktop", "bin", ".local/bin")]
    places.append(where.root / "opt")
    found: list[Path] = []
    for place in places:
        try:
            names = sorted(p for p in place.iterdir() if p.suffix.lower() == ".appimage")
        except OSError:
            continue
        found += [p for p in names if p.name.lower().startswith(stem)]
    return found


def _flatpak(where: Where, app: str) -> Path | None:
    places = (where.root / "var/lib/flatpak/app" / app, where.home / ".local/share/flatpak/app" / app)
    return next((place for place in places if place.is_dir()), None)
