"""Control pictures brought to the size of the run. numpy and Pillow."""

from __future__ import annotations

import numpy as np
from impasto_protocol.geometry import Size
from PIL import Image

from .jobs import Pixels

__all__ = ["fitted"]


def fitted(picture: Pixels, size: Size, resize: str, how: Image.Resampling | None = None) -> Pixels:
    """RGB of `size`: "crop" cuts off what is too much, "fill" puts the median colour of the rim around, "stretch".

    `how` is the filter; None takes the area when it gets smaller and the cubic one when it gets larger: so does A1111.
    """
    height, width = picture.shape[:2]
    if (width, height) == tuple(size):
        return picture
    across, down = size.width / width, size.height / height
    if resize == "stretch" or across == down:
        return _resized(picture, size, how)
    factor = max(across, down) if resize == "crop" else min(across, down)
    inner = Size(max(round(width * factor), 1), max(round(height * factor), 1))
    scaled = _resized(picture, inner, how)
    if resize == "crop":
        left, top = (inner.width - size.width) // 2, (inner.height - size.height) // 2
        return np.ascontiguousarray(scaled[top : top + size.height, left : left + size.width])
    rim = np.concatenate([scaled[0], scaled[-1], scaled[:, 0], scaled[:, -1]])
    out = np.empty((size.height, size.width, 3), np.uint8)
    out[:] = np.median(rim, axis=0).astype(np.uint8)
    left, top = (size.width - inner.width) // 2, (size.height - inner.height) // 2
    out[top : top + inner.height, left : left + inner.width] = scaled
    return out


def _resized(picture: Pixels, size: Size, how: Image.Resampling | None) -> Pixels:
    if how is None:
        how = Image.Resampling.BOX if size.width < picture.shape[1] else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize((size.width, size.height), how))
