"""Recolouring: a grey picture leads, and keeps its light in the result, which gives it colours.

A1111's recolor_luminance and recolor_intensity: the hint is L of CIELAB, or V of HSV, of the picture, and after
decoding that of the result is replaced by it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .jobs import Pixels

__all__ = ["INTENSITY", "LUMINANCE", "recolored", "to_lab", "value_of"]

LUMINANCE, INTENSITY = "recolor_luminance", "recolor_intensity"

Floats = NDArray[np.float64]

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""Linear sRGB -> CIE XYZ (IEC 61966-2-1)."""
_WHITE = _TO_XYZ.sum(1)
_LINEAR = (6 / 29) ** 3


def value_of(picture: Pixels, kind: str, gamma: float = 1.0) -> NDArray[np.uint8]:
    """The light of RGB [h, w, 3], [h, w] 0..255: L or V by `kind`, to the power of `gamma` (1 leaves it)."""
    value = to_lab(picture)[..., 0] / 100 if kind == LUMINANCE else picture.max(2) / 255
    return np.asarray(np.rint(255 * np.clip(value, 0, 1) ** gamma), np.uint8)


def recolored(picture: Pixels, value: NDArray[np.uint8], kind: str) -> Pixels:
    """RGB [h, w, 3] with its light replaced by `value` [h, w] as `value_of` gives it; colours beyond sRGB are cut."""
    if kind == LUMINANCE:
        lab = to_lab(picture)
        lab[..., 0] = value / 255 * 100
        return _from_lab(lab)
    bright = picture.max(2, keepdims=True).astype(np.float64)
    # What was black has no colour: it becomes grey.
    scaled = np.where(bright > 0, picture / np.maximum(bright, 1), 1.0) * value[..., None]
    return np.asarray(np.clip(np.rint(scaled), 0, 255), np.uint8)


def to_lab(picture: Pixels) -> Floats:
    """RGB [h, w, 3] as L 0..100, a and b of CIELAB (white of D65)."""
    values = np.arange(256) / 255
    table = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    ratio = table[picture] @ _TO_XYZ.T / _WHITE
    f = np.where(ratio > _LINEAR, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def _from_lab(lab: Floats) -> Pixels:
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], -1)
    ratio = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    linear = np.clip(ratio * _WHITE @ np.linalg.inv(_TO_XYZ).T, 0, 1)
    values = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * np.clip(values, 0, 1)), np.uint8)
