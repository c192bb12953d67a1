"""Pixels between processes: named shared memory segments, each with one owner who unlinks it."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from ..engine.jobs import Pixels

__all__ = ["Segment", "copy_in", "copy_out", "discard"]


@dataclass(frozen=True)
class Segment:
    """A picture in shared memory: uint8 in C order."""

    name: str
    shape: tuple[int, ...]


def copy_in(pixels: Pixels, name: str) -> tuple[Segment, SharedMemory]:
    """Put `pixels` into a new segment. Keep the handle open until the other side has copied (Windows needs that)."""
    memory = SharedMemory(name=name, create=True, size=max(1, pixels.nbytes))
    np.ndarray(pixels.shape, np.uint8, memory.buf)[...] = pixels
    return Segment(name, pixels.shape), memory


def copy_out(segment: Segment, *, unlink: bool) -> Pixels:
    """A private copy of the segment's pixels; with `unlink` the segment is gone afterwards."""
    memory = SharedMemory(name=segment.name)
    try:
        return np.ndarray(segment.shape, np.uint8, memory.buf).copy()
    finally:
        memory.close()
        if unlink:
            memory.unlink()


def discard(name: str) -> bool:
    """Unlink a segment that may be there; tells whether it was."""
    try:
        memory = SharedMemory(name=name)
    except FileNotFoundError:
        return False
    memory.close()
    memory.unlink()
    return True
