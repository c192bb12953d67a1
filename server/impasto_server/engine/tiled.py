"""Latent tiles that are denoised together: each sees its own part, and what they predict is mixed at every step.

MultiDiffusion (Bar-Tal et al., "MultiDiffusion: fusing diffusion paths for controlled image generation", 2023) with
uniform weights; with gaussian ones it is Barbero Jimenez, "Mixture of diffusers for scene composition and high
resolution image generation", 2023. Both mix x0 here, which for one level of noise is the same as mixing the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from impasto_protocol.geometry import Box, Size

from .denoise import Denoiser
from .prompt_batch import PictureDenoisers
from .shaped import Shaped

__all__ = ["Guided", "TiledDenoiser", "tile_boxes", "tile_spans", "tile_weight"]

_VARIANCE = 0.03
"""Of the gaussian weights, as a part of the side squared. The paper's program has 0.01, for tiles that share half: with
a quarter one tile would give way to the next within a few pixels, which shows."""


Guided = Denoiser | PictureDenoisers | Shaped
"""A guided network, as the denoise loop wants it."""


def tile_spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    """Begin and end of the tiles along an axis, evenly spread; all `side` long, or one that is the whole."""
    if length <= side:
        return [(0, length)]
    count = math.ceil((length - overlap) / (side - overlap))
    starts = [round(i * (length - side) / (count - 1)) for i in range(count)]
    return [(start, start + side) for start in starts]


def tile_boxes(size: Size, side: int, overlap: int) -> tuple[Box, ...]:
    """The tiles of a picture, row by row; all three in the same unit."""
    across, down = tile_spans(size.width, side, overlap), tile_spans(size.height, side, overlap)
    return tuple(Box(left, top, right - left, bottom - top) for top, bottom in down for left, right in across)


def tile_weight(size: Size, kind: str) -> torch.Tensor:
    """[height, width], above 0: how much a tile counts at each of its places."""
    if kind == "uniform":
        return torch.ones(size.height, size.width)

    def along(length: int) -> torch.Tensor:
        places = torch.arange(length, dtype=torch.float64)
        middle = (length - 1) / 2
        return torch.exp(-((places - middle) ** 2) / (2 * _VARIANCE * length * length))

    return torch.outer(along(size.height), along(size.width)).clamp_min(1e-6).float()


@dataclass(frozen=True)
class TiledDenoiser:
    """denoise(x, sigma) -> x0 over `tiles`: latent boxes that cover everything, each with the denoiser of its part.

    The memory that it needs beside x is that of one tile. One tile that is the whole gives what its denoiser gives, to
    the last bit. `check` is called before each tile.
    """

    tiles: tuple[tuple[Box, Guided], ...]
    weights: str
    check: Callable[[], None]
    keep_unguided: bool = False
    _mixed: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)

    @property
    def sigmas(self) -> torch.Tensor:
        """The levels of the run."""
        return self.tiles[0][1].sigmas

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Nothing here: the adapters of a tile are attached for its call alone."""
        yield

    def unguided(self) -> torch.Tensor:
        """The x0 of the negative sides in the last call, mixed likewise, where they are kept."""
        return self._mixed["unguided"]

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        keeps = self.keep_unguided
        if len(self.tiles) == 1:
            denoised = self._part(self.tiles[0][1], x, sigma)
            if keeps:
                self._mixed["unguided"] = self.tiles[0][1].unguided()
            return denoised
        total, away = torch.zeros_like(x), torch.zeros_like(x) if keeps else None
        count = x.new_zeros(x.shape[-2:])
        for box, denoiser in self.tiles:
            rows, columns = slice(box.y, box.bottom), slice(box.x, box.right)
            weight = tile_weight(box.size, self.weights).to(x)
            total[..., rows, columns] += self._part(denoiser, x[..., rows, columns], sigma) * weight
            if away is not None:
                away[..., rows, columns] += denoiser.unguided() * weight
            count[rows, columns] += weight
        if away is not None:
            self._mixed["unguided"] = away / count
        return total / count

    def _part(self, denoiser: Guided, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.check()
        with denoiser.attached():
            return denoiser(x, sigma)
