"""Folders of AUTOMATIC1111, ComfyUI and InvokeAI on this computer, whatever they are called."""

from __future__ import annotations

import os
import string
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

__all__ = ["TITLES", "find", "kind_of", "places"]

TITLES = {"a1111": "AUTOMATIC1111", "comfyui": "ComfyUI", "invokeai": "InvokeAI"}
_NESTED = ("webui", "ComfyUI", "app", "Data/Packages", "Packages", "resources/ComfyUI")
"""Where portable packages and launchers keep the program below their own folder."""
_MANY = 3000
"""Folders that are looked into below one place at most."""


def kind_of(folder: Path) -> str:
    """ "a1111" (its forks too), "comfyui", "invokeai", or "" for another folder."""
    try:
        if (folder / "models" / "Stable-diffusion").is_dir() and any(
            (folder / name).is_file() for name in ("webui.py", "launch.py", "webui.sh", "webui-user.bat")
        ):
            return "a1111"
        if (folder / "models" / "checkpoints").is_dir() and (
            (folder / "comfy").is_dir() or (folder / "custom_nodes").is_dir()
        ):
            return "comfyui"
        if (folder / "invokeai.yaml").is_file() or (folder / "databases" / "invokeai.db").is_file():
            return "invokeai"
    except OSError:  # a folder that may not be looked into
        return ""
    return ""


def places(
    home: Path | None = None, system: str = sys.platform, environ: Mapping[str, str] = os.environ
) -> tuple[Path, ...]:
    """Where people put such programs; only those that are there."""
    home = home or Path.home()
    named = [home, *(home / name for name in ("Documents", "Desktop", "Downloads", "Applications", "AI", "ai"))]
    named += [home / name for name in ("git", "src", "Projects", "projects", "StabilityMatrix/Packages")]
    if system == "win32":
        drives = [Path(f"{letter}:\\") for letter in string.ascii_uppercase[2:]]
        named += [drive for drive in drives if drive.exists()]
        named += [Path(environ[name]) / "StabilityMatrix" for name in ("APPDATA", "LOCALAPPDATA") if name in environ]
    elif system == "darwin":
        named += [home / "Library/Application Support/StabilityMatrix/Packages"]
    else:
        named += [Path("/opt"), Path("/srv")]
    for variable in ("INVOKEAI_ROOT", "COMFYUI_PATH"):
        if environ.get(variable):
            named.append(Path(environ[variable]))
    return tuple(dict.fromkeys(place for place in named if _is_dir(place)))


def find(where: Iterable[Path]) -> dict[str, tuple[Path, ...]]:
    """Program -> its folders in the places and in the folders directly in them, each once."""
    found: dict[str, list[Path]] = {name: [] for name in TITLES}
    seen: set[Path] = set()
    for place in where:
        for folder in (place, *_children(place)):
            for candidate in (folder, *(folder / name for name in _NESTED)):
                for each in (candidate, *_children(candidate)) if candidate.name == "Packages" else (candidate,):
                    kind = kind_of(each)
                    real = each.resolve() if kind else each
                    if kind and real not in seen:
                        seen.add(real)
                        found[kind].append(each.absolute())
    return {name: tuple(folders) for name, folders in found.items()}


def _children(place: Path) -> Iterator[Path]:
    try:
        with os.scandir(place) as entries:
            names = sorted(e.name for e, _ in zip(entries, range(_MANY), strict=False) if e.is_dir())
    except OSError:
        return
    for name in names:
        if not name.startswith(".") and name not in ("node_modules", "Windows", "proc", "sys"):
            yield place / name


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False
