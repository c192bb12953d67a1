"""Where a model lies: what its file or folder is called, where facts beside it lie, when it last changed. No torch."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

__all__ = ["INDEX", "PICKLES", "SUFFIXES", "is_model_folder", "model_name", "sidecar_of", "stamp_of"]

INDEX = "model_index.json"
"""By this file diffusers knows a folder that is a model."""

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
SUFFIXES = (".safetensors", *PICKLES)
"""How files with models end."""


def is_model_folder(path: str | Path) -> bool:
    """Whether this folder is one model: it has a model_index.json, or a UNet with its configuration."""
    path = Path(path)
    return (path / INDEX).is_file() or (path / "unet" / "config.json").is_file()


def model_name(path: str | PurePath) -> str:
    """What a model is called by its place: a file without its ending, a folder as it is.

    A snapshot in the cache of a hub is called as the repository that it came from.
    """
    path = PurePath(path)
    if path.suffix.lower() in SUFFIXES:
        return path.stem
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.rsplit("--", 1)[-1]
    return path.name


def sidecar_of(path: str | Path) -> Path:
    """Where facts about the model may lie beside it: NAME.json."""
    path = Path(path)
    return path.with_suffix(".json") if path.suffix.lower() in SUFFIXES else path.with_name(path.name + ".json")


def stamp_of(path: str | Path) -> tuple[int, int]:
    """Size in bytes and time of the last change, of a file or of all that a folder's parts hold; its sidecar counts.

    Raises OSError where it is not there.
    """
    stat = os.stat(path)
    size, changed = stat.st_size, stat.st_mtime_ns
    if not os.path.isfile(path):
        files = [Path(path, INDEX)]
        files += (Path(inner) for part in os.scandir(path) if part.is_dir() for inner in os.scandir(part))
        size = 0
        for file in files:
            try:
                stat = file.stat()
            except OSError:
                continue  # a link into a cache that was cleared; reading it will say so
            size, changed = size + stat.st_size, max(changed, stat.st_mtime_ns)
    try:
        changed = max(changed, sidecar_of(path).stat().st_mtime_ns)
    except OSError:
        pass
    return size, changed
