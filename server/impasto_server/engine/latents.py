"""Latents of pictures that were encoded lately, by what they show: another seed over one picture encodes nothing."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
import torch

from .jobs import Pixels

__all__ = ["LatentCache"]


class LatentCache:
    """The last latents by VAE and picture, on the CPU in fp32, at most `budget_bytes` of them; for one thread.

    An encoding depends on nothing else (it draws no noise), so that what is kept is what would come to the last bit.
    """

    def __init__(self, budget_bytes: int = 64 << 20) -> None:
        self._budget = budget_bytes
        self._held: OrderedDict[Hashable, torch.Tensor] = OrderedDict()

    def get(self, vae: Hashable, picture: Pixels, encode: Callable[[Pixels], torch.Tensor]) -> torch.Tensor:
        """The latents of an RGB picture by the VAE of that identity, by `encode` where they are not held."""
        # The quickest here; nobody gains by two pictures of his own that have the same.
        digest = hashlib.sha1(np.ascontiguousarray(picture).data, usedforsecurity=False).digest()
        key = (vae, picture.shape, digest)
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            return held.clone()
        latents = encode(picture)
        self._held[key] = latents.cpu().clone()
        while self.size_bytes > self._budget:
            self._held.popitem(last=False)
        return latents

    @property
    def size_bytes(self) -> int:
        """Bytes of all that are held."""
        return sum(value.numel() * value.element_size() for value in self._held.values())

    def clear(self) -> None:
        """Let go of all."""
        self._held.clear()
