"""Hints that need no weights: edges, strokes, colours, disorder. Each is a function of RGB pixels and the unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .canny import canny
from .jobs import ControlUnit, Pixels
from .recolor import INTENSITY, LUMINANCE, value_of

__all__ = ["PREPROCESS", "shuffled"]

Floats = NDArray[np.float32]

COLOR_CELL = 64
"""Side in pixels of one colour of the colour grid."""

DISORDER = 256
"""Pixels over which the flow of `shuffle` changes."""


def _blurred(picture: Pixels, sigma: float) -> Floats:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(sigma)), np.float32)


def _gray(values: NDArray[Any]) -> Pixels:
    return np.repeat(values.astype(np.uint8)[..., None], 3, 2)


def _canny(picture: Pixels, unit: ControlUnit) -> Pixels:
    return _gray(canny(picture, unit.low(100.0), unit.high(200.0)))


def _threshold(picture: Pixels, unit: ControlUnit) -> Pixels:
    gray = np.asarray(Image.fromarray(picture).convert("L"))
    return _gray(np.where(gray > unit.low(127.0), 255, 0))


def _scribble(picture: Pixels, unit: ControlUnit) -> Pixels:
    """Strokes where a fine blur is darker than a coarse one (Winnemöller et al., "XDoG", 2012)."""
    difference = (_blurred(picture, 5.0) - _blurred(picture, 0.5)).min(2)
    return _gray(np.where(2 * difference > unit.low(32.0), 255, 0))


def _lineart(picture: Pixels, unit: ControlUnit) -> Pixels:
    """How much darker each pixel is than its surroundings, brought to one scale."""
    darker = np.clip((_blurred(picture, 6.0) - picture).min(2), 0, 255)
    clear = darker[darker > 8]
    return _gray(np.clip(darker / max(16.0, float(np.median(clear)) if clear.size else 0.0) * 127, 0, 255))


def _blur(picture: Pixels, unit: ControlUnit) -> Pixels:
    return np.clip(np.rint(_blurred(picture, unit.low(9.0))), 0, 255).astype(np.uint8)


def _color_grid(picture: Pixels, unit: ControlUnit) -> Pixels:
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize(
        (max(width // COLOR_CELL, 1), max(height // COLOR_CELL, 1)), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))


def shuffled(picture: Pixels, seed: int) -> Pixels:
    """The picture's pixels led astray by a smooth random flow: its colours and textures without its composition.

    Zhang, Rao, Agrawala, ControlNet 1.1 (shuffle): two fields of noise, one value for each 256 pixels, say where in the
    picture each pixel comes from; all of it, from rim to rim, takes part.
    """
    height, width = picture.shape[:2]
    random = np.random.RandomState(seed)
    across = _field(random, height, width) * (width - 1)
    down = _field(random, height, width) * (height - 1)
    grid = np.stack([across / max(width - 1, 1), down / max(height - 1, 1)], -1) * 2 - 1
    values = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]
    at = torch.from_numpy(grid.astype(np.float32))[None]
    moved = torch.nn.functional.grid_sample(values, at, "bilinear", "border", align_corners=True)
    return np.asarray(np.clip(np.rint(moved[0].permute(1, 2, 0).numpy()), 0, 255), np.uint8)


def _field(random: np.random.RandomState, height: int, width: int) -> Floats:
    """Smooth noise in 0..1, [height, width]."""
    coarse = random.uniform(0, 1, (height // DISORDER + 2, width // DISORDER + 2)).astype(np.float32)
    size = (width + 2 * DISORDER, height + 2 * DISORDER)
    whole = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    field: Floats = whole[DISORDER : DISORDER + height, DISORDER : DISORDER + width]
    field = field - field.min()
    return np.asarray(field / max(float(field.max()), 1e-6), np.float32)


def _shuffle(picture: Pixels, unit: ControlUnit) -> Pixels:
    return shuffled(picture, int(unit.low(0.0)))


def _recolor(kind: str) -> Callable[[Pixels, ControlUnit], Pixels]:
    return lambda picture, unit: _gray(value_of(picture, kind, unit.low(1.0)))


def _same(picture: Pixels, unit: ControlUnit) -> Pixels:
    return picture


PREPROCESS: Mapping[str, Callable[[Pixels, ControlUnit], Pixels]] = {
    "none": _same,
    "invert": lambda picture, unit: 255 - picture,
    "canny": _canny,
    "threshold": _threshold,
    "blur": _blur,
    "lineart": _lineart,
    "scribble": _scribble,
    "tile": _same,
    "tile_colorfix": _same,
    "tile_colorfix_sharp": _same,
    "color_grid": _color_grid,
    "shuffle": _shuffle,
    "recolor_luminance": _recolor(LUMINANCE),
    "recolor_intensity": _recolor(INTENSITY),
}
"""Preprocessor -> function of RGB and the unit."""
