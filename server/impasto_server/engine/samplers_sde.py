"""Samplers that add fresh noise between their steps: DPM++ SDE, DPM++ 2M SDE, LCM (Euler a is in `samplers`).

Where the noise comes from: a solver of the reverse SDE needs the increments of a Brownian motion in sigma. Over
intervals that do not overlap they are independent normal numbers, so they are drawn one after the other from each
picture's own stream, like the noise of Euler a; where two increments overlap (DPM++ SDE) the longer one is put together
from the parts. That is exact and the same at any batch size, and needs no tree. A tree (torchsde, which A1111 uses)
would also keep one path for all numbers of steps; A1111's pictures of these samplers cannot be had without its tree.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from .noise import Noise
from .sampling import Denoise, OnStep

__all__ = ["ancestral", "sample_dpmpp_2m_sde", "sample_dpmpp_sde", "sample_lcm"]


def ancestral(now: torch.Tensor, after: torch.Tensor, eta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The level to step down to, and the noise to add there, so that both together make `after`.

    Song et al., "Denoising diffusion implicit models", 2021, equation 16; eta 1 is the whole of the reverse process's
    noise, 0 none.
    """
    up = eta * (after**2 * (now**2 - after**2) / now**2) ** 0.5
    up = torch.minimum(up, after)
    return (after**2 - up**2) ** 0.5, up


def sample_dpmpp_sde(
    denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep, eta: float = 1.0
) -> torch.Tensor:
    """SDE-DPM-Solver++ of second order in single steps: Lu et al., "DPM-Solver++", 2022, sections 4 and 5.

    A step looks twice: at its start, and at the middle of its interval in log sigma, whose prediction then carries the
    whole step. The noise of the two halves and of the whole are increments of one Brownian motion.
    """
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        if after == 0:
            return denoised
        middle = (now * after) ** 0.5
        first, second = noise(x), noise(x)
        down, up = ancestral(now, middle, eta)
        ratio = down / now
        half_way = ratio * x + (1 - ratio) * denoised + up * first
        denoised = denoise(half_way, middle)
        down, up = ancestral(now, after, eta)
        ratio = down / now
        whole = ((now - middle) ** 0.5 * first + (middle - after) ** 0.5 * second) / (now - after) ** 0.5
        x = ratio * x + (1 - ratio) * denoised + up * whole
    return x


def sample_dpmpp_2m_sde(
    denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep, eta: float = 1.0
) -> torch.Tensor:
    """SDE-DPM-Solver++(2M), multistep: Lu et al., "DPM-Solver++", 2022, section 5; the midpoint form, as in A1111.

    One prediction a step; the last one extrapolates it to second order. The first and the last step are of first
    order. eta 0 gives DPM++ 2M.
    """
    previous: torch.Tensor | None = None
    previous_h = torch.tensor(0.0)
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        if after == 0:
            return denoised
        h = (now / after).log()
        share = -torch.expm1(-h * (1 + eta))
        target = denoised
        if previous is not None:
            target = denoised + (denoised - previous) * (h / (2 * previous_h))
        x = after / now * torch.exp(-eta * h) * x + share * target
        if eta > 0:
            x = x + noise(x) * (after * (-torch.expm1(-2 * eta * h)) ** 0.5)
        previous, previous_h = denoised, h
    return x


def sample_lcm(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep) -> torch.Tensor:
    """Multistep consistency sampling: Luo et al., "Latent consistency models", 2023, algorithm 3.

    Each prediction is taken for the picture and noised to the next level, so it needs a network that was distilled for
    it (or a LoRA that makes it one) and 4 to 8 steps with a guidance scale of 1 to 2.
    """
    for index, (now, after) in enumerate(pairwise(sigmas)):
        x = denoise(x, now)
        on_step(index, x)
        if after > 0:
            x = x + noise(x) * after
    return x
