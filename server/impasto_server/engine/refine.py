"""Image to image over a picture of any size in tiles: latent ones that are painted together, or pixel tiles in turn.

Pixel tiles are what the script Ultimate SD upscale does: each is an inpainting of its own with what is around it in
view. Here a tile also repaints a rim of what the one before has painted, starting from the original, and fades into it:
no place keeps less detail because it lies on a border.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from impasto_protocol.geometry import Box, Size
from numpy.typing import NDArray
from PIL import Image

from . import vae_tiled
from .inpaint import InpaintChannels, blend_denoise, fill_masked
from .jobs import Pixels
from .memory import free_bytes
from .noise import noise_sources, with_noise
from .params_refine import Refine
from .sampler_names import SAMPLER_INFO
from .scratch import picture_room
from .stages import Passed
from .tiled import tile_spans
from .work import Work

__all__ = ["hold_colors", "patches", "refine"]

_CELL = 16
"""Side in pixels of the cells whose colours are compared."""

_SMOOTH = 1.0
"""Deviation in cells of what smoothes their differences: enough that no cell can be seen."""

_BAND = 1024
"""Rows of a large picture that are worked on at once."""


@dataclass(frozen=True)
class Patch:
    """One inpainting: `paint` is repainted, `region` is what the model sees of the picture, both in pixels.

    `fade` are the pixels at its left, top, right and bottom over which it comes in; 0 at a border of the picture, and
    where the next tile will cover what it leaves. From `fresh` on it starts from the original, else from what is there.
    """

    paint: Box
    region: Box
    fade: tuple[int, int, int, int]
    fresh: bool


def refine(run: Work, _: object = None) -> Passed:
    """The job's picture refined by `params.strength`, in the colours and with the alpha that it has."""
    params, job, box = run.params, run.job, run.plan.box
    assert isinstance(params, Refine) and job.image is not None
    size = run.plan.working
    padded = _padded(job.image, size)
    source = _colors(padded)
    run = replace(run, job=replace(job, image=padded))
    tiling = params.tiling if params.tiling != "auto" else _tiling(run)
    if params.strength == 0:
        made = [source] * len(run.seeds)
    else:
        made = (_in_latent_tiles if tiling == "latent" else _in_pixel_tiles)(run, params, source)
    run.tiling = tiling
    pictures = []
    for picture in made:
        run.report.check()
        picture = run.finished(picture)[: box.height, : box.width]
        pictures.append(hold_colors(picture, source[: box.height, : box.width]) if params.hold_color else picture)
    alpha = job.image[..., 3]
    soft = bool((alpha < 255).any())

    def finish(index: int, picture: Pixels) -> tuple[Pixels, Box]:
        whole = picture_room(box.height, box.width, 4)
        whole[..., :3], whole[..., 3] = picture, alpha
        return whole, box

    empty = torch.empty(0, int(run.components.unet.config.out_channels), 1, 1)
    return Passed(run, empty, "soft" if soft else "opaque", finish, tuple(pictures))


def _tiling(run: Work) -> str:
    """Latent tiles where the VAE's maps of the whole picture fit into the host's memory."""
    size, net = run.plan.working, run.components.vae
    host = free_bytes(torch.device("cpu"))
    return "pixel" if vae_tiled.needs_tiles(net, size.height, size.width, host) else "latent"


def _padded(image: Pixels, size: Size) -> Pixels:
    """The RGBA picture at `size`, which is less than a latent pixel larger: its right and lower rim go on."""
    height, width = image.shape[:2]
    if (width, height) == tuple(size):
        return image
    room = picture_room(size.height, size.width, 4)
    room[:height, :width] = image
    room[:height, width:] = image[:, -1:]
    room[height:] = room[height - 1 : height]
    return room


def _colors(image: Pixels) -> Pixels:
    """RGB of an RGBA picture; what is wholly transparent is filled from its surroundings, for the model to see."""
    hidden = image[..., 3] == 0
    if hidden.any() and not hidden.all():
        return fill_masked(image[..., :3], hidden)
    room = picture_room(image.shape[0], image.shape[1], 3)
    room[:] = image[..., :3]
    return room


# ---- (a) latent tiles


def _in_latent_tiles(run: Work, params: Refine, source: Pixels) -> list[Pixels]:
    with run.report.stage("encode"):
        latent = run.encode(source)
        denoiser = run.tiled_denoiser(params.strength, params)
    x = with_noise(params, latent, run.noise(), denoiser.sigmas[0])
    latents = run.sample(denoiser, denoiser, x)
    with run.report.stage("compose", len(latents)):
        return [run.pixels(latents[index : index + 1]) for index in range(len(latents))]


# ---- (b) pixel tiles


def _in_pixel_tiles(run: Work, params: Refine, source: Pixels) -> list[Pixels]:
    size = run.plan.working
    native = run.native_size
    tiles = list(
        patches(size, params.tile_side(native), params.tile_overlap(native, 0.125), params.tile_context(native))
    )
    seams = list(_seams(size, params, native))
    total = len(tiles) + len(seams)
    with run.report.stage("encode"):
        noise = run.noise().cpu()
        pictures = []
        for _ in run.seeds:
            picture = picture_room(size.height, size.width, 3)
            picture[:] = source
            pictures.append(picture)
    steps = 0
    with run.report.stage("denoise", total):
        for index, patch in enumerate((*tiles, *seams)):
            strength = params.strength if index < len(tiles) else params.seam_strength
            if strength > 0:
                part = _one(run, params, source, pictures, noise, patch, strength, (index, total))
                steps = part.steps if index == 0 else steps
            run.report.check()
    run.steps = steps
    return pictures


def _one(
    run: Work,
    params: Refine,
    source: Pixels,
    pictures: list[Pixels],
    noise: torch.Tensor,
    patch: Patch,
    strength: float,
    turn: tuple[int, int],
) -> Work:
    """Paint one patch into all the pictures."""
    factor, region = run.components.latent_factor, patch.region
    rows, columns = slice(region.y, region.bottom), slice(region.x, region.right)
    assert run.job.image is not None
    # What a control unit without a picture of its own looks at is this part alone, not a hint of the whole.
    own = replace(run.job, image=np.ascontiguousarray(run.job.image[rows, columns]))
    part = replace(run.part(region), job=own)
    if turn[1] > 1:
        seeds = [(seed + turn[0]) % 2**32 for seed in run.seeds]
        part.sources = noise_sources(params, seeds, factor)
    else:
        part.sources = run.sources  # they have given the noise that it starts from
    cells = Box(*(v // factor for v in region))
    inner = Box(patch.paint.x - region.x, patch.paint.y - region.y, patch.paint.width, patch.paint.height)
    mask = torch.zeros(1, 1, cells.height, cells.width)
    left, top = inner.x // factor, inner.y // factor
    right, bottom = math.ceil(inner.right / factor), math.ceil(inner.bottom / factor)
    mask[..., top:bottom, left:right] = 1
    mask = mask.to(run.components.device)
    around = torch.cat([part.encode(np.ascontiguousarray(picture[rows, columns])) for picture in pictures])
    start = around
    if patch.fresh:
        begun = []
        for picture in pictures:
            view = picture[rows, columns].copy()
            paint = patch.paint
            view[inner.y : inner.bottom, inner.x : inner.right] = source[paint.y : paint.bottom, paint.x : paint.right]
            begun.append(part.encode(view))
        start = torch.cat(begun)
    adapters = part.whole_channels() if part.edits else ()
    if part.has_inpaint_channels:
        view = source[rows, columns].copy()
        view[inner.y : inner.bottom, inner.x : inner.right] = 127
        adapters = (InpaintChannels(mask, part.encode(view)),)
    denoiser = part.denoiser(strength, adapters)
    seen = noise[..., cells.y : cells.bottom, cells.x : cells.right].to(around)
    carries = SAMPLER_INFO[params.sampler].carries
    denoise = (
        denoiser
        if bool((mask > 0).all())
        else blend_denoise(denoiser, mask, around, seen, denoiser.sigmas, at_once=carries)
    )
    latents = part.sample(denoiser, denoise, with_noise(params, start, seen, denoiser.sigmas[0]), turn)
    latents = torch.where(mask > 0, latents, around)
    share = _share(patch)[..., None]
    for index, picture in enumerate(pictures):
        made = part.pixels(latents[index : index + 1])[inner.y : inner.bottom, inner.x : inner.right]
        under = picture[patch.paint.y : patch.paint.bottom, patch.paint.x : patch.paint.right]
        under[:] = np.rint(under + (made.astype(np.float32) - under) * share).astype(np.uint8)
    run.vae_dtype = part.vae_dtype
    return part


def patches(size: Size, side: int, overlap: int, padding: int) -> Iterator[Patch]:
    """The tiles of a picture, row by row: `side` long, sharing `overlap`, seen with `padding` around; all in pixels,
    multiples of 8. Each fades into those above and to the left over what they share."""
    across, down = tile_spans(size.width, side, overlap), tile_spans(size.height, side, overlap)
    across, down = [_even(span) for span in across], [_even(span) for span in down]
    for row, (top, bottom) in enumerate(down):
        for column, (left, right) in enumerate(across):
            paint = Box(left, top, right - left, bottom - top)
            fade_left = across[column - 1][1] - left if column else 0
            fade_top = down[row - 1][1] - top if row else 0
            yield Patch(paint, _seen(paint, padding, size), (fade_left, fade_top, 0, 0), fresh=True)


def _even(span: tuple[int, int]) -> tuple[int, int]:
    start = span[0] // 8 * 8
    return start, start + span[1] - span[0]


def _seen(paint: Box, padding: int, size: Size) -> Box:
    """The paint with `padding` around; on the picture as large, where it is large enough."""
    width, height = min(paint.width + 2 * padding, size.width), min(paint.height + 2 * padding, size.height)
    x = min(max(paint.x - padding, 0), size.width - width)
    y = min(max(paint.y - padding, 0), size.height - height)
    return Box(x, y, width, height)


def _seams(size: Size, params: Refine, native: int) -> Iterator[Patch]:
    """What is painted once more along the borders of the tiles."""
    side, overlap = params.tile_side(native), params.tile_overlap(native, 0.125)
    padding = params.tile_context(native)
    across = [_even(span) for span in tile_spans(size.width, side, overlap)]
    down = [_even(span) for span in tile_spans(size.height, side, overlap)]
    if params.seam_fix == "none":
        return
    borders_x = [(a[1] + b[0]) // 2 // 8 * 8 for a, b in itertools.pairwise(across)]
    borders_y = [(a[1] + b[0]) // 2 // 8 * 8 for a, b in itertools.pairwise(down)]
    half = params.seam_width // 2 if params.seam_fix == "band" else side // 2
    half = max(half // 8 * 8, 8)
    for x in borders_x:
        for top, bottom in down:
            yield _seam(Box(x - half, top, 2 * half, bottom - top), half, 0, padding, size)
    for y in borders_y:
        for left, right in across:
            yield _seam(Box(left, y - half, right - left, 2 * half), 0, half, padding, size)
    if params.seam_fix == "half_tile_intersections":
        for y in borders_y:
            for x in borders_x:
                yield _seam(Box(x - half, y - half, 2 * half, 2 * half), half, half, padding, size)


def _seam(paint: Box, fade_x: int, fade_y: int, padding: int, size: Size) -> Patch:
    """A patch that comes in from all its sides, but for those at a border of the picture."""
    kept = paint.intersect(Box.of_size(size))
    assert kept is not None, "a border lies on the picture"
    rim = 16
    fade = (
        (fade_x or rim) if kept.x else 0,
        (fade_y or rim) if kept.y else 0,
        (fade_x or rim) if kept.right < size.width else 0,
        (fade_y or rim) if kept.bottom < size.height else 0,
    )
    return Patch(kept, _seen(kept, padding, size), fade, fresh=False)


def _share(patch: Patch) -> NDArray[np.float32]:
    """How much of a patch is seen at each of its pixels, [height, width]."""
    left, top, right, bottom = patch.fade
    down, across = _rising(patch.paint.height, top, bottom), _rising(patch.paint.width, left, right)
    share: NDArray[np.float32] = np.minimum(down[:, None], across[None, :])
    return share


def _rising(length: int, first: int, last: int) -> NDArray[np.float32]:
    places = np.arange(length, dtype=np.float32) + 0.5
    share = np.ones(length, np.float32)
    for width, distance in ((first, places), (last, length - places)):
        if width:
            part = np.clip(distance / width, 0, 1)
            share = np.minimum(share, part * part * (3 - 2 * part))
    return share


# ---- colours


def hold_colors(picture: Pixels, original: Pixels) -> Pixels:
    """`picture` with the coarse colours of `original`, both RGB of one size: what is coarser than some 64 pixels.

    The difference of the means of cells, smoothed and added; three times, since smoothing leaves some of it. Band by
    band, so that it takes little memory.
    """
    for _ in range(3):
        picture = _nearer(picture, original)
    return picture


def _nearer(picture: Pixels, original: Pixels) -> Pixels:
    height, width = picture.shape[:2]
    down, across = math.ceil(height / _CELL), math.ceil(width / _CELL)
    apart = np.empty((down, across, 3), np.float32)
    starts = np.arange(0, width, _CELL)
    for row in range(down):
        band = slice(row * _CELL, min((row + 1) * _CELL, height))
        change = original[band].astype(np.float32).sum(0) - picture[band].astype(np.float32).sum(0)
        counts = np.diff(np.append(starts, width)) * (band.stop - band.start)
        apart[row] = np.add.reduceat(change, starts, axis=0) / counts[:, None]
    result = picture_room(height, width, 3)
    apart = _smoothed(_smoothed(apart, 0), 1)
    maps = [Image.fromarray(np.pad(apart[..., c], 1, mode="edge")) for c in range(3)]
    for first in range(0, height, _BAND):
        last = min(first + _BAND, height)
        # The map has a cell more on each side; its cells are squares of _CELL, the last ones too.
        area = (1.0, 1 + first / _CELL, 1 + width / _CELL, 1 + last / _CELL)
        planes = [
            np.asarray(m.resize((width, last - first), Image.Resampling.BICUBIC, box=area), np.float32) for m in maps
        ]
        moved = picture[first:last] + np.stack(planes, axis=-1)
        result[first:last] = np.rint(np.clip(moved, 0, 255)).astype(np.uint8)
    return result


def _smoothed(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Along an axis by a Gaussian of _SMOOTH cells, the rim repeated outwards."""
    reach = math.ceil(3 * _SMOOTH)
    places = np.arange(-reach, reach + 1)
    weights = np.exp(-(places**2) / (2 * _SMOOTH**2))
    weights /= weights.sum()
    pads = [(reach, reach) if index == axis else (0, 0) for index in range(values.ndim)]
    padded, length = np.pad(values, pads, mode="edge"), values.shape[axis]
    parts = (w * np.take(padded, range(at, at + length), axis) for at, w in enumerate(weights))
    return np.asarray(sum(parts), np.float32)
