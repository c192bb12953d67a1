"""Where a model lies: what its file or folder is called, where facts beside it lie, when it last changed. No torch."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath

__all__ = [
    "INDEX",
    "ONNX",
    "PICKLES",
    "PICTURE",
    "SIDECARS",
    "SUFFIXES",
    "beside",
    "is_model_folder",
    "model_name",
    "sidecar_of",
    "stamp_of",
]

INDEX = "model_index.json"
"""By this file diffusers knows a folder that is a model."""

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
ONNX = ".onnx"
SUFFIXES = (".safetensors", *PICKLES, ONNX)
"""How files with models end."""

PICTURE = ".png"
"""How pictures end that may carry an embedding."""
_ENDINGS = (*SUFFIXES, PICTURE)


def is_model_folder(path: str | Path) -> bool:
    """Whether this folder is one model: it has a model_index.json, or a UNet with its configuration."""
    path = Path(path)
    return (path / INDEX).is_file() or (path / "unet" / "config.json").is_file()


SIDECARS = (".json", ".yaml", ".civitai.info")
"""How the files beside a model end in which other programs keep facts about it."""

_FOR_ALL = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model|learned_embeds|pytorch_lora_weights|adapter_model)(?:\.\w+)?"
)
"""File names of diffusers, the same in every folder: the folder says what it is."""


def model_name(path: str | PurePath) -> str:
    """What a model is called by its place: a file without its ending, a folder as it is.

    A file that is called like those of all folders in diffusers' layout is called as its folder, and a snapshot in the
    cache of a hub as the repository that it came from.
    """
    stem, ending = os.path.splitext(os.path.basename(path))
    if ending.lower() in _ENDINGS and not _FOR_ALL.fullmatch(stem):
        return stem
    path = PurePath(path)
    if ending.lower() in _ENDINGS:
        if not path.parent.name:
            return stem
        path = path.parent
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.rsplit("--", 1)[-1]
    return path.name


def sidecar_of(path: str | Path) -> Path:
    """Where facts about the model may lie beside it: NAME.json."""
    return Path(f"{beside(path)}.json")


def beside(path: str | PurePath) -> str:
    """The path of a model without its ending: what files that belong to it begin with."""
    stem, ending = os.path.splitext(path)
    return stem if ending.lower() in _ENDINGS else str(path)


def stamp_of(path: str | Path) -> tuple[int, int]:
    """Size in bytes and time of the last change, of a file or of all that a folder's parts hold; its sidecars count.

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
    stem = beside(path)
    for ending in SIDECARS:
        try:
            stat = os.stat(stem + ending)
        except OSError:
            continue
        size, changed = size + stat.st_size, max(changed, stat.st_mtime_ns)
    return size, changed
