"""Samplers that remember the slopes of earlier steps: LMS and PLMS, both after Adams and Bashforth."""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from .noise import Noise
from .sampling import Denoise, OnStep

__all__ = ["sample_lms", "sample_plms"]


def sample_lms(
    denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep, order: int = 4
) -> torch.Tensor:
    """Linear multistep over dx/dsigma: the polynomial through the last slopes, at most `order` (4), is integrated.

    One look a step; the first steps are of lower order.
    """
    levels = [float(s) for s in sigmas]
    slopes: list[torch.Tensor] = []
    for index, (now, after) in enumerate(pairwise(levels)):
        denoised = denoise(x, sigmas[index])
        on_step(index, denoised)
        slopes = [*slopes[1 - order :], (x - denoised) / now] if order > 1 else [(x - denoised) / now]
        known = levels[index + 1 - len(slopes) : index + 1]
        for weight, slope in zip(_weights(known, now, after), slopes, strict=True):
            x = x + weight * slope
    return x


def _weights(known: list[float], start: float, end: float) -> list[float]:
    """The integrals from start to end of the Lagrange polynomials over `known`, of which there are at most 4.

    Two points of Gauss and Legendre integrate a cubic exactly.
    """
    middle, half = (start + end) / 2, (end - start) / 2
    points = [middle - half / math.sqrt(3), middle + half / math.sqrt(3)]
    return [
        half * sum(math.prod((p - other) / (own - other) for other in known if other != own) for p in points)
        for own in known
    ]


_ADAMS = ((1.0,), (-1 / 2, 3 / 2), (5 / 12, -16 / 12, 23 / 12), (-9 / 24, 37 / 24, -59 / 24, 55 / 24))
"""Weights of the last slopes, the newest last, for steps of equal length."""


def sample_plms(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep) -> torch.Tensor:
    """Pseudo linear multistep: Liu et al., "Pseudo numerical methods for diffusion models on manifolds", 2022, eq. 12.

    Adams and Bashforth's weights, those of steps of equal length, mix the predicted noises; so it wants levels even in
    the timestep. The first step looks twice, at both of its ends, the others once.
    """
    slopes: list[torch.Tensor] = []
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        slopes = [*slopes[-3:], (x - denoised) / now]
        slope = sum((w * s for w, s in zip(_ADAMS[len(slopes) - 1], slopes, strict=True)), torch.zeros_like(x))
        if index == 0 and after > 0:
            guess = x + slopes[0] * (after - now)
            slope = (slopes[0] + (guess - denoise(guess, after)) / after) / 2
        x = x + slope * (after - now)
    return x
