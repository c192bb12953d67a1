"""Noise levels: the checkpoint's own table, timesteps between its rows, and how the levels are spread over the steps.

sigma is the standard deviation of the noise in the unscaled ("variance exploding") form x = x0 + sigma * noise of
Karras et al., "Elucidating the design space of diffusion-based generative models", 2022. A timestep is a row of the
training table, 0 (least noise) to 999; fractions are allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .planning import model_steps

__all__ = ["NoiseTable", "beta_quantile", "exact_sigmas", "resolve_schedule", "scaled_linear", "sigmas", "trim"]

_OWN_SCHEDULE = {
    "dpmpp_2m": "karras",
    "dpmpp_sde": "karras",
    "dpmpp_2m_sde": "exponential",
    # A1111's time_uniform and diffusers' default look at the network at these levels; over the uniform ones the last
    # step but one is too long for a third-order method.
    "unipc": "sgm_uniform",
}
"""What "automatic" means for a sampler, as in A1111; the others take the uniform one."""

_RHO = 7.0

_BETA = 0.6
"""Both exponents of the beta schedule, A1111's own."""


@dataclass(frozen=True)
class NoiseTable:
    """The noise levels a checkpoint was trained on: `alphas_cumprod`, float32 [steps], falling."""

    alphas_cumprod: torch.Tensor

    @property
    def sigmas(self) -> torch.Tensor:
        """sqrt((1 - a) / a), float32 [steps], rising."""
        return ((1 - self.alphas_cumprod) / self.alphas_cumprod) ** 0.5

    @property
    def sigma_min(self) -> float:
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        return float(self.sigmas[-1])

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """The fractional timestep of a sigma (0-d), linear in log sigma between rows, held at both ends."""
        table = self.sigmas.log()
        wanted = sigma.to(table).log()
        low = (torch.searchsorted(table, wanted, right=True) - 1).clamp(0, len(table) - 2)
        weight = ((wanted - table[low]) / (table[low + 1] - table[low])).clamp(0, 1)
        return low + weight

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """The sigma of fractional timesteps from 0 to steps - 1; the inverse of `timestep`."""
        table = self.sigmas.log()
        low = timestep.floor().long().clamp(0, len(table) - 2)
        weight = timestep - low
        return (table[low] * (1 - weight) + table[low + 1] * weight).exp()


def scaled_linear(start: float = 0.00085, end: float = 0.012, count: int = 1000) -> NoiseTable:
    """The table of Stable Diffusion 1, 2 and XL: betas whose square roots rise linearly."""
    betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    return NoiseTable(torch.cumprod(1.0 - betas, dim=0))


def resolve_schedule(schedule: str, sampler: str) -> str:
    """The schedule that really runs: "automatic" becomes the sampler's own."""
    return _OWN_SCHEDULE.get(sampler, "uniform") if schedule == "automatic" else schedule


def sigmas(table: NoiseTable, schedule: str, sampler: str, steps: int) -> torch.Tensor:
    """Noise levels of `steps` steps and a trailing 0, float32 [steps + 1], falling.

    karras       (max^(1/7) + i / (n - 1) (min^(1/7) - max^(1/7)))^7 (Karras et al., 2022, equation 5)
    exponential  even in log sigma
    uniform      even in the timestep from the last row to the first, as A1111's Euler; "normal" is its other name
    sgm_uniform  even in the timestep with a step to spare below: the last level is above the smallest one
    simple       every n-th row of the table from the last on, without a fraction
    beta         sigma at the quantiles of the beta distribution (0.6, 0.6), so dense at both ends: Lee et al., "Beta
                 sampling is all you need", 2024; A1111 and diffusers spread sigma so, not the timestep
    """
    name = resolve_schedule(schedule, sampler)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    last = len(table.alphas_cumprod) - 1
    low, high = table.sigma_min, table.sigma_max
    if name == "karras":
        levels = (high ** (1 / _RHO) + ramp * (low ** (1 / _RHO) - high ** (1 / _RHO))) ** _RHO
    elif name == "exponential":
        levels = (math.log(high) + ramp * (math.log(low) - math.log(high))).exp()
    elif name in ("uniform", "normal"):
        levels = table.sigma((1 - ramp) * last)
    elif name == "sgm_uniform":
        levels = table.sigma((1 - torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:-1]) * last)
    elif name == "simple":
        levels = table.sigmas[[last - int(i * (last + 1) / steps) for i in range(steps)]]
    elif name == "beta":
        levels = low + beta_quantile(1 - ramp, _BETA) * (high - low)
    else:
        raise ValueError(f"unknown schedule {schedule!r}")
    return torch.cat([levels, levels.new_zeros(1)]).float()


def beta_quantile(probability: torch.Tensor, exponent: float) -> torch.Tensor:
    """Quantiles of the symmetric beta distribution (exponent, exponent), float64, to 1e-14.

    Below 1/2 its distribution function is a power series that halves its terms at least (DLMF 8.17.7); above it is
    mirrored. Bisection inverts it.
    """
    # B(x; a, b) = x^a sum over n of (1 - b)_n / (n! (a + n)) x^n
    terms, factor = [], 1.0
    for n in range(64):
        terms.append(factor / (exponent + n))
        factor *= (1 - exponent + n) / (n + 1)
    series = torch.tensor(terms, dtype=torch.float64)
    power = torch.arange(64, dtype=torch.float64)
    whole = 2 * 0.5**exponent * (series * 0.5**power).sum()
    lower = torch.minimum(probability, 1 - probability).double()
    start, end = torch.zeros_like(lower), torch.full_like(lower, 0.5)
    for _ in range(60):
        middle = (start + end) / 2
        below = middle**exponent * (series * middle[:, None] ** power).sum(1) / whole < lower
        start, end = torch.where(below, middle, start), torch.where(below, end, middle)
    return torch.where(probability > 0.5, 1 - end, start)


def exact_sigmas(table: NoiseTable, schedule: str, sampler: str, steps: int, strength: float) -> torch.Tensor:
    """Levels of exactly `steps` steps for a strength above 0: the last ones of int(steps / min(strength, .999)).

    A1111's rule for the hires pass.
    """
    return sigmas(table, schedule, sampler, int(steps / min(strength, 0.999)))[-steps - 1 :]


def trim(levels: torch.Tensor, strength: float) -> torch.Tensor:
    """The last part of the levels for a strength from 0 to 1: A1111's int(min(strength, .999) * steps) + 1 steps."""
    steps = len(levels) - 1
    return levels[steps - model_steps(steps, strength) :]
