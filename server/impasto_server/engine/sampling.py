"""The seam between samplers and everything around them: what a sampler is given, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from .noise import Noise

__all__ = ["NO_CHURN", "Churn", "Denoise", "OnStep", "Sampler", "ancestral"]

Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x, sigma as a 0-d tensor) -> x0, the picture without noise; all of the shape of x."""

OnStep = Callable[[int, torch.Tensor], None]
"""(index of the step from 0, x0); once a step, however often the sampler calls `denoise` in it."""


class Sampler(Protocol):
    """(denoise, x, sigmas, noise, on_step) -> x at the last sigma.

    `x` is [batch, channels, height, width] with noise of standard deviation sigmas[0]; `sigmas` fall, the last may be
    0; `noise(like)` draws fresh standard normal noise; `on_step` is called after the first prediction of each step and
    stops the run by raising. What a sampler takes beside these has a default.
    """

    def __call__(
        self, denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class Churn:
    """Fresh noise before each step whose level is from `low` to `high`: Karras et al., 2022, algorithm 2 and table 5.

    `amount` is S_churn, shared out over the steps of the run; `noise` is S_noise, its standard deviation.
    """

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    noise: float = 1.0

    def __call__(
        self, x: torch.Tensor, sigma: torch.Tensor, steps: int, draw: Noise
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x with more noise, and the level that it has then; both as they are where there is nothing to add.

        Where there is churn at all every step draws, as in k-diffusion: so the stream does not depend on the limits.
        """
        if self.amount <= 0:
            return x, sigma
        fresh = draw(x)
        gamma = min(self.amount / steps, math.sqrt(2) - 1) if self.low <= float(sigma) <= self.high else 0.0
        if gamma == 0:
            return x, sigma
        raised = sigma * (gamma + 1)
        return x + fresh * (self.noise * (raised**2 - sigma**2) ** 0.5), raised


NO_CHURN = Churn()


def ancestral(now: torch.Tensor, after: torch.Tensor, eta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The level to step down to, and the noise to add there, so that both together make `after`.

    Song et al., "Denoising diffusion implicit models", 2021, equation 16; eta 1 is the whole of the reverse process's
    noise, 0 none.
    """
    up = eta * (after**2 * (now**2 - after**2) / now**2) ** 0.5
    up = torch.minimum(up, after)
    return (after**2 - up**2) ** 0.5, up
