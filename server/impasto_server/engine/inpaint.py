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
    """Where step `index` of `steps` repaints, as booleans: a pixel of value m takes part in the last m of the steps.

    Differential diffusion (Levin and Fried, "Differential diffusion: giving each pixel its strength", 2023). With a
    binary mask this is the mask itself at every step.
    """
    # Half a step of slack keeps values such as 0.3 of 10 steps on their side of rounding.
    return (mask * steps >= steps - index - 1e-3) & (mask > 0)


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
    now, at = mask > 0, -1
    constant = at_once or bool(((mask == 0) | (mask == 1)).all())

    def blended(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        nonlocal now, at
        if not constant:
            level = float(sigma)
            index = max(sum(known >= level for known in levels) - 1, 0)
            if index != at:
                now, at = mask_at(mask, index, steps), index
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
    filled = _filled(image, np.asarray(mask) == 0, holes)
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
    outside = np.asarray(repainted) == 0
    if not outside.any():
        return result
    height, width = outside.shape
    difference = np.subtract(original, result, dtype=np.int16)
    holes = bounds_of(~outside)
    if holes is not None:
        shown = outside[_slices(holes)]
        # Whole lines of numbers: much quicker than a mask laid over the colours of each pixel.
        difference[_slices(holes)] *= np.repeat(shown, 3, 1).reshape(*shown.shape, 3)
    sums = _cells(difference)
    if not sums.any():
        return result
    weight = _cells(outside[..., None].view(np.uint8).astype(np.int16))[0]
    # A cell counts by how much of it is rim, so that a sliver does not speak for a whole cell.
    known = torch.from_numpy(weight / _CELL**2)[None, None]
    field = _pull_push(torch.from_numpy(sums / np.maximum(weight, 1))[None], known, 0.0)[0].numpy()
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


def _planes(picture: NDArray[Any]) -> torch.Tensor:
    """[h, w, c] as float32 [1, c, h, w]."""
    return torch.from_numpy(np.require(picture, requirements=("C", "W"))).permute(2, 0, 1)[None].float().contiguous()


def _cells(values: NDArray[np.int16]) -> Floats:
    """Sums of [h, w, c] over squares of _CELL, [c, rows, columns]; those at the lower and right edge may be smaller."""
    height, width, channels = values.shape
    if height % _CELL or width % _CELL:
        values = np.pad(values, ((0, -height % _CELL), (0, -width % _CELL), (0, 0)))
    rows, columns = values.shape[0] // _CELL, values.shape[1] // _CELL
    # Along whole lines first: that is quick. 16 differences of 8-bit values, at most 4,080, stay within 16 bits.
    lines = values.reshape(rows, _CELL, -1).sum(1, dtype=np.int16).reshape(rows, columns, _CELL, channels)
    return np.ascontiguousarray(lines.sum(2, dtype=np.int32).transpose(2, 0, 1), np.float32)


def _filled(image: Pixels, known: NDArray[np.bool_], holes: Box) -> Floats:
    """The planes of `image` in `holes`, where alone something is not known, continued from around them, [c, h, w].

    The finer levels, by far the largest, are worked out around the holes only: in a box that begins and ends where the
    squares of the first whole level do, or at the picture's edge.
    """
    height, width = known.shape
    x, y = holes.x // _CELL * _CELL, holes.y // _CELL * _CELL
    right, bottom = min(-(-holes.right // _CELL) * _CELL, width), min(-(-holes.bottom // _CELL) * _CELL, height)
    around = Box(x, y, right - x, bottom - y)
    planes, weight = _planes(image[_slices(around)]), torch.from_numpy(known[_slices(around)])[None, None].float()
    inner = _slices(Box(holes.x - x, holes.y - y, holes.width, holes.height))
    whole = _around(Image.fromarray(image), planes, weight, around, _CELL)
    return whole[0, :, *inner].numpy()


def _around(level: Image.Image, planes: torch.Tensor, weight: torch.Tensor, box: Box, side: int) -> torch.Tensor:
    """`_pull_push` of a level of the picture in `box` alone, planes [1, c, h, w] and weight [1, 1, h, w] of it.

    `level` shows what lies around the box. The box begins at a multiple of `side`, a power of 2, and ends at one or at
    the edge; at a side of 1 the level is taken as a whole.
    """
    if weight.min() >= 1:
        return planes
    if side == 1:
        whole = _planes(np.asarray(level))
        covered = torch.ones(1, 1, level.height, level.width)
        whole[..., *_slices(box)], covered[..., *_slices(box)] = planes, weight
        return _pull_push(whole, covered, 127.5)[..., *_slices(box)]
    mean, total = _halved(planes, weight)
    coarse, below = level.reduce(2), Box(box.x // 2, box.y // 2, mean.shape[3], mean.shape[2])
    filled = _around(coarse, mean, total, below, side // 2)
    # One more square on each side, for the slope between those at the rim.
    left, top = max(below.x - 1, 0), max(below.y - 1, 0)
    rim = _planes(
        np.asarray(coarse.crop((left, top, min(below.right + 1, coarse.width), min(below.bottom + 1, coarse.height))))
    )
    x, y = below.x - left, below.y - top
    rim[..., y : y + below.height, x : x + below.width] = filled
    return _pushed(planes, weight, _doubled(rim)[..., 2 * y :, 2 * x :])


def _halved(planes: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The means of each 2 x 2 of what is known, and the sums of its weights, at most 1."""
    height, width = weight.shape[2:]
    known = planes * weight
    if height % 2 or width % 2:
        even = (0, width % 2, 0, height % 2)
        known, weight = torch.nn.functional.pad(known, even), torch.nn.functional.pad(weight, even)
    total = torch.nn.functional.avg_pool2d(weight, 2, divisor_override=1)
    sums = torch.nn.functional.avg_pool2d(known, 2, divisor_override=1)
    return sums / total.clamp(min=1e-6), total.clamp(max=1)


def _doubled(coarse: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)


def _pushed(planes: torch.Tensor, weight: torch.Tensor, finer: torch.Tensor) -> torch.Tensor:
    """`planes` with what is missing taken from `finer`; what is whole stays what it is, to the last bit."""
    finer = finer[..., : planes.shape[2], : planes.shape[3]]
    return torch.where(weight >= 1, planes, torch.lerp(finer, planes, weight))


def _pull_push(planes: torch.Tensor, weight: torch.Tensor, default: float) -> torch.Tensor:
    """`planes` [1, c, h, w] where `weight` [1, 1, h, w] is 1, continued where it is 0; in between a mixture."""
    if weight.min() >= 1:
        return planes
    if max(planes.shape[2:]) == 1:
        return planes if weight[0, 0, 0, 0] > 0 else torch.full_like(planes, default)
    return _pushed(planes, weight, _doubled(_pull_push(*_halved(planes, weight), default)))
