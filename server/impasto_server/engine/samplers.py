"""Samplers as plain functions: (denoise, x, sigmas, noise, on_step) -> x at the last sigma.

`x` is [batch, channels, height, width] with noise of standard deviation sigmas[0]; `denoise(x, sigma)` predicts the
picture without noise; `noise(like)` draws fresh noise; `on_step(index, denoised)` is called after each prediction and
stops the run by raising. Nothing here knows networks, guidance or masks.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import torch

from .noise import Noise

__all__ = ["SAMPLERS", "Denoise", "OnStep", "Sampler", "sample_dpmpp_2m", "sample_euler", "sample_euler_ancestral"]

Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x, sigma as a 0-d tensor) -> x0, the picture without noise; all of the shape of x."""

OnStep = Callable[[int, torch.Tensor], None]
"""(index of the step from 0, x0)."""


class Sampler(Protocol):
    def __call__(
        self, denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep
    ) -> torch.Tensor: ...


def sample_euler(
    denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep
) -> torch.Tensor:
    """Euler steps along dx/dsigma = (x - x0) / sigma: Karras et al., 2022, algorithm 2 without churn and correction."""
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        x = x + (x - denoised) / now * (after - now)
    return x


def sample_euler_ancestral(
    denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep, eta: float = 1.0
) -> torch.Tensor:
    """Euler steps to a lower level and back up with fresh noise.

    The split into a deterministic and a random part is that of ancestral sampling: Song et al., "Denoising diffusion
    implicit models", 2021, equation 16; eta 1 is full, 0 is plain Euler.
    """
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        up = eta * (after**2 * (now**2 - after**2) / now**2) ** 0.5
        up = torch.minimum(up, after)
        down = (after**2 - up**2) ** 0.5
        x = x + (x - denoised) / now * (down - now)
        if after > 0:
            x = x + noise(x) * up
    return x


def sample_dpmpp_2m(
    denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep
) -> torch.Tensor:
    """DPM-Solver++(2M), second-order multistep: Lu et al., "DPM-Solver++", 2022, algorithm 2, in sigma space.

    With lambda = -log sigma a step of h is exact for a constant x0; the last two predictions extrapolate it. The first
    and the last step are of first order.
    """
    previous: torch.Tensor | None = None
    previous_h = torch.tensor(0.0)
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        if after == 0:
            return denoised
        h = (now / after).log()
        target = denoised
        if previous is not None:
            target = denoised + (denoised - previous) * (h / (2 * previous_h))
        x = after / now * x - torch.expm1(-h) * target
        previous, previous_h = denoised, h
    return x


SAMPLERS: dict[str, tuple[Sampler, str]] = {
    "euler": (sample_euler, "Euler"),
    "euler_a": (sample_euler_ancestral, "Euler a"),
    "dpmpp_2m": (sample_dpmpp_2m, "DPM++ 2M"),
}
"""Name -> (function, A1111's name)."""
