"""Model files and folders on the disk, with what lies beside them: one look at each folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..engine.modelpath import INDEX, PICTURE, SIDECARS, SUFFIXES, beside, is_model_folder, stamp_of

__all__ = ["PREVIEWS", "Found", "walk"]

log = logging.getLogger("impasto.catalogue")

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
PREVIEWS = tuple(f"{part}{ending}" for part in (".preview", "") for ending in PICTURES)
"""How the picture of a model is called beside NAME.safetensors: AUTOMATIC1111's names, in the order of choice."""


@dataclass(frozen=True, slots=True)
class Found:
    """A model: its path, its `stamp_of`, and the path of its picture, "" where it has none."""

    path: str
    size: int
    mtime_ns: int
    preview: str = ""


def walk(folders: Iterable[Path]) -> Iterator[Found]:
    """Model files and folders, each once, in a stable order; links are followed, but not in circles.

    A folder in diffusers' layout is one model: what lies in its parts is not listed by itself. What cannot be read is
    logged and left out.
    """
    seen: set[str] = set()
    for folder in folders:
        if folder.is_file():  # `--model FILE` on the command line, and single files that InvokeAI knows
            real = os.path.realpath(folder)
            if real not in seen:
                seen.add(real)
                yield from _alone(str(folder), _preview_of(folder))
        else:
            yield from _within(str(folder), os.path.realpath(folder), seen)


def _within(folder: str, real: str, seen: set[str]) -> Iterator[Found]:
    if real in seen:
        return
    seen.add(real)
    try:
        with os.scandir(folder) as entries:
            here = {entry.name: entry for entry in entries}
    except FileNotFoundError:
        return
    except OSError as e:
        log.warning("%s cannot be read: %s", folder, e.strerror)
        return
    names = sorted(here)
    inner = dict.fromkeys(name for name in names if _is_folder(here[name]))
    if INDEX in here or ("unet" in inner and is_model_folder(folder)):
        yield from _alone(folder, "")
        inner = {}
    pictures = {name for name in names if name.endswith(PICTURES)}
    carriers = _carriers(folder, names, here)
    for name in names:
        is_model = name.lower().endswith(SUFFIXES) or name in carriers
        if is_model and not name.startswith(".") and name not in inner:
            path = os.path.join(folder, name)
            where = os.path.realpath(path) if here[name].is_symlink() else os.path.join(real, name)
            if where not in seen:
                seen.add(where)
                yield from _file(path, name, here, pictures)
    for name in inner:
        path = os.path.join(folder, name)
        yield from _within(path, os.path.realpath(path) if here[name].is_symlink() else os.path.join(real, name), seen)


_OF_EMBEDDINGS = frozenset({"embeddings", "embedding"})
"""What folders are called in which a picture may be an embedding itself."""


def _carriers(folder: str, names: Iterable[str], here: Container[str]) -> set[str]:
    """The pictures of a folder of embeddings that belong to no other file."""
    if _OF_EMBEDDINGS.isdisjoint(part.lower() for part in Path(folder).parts):
        return set()
    stems = {name: name[: -len(PICTURE)] for name in names if name.lower().endswith(PICTURE)}
    return {
        name
        for name, stem in stems.items()
        if not stem.endswith(".preview") and not any(stem + ending in here for ending in SUFFIXES)
    }


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _file(path: str, name: str, here: Container[str], pictures: set[str]) -> Iterator[Found]:
    """As `stamp_of` gives it, without asking the system for sidecars that are not there."""
    stem = name.rpartition(".")[0]
    try:
        stat = os.stat(path)
        size, changed = stat.st_size, stat.st_mtime_ns
        for ending in SIDECARS:
            if stem + ending in here:
                stat = os.stat(path[: len(path) - len(name)] + stem + ending)
                size, changed = size + stat.st_size, max(changed, stat.st_mtime_ns)
    except OSError as e:
        log.warning("%s cannot be read: %s", path, e.strerror)
        return
    preview = next((stem + ending for ending in PREVIEWS if stem + ending in pictures), "") if pictures else ""
    yield Found(path, size, changed, path[: len(path) - len(name)] + preview if preview else "")


def _alone(path: str, preview: str) -> Iterator[Found]:
    try:
        yield Found(path, *stamp_of(path), preview)
    except OSError as e:
        log.warning("%s cannot be read: %s", path, e.strerror)


def _preview_of(path: Path) -> str:
    stem = beside(path)
    return next((stem + ending for ending in PREVIEWS if os.path.isfile(stem + ending)), "")
