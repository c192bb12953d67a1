"""Inpainting around the loop: blending predictions, filling what is replaced, matching colours, cutting the layer."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from impasto_protocol.geometry import Box
from numpy.typing import NDArray
from PIL import Image

from .adapters import NetworkCall, Step
from .jobs import Pixels
from .masks import bounds_of, layer_alpha
from .pictures import joined
from .planning import MaskNumbers
from .samplers import Denoise

__all__ = [
    "InpaintChannels",
    "blend_denoise",
    "compose_layer",
    "fill_masked",
    "forget",
    "latent_mask",
    "mask_at",
    "match_colors",
    "settled",
]

Floats = NDArray[np.float32]

_CELL = 16
"""Side in pixels of the cells over which colours are compared."""


class InpaintChannels:
    """The further inputs of an inpainting checkpoint as an adapter: mask, and latents of the picture without it.

    mask [1, 1, h, w], 1 = repaint; masked [1, channels, h, w]. Without a picture to keep the mask is 1 everywhere and
    the latents are those of plain grey (A1111's rule).
    """

    def __init__(self, mask: torch.Tensor, masked: torch.Tensor) -> None:
        self.channels = torch.cat([mask, masked], 1)

    def part(self, box: Box) -> InpaintChannels:
        """Those of a latent tile."""
        part = self.channels[..., box.y : box.bottom, box.x : box.right]
        return InpaintChannels(part[:, :1], part[:, 1:])

    def attach(self, network: torch.nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def prepare(self, call: NetworkCall, step: Step) -> None:
        call.add_channels(self.channels.to(call.sample).expand(call.sample.shape[0], -1, -1, -1))

    def extra_pass(self, call: NetworkCall, step: Step) -> NetworkCall | None:
        return None


def latent_mask(denoise: Floats, height: int, width: int) -> torch.Tensor:
    """The denoise mask [H, W] at latent size, [1, 1, height, width]: the greatest value under each latent pixel.

    So every selected pixel, be it a single one, lies under a latent pixel that is repainted.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(denoise))[None, None]
    return torch.nn.functional.adaptive_max_pool2d(pixels, (height, width))


def mask_at(mask: torch.Tensor, index: int, steps: int) -> torch.Tensor:
    """Where step `index` of `steps` repaints, 0 or 1: a pixel of value m takes part in the last m of the steps.

    Differential diffusion (Levin and Fried, "Differential diffusion: giving each pixel its strength", 2023). With a
    binary mask this is the mask itself at every step.
    """
    # Half a step of slack keeps values such as 0.3 of 10 steps on their side of rounding.
    return (mask * steps >= steps - index - 1e-3).to(mask.dtype) * (mask > 0)


def blend_denoise(
    denoise: Denoise,
    mask: torch.Tensor,
    latent: torch.Tensor,
    noise: torch.Tensor,
    sigmas: torch.Tensor,
    *,
    at_once: bool = False,
) -> Denoise:
    """`denoise` that repaints only where the mask is: around it the network sees and the sampler gets the original.

    mask [1, 1, h, w] in 0..1; latent, noise [batch, channels, h, w]; sigmas: the levels of the run. Blending the
    prediction instead of the sampler's state keeps every sampler usable; with a binary mask it equals blending after
    each step. With `at_once` soft pixels take part from the first step on, for samplers that go astray where one joins.
    """
    steps, levels = len(sigmas) - 1, sigmas[:-1].tolist()
    mask = (mask > 0).to(mask.dtype) if at_once else mask
    now: torch.Tensor | None = None
    at = -1

    def blended(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        nonlocal now, at
        level = float(sigma)
        index = max(sum(known >= level for known in levels) - 1, 0)
        if now is None or index != at:
            now, at = mask_at(mask, index, steps) > 0, index
        x = torch.where(now, x, latent + sigma * noise)
        return torch.where(now, denoise(x, sigma), latent)

    return blended


def settled(latents: torch.Tensor, mask: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    """`latents` after a run, the original `latent` where the mask is 0: not every sampler ends there exactly."""
    return torch.where(mask > 0, latents, latent)


def forget(latent: torch.Tensor, mask: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
    """`latent` [1, channels, h, w] with noise, or nothing, where the mask [1, 1, h, w] is at least 1/2.

    A1111's "latent noise" and "latent nothing"; there too the noise is the first of each picture's stream, the same
    that the run then adds. Returns [batch, ...] of the noise, else [1, ...].
    """
    hole = (mask >= 0.5).to(latent.dtype)
    kept = latent * (1 - hole)
    return kept if noise is None else kept + noise * hole


def fill_masked(image: Pixels, mask: NDArray[Any]) -> Pixels:
    """`image` [h, w, 3] with what lies under mask > 0 replaced by a smooth continuation of its surroundings.

    Averages of what is known, coarser with the distance (pull and push: Gortler et al., "The lumigraph", 1996). A
    wholly masked picture becomes grey.
    """
    holes = bounds_of(mask)
    if holes is None:
        return image
    filled = _filled(image, (mask == 0).astype(np.float32), holes, 127.5)
    out = image.copy()
    # Known values are whole numbers and stay what they are.
    out[_slices(holes)] = np.clip(np.rint(filled, out=filled), 0, 255, out=filled).transpose(1, 2, 0)
    return out


def match_colors(result: Pixels, original: Pixels, repainted: NDArray[Any], within: Box | None = None) -> Pixels:
    """`result` [h, w, 3] with the colours of the rim brought to those of the original.

    Outside `repainted` (> 0) both show the same, so any difference there is the VAE's or the network's cast. Its mean
    over small cells goes on smoothly under the mask and is taken away. Equal pictures come back bit-identical. Only
    what lies `within` is changed (a box in pixels of the picture; None: everything), as far as it is of use.
    """
    outside = (np.asarray(repainted) == 0).astype(np.int16)
    if not outside.any():
        return result
    height, width = outside.shape
    difference = np.subtract(original, result, dtype=np.int16)
    difference *= outside[..., None] if width < _CELL else np.repeat(outside, 3, 1).reshape(height, width, 3)
    sums = _cells(difference)
    if not sums.any():
        return result
    weight = _cells(outside[..., None])[0]
    # A cell counts by how much of it is rim, so that a sliver does not speak for a whole cell.
    field = _pull_push(sums / np.maximum(weight, 1), weight / _CELL**2, 0.0)
    inner = within or Box(0, 0, width, height)
    source = (inner.x / _CELL, inner.y / _CELL, inner.right / _CELL, inner.bottom / _CELL)
    part, matched = _slices(inner), result.copy()
    for channel, plane in enumerate(field):
        smooth = Image.fromarray(plane).resize((inner.width, inner.height), Image.Resampling.BICUBIC, source)
        values = np.asarray(smooth) + result[(*part, channel)]
        matched[(*part, channel)] = np.clip(np.rint(values, out=values), 0, 255, out=values)
    return matched


def compose_layer(
    result: Pixels,
    box: Box,
    selection: NDArray[np.uint8],
    numbers: MaskNumbers,
    exact: bool,
    shown: NDArray[np.uint8] | None = None,
) -> tuple[Pixels, Box]:
    """The layer: the result's own colours with the layer's alpha, cut down to where the alpha is not 0, and its box.

    result [h, w, 3] and selection [h, w] cover `box`. The colours are not mixed with the original: the editor does
    that, and edges would fade twice. `shown` [h, w] takes the place of the selection's softness,
    as soft inpainting wants it: its colours are mixed already where the selection is grey.
    """
    alpha = layer_alpha(selection, numbers, exact)
    if shown is not None:
        # Of an exact selection only the faintest eighth still fades.
        within = np.minimum(alpha.astype(np.uint16) * 8, 255) if exact else alpha.astype(np.uint16)
        alpha = ((within * shown + 127) // 255).astype(np.uint8)
    inner = bounds_of(alpha) or Box(0, 0, 1, 1)
    part = _slices(inner)
    shown = result[part]
    layer = joined(shown[..., 0], shown[..., 1], shown[..., 2], alpha[part])
    return layer, Box(box.x + inner.x, box.y + inner.y, inner.width, inner.height)


def _slices(box: Box) -> tuple[slice, slice]:
    return slice(box.y, box.bottom), slice(box.x, box.right)


def _planes(picture: NDArray[Any]) -> Floats:
    """[h, w, c] as float32 [c, h, w]."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32)


def _cells(values: NDArray[np.int16]) -> Floats:
    """Sums of [h, w, c] over squares of _CELL, [c, rows, columns]; those at the lower and right edge may be smaller."""
    height, width, channels = values.shape
    values = np.pad(values, ((0, -height % _CELL), (0, -width % _CELL), (0, 0)))
    rows, columns = values.shape[0] // _CELL, values.shape[1] // _CELL
    # Along whole lines first: that is quick.
    lines = values.reshape(rows, _CELL, -1).sum(1, dtype=np.int32).reshape(rows, columns, _CELL, channels)
    return np.ascontiguousarray(lines.sum(2).transpose(2, 0, 1), np.float32)


def _filled(image: Pixels, known: Floats, holes: Box, default: float) -> Floats:
    """What `_pull_push` gives for the planes of `image` in `holes`, where alone something is unknown, [c, h, w].

    Its finest level, by far the largest, is worked out around the holes only.
    """
    height, width = known.shape
    if holes == Box(0, 0, width, height) or min(height, width) < 2 * _CELL:
        return _pull_push(_planes(image), known, default)[:, *_slices(holes)]
    x, y = holes.x // 2, holes.y // 2
    around = Box(
        2 * x, 2 * y, min(-(-holes.right // 2) * 2, width) - 2 * x, min(-(-holes.bottom // 2) * 2, height) - 2 * y
    )
    part = _slices(around)
    planes, weight = _planes(image[part]), known[part]
    mean, total = _halved(planes, weight)
    coarse = _planes(np.asarray(Image.fromarray(image).reduce(2)))
    covered = np.ones(coarse.shape[1:], np.float32)
    below = slice(y, y + mean.shape[1]), slice(x, x + mean.shape[2])
    coarse[:, *below], covered[below] = mean, np.minimum(total, 1.0)
    coarse = _pull_push(coarse, covered, default)
    inner = Box(holes.x - around.x, holes.y - around.y, holes.width, holes.height)
    return _pushed(planes, weight, coarse, inner, (x, y))[:, *_slices(inner)]


def _halved(planes: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """The means of each 2 x 2 of what is known, and the sums of its weights."""
    height, width = weight.shape
    known, covered = planes * weight, weight
    if height % 2 or width % 2:
        even = ((0, height % 2), (0, width % 2))
        known, covered = np.pad(known, ((0, 0), *even)), np.pad(weight, even)
    total = _of_four(covered)
    return (_of_four(known) / np.maximum(total, 1e-6)).astype(np.float32, copy=False), total


def _pushed(planes: Floats, weight: Floats, coarse: Floats, holes: Box, origin: tuple[int, int] = (0, 0)) -> Floats:
    """`planes` with what is missing in `holes` taken from the coarser level, in which they begin at `origin`."""
    part = _slices(holes)
    left, top = origin[0] + holes.x / 2, origin[1] + holes.y / 2
    source = (left, top, left + holes.width / 2, top + holes.height / 2)
    share = np.minimum(weight[part], 1.0)
    rest = 1 - share
    out = planes.copy()
    for plane, below in zip(out, coarse, strict=True):
        finer = Image.fromarray(below).resize((holes.width, holes.height), Image.Resampling.BILINEAR, source)
        plane[part] = plane[part] * share + np.asarray(finer) * rest
    return out


def _pull_push(planes: Floats, weight: Floats, default: float) -> Floats:
    """`planes` [c, h, w] where `weight` [h, w] is 1, continued smoothly where it is 0; in between a mixture."""
    height, width = weight.shape
    holes = bounds_of(weight < 1)
    if holes is None:
        return planes
    if max(height, width) == 1:
        return planes if weight[0, 0] > 0 else np.full_like(planes, default)
    mean, total = _halved(planes, weight)
    coarse = _pull_push(mean, np.minimum(total, 1.0), default)
    # What is whole stays as it is: only where something is missing the coarser level is looked at.
    return _pushed(planes, weight, coarse, holes)


def _of_four(values: Floats) -> Floats:
    """The sum of each 2 x 2 of the last two axes, whose lengths are even."""
    upper, lower = values[..., 0::2, :], values[..., 1::2, :]
    out: Floats = upper[..., 0::2] + upper[..., 1::2] + lower[..., 0::2] + lower[..., 1::2]
    return out
