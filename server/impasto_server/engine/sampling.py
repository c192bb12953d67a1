"""The seam between samplers and everything around them: what a sampler is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from .noise import Noise

__all__ = ["Denoise", "OnStep", "Sampler"]

Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x, sigma as a 0-d tensor) -> x0, the picture without noise; all of the shape of x."""

OnStep = Callable[[int, torch.Tensor], None]
"""(index of the step from 0, x0); once a step, however often the sampler calls `denoise` in it."""


class Sampler(Protocol):
    """(denoise, x, sigmas, noise, on_step) -> x at the last sigma.

    `x` is [batch, channels, height, width] with noise of standard deviation sigmas[0]; `sigmas` fall, the last may be
    0; `noise(like)` draws fresh standard normal noise; `on_step` is called after the first prediction of each step and
    stops the run by raising.
    """

    def __call__(
        self, denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep
    ) -> torch.Tensor: ...
