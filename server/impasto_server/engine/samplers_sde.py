"""Samplers that add fresh noise between their steps: DPM++ SDE, 2M SDE, 3M SDE and 2S a, LCM (Euler a: `samplers`).

Where the noise comes from: a solver of the reverse SDE needs the increments of a Brownian motion in sigma. Over
intervals that do not overlap they are independent normal numbers, so they are drawn one after the other from each
picture's own stream, like the noise of Euler a; where two increments overlap (DPM++ SDE) the longer one is put together
from the parts. That is exact and the same at any batch size, and needs no tree. Where a picture of A1111 is to come
out again they are taken from its tree (`brownian`), which also keeps one path for all numbers of steps.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from .brownian import BrownianPath
from .noise import Noise
from .sampling import Denoise, OnStep, ancestral

__all__ = [
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_2s_ancestral",
    "sample_dpmpp_3m_sde",
    "sample_dpmpp_sde",
    "sample_lcm",
]


def sample_dpmpp_sde(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    on_step: OnStep,
    eta: float = 1.0,
    s_noise: float = 1.0,
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
        first, whole = _two_increments(noise, x, now, middle, after)
        down, up = ancestral(now, middle, eta)
        ratio = down / now
        half_way = ratio * x + (1 - ratio) * denoised + s_noise * up * first
        denoised = denoise(half_way, middle)
        down, up = ancestral(now, after, eta)
        ratio = down / now
        x = ratio * x + (1 - ratio) * denoised + s_noise * up * whole
    return x


def sample_dpmpp_2m_sde(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    on_step: OnStep,
    eta: float = 1.0,
    s_noise: float = 1.0,
    variant: str = "midpoint",
) -> torch.Tensor:
    """SDE-DPM-Solver++(2M), multistep: Lu et al., "DPM-Solver++", 2022, section 5, in one of two forms.

    One prediction a step; the last one extrapolates it to second order. The first and the last step are of first
    order. How the extrapolation counts: "midpoint" as at the middle of the step (eta 0 gives DPM++ 2M), "heun" by the
    exact integral of a line.
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
        x = after / now * torch.exp(-eta * h) * x + share * denoised
        if previous is not None:
            weight = share / 2 if variant == "midpoint" else 1 - share / (h * (1 + eta))
            x = x + weight * (denoised - previous) * (h / previous_h)
        if eta > 0:
            x = x + _increment(noise, x, now, after) * (s_noise * after * (-torch.expm1(-2 * eta * h)) ** 0.5)
        previous, previous_h = denoised, h
    return x


def sample_dpmpp_3m_sde(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    on_step: OnStep,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> torch.Tensor:
    """SDE-DPM-Solver++(3M), multistep: Lu et al., "DPM-Solver++", 2022, section 5 and appendix B.

    The last three predictions, as a function of log sigma, give its slope and its bend; the first steps know less. The
    bend counts half of what would integrate a parabola exactly, as in the authors' code and in A1111: the order is 2.
    eta 0 gives the solver of the ODE.
    """
    past: list[tuple[torch.Tensor, torch.Tensor]] = []  # the last two predictions and their steps, the newest first
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        if after == 0:
            return denoised
        h = (now / after).log()
        z = h * (1 + eta)
        x = after / now * torch.exp(-eta * h) * x - torch.expm1(-z) * denoised
        # The integral of lambda under z exp over the step: 1 + (exp(-z) - 1) / z.
        linear = torch.expm1(-z) / z + 1
        if past:
            (first, first_h), *older = past
            slope = (denoised - first) * (h / first_h)
            if older:
                second, second_h = older[0]
                before = (first - second) * (h / second_h)
                bend = (slope - before) * (h / (first_h + second_h))
                slope = slope + bend * (first_h / h)
                x = x - (linear / z - 0.5) * bend
            x = x + linear * slope
        if eta > 0:
            x = x + _increment(noise, x, now, after) * (s_noise * after * (-torch.expm1(-2 * eta * h)) ** 0.5)
        past = [(denoised, h), *past[:1]]
    return x


def _increment(noise: Noise, x: torch.Tensor, now: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """The motion from a level to a lower one, over the root of its length."""
    return noise.between(x, now, after) if isinstance(noise, BrownianPath) else noise(x)


def _two_increments(
    noise: Noise, x: torch.Tensor, now: torch.Tensor, middle: torch.Tensor, after: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """That to the middle, and that over the whole."""
    if isinstance(noise, BrownianPath):
        # k-diffusion asks at levels that went through their logarithms, and what is rounded counts in the tree.
        start, end = -now.log(), -after.log()
        first, half, last = (-start).exp(), (-(start + (end - start) * 0.5)).exp(), (-end).exp()
        return noise.between(x, first, half), noise.between(x, first, last)
    first, second = noise(x), noise(x)
    return first, ((now - middle) ** 0.5 * first + (middle - after) ** 0.5 * second) / (now - after) ** 0.5


def sample_dpmpp_2s_ancestral(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    on_step: OnStep,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> torch.Tensor:
    """DPM-Solver++(2S), single step: Lu et al., "DPM-Solver++", 2022, algorithm 1, to a lower level and back up.

    The prediction at the middle of the interval in log sigma carries the whole step, which ends where Euler a ends;
    then fresh noise.
    """
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        down, up = ancestral(now, after, eta)
        if down == 0:
            x = denoised
        else:
            middle = (now * down) ** 0.5
            ratio = middle / now
            denoised = denoise(ratio * x + (1 - ratio) * denoised, middle)
            ratio = down / now
            x = ratio * x + (1 - ratio) * denoised
        if eta > 0 and after > 0:
            x = x + noise(x) * (s_noise * up)
    return x


def sample_lcm(
    denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep, s_noise: float = 1.0
) -> torch.Tensor:
    """Multistep consistency sampling: Luo et al., "Latent consistency models", 2023, algorithm 3.

    Each prediction is taken for the picture and noised to the next level, so it needs a network that was distilled for
    it (or a LoRA that makes it one) and 4 to 8 steps with a guidance scale of 1 to 2.
    """
    for index, (now, after) in enumerate(pairwise(sigmas)):
        x = denoise(x, now)
        on_step(index, x)
        if after > 0:
            x = x + noise(x) * (s_noise * after)
    return x
