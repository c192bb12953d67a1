"""Soft inpainting, as AUTOMATIC1111 has it from 1.8 on: a mask that stays grey, and an alpha from what has changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from impasto_protocol.geometry import Size
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .jobs import Pixels
from .params_soft import Soft
from .sampling import Denoise

__all__ = ["changed_alpha", "mix", "percentile_mean", "soft_denoise", "soft_mask"]

Floats = NDArray[np.float32]

_RADIUS, _DEVIATION = 2, 1.5
"""Of the neighbourhood in which differences are smoothed, in latent pixels."""

_BLUR = 4
"""Deviation in working pixels by which the alpha is smoothed."""


def soft_mask(strength: Floats, height: int, width: int) -> torch.Tensor:
    """The denoise mask [H, W] at latent size, [1, 1, height, width]: the mean under each latent pixel."""
    pixels = torch.from_numpy(np.ascontiguousarray(strength))[None, None]
    return torch.nn.functional.adaptive_avg_pool2d(pixels, (height, width))


def soft_denoise(denoise: Denoise, mask: torch.Tensor, latent: torch.Tensor, params: Soft) -> Denoise:
    """`denoise` whose predictions are mixed with the original by mask ** (sigma ** bias * preservation).

    mask [1, 1, h, w] in 0..1; latent [1, channels, h, w]. So a grey place is kept while there is much noise, and let go
    as it falls.
    """

    def blended(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        share = mask ** (float(sigma) ** params.soft_bias * params.soft_preservation) * (mask > 0)
        return mix(latent, denoise(x, sigma), share, params.soft_contrast)

    return blended


def mix(a: torch.Tensor, b: torch.Tensor, share: torch.Tensor, power: float) -> torch.Tensor:
    """a * (1 - share) + b * share, with the length of each latent's vector that of the power mean of both lengths.

    a, b [pictures, channels, h, w], share [1, 1, h, w]. A straight mixture of unlike vectors is short, which shows as
    grey; a high power takes the length of the longer one. Where the share is 0 or 1 it is that side, to the last bit.
    """
    straight = a * (1 - share) + b * share
    lengths = [side.norm(dim=1, keepdim=True) for side in (a, b)]
    # By the greater one, so that high powers neither overflow nor vanish.
    greatest = torch.maximum(*lengths).clamp_min(1e-12)
    powered = [(length / greatest) ** power for length in lengths]
    wanted = greatest * (powered[0] * (1 - share) + powered[1] * share) ** (1 / power)
    scaled = straight * (wanted / straight.norm(dim=1, keepdim=True).clamp_min(1e-5))
    inside = (share > 0) & (share < 1)
    return torch.where(inside, scaled, straight)


def changed_alpha(result: torch.Tensor, original: torch.Tensor, mask: torch.Tensor, params: Soft, size: Size) -> Pixels:
    """How far the result shows, uint8 [size.height, size.width], from how far its latents are from the original's.

    result, original [channels, h, w]; mask [h, w] in 0..1. 255 where they are far apart.
    """
    distance = (result.float() - original.float()).norm(dim=0).cpu().numpy()
    # Peaks count for their surroundings; then what stands alone is smoothed away.
    distance = percentile_mean(percentile_mean(distance, 0.9, 1.0), 0.25, 0.75)
    kept = 1 - np.clip(mask.float().cpu().numpy(), 0, 1) ** (params.soft_preservation / 2)
    influence = params.soft_mask_influence
    odds = 0.5 * (1 - influence) + kept * influence
    half = params.soft_threshold * odds / (1.00001 - odds)
    ratio = distance / np.maximum(half, 1e-9)
    hidden = 1 / (1 + np.minimum(ratio, 1e6) ** params.soft_difference_contrast)
    shown = 1 - hidden**3 * (hidden * (hidden * 6 - 15) + 10)
    alpha = Image.fromarray(np.clip(255 * shown, 0, 255).astype(np.uint8))
    alpha = alpha.resize((size.width, size.height), Image.Resampling.LANCZOS)
    return np.asarray(alpha.filter(ImageFilter.GaussianBlur(_BLUR)))


def percentile_mean(values: Floats, low: float, high: float) -> Floats:
    """Of each place the mean of the values around it between two percentiles, by weights that fall off as a Gaussian.

    What lies beyond the border has no weight.
    """
    height, width = values.shape
    steps = range(-_RADIUS, _RADIUS + 1)
    padded = np.pad(values, _RADIUS)
    there = np.pad(np.ones_like(values), _RADIUS)
    stacked, weights = [], []
    for dy in steps:
        for dx in steps:
            part = (slice(_RADIUS + dy, _RADIUS + dy + height), slice(_RADIUS + dx, _RADIUS + dx + width))
            stacked.append(padded[part])
            weights.append(there[part] * np.exp(-(dx * dx + dy * dy) / (2 * _DEVIATION**2)))
    around: NDArray[Any] = np.stack(stacked)
    weight: NDArray[Any] = np.stack(weights)
    order = np.argsort(around, axis=0, kind="stable")
    around = np.take_along_axis(around, order, 0)
    ends = np.cumsum(np.take_along_axis(weight, order, 0), axis=0)
    total = ends[-1]
    starts = np.concatenate([np.zeros_like(ends[:1]), ends[:-1]])
    counted = np.clip(np.minimum(ends, high * total) - np.maximum(starts, low * total), 0, None)
    mean: Floats = ((around * counted).sum(0) / np.maximum(counted.sum(0), 1e-12)).astype(np.float32)
    return mean
