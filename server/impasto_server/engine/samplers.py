"""Samplers as plain functions, see `sampling.Sampler`: Euler, Heun, DPM++ 2M, DDIM, and the table of all.

Nothing here knows networks, guidance or masks.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from .noise import Noise
from .samplers_sde import ancestral, sample_dpmpp_2m_sde, sample_dpmpp_sde, sample_lcm
from .samplers_unipc import sample_unipc
from .sampling import Denoise, OnStep, Sampler

__all__ = [
    "SAMPLERS",
    "Denoise",
    "OnStep",
    "Sampler",
    "sample_ddim",
    "sample_dpmpp_2m",
    "sample_euler",
    "sample_euler_ancestral",
    "sample_heun",
]


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
        down, up = ancestral(now, after, eta)
        x = x + (x - denoised) / now * (down - now)
        if after > 0:
            x = x + noise(x) * up
    return x


def sample_heun(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep) -> torch.Tensor:
    """Heun's second-order steps: Karras et al., 2022, algorithm 2 without churn.

    The slope is the mean of those at both ends of the step, so it calls `denoise` twice; the step to 0 is Euler's.
    """
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        slope = (x - denoised) / now
        predicted: torch.Tensor = x + slope * (after - now)
        if after == 0:
            return predicted
        second = (predicted - denoise(predicted, after)) / after
        x = x + (slope + second) / 2 * (after - now)
    return x


def sample_ddim(
    denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep, eta: float = 0.0
) -> torch.Tensor:
    """DDIM: Song et al., "Denoising diffusion implicit models", 2021, equation 12, in sigma space.

    The predicted noise takes the prediction to the next level. Over the same levels that is Euler (eta 0) or Euler a
    (eta 1) but for rounding; it is kept because pictures name it.
    """
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        down, up = ancestral(now, after, eta)
        x = denoised + (x - denoised) / now * down
        if eta > 0 and after > 0:
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
    "heun": (sample_heun, "Heun"),
    "dpmpp_2m": (sample_dpmpp_2m, "DPM++ 2M"),
    "dpmpp_sde": (sample_dpmpp_sde, "DPM++ SDE"),
    "dpmpp_2m_sde": (sample_dpmpp_2m_sde, "DPM++ 2M SDE"),
    "ddim": (sample_ddim, "DDIM"),
    "unipc": (sample_unipc, "UniPC"),
    "lcm": (sample_lcm, "LCM"),
}
"""Name -> (function, A1111's name)."""
