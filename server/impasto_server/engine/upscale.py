"""More pixels for a picture: by Lanczos in linear light, weighted by alpha, in bands; or by an upscaler model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from impasto_protocol.geometry import Box, Size
from numpy.typing import NDArray
from PIL import Image

from .inpaint import fill_masked
from .jobs import Job, Layer, Pixels, Result
from .modes import Upscale
from .planning import Plan, upscale_bands
from .recipe import upscale_recipe
from .report import Report
from .tiles import count_tiles, tiled_rows
from .upscaler import UpscalerModel
from .work import dtype_name

__all__ = ["enlarged", "lanczos_rows", "passes", "tiles_of", "upscale", "upscale_by_model"]

_LOBES = 3
"""How far Lanczos looks, in pixels of the coarser of the two pictures."""

_values = np.arange(256) / 255
_LINEAR = np.where(_values <= 0.04045, _values / 12.92, ((_values + 0.055) / 1.055) ** 2.4).astype(np.float32)
"""The light of each sRGB value (IEC 61966-2-1)."""


def upscale(job: Job, params: Upscale, plan: Plan, report: Report) -> Result:
    """The picture at `plan.working` by Lanczos, as the one layer of a new document; emitted through `report`.

    Raises Cancelled at most one band after `cancelled()` turned true.
    """
    assert job.image is not None
    size = plan.working
    with report.stage("upscale", bands := upscale_bands(size)):
        pixels = np.empty((size.height, size.width, 4), np.uint8)
        for band in range(bands):
            first, last = size.height * band // bands, size.height * (band + 1) // bands
            pixels[first:last] = lanczos_rows(job.image, size, first, last)
            report.progress("upscale", band + 1, bands)
    ran = {"device": "cpu", "method": "lanczos", "working": [size.width, size.height]}
    return _finished(params, size, pixels, report, ran)


def upscale_by_model(job: Job, params: Upscale, plan: Plan, report: Report, model: UpscalerModel, side: int) -> Result:
    """The same by an upscaler in tiles of `side` (0: in one piece), passed as often as the scale needs.

    What is more than was asked for is scaled down by Lanczos. The alpha is resampled; what is wholly transparent is
    filled from its surroundings before, so that no hidden colour shows in its edges. Raises Cancelled at most one
    layer of the network after `cancelled()` turned true.
    """
    assert job.image is not None
    size, image = plan.working, job.image
    times = passes(model.scale, params.scale)
    total = max(1, tiles_of(image, model, times, side))
    count = 0

    def done() -> None:
        nonlocal count
        count += 1
        report.progress("upscale", count, total)

    with report.stage("upscale", total), model.checked(report.check):
        hidden = image[..., 3] == 0
        picture = image[..., :3]
        if hidden.any() and not hidden.all():
            picture = fill_masked(picture, hidden)
        pixels = np.empty((size.height, size.width, 4), np.uint8)
        if times:
            pixels[..., :3] = enlarged(picture, size, model, times, side, done)
            pixels[..., 3] = _alpha(image, size)
        else:
            pixels[:] = lanczos_rows(image, size, 0, size.height)
            done()
    ran = {
        "device": str(model.device),
        "dtype": dtype_name(model.dtype),
        "method": model.name,
        "architecture": model.architecture,
        "own_scale": model.scale,
        "passes": times,
        "tile": side,
        "tiles": count,
        "working": [size.width, size.height],
    }
    return _finished(params, size, pixels, report, ran)


def tiles_of(picture: Pixels, model: UpscalerModel, times: int, side: int) -> int:
    """How many tiles `enlarged` takes."""
    height, width = picture.shape[:2]
    return sum(count_tiles(Size(width * model.scale**i, height * model.scale**i), side) for i in range(times))


def enlarged(
    picture: Pixels, size: Size, model: UpscalerModel, times: int, side: int, done: Callable[[], None]
) -> Pixels:
    """An RGB picture after `times` (at least one) passes through the model, at `size`; `done` after each tile."""
    height, width = picture.shape[:2]
    sizes = [Size(width * model.scale**i, height * model.scale**i) for i in range(times + 1)]
    for reached in sizes[1:-1]:
        larger = np.empty((reached.height, reached.width, 3), np.uint8)
        _stack(tiled_rows(model, picture, side, done), larger)
        picture = larger
    bands = tiled_rows(model, picture, side, done)
    result = np.empty((size.height, size.width, 3), np.uint8)
    _stack(bands if sizes[-1] == size else _shrunk(bands, sizes[-1], size), result)
    return result


def passes(own: int, scale: float) -> int:
    """How often a model of the scale `own` is applied to reach `scale` or more; never where nothing is enlarged."""
    count, reached = 0, 1
    while reached < scale:
        count, reached = count + 1, reached * own
    return count


def _finished(params: Upscale, size: Size, pixels: Pixels, report: Report, ran: dict[str, Any]) -> Result:
    alpha = "opaque" if bool((pixels[..., 3] == 255).all()) else "soft"
    name = f"Upscaled {params.scale:g} times"
    report.emit(Layer(0, "upscale", name, pixels, Box.of_size(size), alpha, 0, upscale_recipe(params, size)))
    return Result((), dict(report.timings), ran)


def _stack(bands: Iterable[Pixels], into: Pixels) -> None:
    at = 0
    for band in bands:
        into[at : at + len(band)] = band
        at += len(band)


def _shrunk(bands: Iterable[Pixels], of: Size, size: Size) -> Iterator[Pixels]:
    """The bands of an RGB picture of the size `of` as bands of one of `size`: what is no longer needed is let go."""
    held, top, made = np.zeros((0, of.width, 3), np.uint8), 0, 0
    for band in bands:
        held = np.concatenate([held, band])
        ready = made
        while ready < size.height and _window(of.height, size.height, ready, ready + 1)[1] <= top + len(held):
            ready += 1
        if ready == made:
            continue
        yield _light_rows(held, top, of.height, size, made, ready)
        made = ready
        needed = _window(of.height, size.height, made, made + 1)[0] if made < size.height else of.height
        held, top = held[needed - top :], needed


def _alpha(image: Pixels, size: Size) -> NDArray[np.uint8]:
    alpha = image[..., 3]
    if bool((alpha == 255).all()):
        return np.full((size.height, size.width), 255, np.uint8)
    shares = _scaled(alpha.astype(np.float32) / np.float32(255), 0, image.shape[0], size, 0, size.height)
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def lanczos_rows(image: Pixels, size: Size, first: int, last: int) -> Pixels:
    """Rows `first` to `last` (exclusive) of the RGBA `image` at `size`: [rows, size.width, 4].

    Colours are mixed as light and weighted by alpha, so that nothing bleeds out of what is transparent. At the size
    that it has the picture is not touched.
    """
    height, width = image.shape[:2]
    if (width, height) == tuple(size):
        return image[first:last]
    top, bottom = _window(height, size.height, first, last)
    source = image[top:bottom]
    result = np.empty((last - first, size.width, 4), np.uint8)
    if bool((source[..., 3] == 255).all()):
        result[..., :3] = _light_rows(source[..., :3], top, height, size, first, last)
        result[..., 3] = 255
        return result
    weight = source[..., 3].astype(np.float32) / np.float32(255)
    share = np.clip(_scaled(weight, top, height, size, first, last), 0, 1)
    result[..., 3] = np.rint(share * 255)
    for channel in range(3):
        mixed = _scaled(_LINEAR[source[..., channel]] * weight, top, height, size, first, last)
        mixed = np.divide(mixed, share, out=np.zeros_like(mixed), where=share > 0)
        result[..., channel] = _encoded(mixed)
    return result


def _light_rows(source: Pixels, top: int, height: int, size: Size, first: int, last: int) -> Pixels:
    """Rows of an opaque RGB picture at `size`, mixed as light; see `_scaled`."""
    planes = [_scaled(_LINEAR[source[..., c]], top, height, size, first, last) for c in range(3)]
    return np.stack([_encoded(plane) for plane in planes], axis=-1)


def _window(height: int, target: int, first: int, last: int) -> tuple[int, int]:
    """The rows of a picture of `height` that rows `first` to `last` of it at the height `target` look at."""
    ratio = height / target
    margin = math.ceil(_LOBES * max(ratio, 1)) + 1
    return max(0, math.floor(first * ratio) - margin), min(height, math.ceil(last * ratio) + margin)


def _scaled(plane: NDArray[Any], top: int, height: int, size: Size, first: int, last: int) -> NDArray[np.float32]:
    """Rows `first` to `last` of a plane of `height` rows at `size`; `plane` are those from `top` on that are needed."""
    ratio = height / size.height
    # What lies beyond is no part of the area that is scaled, but is looked at.
    area = (0.0, first * ratio - top, float(plane.shape[1]), last * ratio - top)
    resized = Image.fromarray(plane).resize((size.width, last - first), Image.Resampling.LANCZOS, box=area)
    return np.asarray(resized, np.float32)


def _encoded(light: NDArray[np.float32]) -> Pixels:
    """sRGB of linear light; what Lanczos overshoots is cut off."""
    light = np.clip(light, 0, 1)
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    rounded: Pixels = np.rint(value * 255).astype(np.uint8)
    return rounded
