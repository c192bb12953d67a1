"""UniPC: Zhao et al., "UniPC: a unified predictor-corrector framework for fast sampling of diffusion models", 2023."""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from .noise import Noise
from .sampling import Denoise, OnStep

__all__ = ["sample_unipc"]

_Past = list[tuple[float, torch.Tensor]]
"""Levels and their predictions, the newest last."""


def sample_unipc(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    on_step: OnStep,
    order: int = 3,
    variant: str = "bh1",
) -> torch.Tensor:
    """UniPC of data prediction in sigma space: algorithm 2's multistep predictor, then algorithm 1's corrector.

    One prediction a step: that at the predicted state corrects the state and serves the next step. Order 3 and
    B(h) = -h ("bh1") as in A1111, lowered in the first and the last steps (the form of diffusers' scheduler); "bh2" is
    B(h) = exp(-h) - 1. A1111's time_uniform is the schedule "sgm_uniform", but for its end at the table's first row
    where ours is 0.
    """
    levels = [float(s) for s in sigmas]
    steps = len(levels) - 1
    before, used = x, 0
    past: _Past = []
    for index, (now, after) in enumerate(pairwise(levels)):
        denoised = denoise(x, sigmas[index])
        on_step(index, denoised)
        if after == 0:
            return denoised
        if used:
            x = _update(before, past[-used:], now, variant, corrected_by=denoised)
        past = [*past[1 - order :], (now, denoised)] if order > 1 else [(now, denoised)]
        before, used = x, min(len(past), steps - index)
        x = _update(before, past[-used:], after, variant)
    return x


def _update(
    x: torch.Tensor, past: _Past, target: float, variant: str, corrected_by: torch.Tensor | None = None
) -> torch.Tensor:
    """From the newest level of `past` to `target`: UniP, or UniC where the prediction at the target is known.

    The order is the number of predictions in `past`.
    """
    level, newest = past[-1]
    h = math.log(level / target)
    # Where the other predictions lie, in units of the step; the target itself lies at 1.
    nodes = [math.log(level / other) / h for other, _ in past[:-1]]
    slopes = [(prediction - newest) / node for node, (_, prediction) in zip(nodes, past[:-1], strict=True)]
    if corrected_by is not None:
        nodes.append(1.0)
        slopes.append(corrected_by - newest)
    x = target / level * x - math.expm1(-h) * newest
    scale = -h if variant == "bh1" else math.expm1(-h)
    for weight, slope in zip(_weights(nodes, -h, scale), slopes, strict=True):
        x = x - scale * weight * slope
    return x


def _weights(nodes: list[float], z: float, scale: float) -> list[float]:
    """The solution of sum(weight * node^(k - 1)) = k! z phi_(k+1)(z) / B(h) for k = 1, 2, ... (theorem 3.1).

    phi_1(z) = (exp(z) - 1) / z and phi_(k+1)(z) = (phi_k(z) - 1 / k!) / z.
    """
    if len(nodes) < 2:
        return [0.5] * len(nodes)  # the paper's choice: accurate enough, and independent of B(h)
    right, phi = [], math.expm1(z) / z
    for k in range(1, len(nodes) + 1):
        phi = (phi - 1 / math.factorial(k)) / z
        right.append(math.factorial(k) * z * phi / scale)
    rows = torch.tensor([[node**k for node in nodes] for k in range(len(nodes))], dtype=torch.float64)
    weights: list[float] = torch.linalg.solve(rows, torch.tensor(right, dtype=torch.float64)).tolist()
    return weights
