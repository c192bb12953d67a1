"""From a control picture to the hint that a ControlNet reads: fitted to the size of the run, then preprocessed.

Most of it works without weights, with numpy, Pillow and torch; straight lines and people are the kit's. A preprocessor
sees the picture at the size of the run ("pixel perfect").
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Size
from impasto_protocol.schema import AUTO
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .jobs import ControlUnit, Job, Layer, Pixels, Result
from .kit.lines import draw_lines, straight_lines
from .kit.people import segment_person
from .kit.runtime import Kit
from .params_control import Annotate
from .pictures import flattened, opaque
from .report import Report

__all__ = ["annotate", "canny", "fitted", "hint_picture", "hint_tensor"]

Floats = NDArray[np.float32]

PERSON = (150, 5, 61)
"""The colour of a person in ADE20K's palette."""

COLOR_CELL = 64
"""Side in pixels of one colour of the colour grid."""


def annotate(job: Job, params: Annotate, report: Report, kit: Kit) -> Result:
    """The hint of the job's picture as one opaque layer where the picture lies; emitted through `report`."""
    low, high = (None if value == AUTO else float(value) for value in (params.threshold_low, params.threshold_high))
    unit = ControlUnit(
        "picture", "inputs.image", "", job.image, params.preprocessor, threshold_low=low, threshold_high=high
    )
    with report.stage("annotate"):
        picture = hint_picture(unit, job.box.size, kit)
    name = f"{params.preprocessor.replace('_', ' ')} hint"
    info = {"mode": job.mode, "params": dataclasses.asdict(params), "working": [job.box.width, job.box.height]}
    report.emit(Layer(0, "annotate", name, opaque(picture), job.box, "opaque", 0, info))
    return Result((), dict(report.timings), {"device": "cpu", "preprocessor": params.preprocessor})


def hint_picture(unit: ControlUnit, size: Size, kit: Kit) -> Pixels:
    """The hint of a unit as RGB [height, width, 3]: what a painter may look at, correct, and feed in again.

    What is transparent is black in a finished hint, where black means nothing, and white paper in a picture. Raises
    RequestError `request.empty_selection` for a picture without a visible pixel.
    """
    picture = unit.image
    assert picture is not None
    if not picture[..., 3].any():
        raise RequestError(
            "request.empty_selection",
            f"The picture of {unit.name} is fully transparent; paint on its layer, or switch the control off.",
            path=unit.path,
        )
    fit = functools.partial(fitted, size=size, resize=unit.resize)
    if unit.preprocessor in OF_THE_KIT:
        return OF_THE_KIT[unit.preprocessor](kit, fit(flattened(picture)), unit)
    under = np.zeros((*picture.shape[:2], 3), np.uint8) if unit.preprocessor == "none" else None
    return PREPROCESS[unit.preprocessor](fit(flattened(picture, under)), unit)


def hint_tensor(unit: ControlUnit, size: Size, kit: Kit) -> torch.Tensor:
    """The same as float32 [1, 3, height, width] in 0..1."""
    return torch.tensor(hint_picture(unit, size, kit)).permute(2, 0, 1)[None].float() / 255


def fitted(picture: Pixels, size: Size, resize: str) -> Pixels:
    """RGB of `size`: "crop" cuts off what is too much, "fill" puts the median colour of the rim around, "stretch"."""
    height, width = picture.shape[:2]
    if (width, height) == tuple(size):
        return picture
    across, down = size.width / width, size.height / height
    if resize == "stretch" or across == down:
        return _resized(picture, size)
    factor = max(across, down) if resize == "crop" else min(across, down)
    inner = Size(max(round(width * factor), 1), max(round(height * factor), 1))
    scaled = _resized(picture, inner)
    if resize == "crop":
        left, top = (inner.width - size.width) // 2, (inner.height - size.height) // 2
        return np.ascontiguousarray(scaled[top : top + size.height, left : left + size.width])
    rim = np.concatenate([scaled[0], scaled[-1], scaled[:, 0], scaled[:, -1]])
    out = np.empty((size.height, size.width, 3), np.uint8)
    out[:] = np.median(rim, axis=0).astype(np.uint8)
    left, top = (size.width - inner.width) // 2, (size.height - inner.height) // 2
    out[top : top + inner.height, left : left + inner.width] = scaled
    return out


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


def _blurred(picture: Pixels, sigma: float) -> Floats:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(sigma)), np.float32)


def _resized(picture: Pixels, size: Size) -> Pixels:
    # Area when it gets smaller, cubic when it gets larger: so does A1111.
    smaller = size.width < picture.shape[1]
    how = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize((size.width, size.height), how))


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


PREPROCESS: Mapping[str, Callable[[Pixels, ControlUnit], Pixels]] = {
    "none": lambda picture, unit: picture,
    "invert": lambda picture, unit: 255 - picture,
    "canny": _canny,
    "threshold": _threshold,
    "blur": _blur,
    "lineart": _lineart,
    "scribble": _scribble,
    "tile": lambda picture, unit: picture,
    "color_grid": _color_grid,
}
"""Preprocessor -> function of RGB and the unit."""


def _lines(kit: Kit, picture: Pixels, unit: ControlUnit) -> Pixels:
    ends, _ = straight_lines(kit, picture, threshold=unit.low(0.1))
    return draw_lines(ends, picture.shape[1], picture.shape[0])


def _person(kit: Kit, picture: Pixels, unit: ControlUnit) -> Pixels:
    """In the colour that ADE20K's palette, and so the segmentation ControlNets, have for a person; the rest black."""
    out = np.zeros_like(picture)
    out[segment_person(kit, picture) > 0.5] = PERSON
    return out


OF_THE_KIT: Mapping[str, Callable[[Kit, Pixels, ControlUnit], Pixels]] = {"mlsd": _lines, "person": _person}
"""The same for networks of the kit. All names together are `params_control.PREPROCESSORS`."""
