"""More pixels for a picture by Lanczos: in linear light, weighted by alpha, in bands of rows."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from impasto_protocol.geometry import Box, Size
from numpy.typing import NDArray
from PIL import Image

from .jobs import Job, Layer, Pixels, Result
from .modes import Upscale
from .planning import Plan, upscale_bands
from .recipe import upscale_recipe
from .work import Report

__all__ = ["lanczos_rows", "upscale"]

_MARGIN = 4
"""Rows beyond a band that its pixels look at: Lanczos has three lobes, and it never shrinks here."""

_values = np.arange(256) / 255
_LINEAR = np.where(_values <= 0.04045, _values / 12.92, ((_values + 0.055) / 1.055) ** 2.4).astype(np.float32)
"""The light of each sRGB value (IEC 61966-2-1)."""


def upscale(job: Job, params: Upscale, plan: Plan, report: Report) -> Result:
    """The picture at `plan.working`, as the one layer of a new document; emitted through `report`.

    Raises Cancelled at most one band after `cancelled()` turned true.
    """
    assert job.image is not None
    size = plan.working
    began = time.perf_counter()
    pixels = np.empty((size.height, size.width, 4), np.uint8)
    bands = upscale_bands(size)
    report.progress("upscale", 0, bands)
    for band in range(bands):
        first, last = size.height * band // bands, size.height * (band + 1) // bands
        pixels[first:last] = lanczos_rows(job.image, size, first, last)
        report.progress("upscale", band + 1, bands)
    name = f"Upscaled {params.scale:g} times"
    whole = Box.of_size(size)
    alpha = "opaque" if bool((pixels[..., 3] == 255).all()) else "soft"
    report.emit(Layer(0, "upscale", name, pixels, whole, alpha, 0, upscale_recipe(params, size)))
    ran = {"device": "cpu", "method": params.method, "working": [size.width, size.height]}
    return Result((), {"upscale": time.perf_counter() - began}, ran)


def lanczos_rows(image: Pixels, size: Size, first: int, last: int) -> Pixels:
    """Rows `first` to `last` (exclusive) of the RGBA `image` at `size`, which is no smaller: [rows, size.width, 4].

    Colours are mixed as light and weighted by alpha, so that nothing bleeds out of what is transparent. At the size
    that it has the picture is not touched.
    """
    height, width = image.shape[:2]
    if (width, height) == tuple(size):
        return image[first:last]
    ratio = height / size.height
    top = max(0, math.floor(first * ratio) - _MARGIN)
    bottom = min(height, math.ceil(last * ratio) + _MARGIN)
    source = image[top:bottom]
    # The margin is no part of the area that is scaled, but is looked at.
    area = (0.0, first * ratio - top, float(width), last * ratio - top)
    extent = (size.width, last - first)

    def scaled(plane: NDArray[Any]) -> NDArray[np.float32]:
        resized = Image.fromarray(plane).resize(extent, Image.Resampling.LANCZOS, box=area)
        return np.asarray(resized, np.float32)

    opaque = bool((source[..., 3] == 255).all())
    result = np.empty((last - first, size.width, 4), np.uint8)
    result[..., 3] = 255
    share = np.ones(1, np.float32)
    if not opaque:
        weight = source[..., 3].astype(np.float32) / np.float32(255)
        share = np.clip(scaled(weight), 0, 1)
        result[..., 3] = np.rint(share * 255)
    for channel in range(3):
        light = _LINEAR[source[..., channel]]
        mixed = scaled(light if opaque else light * weight)
        if not opaque:
            mixed = np.divide(mixed, share, out=np.zeros_like(mixed), where=share > 0)
        result[..., channel] = _encoded(mixed)
    return result


def _encoded(light: NDArray[np.float32]) -> Pixels:
    """sRGB of linear light; what Lanczos overshoots is cut off."""
    light = np.clip(light, 0, 1)
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    rounded: Pixels = np.rint(value * 255).astype(np.uint8)
    return rounded
