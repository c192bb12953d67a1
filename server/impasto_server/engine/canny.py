"""Edges one pixel wide: Canny, "A computational approach to edge detection", 1986."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from .jobs import Pixels

__all__ = ["canny"]

Floats = NDArray[np.float32]


def canny(picture: Pixels, low: float, high: float) -> NDArray[np.uint8]:
    """Edges, [height, width] of 0 and 255: Canny, "A computational approach to edge detection", 1986.

    Sobel gradients of the strongest channel, their magnitude as the sum of both parts (thresholds as OpenCV counts
    them), thinned across the edge, and from `low` on only what is joined to something above `high`.
    """
    values = np.pad(picture.astype(np.float32), ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = values[:, 2:] - values[:, :-2]
    down = values[2:] - values[:-2]
    gx = across[:-2] + 2 * across[1:-1] + across[2:]
    gy = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    strength = np.abs(gx) + np.abs(gy)
    best = strength.argmax(2)[..., None]
    gx, gy, size = (np.take_along_axis(v, best, 2)[..., 0] for v in (gx, gy, strength))
    thin = _thinned(size, gx, gy)
    return np.where(_joined(thin & (size > low), thin & (size > high)), np.uint8(255), np.uint8(0))


def _thinned(size: Floats, gx: Floats, gy: Floats) -> NDArray[np.bool_]:
    """Where the gradient is a ridge, looking along it: in one of four directions, 22.5 degrees to each side."""
    padded = np.pad(size, 1)

    def shifted(dy: int, dx: int) -> Floats:
        return padded[1 + dy : 1 + dy + size.shape[0], 1 + dx : 1 + dx + size.shape[1]]

    flat, steep = np.abs(gy) < 0.41421356 * np.abs(gx), np.abs(gy) > 2.41421356 * np.abs(gx)
    rising = gx * gy < 0
    ridge = np.zeros(size.shape, bool)
    for where, (dy, dx) in (
        (flat, (0, 1)),
        (steep & ~flat, (1, 0)),
        (~flat & ~steep & rising, (-1, 1)),
        (~flat & ~steep & ~rising, (1, 1)),
    ):
        ridge |= where & (size > shifted(-dy, -dx)) & (size >= shifted(dy, dx))
    return ridge


def _joined(weak: NDArray[np.bool_], strong: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What of `weak` is connected to `strong`, also by corners."""
    found, count = torch.from_numpy(strong)[None, None].float(), -1
    allowed = torch.from_numpy(weak)[None, None].float()
    while (now := int(found.sum())) != count:
        count = now
        for _ in range(8):  # so that it is not counted after each pixel
            found = torch.nn.functional.max_pool2d(found, 3, 1, 1) * allowed
    joined: NDArray[np.bool_] = found[0, 0].numpy() > 0
    return joined
