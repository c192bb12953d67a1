"""Noise by seed: the same numbers on every device and at any batch size, since every picture has its own stream.

philox      what torch draws on an NVIDIA card, and so what AUTOMATIC1111 draws there: Philox 4x32-10 (Salmon et al.,
            "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turned normal by Box and Muller
torch-cpu   what torch draws on the CPU, and so what diffusers and ComfyUI draw by default
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from .params_sampling import Sampled, Started

__all__ = [
    "Noise",
    "NoiseSource",
    "noise_at",
    "noise_for_batch",
    "noise_sources",
    "philox_normal",
    "slerp",
    "with_noise",
]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)

# The card works in single precision: its constants, and so the last digits, are single precision too.
_TO_UNIT = np.float64(np.float32(2.3283064e-10))
_TO_ANGLE = np.float64(np.float32(2.3283064e-10 * 6.2831855))


class Noise(Protocol):
    """Standard normal noise of the shape of latents; successive calls continue the pictures' streams."""

    def __call__(self, like: torch.Tensor) -> torch.Tensor: ...


class NoiseSource:
    """The stream of one picture, as A1111 draws it. `kind` is "philox" or "torch-cpu", seeds are 0 to 2**64 - 1.

    The first noise is that of `seed`, taken by `variation_strength` (0..1) towards that of `variation_seed`. With
    `first_size` (height, width) that is drawn at another size and laid into the middle of the noise that the stream
    gives. With `delta` the noises after the first are those of a new stream, whose seed is so much higher.
    """

    def __init__(
        self,
        kind: str,
        seed: int,
        *,
        variation_seed: int = 0,
        variation_strength: float = 0.0,
        delta: int = 0,
        first_size: tuple[int, int] | None = None,
    ) -> None:
        for value in (seed, variation_seed):
            if not 0 <= value < 2**64:
                raise ValueError(f"a seed is from 0 to 2**64 - 1, not {value}")
        self.kind, self.seed = kind, seed
        self._variation = (variation_seed, variation_strength)
        self._delta, self._first_size = delta, first_size
        self._draw = _source(kind, seed)
        self._begun = False

    def draw(self, channels: int, height: int, width: int) -> torch.Tensor:
        """The next noise of the stream, float32 [1, channels, height, width] on the host."""
        shape = (1, channels, height, width)
        if self._begun:
            return self._draw(shape)
        self._begun = True
        first = self._first(shape)
        if self._delta:
            self._draw = _source(self.kind, (self.seed + self._delta) % 2**64)
        return first

    def _first(self, shape: tuple[int, int, int, int]) -> torch.Tensor:
        inner = shape if self._first_size is None else (*shape[:2], *self._first_size)
        noise = self._draw(shape) if inner == shape else _source(self.kind, self.seed)(inner)
        seed, strength = self._variation
        if strength > 0:
            noise = slerp(noise, _source(self.kind, seed)(inner), strength)
        if inner == shape:
            return noise
        whole = self._draw(shape)
        (top, from_top, rows), (left, from_left, columns) = (_centred(inner[axis], shape[axis]) for axis in (2, 3))
        whole[:, :, top : top + rows, left : left + columns] = noise[
            :, :, from_top : from_top + rows, from_left : from_left + columns
        ]
        return whole


def slerp(low: torch.Tensor, high: torch.Tensor, part: float) -> torch.Tensor:
    """From `low` to `high`, both [1, channels, h, w], along great circles: Shoemake, "Animating rotation", 1985.

    A1111 takes each column of each channel for a vector, so its pictures ask for the same here; where they are all but
    parallel, along the line.
    """
    dots = (torch.nn.functional.normalize(low, dim=2) * torch.nn.functional.normalize(high, dim=2)).sum(2, keepdim=True)
    if float(dots.mean()) > 0.9995:
        return low * (1 - part) + high * part
    angle = torch.acos(dots)
    whole = torch.sin(angle)
    return (torch.sin((1 - part) * angle) / whole) * low + (torch.sin(part * angle) / whole) * high


def _centred(inner: int, outer: int) -> tuple[int, int, int]:
    """Where a centred part begins in the whole, where in the part, and how long what they share is."""
    margin = (outer - inner) // 2
    return (margin, 0, inner) if margin >= 0 else (0, -margin, inner + 2 * margin)


def noise_sources(params: Sampled, seeds: Sequence[int], factor: int) -> tuple[NoiseSource, ...]:
    """New streams for the pictures of a job, from their first noise on; `factor` pixels are one of the latents.

    `params.variation_seed` is that of the first picture, and not -1 if it counts; each further picture has the next.
    """
    width, height = params.seed_resize_width, params.seed_resize_height
    return tuple(
        NoiseSource(
            params.noise,
            seed,
            variation_seed=(max(params.variation_seed, 0) + index) % 2**32,
            variation_strength=params.variation_strength,
            delta=params.ensd,
            first_size=(height // factor, width // factor) if width >= factor and height >= factor else None,
        )
        for index, seed in enumerate(seeds)
    )


def noise_for_batch(sources: Sequence[NoiseSource]) -> Noise:
    """Draws from one source for each picture of a batch, on the device and in the dtype of what it is for."""

    def draw(like: torch.Tensor) -> torch.Tensor:
        _, channels, height, width = like.shape
        return torch.cat([s.draw(channels, height, width) for s in sources]).to(like.device, like.dtype)

    return draw


def with_noise(params: Started, latent: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """What the first step starts from: A1111 takes the noise times its multiplier, and the extra noise of that."""
    if params.noise_multiplier != 1.0:
        noise = noise * params.noise_multiplier
    x = latent + noise * sigma
    return x + noise * params.extra_noise if params.extra_noise > 0 else x


def philox_normal(seed: int, offset: int, count: int) -> NDArray[np.float32]:
    """Draw number `offset` of `count` standard normal values: the stream of torch's CUDA generator, float32 [count].

    Element i uses the counter (offset, 0, i, 0) and the key (low, high half of the seed). torch deals large tensors
    out to the threads of the card by another rule; like A1111 we do not follow it there.
    """
    c0 = np.full(count, offset, np.uint64)
    c1 = np.zeros(count, np.uint64)
    c2 = np.arange(count, dtype=np.uint64)
    c3 = np.zeros(count, np.uint64)
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(_ROUNDS):
        product0, product2 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product2 >> _SHIFT) ^ c1 ^ np.uint64(key0),
            product2 & _MASK,
            (product0 >> _SHIFT) ^ c3 ^ np.uint64(key1),
            product0 & _MASK,
        )
        key0, key1 = (key0 + _WEYL[0]) & 0xFFFFFFFF, (key1 + _WEYL[1]) & 0xFFFFFFFF
    unit = c0 * _TO_UNIT + _TO_UNIT / 2
    angle = c1 * _TO_ANGLE + _TO_ANGLE / 2
    normal: NDArray[np.float32] = (np.sqrt(-2.0 * np.log(unit)) * np.sin(angle)).astype(np.float32)
    return normal


def noise_at(kind: str, seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """The first noise of the stream of a seed, float32 of that shape on the host."""
    return _source(kind, seed)(shape)


def _source(kind: str, seed: int) -> Callable[[tuple[int, ...]], torch.Tensor]:
    if kind == "philox":
        offset = 0

        def philox(shape: tuple[int, ...]) -> torch.Tensor:
            nonlocal offset
            values = philox_normal(seed, offset, int(np.prod(shape)))
            offset += 1
            return torch.from_numpy(values).reshape(shape)

        return philox
    if kind == "torch-cpu":
        generator = torch.Generator("cpu").manual_seed(seed)
        return lambda shape: torch.randn(shape, generator=generator, dtype=torch.float32)
    raise ValueError(f"unknown noise source {kind!r}")
