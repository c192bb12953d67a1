"""A batch whose pictures have prompts of their own, as choices that go by the seed give them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .denoise import Denoiser

__all__ = ["PictureDenoisers"]


@dataclass(frozen=True)
class PictureDenoisers:
    """denoise(x, sigma) -> x0, one denoiser a picture, over the same levels and adapters; at least one."""

    denoisers: tuple[Denoiser, ...]

    @property
    def sigmas(self) -> torch.Tensor:
        """The levels of the run."""
        return self.denoisers[0].sigmas

    @contextmanager
    def attached(self) -> Iterator[None]:
        """The adapters attached, once for all."""
        with self.denoisers[0].attached():
            yield

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        # Each picture by itself, so that it is the one that its seed gives alone.
        return torch.cat([denoiser(x[i : i + 1], sigma) for i, denoiser in enumerate(self.denoisers)])

    def unguided(self) -> torch.Tensor:
        """The x0 of the negative sides in the last call, where they are kept."""
        return torch.cat([denoiser.unguided() for denoiser in self.denoisers])
