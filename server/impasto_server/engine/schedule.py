"""Noise levels: the checkpoint's own table, timesteps between its rows, and how the levels are spread over the steps.

sigma is the standard deviation of the noise in the unscaled ("variance exploding") form x = x0 + sigma * noise of
Karras et al., "Elucidating the design space of diffusion-based generative models", 2022. A timestep is a row of the
training table, 0 (least noise) to 999; fractions are allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from .params_sampling import Sampled
from .sampler_names import SAMPLER_INFO, resolve_schedule
from .step_counts import model_steps, scheduled_steps

__all__ = [
    "NoiseTable",
    "beta_quantile",
    "exact_sigmas",
    "known_timesteps",
    "resolve_schedule",
    "run_levels",
    "scaled_linear",
    "sigmas",
    "trim",
    "zero_terminal_snr",
]

_RHO = 7.0

_BETA = 0.6
"""Both exponents of the beta schedule, A1111's own."""

_ALIGN_YOUR_STEPS = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
"""The levels of Sabour et al., 2024, for Stable Diffusion 1.5 in ten steps."""

_ALMOST_ZERO = 4.8973451890853435e-08
"""What is left of the picture in the last row with zero terminal SNR, A1111's own."""


@dataclass(frozen=True)
class NoiseTable:
    """The noise levels a checkpoint was trained on: `alphas_cumprod`, float32 [steps], falling."""

    alphas_cumprod: torch.Tensor

    @cached_property
    def _logs(self) -> torch.Tensor:
        return self.sigmas.log()

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
        table = self._logs
        wanted = sigma.to(table).log()
        low = (torch.searchsorted(table, wanted, right=True) - 1).clamp(0, len(table) - 2)
        weight = ((wanted - table[low]) / (table[low + 1] - table[low])).clamp(0, 1)
        return low + weight

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """The sigma of fractional timesteps from 0 to steps - 1; the inverse of `timestep`."""
        table = self._logs
        low = timestep.floor().long().clamp(0, len(table) - 2)
        weight = timestep - low
        return (table[low] * (1 - weight) + table[low + 1] * weight).exp()


def known_timesteps(
    table: NoiseTable, levels: torch.Tensor, device: torch.device | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """`table.timestep`, worked out at once for all `levels` of a run, and on `device` before it begins."""
    known = dict(zip(levels[:-1].tolist(), table.timestep(levels[:-1]).to(device), strict=True))

    def timestep(sigma: torch.Tensor) -> torch.Tensor:
        found = known.get(float(sigma))
        return table.timestep(sigma) if found is None else found

    return timestep


def scaled_linear(start: float = 0.00085, end: float = 0.012, count: int = 1000) -> NoiseTable:
    """The table of Stable Diffusion 1, 2 and XL: betas whose square roots rise linearly."""
    betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    return NoiseTable(torch.cumprod(1.0 - betas, dim=0))


def zero_terminal_snr(table: NoiseTable) -> NoiseTable:
    """The table stretched so that the last row is noise alone: Lin et al., "Common diffusion noise schedules and sample
    steps are flawed", 2023, algorithm 1.

    sqrt(alphas_cumprod) is shifted to end at 0 and scaled to start where it did. A1111 then puts 4.9e-8 where 0 would
    be an infinite level, and so do we: sigma_max is about 4519.
    """
    root = table.alphas_cumprod.double().sqrt()
    kept = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
    kept[-1] = _ALMOST_ZERO
    return NoiseTable(kept.float())


def sigmas(table: NoiseTable, schedule: str, sampler: str, steps: int) -> torch.Tensor:
    """Noise levels of `steps` steps and a trailing 0, float32 [steps + 1], falling.

    karras           (max^(1/7) + i / (n - 1) (min^(1/7) - max^(1/7)))^7 (Karras et al., 2022, equation 5)
    exponential      even in log sigma
    polyexponential  the same to a power, which is 1 as in A1111
    uniform          even in the timestep from the last row to the first, as A1111's Euler; "normal" is its other name
    sgm_uniform      even in the timestep with a step to spare below: the last level is above the smallest one
    kl_optimal       even in arctan sigma, and down to the smallest level, not 0: Sabour et al., "Align your steps",
                     2024, section 3.2
    align_your_steps that paper's levels for Stable Diffusion 1.5, between them even in log sigma
    simple           every n-th row of the table from the last on, without a fraction
    ddim             every n-th row from row 1 up, n a whole number; so there may be more steps (`level_count`)
    beta             sigma at the quantiles of the beta distribution (0.6, 0.6), so dense at both ends: Lee et al.,
                     "Beta sampling is all you need", 2024; A1111 and diffusers spread sigma so, not the timestep

    Samplers that leave out the last level but one get those of a step more without it.
    """
    name = resolve_schedule(schedule, sampler)
    if not SAMPLER_INFO[sampler].discards:
        return _levels(table, name, steps)
    levels = _levels(table, name, steps + 1)
    return torch.cat([levels[:-2], levels[-1:]])


def run_levels(
    table: NoiseTable, params: Sampled, strength: float, *, exact: bool = False
) -> tuple[torch.Tensor, float]:
    """The levels that a pass runs over, float32 [steps + 1]: those of the schedule from where its strength begins.

    And the highest level of that schedule. `exact` as in the hires pass, whatever the parameters say.
    """
    exact = exact or (params.exact_steps and strength > 0)
    steps = scheduled_steps(params.steps, strength) if exact else params.steps
    whole = sigmas(table, params.schedule, params.sampler, steps)
    return whole[-params.steps - 1 :] if exact else trim(whole, strength), float(whole[0])


def _levels(table: NoiseTable, name: str, steps: int) -> torch.Tensor:
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    last = len(table.alphas_cumprod) - 1
    low, high = table.sigma_min, table.sigma_max
    if name == "karras":
        levels = (high ** (1 / _RHO) + ramp * (low ** (1 / _RHO) - high ** (1 / _RHO))) ** _RHO
    elif name in ("exponential", "polyexponential"):
        levels = (math.log(high) + ramp * (math.log(low) - math.log(high))).exp()
    elif name in ("uniform", "normal"):
        levels = table.sigma((1 - ramp) * last)
    elif name == "sgm_uniform":
        levels = table.sigma((1 - torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:-1]) * last)
    elif name == "kl_optimal":
        part = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        return (part * math.atan(low) + (1 - part) * math.atan(high)).tan().float()
    elif name == "align_your_steps":
        known = torch.tensor(_ALIGN_YOUR_STEPS, dtype=torch.float64).log()
        place = ramp * (len(known) - 1)
        below = place.floor().long().clamp(max=len(known) - 2)
        levels = known[below].lerp(known[below + 1], place - below).exp()
    elif name == "simple":
        levels = table.sigmas[[last - int(i * (last + 1) / steps) for i in range(steps)]]
    elif name == "ddim":
        levels = table.sigmas[list(range(1, last + 1, max((last + 1) // steps, 1)))].flip(0)
    elif name == "beta":
        levels = low + beta_quantile(1 - ramp, _BETA) * (high - low)
    else:
        raise ValueError(f"unknown schedule {name!r}")
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
    """Levels of exactly `steps` steps for a strength above 0: the last ones of `scheduled_steps`.

    A1111's rule for the hires pass, and for image to image with its setting for exact steps.
    """
    return sigmas(table, schedule, sampler, scheduled_steps(steps, strength))[-steps - 1 :]


def trim(levels: torch.Tensor, strength: float) -> torch.Tensor:
    """The last part of the levels for a strength from 0 to 1: A1111's int(min(strength, .999) * steps) + 1 steps."""
    steps = len(levels) - 1
    return levels[steps - model_steps(steps, strength) :]
