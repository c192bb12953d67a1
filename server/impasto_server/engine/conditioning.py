"""What guides the picture: a list of entries, each with a text, an area, a weight and a range of steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

__all__ = ["Conditioning", "active", "blend_entries"]


@dataclass(frozen=True)
class Conditioning:
    """One entry.

    `tokens` is [1, 77 * chunks, width]. `mask` [1, 1, h, w] in latent pixels, 0..1, says where it counts (None:
    everywhere); `weight` how much against other entries at the same place. It is active while start <= fraction of
    the steps done < end. `added` holds what a family gives beside the tokens (SDXL's pooled text and sizes), each
    with a first dimension of 1.
    """

    tokens: torch.Tensor
    mask: torch.Tensor | None = None
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    added: Mapping[str, torch.Tensor] = field(default_factory=dict)


def active(entries: Iterable[Conditioning], fraction: float) -> tuple[Conditioning, ...]:
    """The entries that count when `fraction` (0..1) of the steps is done."""
    return tuple(e for e in entries if e.start <= fraction < e.end or (e.end >= 1.0 and fraction >= 1.0))


def blend_entries(entries: tuple[Conditioning, ...], outputs: list[torch.Tensor]) -> torch.Tensor:
    """The weighted mean of the entries' outputs ([batch, channels, h, w]) where their masks say; 0 where none does.

    One entry without a mask is passed on as it is, to the last bit.
    """
    if len(entries) == 1 and entries[0].mask is None:
        return outputs[0]
    total = torch.zeros_like(outputs[0])
    weights = torch.zeros_like(outputs[0][:1, :1])
    for entry, output in zip(entries, outputs, strict=True):
        weight = torch.full_like(weights, entry.weight)
        if entry.mask is not None:
            weight = weight * entry.mask.to(weight)
        total = total + output * weight
        weights = weights + weight
    return total / torch.where(weights == 0, torch.ones_like(weights), weights)
