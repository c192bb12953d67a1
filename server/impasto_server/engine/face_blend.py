"""A face made one with the picture under it: colours and light matched, joined in the gradient domain.

No torch here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from .kit.runtime import Floats

__all__ = ["joined", "match_light", "membrane", "sharpened"]

_OPPONENT = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""RGB -> luma and two differences of colour (ITU-R BT.601)."""

_LEAST_GAIN, _MOST_GAIN = np.array([0.6, 0.0, 0.0]), 1.6
"""So that a flat place under the face does not take its contrast; its colours go where the picture has none."""

RELAXED, LEAST_RELAXED, MOST_RELAXED = 15_000, 20, 300
"""Rounds of relaxation, times the longer side; the coarse sizes, where most is done, cost nothing."""


def match_light(over: Floats, under: Floats, mask: Floats, share: float) -> Floats:
    """`over` with the colours and the light of `under` (both RGB [h, w, 3] 0..255) as far as `share` (0..1) says.

    Mean and spread of luma and of the colours within `mask` [h, w] become those of the picture (Reinhard et al.,
    "Color Transfer between Images", 2001), and then what is much larger than a feature of the face, its light.
    """
    if share <= 0 or float(mask.sum()) < 1:
        return over
    a, b = over @ _OPPONENT.T, under @ _OPPONENT.T
    weight = (mask / mask.sum())[..., None]
    mean_a, mean_b = (a * weight).sum((0, 1)), (b * weight).sum((0, 1))
    spread_a = np.sqrt((((a - mean_a) ** 2) * weight).sum((0, 1)))
    spread_b = np.sqrt((((b - mean_b) ** 2) * weight).sum((0, 1)))
    gain = np.clip(spread_b / np.maximum(spread_a, 1e-3), _LEAST_GAIN, _MOST_GAIN)
    matched = (a - mean_a) * gain + mean_b
    radius = max(np.sqrt(float((mask > 0.5).sum())) / 4, 1.0)
    light = _spread(b - matched, mask, radius)
    matched = (matched + light) @ np.linalg.inv(_OPPONENT).T
    result: Floats = (over + share * (matched - over)).astype(np.float32)
    np.clip(result, 0, 255, out=result)
    return result


def joined(over: Floats, covered: npt.NDArray[np.bool_], under: Floats, inside: npt.NDArray[np.bool_]) -> Floats:
    """`over` within `inside` with its own gradients and the values of `under` on the rim: Poisson image editing (Pérez
    et al., 2003) as a membrane over what the two differ by.

    Pictures are RGB [h, w, 3] 0..255; `covered` [h, w] says where `over` is. Outside of `inside` it is `under`.
    """
    rim = covered & ~inside
    if not rim.any() or not inside.any():
        return np.where(inside[..., None], over, under).astype(np.float32)
    difference = np.where(rim[..., None], under - over, 0).astype(np.float32)
    moved = np.clip(over + membrane(difference, rim), 0, 255)
    return np.where(inside[..., None], moved, under).astype(np.float32)


def membrane(values: Floats, known: npt.NDArray[np.bool_]) -> Floats:
    """The smoothest surface [h, w, c] through `values` where they are `known` [h, w]: Laplace's equation, solved from
    coarse to fine. Nothing flows through the border."""
    height, width = known.shape
    if min(height, width) <= 2 or known.all():
        mean = values[known].mean(0) if known.any() else np.zeros(values.shape[2], np.float32)
        return np.where(known[..., None], values, mean).astype(np.float32)
    coarse = membrane(*_halved(values, known))
    surface = coarse.repeat(2, 0).repeat(2, 1)[:height, :width].copy()
    surface[known] = values[known]
    free = ~known
    for _ in range(min(max(RELAXED // max(height, width), LEAST_RELAXED), MOST_RELAXED)):
        padded = np.pad(surface, ((1, 1), (1, 1), (0, 0)), mode="edge")
        around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        surface[free] = around[free] / 4
    return surface


def sharpened(picture: Floats, amount: float, sigma: float = 1.5) -> Floats:
    """RGB [h, w, 3] 0..255 with `amount` times what a blur takes away added."""
    if amount <= 0:
        return picture
    plain = Image.fromarray(np.rint(picture).clip(0, 255).astype(np.uint8))
    soft = np.asarray(plain.filter(ImageFilter.GaussianBlur(sigma)), np.float32)
    clear: Floats = np.clip(picture + amount * (picture - soft), 0, 255).astype(np.float32)
    return clear


def _halved(values: Floats, known: npt.NDArray[np.bool_]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    height, width = known.shape
    pad = ((0, height % 2), (0, width % 2))
    weight = np.pad(known.astype(np.float32), pad)
    summed = np.pad(values * known[..., None], (*pad, (0, 0)))

    def four(a: npt.NDArray[np.floating]) -> Floats:
        added: Floats = (a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]).astype(np.float32)
        return added

    count, total = four(weight), four(summed)
    return (total / np.maximum(count, 1)[..., None]).astype(np.float32), count > 0


def _spread(values: npt.NDArray[np.floating], mask: Floats, radius: float) -> Floats:
    """`values` [h, w, c] averaged over `radius` pixels within the mask."""

    def soft(plane: npt.NDArray[np.floating]) -> Floats:
        # Pillow blurs 8 bits alone: two passes of a running mean each way do what a Gaussian would.
        blurred = np.asarray(plane, np.float64)
        for axis in (0, 1, 0, 1):
            blurred = _running_mean(blurred, axis, max(1, round(radius)))
        return blurred.astype(np.float32)

    weight = soft(mask)
    planes = [soft(values[..., c] * mask) / np.maximum(weight, 1e-4) for c in range(values.shape[2])]
    return np.stack(planes, -1).astype(np.float32)


def _running_mean(plane: npt.NDArray[np.float64], axis: int, radius: int) -> npt.NDArray[np.float64]:
    length = plane.shape[axis]
    total = np.concatenate([np.zeros_like(plane.take([0], axis)), plane.cumsum(axis)], axis)
    at = np.arange(length)
    last, first = np.minimum(at + radius + 1, length), np.maximum(at - radius, 0)
    return np.asarray((total.take(last, axis) - total.take(first, axis)) / (2 * radius + 1))
