"""Between the bytes on the wire and the engine's arrays."""

from __future__ import annotations

import numpy as np
from impasto_protocol.errors import AssetError
from impasto_protocol.images import BYTES_PER_PIXEL, Buffer

from ..engine.jobs import Pixels

__all__ = ["check_bytes", "from_wire", "mask_from_wire", "to_wire"]


def from_wire(data: Buffer, width: int, height: int, format: str, path: str = "inputs.image") -> Pixels:
    """Bytes -> RGBA [height, width, 4]. Raises AssetError `asset.bad_image` where their number does not fit."""
    channels = _channels(data, width, height, format, path)
    if format == "rgba8":
        return channels
    if format == "bgra8":
        return _swapped(channels)
    out = np.empty((height, width, 4), np.uint8)
    out[..., :3] = channels  # rgb8; one grey channel spreads over three
    out[..., 3] = 255
    return out


def mask_from_wire(data: Buffer, width: int, height: int, format: str, path: str = "inputs.mask") -> Pixels:
    """Bytes -> mask [height, width], 255 = selected. A mask has one channel (l8)."""
    if format != "l8":
        raise AssetError(
            "asset.bad_image", f"A mask has one channel: send it as l8, not as {format[:20]!r}.", path=path
        )
    return _channels(data, width, height, format, path)[..., 0]


def to_wire(pixels: Pixels, format: str) -> bytes:
    """RGBA [height, width, 4] -> bytes in `format` (rgba8 or bgra8)."""
    return (_swapped(pixels) if format == "bgra8" else pixels).tobytes()


def check_bytes(size: int, width: int, height: int, format: str, path: str) -> None:
    """Raise what `from_wire` would for so many bytes."""
    depth = BYTES_PER_PIXEL[format]
    if size != width * height * depth:
        raise AssetError(
            "asset.bad_image",
            f"A picture of {width} x {height} pixels in {format} has {width * height * depth} bytes, but "
            f"{size} were sent; check its size and format.",
            path=path,
        )


def _swapped(pixels: Pixels) -> Pixels:
    """First and third channel exchanged; plane by plane, several times faster than by an index."""
    out = np.empty(pixels.shape, np.uint8)
    for to, source in enumerate((2, 1, 0, 3)):
        out[..., to] = pixels[..., source]
    return out


def _channels(data: Buffer, width: int, height: int, format: str, path: str) -> Pixels:
    check_bytes(len(data), width, height, format, path)
    depth = BYTES_PER_PIXEL[format]
    return np.frombuffer(data, np.uint8).reshape(height, width, depth)
