"""What guides the picture: a list of entries, each with a text, an area, a weight and a range of steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

__all__ = ["Conditioning", "active", "blend_entries", "compose", "is_composed"]


@dataclass(frozen=True)
class Conditioning:
    """One entry.

    `tokens` is [1, 77 * chunks, width]. `mask` [1, 1, h, w] in latent pixels, 0..1, says where it counts (None:
    everywhere); `weight` how much against other entries at the same place. It is active while start <= fraction of
    the steps done < end. `added` holds what a family gives beside the tokens (SDXL's pooled text and sizes), each
    with a first dimension of 1. Entries of one `part` are blended; each part of a prompt with AND is guided apart, by
    its `scale` (which may be negative) times the guidance scale.
    """

    tokens: torch.Tensor
    mask: torch.Tensor | None = None
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    added: Mapping[str, torch.Tensor] = field(default_factory=dict)
    part: int = 0
    scale: float = 1.0


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


def is_composed(entries: tuple[Conditioning, ...]) -> bool:
    """Whether the entries are those of a prompt with AND, which `compose` puts together."""
    return any(entry.part != entries[0].part or entry.scale != 1.0 for entry in entries)


def compose(
    entries: tuple[Conditioning, ...], outputs: list[torch.Tensor], uncond: torch.Tensor, cfg: float
) -> torch.Tensor:
    """uncond + sum over the parts of cfg * scale * (part - uncond), all [batch, channels, h, w].

    Composable diffusion: Liu et al., "Compositional visual generation with composable diffusion models", 2022,
    equation 11. `outputs` are those of `entries`, `uncond` that of the negative side.
    """
    guided = uncond
    for part in dict.fromkeys(entry.part for entry in entries):
        chosen = [i for i, entry in enumerate(entries) if entry.part == part]
        blended = blend_entries(tuple(entries[i] for i in chosen), [outputs[i] for i in chosen])
        guided = guided + cfg * entries[chosen[0]].scale * (blended - uncond)
    return guided
