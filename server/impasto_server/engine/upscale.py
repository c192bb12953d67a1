"""More pixels for a picture: by Lanczos in linear light, weighted by alpha, in bands; or by an upscaler model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from impasto_protocol.geometry import Box, Size
from numpy.typing import NDArray
from PIL import Image

from .inpaint import fill_masked
from .jobs import Emit, Job, Layer, Pixels, Result
from .modes import Upscale
from .planning import Plan, upscale_bands
from .recipe import upscale_recipe
from .report import Report
from .scratch import picture_room
from .tiles import count_tiles, tiled_rows
from .upscaler import UpscalerModel
from .work import dtype_name

__all__ = ["LANCZOS", "Enlarger", "enlarged", "enlarged_rows", "lanczos_rows", "passes", "tiles_of", "upscale"]

_LOBES = 3
"""How far Lanczos looks, in pixels of the coarser of the two pictures."""

_values = np.arange(256) / 255
_LINEAR = np.where(_values <= 0.04045, _values / 12.92, ((_values + 0.055) / 1.055) ** 2.4).astype(np.float32)
"""The light of each sRGB value (IEC 61966-2-1)."""


@dataclass(frozen=True)
class Enlarger:
    """One of the ways: an upscaler with the side of its tiles (0: in one piece), or Lanczos."""

    model: UpscalerModel | None = None
    side: int = 0

    def passes(self, picture: Size, size: Size) -> int:
        """How often the model is applied."""
        scale = max(size.width / picture.width, size.height / picture.height)
        return passes(self.model.scale, scale) if self.model is not None else 0

    def steps(self, image: Pixels, size: Size) -> int:
        """How often `rows` calls `done`."""
        times = self.passes(_size_of(image), size)
        if self.model is None or not times:
            return upscale_bands(size)
        return tiles_of(image, self.model, times, self.side)

    def rows(self, image: Pixels, size: Size, done: Callable[[], None]) -> Iterator[Pixels]:
        """The RGBA `image` at `size` in bands [rows, size.width, 4] from the top."""
        times = self.passes(_size_of(image), size)
        if self.model is None or not times:
            for first, last in _bands(size):
                yield lanczos_rows(image, size, first, last)
                done()
            return
        hidden = image[..., 3] == 0
        picture = image[..., :3]
        if hidden.any() and not hidden.all():
            picture = fill_masked(picture, hidden)
        at = 0
        for band in enlarged_rows(picture, size, self.model, times, self.side, done):
            rows = np.empty((len(band), size.width, 4), np.uint8)
            rows[..., :3] = band
            rows[..., 3] = _alpha_rows(image, size, at, at + len(band))
            yield rows
            at += len(band)

    def told(self, picture: Size, size: Size) -> dict[str, Any]:
        """What really ran, as plain values."""
        if self.model is None:
            return {"device": "cpu", "method": "lanczos"}
        return {
            "device": str(self.model.device),
            "dtype": dtype_name(self.model.dtype),
            "method": self.model.name,
            "architecture": self.model.architecture,
            "own_scale": self.model.scale,
            "passes": self.passes(picture, size),
            "tile": self.side,
        }


LANCZOS = Enlarger()


def upscale(
    job: Job,
    params: Upscale,
    plan: Plan,
    report: Report,
    first: Enlarger = LANCZOS,
    second: Enlarger | None = None,
    emit: Emit | None = None,
) -> Result:
    """The picture at `plan.working`, as the one layer of a new document; to `emit`, or through `report`.

    What a model enlarges beyond the size is scaled down by Lanczos. The alpha is resampled; what is wholly transparent
    is filled from its surroundings before a model sees it, so that no hidden colour shows in its edges. `second` is
    laid over the first by `params.second_share`. Beside the picture itself memory holds bands of rows alone, and the
    picture lies in a mapped file where it is large. Raises Cancelled at most one band, or one layer of the network,
    after `cancelled()` turned true.
    """
    assert job.image is not None
    size = plan.working
    crop = params.crop_of(_size_of(job.image))
    image = job.image[crop.y : crop.bottom, crop.x : crop.right]
    ways = [(first, 1.0), *([(second, params.second_share)] if second is not None else [])]
    steps = [way.steps(image, size) for way, _ in ways]
    total, count = max(1, sum(steps)), 0

    def done() -> None:
        nonlocal count
        count += 1
        report.progress("upscale", count, total)

    pixels = picture_room(size.height, size.width, 4)
    opaque = True
    with report.stage("upscale", total):
        for way, share in ways:
            at = 0
            with way.model.checked(report.check) if way.model is not None else nullcontext():
                for band in way.rows(image, size, done):
                    into = pixels[at : at + len(band)]
                    into[:] = band if share == 1.0 else _laid_over(into, band, share)
                    opaque = opaque and bool((band[..., 3] == 255).all())
                    at += len(band)
    told = [way.told(crop.size, size) for way, _ in ways]
    ran = {**told[0], "tiles": count if first.model is not None else 0, "working": [size.width, size.height]}
    if first.model is None:
        del ran["tiles"]
    if len(told) > 1:
        ran["second"] = {**told[1], "share": params.second_share}
    named = f"to {size.width} x {size.height}" if params.width or params.height else f"{params.scale:g} times"
    info = upscale_recipe(params, size)
    (emit or report.emit)(Layer(0, "upscale", f"Upscaled {named}", pixels, Box.of_size(size), _kind(opaque), 0, info))
    return Result((), dict(report.timings), ran)


def _kind(opaque: bool) -> str:
    return "opaque" if opaque else "soft"


def _laid_over(under: Pixels, over: Pixels, share: float) -> Pixels:
    """`share` of RGBA `over` and the rest of `under`, whose alpha is the same but for rounding."""
    mixed = under.astype(np.float32) * np.float32(1 - share) + over.astype(np.float32) * np.float32(share)
    return np.rint(mixed).astype(np.uint8)


def _size_of(image: Pixels) -> Size:
    return Size(image.shape[1], image.shape[0])


def _bands(size: Size) -> Iterator[tuple[int, int]]:
    count = upscale_bands(size)
    for band in range(count):
        yield size.height * band // count, size.height * (band + 1) // count


def tiles_of(picture: Pixels, model: UpscalerModel, times: int, side: int) -> int:
    """How many tiles `enlarged` takes."""
    height, width = picture.shape[:2]
    sizes = (Size(width * model.scale**i, height * model.scale**i) for i in range(times))
    return sum(count_tiles(size, side, model.scale) for size in sizes)


def enlarged(
    picture: Pixels, size: Size, model: UpscalerModel, times: int, side: int, done: Callable[[], None]
) -> Pixels:
    """An RGB picture after `times` (at least one) passes through the model, at `size`; `done` after each tile."""
    result = picture_room(size.height, size.width, 3)
    _stack(enlarged_rows(picture, size, model, times, side, done), result)
    return result


def enlarged_rows(
    picture: Pixels, size: Size, model: UpscalerModel, times: int, side: int, done: Callable[[], None]
) -> Iterator[Pixels]:
    """The same in bands of rows from the top; only what earlier passes made is held whole."""
    height, width = picture.shape[:2]
    sizes = [Size(width * model.scale**i, height * model.scale**i) for i in range(times + 1)]
    for reached in sizes[1:-1]:
        larger = picture_room(reached.height, reached.width, 3)
        _stack(tiled_rows(model, picture, side, done), larger)
        picture = larger
    bands = tiled_rows(model, picture, side, done)
    return bands if sizes[-1] == size else _shrunk(bands, sizes[-1], size)


def passes(own: int, scale: float) -> int:
    """How often a model of the scale `own` is applied to reach `scale` or more; never where nothing is enlarged."""
    count, reached = 0, 1
    while reached < scale:
        count, reached = count + 1, reached * own
    return count


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


def _alpha_rows(image: Pixels, size: Size, first: int, last: int) -> NDArray[np.uint8]:
    """Rows of the alpha of an RGBA picture at `size`."""
    height = image.shape[0]
    top, bottom = _window(height, size.height, first, last)
    alpha = image[top:bottom, :, 3]
    if bool((alpha == 255).all()):
        return np.full((last - first, size.width), 255, np.uint8)
    shares = _scaled(alpha.astype(np.float32) / np.float32(255), top, height, size, first, last)
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
