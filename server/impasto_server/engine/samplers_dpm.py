"""Samplers of DPM-Solver, which predict the noise: DPM2, DPM2 a, DPM fast, DPM adaptive.

Lu et al., "DPM-Solver: a fast ODE solver for diffusion probabilistic model sampling in around 10 steps", 2022, in sigma
space with lambda = -log sigma: a step of length h in lambda is exact for a constant noise e = (x - x0) / sigma.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch

from .noise import Noise
from .sampling import NO_CHURN, Churn, Denoise, OnStep, ancestral

__all__ = ["sample_dpm2", "sample_dpm2_ancestral", "sample_dpm_adaptive", "sample_dpm_fast"]

_LEFT = 0.1
"""A last level above this is noise that would be seen, so that a last prediction takes it away."""

_ABSOLUTE, _FIRST, _SAFETY = 0.0078, 0.05, 0.81
"""Of DPM adaptive: error allowed beside the relative one, first step in lambda, least factor that accepts a step."""

_SHORTEST = 0.01
"""A step of this length in lambda counts, whatever its error: so it ends also where the network is rough."""


def sample_dpm2(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    on_step: OnStep,
    churn: Churn = NO_CHURN,
) -> torch.Tensor:
    """DPM-Solver-2: the slope at the middle of the step in log sigma carries the whole of it (algorithm 1).

    It looks twice at a step; the step to 0 is Euler's. Churn is that of Karras et al., 2022, algorithm 2.
    """
    for index, (start, after) in enumerate(pairwise(sigmas)):
        x, now = churn(x, start, len(sigmas) - 1, noise)
        denoised = denoise(x, now)
        on_step(index, denoised)
        if after == 0:
            return denoised
        x = _by_middle(denoise, x, denoised, now, after)
    return x


def sample_dpm2_ancestral(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    on_step: OnStep,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> torch.Tensor:
    """DPM-Solver-2 to a lower level and back up with fresh noise, as Euler a; eta 0 is DPM2."""
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        down, up = ancestral(now, after, eta)
        if down == 0:
            x = denoised
        else:
            x = _by_middle(denoise, x, denoised, now, down)
        if eta > 0 and after > 0:
            x = x + noise(x) * (s_noise * up)
    return x


def _by_middle(
    denoise: Denoise, x: torch.Tensor, denoised: torch.Tensor, now: torch.Tensor, after: torch.Tensor
) -> torch.Tensor:
    # From the lower level to the higher: the other way round, some processors round the last bit unlike diffusers.
    middle = after.log().lerp(now.log(), 0.5).exp()
    half_way = x + (x - denoised) / now * (middle - now)
    return x + (half_way - denoise(half_way, middle)) / middle * (after - now)


class _Solver:
    """Steps of order 1, 2 and 3 between levels (numbers, not tensors); counts its looks at the network."""

    def __init__(self, denoise: Denoise, sigmas: torch.Tensor, look: Callable[[int, torch.Tensor], None]) -> None:
        self._denoise, self._dtype, self._look = denoise, sigmas.dtype, look
        self.looks = 0

    def predict(self, x: torch.Tensor, level: float) -> torch.Tensor:
        denoised = self._denoise(x, torch.tensor(level, dtype=self._dtype))
        self._look(self.looks, denoised)
        self.looks += 1
        return denoised

    def slope(self, x: torch.Tensor, level: float) -> torch.Tensor:
        return (x - self.predict(x, level)) / level

    def first(self, x: torch.Tensor, e: torch.Tensor, now: float, after: float) -> torch.Tensor:
        return x - after * math.expm1(math.log(now / after)) * e

    def inner(self, x: torch.Tensor, e: torch.Tensor, now: float, after: float, r: float) -> tuple[torch.Tensor, float]:
        """The slope that is found at the part `r` of the step, and the level there."""
        level = now * (after / now) ** r
        return self.slope(self.first(x, e, now, level), level), level

    def second(
        self, x: torch.Tensor, e: torch.Tensor, inner: torch.Tensor, now: float, after: float, r: float
    ) -> torch.Tensor:
        return x - after * math.expm1(math.log(now / after)) * (e + (inner - e) / (2 * r))

    def third(self, x: torch.Tensor, e: torch.Tensor, inner: torch.Tensor, now: float, after: float) -> torch.Tensor:
        """DPM-Solver-3 (algorithm 2) with `inner` at a third of the step."""
        h, r1, r2 = math.log(now / after), 1 / 3, 2 / 3
        level = now * math.exp(-r2 * h)
        bend = math.expm1(r2 * h) / (r2 * h) - 1
        u = self.first(x, e, now, level) - level * (r2 / r1) * bend * (inner - e)
        later = self.slope(u, level)
        return self.first(x, e, now, after) - after / r2 * (math.expm1(h) / h - 1) * (later - e)


def sample_dpm_fast(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    on_step: OnStep,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> torch.Tensor:
    """DPM-Solver-fast (section 3.4): third-order steps even in log sigma, the last ones lower.

    It looks as often as there are steps in `sigmas`, of which it takes the first and the last level alone, and each
    look counts as a step. It ends at the smallest level, not at 0. eta adds the noise of Euler a.
    """
    looks = len(sigmas) - 1
    high, low = _ends(sigmas)
    solver = _Solver(denoise, sigmas, on_step)
    if high == low:
        return solver.predict(x, high)
    count = looks // 3 + 1
    orders = [3] * (count - 2) + [2, 1] if looks % 3 == 0 else [3] * (count - 1) + [looks % 3]
    for index, order in enumerate(orders):
        now = high * (low / high) ** (index / len(orders))
        after = high * (low / high) ** ((index + 1) / len(orders))
        down, up = _ancestral(now, after, low, eta)
        e = solver.slope(x, now)
        if order == 1:
            x = solver.first(x, e, now, down)
        elif order == 2:
            x = solver.second(x, e, solver.inner(x, e, now, down, 0.5)[0], now, down, 0.5)
        else:
            x = solver.third(x, e, solver.inner(x, e, now, down, 1 / 3)[0], now, down)
        if up > 0:
            x = x + noise(x) * (s_noise * up)
    return x if low <= _LEFT else denoise(x, torch.tensor(low, dtype=sigmas.dtype))


def sample_dpm_adaptive(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    on_step: OnStep,
    eta: float = 0.0,
    s_noise: float = 1.0,
    tolerance: float = 0.05,
) -> torch.Tensor:
    """DPM-Solver-23 with steps as long as the error allows (appendix C), from the first level to the last above 0.

    The number of steps in `sigmas` only divides its progress. The difference between the solutions of second and of
    third order, over max(0.0078, `tolerance` times the larger state), decides whether a step counts and how long the
    next is; the numbers are A1111's. It is taken over the whole batch, so a picture is not quite the one it is alone.
    """
    steps, (high, low) = len(sigmas) - 1, _ends(sigmas)
    solver = _Solver(denoise, sigmas, lambda look, denoised: None)
    now, length, previous = high, _FIRST, x
    while now > low * (1 + 1e-5):
        after = max(low, now * math.exp(-length))
        down, up = _ancestral(now, after, low, eta)
        e = solver.slope(x, now)
        inner, _ = solver.inner(x, e, now, down, 1 / 3)
        lower = solver.second(x, e, inner, now, down, 1 / 3)
        higher = solver.third(x, e, inner, now, down)
        allowed = torch.maximum(lower.abs(), previous.abs()).mul(tolerance).clamp(min=_ABSOLUTE)
        error = float(((lower - higher) / allowed).square().mean().sqrt())
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / 3) - 1)
        rejected = factor < _SAFETY and length > _SHORTEST
        length = max(length * factor, _SHORTEST)
        if rejected:
            continue
        on_step(min(int(steps * math.log(high / now) / math.log(high / low)), steps - 1), x - now * e)
        previous, x, now = lower, higher, after
        if up > 0:
            x = x + noise(x) * (s_noise * up)
    if high == low or low > _LEFT:
        x = denoise(x, torch.tensor(low, dtype=sigmas.dtype))
        on_step(steps - 1, x)
    return x


def _ends(sigmas: torch.Tensor) -> tuple[float, float]:
    """The first level, and the last above 0."""
    return float(sigmas[0]), float(sigmas[-1] if sigmas[-1] > 0 else sigmas[-2])


def _ancestral(now: float, after: float, low: float, eta: float) -> tuple[float, float]:
    """As `ancestral`, but never below the level `low`."""
    if eta == 0:
        return after, 0.0
    up = min(after, eta * (after**2 * (now**2 - after**2) / now**2) ** 0.5)
    down = max(low, (after**2 - up**2) ** 0.5)
    return down, max(0.0, after**2 - down**2) ** 0.5
