"""Room for what may not fit in memory: arrays in mapped files without a name, written out as the system needs."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from impasto_protocol.errors import ResourceError

from .jobs import Pixels

__all__ = ["MAPPED", "mapped_file", "picture_room"]

MAPPED = 256 << 20
"""Bytes from which a picture lies in a file."""


def mapped_file(size: int, what: str) -> Path:
    """A new file of `size` bytes that are really there; the caller maps it, then calls `Path.unlink` where the system
    lets it.

    Raises ResourceError `resource.disk_full`: told here, where a write to a mapping would end the process.
    """
    large = "/var/tmp" if Path("/var/tmp").is_dir() else None  # /tmp is often memory
    handle, name = tempfile.mkstemp(prefix="impasto-", dir=large)
    file = Path(name)
    try:
        if shutil.disk_usage(file.parent).free < size:
            raise OSError(28, "No space left on device")
        if sys.platform == "linux":
            os.posix_fallocate(handle, 0, size)
        else:
            os.truncate(handle, size)
    except OSError as error:
        with suppress(OSError):
            file.unlink()
        raise ResourceError(
            "resource.disk_full",
            f"{what} needs {max(size >> 20, 1)} MB for a while in {file.parent}, which has less; free some space or "
            "choose a smaller size.",
            retryable=True,
            data={"needed": size},
        ) from error
    finally:
        os.close(handle)
    return file


def picture_room(height: int, width: int, channels: int) -> Pixels:
    """An empty picture [height, width, channels]: in memory, or from MAPPED bytes on in a mapped file."""
    shape = (height, width, channels)
    size = height * width * channels
    if size < MAPPED:
        return np.empty(shape, np.uint8)
    file = mapped_file(size, f"A picture of {width} x {height} pixels")
    room: Pixels = np.memmap(file, np.uint8, "r+", shape=shape)
    with suppress(OSError):  # Windows keeps the name of what is mapped
        file.unlink()
    return room
