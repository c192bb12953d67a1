"""From a selection to the two masks of inpainting: where to repaint, and the alpha of the layer. numpy only.

Both start from the selection (uint8, 255 = fully selected) and the resolved numbers of `planning.resolve_mask`, in
pixels of the document. Distances are measured along rows and columns (Chebyshev), so that every filter is separable::

    distance from the mask      0 ......... grow ................ grow + feather
    denoise                     1           1   falls linearly    0
    layer alpha                 255 ....... falls over blend px . 0   (ends where denoise ends)

`denoise` is 1 wherever the selection is 255; the alpha is 255 there too, and exactly 0 beyond the reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from impasto_protocol.geometry import Box
from numpy.typing import NDArray

from .planning import MaskNumbers

__all__ = ["bounds_of", "box_blur_sum", "denoise_mask", "dilate", "layer_alpha", "within_reach"]

Bytes = NDArray[np.uint8]


def bounds_of(mask: NDArray[Any]) -> Box | None:
    """The smallest box that holds every value > 0 of a [height, width] array, or None where there is none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return Box(x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1)


def within_reach(selection: Bytes, reach: int) -> Box | None:
    """The part of the picture that lies within `reach` of the mask, along both axes; None where nothing is selected."""
    bounds = bounds_of(selection)
    height, width = selection.shape
    return None if bounds is None else bounds.grow(reach).intersect(Box(0, 0, width, height))


def denoise_mask(selection: Bytes, numbers: MaskNumbers) -> NDArray[np.float32]:
    """How strongly each pixel is repainted, float32 [height, width] from 0 to 1.

    The selection is grown (grey dilation) by grow + feather / 2 and blurred linearly over feather: 1 within `grow` of
    a full selection, 0 from grow + feather on.
    """
    half = numbers.feather // 2
    out = np.zeros(selection.shape, np.float32)
    for view in _near(selection, numbers.grow + 2 * half):
        total = box_blur_sum(dilate(selection[view], numbers.grow + half), half)
        out[view] = total / (255 * (2 * half + 1) ** 2)  # a true division: exactly 1 inside
    return out


def layer_alpha(selection: Bytes, numbers: MaskNumbers, exact: bool) -> Bytes:
    """The alpha of the result layer, uint8 [height, width].

    255 where the selection is 255 and exactly 0 beyond `numbers.reach` from the mask (selection > 0), falling linearly
    over `blend` and reaching 0 where repainting does. With `exact` it is the selection itself.
    """
    if exact:
        return selection.copy()
    half = numbers.blend // 2
    repainted = numbers.grow + 2 * (numbers.feather // 2)
    # The ramp is centred `half` before the end of repainting, but never bites into the mask.
    centre = max(repainted - half, half)
    out = np.zeros(selection.shape, np.uint8)
    for view in _near(selection, centre + half):
        mask = (selection[view] > 0).astype(np.uint8)
        total = box_blur_sum(dilate(mask, centre), half)
        # Whole numbers throughout: 255 exactly where the whole window is inside, never rounded up to it.
        out[view] = total * np.uint32(255) // np.uint32((2 * half + 1) ** 2)
    return out


def dilate(image: Bytes, radius: int) -> Bytes:
    """The greatest value within `radius` along both axes; beyond the border lies nothing."""
    for axis in (0, 1):
        image = _running_max(image, radius, axis)
    return image


def box_blur_sum(image: Bytes, radius: int) -> NDArray[np.uint32]:
    """The sum over the square window of side 2 * radius + 1; the border's pixels go on beyond it.

    Exact while 255 * side² < 2³² (radius up to 2051).
    """
    # Twice along the rows, turned in between: cumulative sums down the columns are many times slower.
    once = _running_sum(np.ascontiguousarray(image.T, np.uint32), radius)
    return _running_sum(np.ascontiguousarray(once.T), radius)


def _near(selection: Bytes, reach: int) -> Iterator[tuple[slice, slice]]:
    """The part of the picture that a filter of this reach can touch, once, or nothing at all.

    One pixel more than the reach is taken, so that the border of the part is untouched by the mask except where it is
    the border of the picture.
    """
    bounds = bounds_of(selection)
    if bounds is None:
        return
    height, width = selection.shape
    top, left = max(bounds.y - reach - 1, 0), max(bounds.x - reach - 1, 0)
    bottom, right = min(bounds.bottom + reach + 1, height), min(bounds.right + reach + 1, width)
    yield slice(top, bottom), slice(left, right)


def _running_max(image: Bytes, radius: int, axis: int) -> Bytes:
    """Windows of 1, 2, 4, ... pixels from pairs of the last ones, then two of them overlapped to the wanted length."""
    if radius < 1:
        return image
    pad = [(0, 0), (0, 0)]
    pad[axis] = (radius, radius)
    running = np.pad(image, pad)
    length, window = 1, 2 * radius + 1
    while 2 * length <= window:
        running = _shifted_max(running, length, axis)
        length *= 2
    if length < window:
        running = _shifted_max(running, window - length, axis)
    return running


def _shifted_max(image: Bytes, shift: int, axis: int) -> Bytes:
    size = image.shape[axis]
    out: Bytes = np.maximum(_part(image, 0, size - shift, axis), _part(image, shift, size, axis))
    return out


def _running_sum(image: NDArray[np.uint32], radius: int) -> NDArray[np.uint32]:
    """Along the rows, by differences of cumulative sums: those may wrap around 2³², the differences are right."""
    if radius < 1:
        return image
    sums = np.cumsum(np.pad(image, ((0, 0), (radius + 1, radius)), mode="edge"), axis=1, dtype=np.uint32)
    out: NDArray[np.uint32] = sums[:, 2 * radius + 1 :] - sums[:, : -2 * radius - 1]
    return out


def _part(image: NDArray[Any], start: int, stop: int, axis: int) -> NDArray[Any]:
    return image[start:stop] if axis == 0 else image[:, start:stop]
