"""diffusers' DPM++ SDE without torchsde: its Brownian tree gives way to the increments that our sampler draws."""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch


class Increments:
    """Normalised increments of one Brownian motion in sigma, drawn one after the other from a generator.

    A step asks for that to its middle, then for that to its end; the second is put together from the first and a new
    draw.
    """

    def __init__(self, x: torch.Tensor, generator: torch.Generator) -> None:
        self.shape, self.generator = x.shape, generator
        self.start = self.middle = -1.0
        self.first = torch.zeros(())

    def __call__(self, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        drawn = torch.randn(self.shape, generator=self.generator)
        if float(start) != self.start:
            self.start, self.middle, self.first = float(start), float(end), drawn
            return drawn
        to_middle, further = self.start - self.middle, self.middle - float(end)
        return (to_middle**0.5 * self.first + further**0.5 * drawn) / (to_middle + further) ** 0.5


@functools.cache
def _module() -> Any:
    with patch.dict(sys.modules, {"torchsde": ModuleType("torchsde")}):
        return importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde")


def dpmpp_sde_scheduler(generator: torch.Generator, **config: Any) -> Any:
    """diffusers' DPMSolverSDEScheduler that draws from `generator`."""

    class Scheduler(_module().DPMSolverSDEScheduler):  # type: ignore[misc]
        def step(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, **more: Any) -> Any:
            if self.noise_sampler is None:
                self.noise_sampler = Increments(sample, generator)
            return super().step(model_output, timestep, sample, **more)

    return Scheduler(**config)
