"""Restart: Xu et al., "Restart sampling for improving generative processes", 2023."""

from __future__ import annotations

from itertools import pairwise

import torch

from .noise import Noise
from .sampling import Denoise, OnStep

__all__ = ["restart_levels", "sample_restart"]

_LOW, _HIGH = 0.1, 2.0
"""The interval that is run again (A1111's choice, for all models)."""

_RHO = 7.0


def sample_restart(
    denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep, s_noise: float = 1.0
) -> torch.Tensor:
    """Heun's steps, and from 20 steps on the way from 2 to 0.1 again once or twice, with fresh noise (algorithm 2).

    The levels are those of `restart_levels`: as many steps as `sigmas` has.
    """
    last: torch.Tensor | None = None
    for index, (now, after) in enumerate(restart_levels(sigmas)):
        if last is not None and now > last:
            x = x + noise(x) * (s_noise * (now**2 - last**2) ** 0.5)
        denoised = denoise(x, now)
        on_step(index, denoised)
        slope = (x - denoised) / now
        predicted = x + slope * (after - now)
        if after > 0:
            slope = (slope + (predicted - denoise(predicted, after)) / after) / 2
            predicted = x + slope * (after - now)
        x, last = predicted, after
    return x


def restart_levels(sigmas: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The steps from level to level, as A1111 shares them out: as many as `sigmas` has.

    20 to 35 steps: 9 of them go to one restart; from 36 on half of them to two. The rest is spread anew (Karras et
    al., 2022, equation 5) between the same ends. Below 20, and where the first level is 0.1 or less, `sigmas` stay.
    """
    steps = len(sigmas) - 1
    again, times = (steps // 4, 2) if steps >= 36 else (9, 1)
    plain = list(pairwise(sigmas))
    if steps < 20:
        return plain
    end = sigmas[-1] if sigmas[-1] > 0 else sigmas[-2]
    levels = torch.cat([_karras(sigmas[0], end, steps - again * times), sigmas.new_zeros(1)])
    low, high = (int((levels - wanted).abs().argmin()) for wanted in (_LOW, _HIGH))
    if high >= low:
        return plain
    way = list(pairwise(levels))
    loop = _karras(levels[high], levels[low], again + 1)
    loop[0], loop[-1] = levels[high], levels[low]  # but for rounding they are
    return way[:low] + list(pairwise(loop)) * times + way[low:]


def _karras(high: torch.Tensor, low: torch.Tensor, count: int) -> torch.Tensor:
    ramp = torch.linspace(0, 1, count, dtype=high.dtype)
    levels: torch.Tensor = (high ** (1 / _RHO) + ramp * (low ** (1 / _RHO) - high ** (1 / _RHO))) ** _RHO
    return levels
