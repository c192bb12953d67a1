"""Small pictures of the prediction while it is still latent: a linear map from latent channels to colours."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import vae as vae_
from .jobs import Preview

__all__ = ["LatentColors", "colors_of", "fit_colors", "preview_jpeg"]

_SD1_WIDTHS = (128, 256, 512, 512)
_SD1_SCALE = 0.18215

# A1111's "cheap" matrix for the VAE of Stable Diffusion 1; it gives -1..1.
_SD1_MATRIX = ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))

_FIT_PICTURES = 6
_FIT_SIDE = 128


@dataclass(frozen=True)
class LatentColors:
    """red, green, blue in 0..1 = latent @ matrix + bias; matrix [channels, 3], bias [3]."""

    matrix: torch.Tensor
    bias: torch.Tensor


def colors_of(vae: Any, scaling_factor: float) -> LatentColors:
    """A1111's matrix for the VAE of Stable Diffusion 1, else one that is fitted to this VAE (some 0.1 s, once)."""
    config = vae.config
    if tuple(config.block_out_channels) == _SD1_WIDTHS and abs(scaling_factor - _SD1_SCALE) < 1e-6:
        return LatentColors(torch.tensor(_SD1_MATRIX) / 2, torch.full((3,), 0.5))
    return fit_colors(vae, scaling_factor)


def fit_colors(vae: Any, scaling_factor: float) -> LatentColors:
    """Least squares between the latents of smooth random pictures and the mean colours under them."""
    generator = torch.Generator("cpu").manual_seed(0)
    coarse = torch.rand(_FIT_PICTURES, 3, 6, 6, generator=generator)
    pictures = torch.nn.functional.interpolate(coarse, size=(_FIT_SIDE, _FIT_SIDE), mode="bicubic").clamp(0, 1)
    latents = vae_.encode(vae, pictures * 2 - 1, scaling_factor).cpu()
    colors = torch.nn.functional.adaptive_avg_pool2d(pictures, (latents.shape[-2], latents.shape[-1]))
    known = latents.permute(0, 2, 3, 1).flatten(0, 2)
    known = torch.cat([known, torch.ones(len(known), 1)], 1)
    # gelsy cannot be relied on for columns that depend on each other; gelsd can.
    solution = torch.linalg.lstsq(known, colors.permute(0, 2, 3, 1).flatten(0, 2), driver="gelsd").solution
    return LatentColors(solution[:-1], solution[-1])


def preview_jpeg(
    denoised: torch.Tensor, colors: LatentColors | torch.nn.Module, factor: int, max_size: int, step: int
) -> Preview:
    """A JPEG of the first picture of [batch, channels, h, w], its longest side at most `max_size` pixels; `colors` may
    be TAESD's decoder."""
    if isinstance(colors, LatentColors):
        values = denoised[0].detach().float().cpu().permute(1, 2, 0) @ colors.matrix + colors.bias
    else:
        latents = denoised[:1].detach()
        fewer = max(max(latents.shape[-2:]) * factor // max(max_size, 1), 1)
        # A preview of half the size costs a quarter.
        latents = torch.nn.functional.avg_pool2d(latents, fewer, ceil_mode=True) if fewer > 1 else latents
        decoded = vae_.decode_tiny(colors, latents).images[0]
        values, factor = (decoded.cpu().permute(1, 2, 0) + 1) / 2, 1
    small = Image.fromarray((values.nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8).numpy().astype(np.uint8))
    scale = min(factor, max_size / max(small.size))
    size = (max(round(small.width * scale), 1), max(round(small.height * scale), 1))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
    return Preview(buffer.getvalue(), *size, step)
