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

__all__ = ["Noise", "NoiseSource", "noise_for_batch", "philox_normal"]

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
    """The stream of one picture. `kind` is "philox" or "torch-cpu", `seed` from 0 to 2**64 - 1."""

    def __init__(self, kind: str, seed: int) -> None:
        if not 0 <= seed < 2**64:
            raise ValueError(f"a seed is from 0 to 2**64 - 1, not {seed}")
        self.kind, self.seed = kind, seed
        self._draw = _source(kind, seed)

    def draw(self, channels: int, height: int, width: int) -> torch.Tensor:
        """The next noise of the stream, float32 [1, channels, height, width] on the host."""
        return self._draw((1, channels, height, width))


def noise_for_batch(sources: Sequence[NoiseSource]) -> Noise:
    """Draws from one source for each picture of a batch, on the device and in the dtype of what it is for."""

    def draw(like: torch.Tensor) -> torch.Tensor:
        _, channels, height, width = like.shape
        return torch.cat([s.draw(channels, height, width) for s in sources]).to(like.device, like.dtype)

    return draw


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
