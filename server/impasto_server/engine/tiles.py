"""A picture through an upscaler in overlapping tiles, blended so that no seam can be seen; rows come from the top."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from impasto_protocol.geometry import Size
from numpy.typing import NDArray

from .jobs import Pixels
from .upscaler import UpscalerModel

__all__ = ["BAND_BYTES", "FADE", "GRID", "MIN_TILE", "OVERLAP", "count_tiles", "tile_side", "tiled_rows", "tiles_along"]

OVERLAP = 64
"""Pixels that neighbouring tiles share at least."""

FADE = 16
"""Pixels in the middle of them over which one tile fades into the other. What lies beyond, where a tile lacks its
surroundings, is not used: of these 24 pixels real upscalers need most (with 8 they differ visibly)."""

GRID = 16
"""What the begin and the side of a tile are a multiple of; windows are of 8 or 16 pixels."""

MIN_TILE = 128
"""Smallest side of a tile: then no more than two of them fade at one place."""

MAX_TILE = 1024
MAX_TILE_CPU = 512
"""Sides beyond which larger tiles are no faster; on a CPU progress is told by the tile, too."""

BAND_BYTES = 256 << 20
"""Most bytes of one band of the result, as long as tiles of MIN_TILE allow it: wide pictures get lower tiles."""

_CHANNELS = 64
"""Channels of the usual upscaler: what is held at once is some eight such pictures of the tile, and three of the
result."""


def tile_side(model: UpscalerModel, free: int) -> int:
    """The side in pixels of the square tiles for `free` bytes of memory, a third of which is taken. 0: no tiles."""
    if model.whole:
        return 0
    per_pixel = model.dtype.itemsize * _CHANNELS * (8 + 3 * model.scale**2)
    side = math.isqrt(max(free, 0) // 3 // per_pixel) // GRID * GRID
    return max(MIN_TILE, min(side, MAX_TILE_CPU if model.device.type == "cpu" else MAX_TILE))


def tiles_along(length: int, side: int) -> list[tuple[int, int]]:
    """Begin and end of the tiles along an axis: at most `side` long, evenly spread, sharing OVERLAP or more.

    They begin at multiples of GRID, so that networks that work in windows cut every tile as they cut the whole.
    """
    if side == 0 or length <= side:
        return [(0, length)]
    last = math.ceil((length - side) / GRID)
    count = math.ceil(last / ((side - OVERLAP) // GRID))
    starts = [i * last // count * GRID for i in range(count + 1)]
    return [(start, min(start + side, length)) for start in starts]


def count_tiles(size: Size, side: int, scale: int = 1) -> int:
    """How many tiles a picture of `size` takes that is made `scale` times as large."""
    return len(tiles_along(size.width, side)) * len(tiles_along(size.height, _lower(side, size.width, scale)))


def _lower(side: int, width: int, scale: int) -> int:
    """The height of the tiles of a picture of that width."""
    rows = BAND_BYTES // (width * scale * scale * 12) // GRID * GRID
    return min(side, max(rows, MIN_TILE))


def tiled_rows(model: UpscalerModel, picture: Pixels, side: int, done: Callable[[], None]) -> Iterator[Pixels]:
    """The enlarged RGB `picture` [height, width, 3] in bands of finished rows, from the top; `done` after each tile."""
    height, width = picture.shape[:2]
    scale = model.scale
    down, across = tiles_along(height, _lower(side, width, scale)), tiles_along(width, side)
    fades = _fades(across, scale)
    kept = np.zeros((0, width * scale, 3), np.float32)  # of the band above, what reaches into this one
    for index, ((top, bottom), fade) in enumerate(zip(down, _fades(down, scale), strict=True)):
        band = np.zeros(((bottom - top) * scale, width * scale, 3), np.float32)
        for (left, right), weights in zip(across, fades, strict=True):
            tile = torch.from_numpy(np.ascontiguousarray(picture[top:bottom, left:right])).permute(2, 0, 1)
            result = model(tile[None].float() / 255)[0].permute(1, 2, 0).numpy()
            band[:, left * scale : right * scale] += result * weights[:, None]
            done()
        band *= fade[:, None, None]
        band[: len(kept)] += kept
        finished = (down[index + 1][0] if index + 1 < len(down) else bottom) - top
        kept = band[finished * scale :]
        yield np.rint(np.clip(band[: finished * scale], 0, 1) * 255).astype(np.uint8)


def _fades(spans: list[tuple[int, int]], scale: int) -> list[NDArray[np.float32]]:
    """The share of each tile at each of its pixels of the result; at every place they add up to 1."""
    fades = [np.ones((end - start) * scale, np.float32) for start, end in spans]
    half = FADE * scale / 2
    for index in range(len(spans) - 1):
        (start, end), (next_start, _) = spans[index], spans[index + 1]
        middle = (next_start + end) / 2 * scale
        places = np.arange(next_start * scale, end * scale) + 0.5
        rising = np.clip((places - middle + half) / (2 * half), 0, 1).astype(np.float32)
        fades[index][(next_start - start) * scale :] *= 1 - rising
        fades[index + 1][: len(rising)] *= rising
    return fades
