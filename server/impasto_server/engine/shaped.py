"""What some control units do to the prediction itself, beside their network: keep colours, or what lies around a hole.

A1111's tile_colorfix and inpaint_only. They wrap `denoise` and see x0 after guidance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .denoise import Denoiser
from .jobs import Pixels
from .prompt_batch import PictureDenoisers

__all__ = ["ColorFix", "KeepAround", "Shaped", "Shaper", "box_blurred", "pasted"]


class Shaper(Protocol):
    """Changes x0 [pictures, channels, h, w]; `away` is that of the negative side. In the steps from `start` to `end`,
    parts of all of them."""

    @property
    def start(self) -> float: ...

    @property
    def end(self) -> float: ...

    def __call__(self, denoised: torch.Tensor, away: torch.Tensor | None) -> torch.Tensor: ...


@dataclass(frozen=True)
class ColorFix:
    """x0 with the coarse colours of `latent` [1, channels, h, w]: what is coarser than `radius` latent pixels.

    `sharpness` in hundredths blurs the negative side, from which guidance by `cfg` leads away: 0 leaves it.
    """

    latent: torch.Tensor
    radius: int
    sharpness: float = 0.0
    cfg: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __call__(self, denoised: torch.Tensor, away: torch.Tensor | None) -> torch.Tensor:
        if away is not None and self.sharpness:
            # Its part in the guided prediction is 1 - cfg.
            softer = self.sharpness * 0.01 * (box_blurred(away, self.radius) - away)
            denoised = denoised + (1 - self.cfg) * softer
        return denoised + box_blurred(self.latent - denoised, self.radius)


@dataclass(frozen=True)
class KeepAround:
    """x0 that is `latent` [1, channels, h, w] where the mask [1, 1, h, w] is 0."""

    latent: torch.Tensor
    mask: torch.Tensor
    start: float = 0.0
    end: float = 1.0

    def __call__(self, denoised: torch.Tensor, away: torch.Tensor | None) -> torch.Tensor:
        return torch.where(self.mask > 0, denoised, self.latent)


def box_blurred(values: torch.Tensor, radius: int) -> torch.Tensor:
    """[n, c, h, w], each the mean of a square of 2 * radius + 1, the rim repeated outwards."""
    if radius < 1:
        return values
    padded = torch.nn.functional.pad(values, (radius,) * 4, mode="replicate")
    return torch.nn.functional.avg_pool2d(padded, 2 * radius + 1, stride=1)


class Shaped:
    """denoise(x, sigma) -> x0 of another denoiser, shaped in order."""

    def __init__(self, denoiser: Denoiser | PictureDenoisers, shapers: Sequence[Shaper]) -> None:
        self.denoiser, self.shapers = denoiser, tuple(shapers)
        self._levels: list[float] = denoiser.sigmas[:-1].tolist()

    @property
    def sigmas(self) -> torch.Tensor:
        """The levels of the run."""
        return self.denoiser.sigmas

    @contextmanager
    def attached(self) -> Iterator[None]:
        """The adapters attached."""
        with self.denoiser.attached():
            yield

    def unguided(self) -> torch.Tensor:
        """The x0 of the negative side in the last call, where it is kept."""
        return self.denoiser.unguided()

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        denoised = self.denoiser(x, sigma)
        level = float(sigma)
        fraction = max(sum(known >= level for known in self._levels) - 1, 0) / len(self._levels)
        for shaper in self.shapers:
            if shaper.start <= fraction <= shaper.end:
                sharp = isinstance(shaper, ColorFix) and bool(shaper.sharpness)
                denoised = shaper(denoised, self.unguided() if sharp else None)
        return denoised


def pasted(picture: Pixels, original: Pixels, hole: NDArray[np.bool_]) -> Pixels:
    """`picture` in the hole [h, w] and a few pixels beyond, faded into the original around it; RGB of one size."""
    grown = Image.fromarray(np.where(hole, np.uint8(255), np.uint8(0))).filter(ImageFilter.MaxFilter(7))
    share = np.asarray(grown.filter(ImageFilter.BoxBlur(3)), np.float32)[..., None] / 255
    return np.rint(picture * share + original * (1 - share)).astype(np.uint8)
