"""Regions: prompts of their own for parts of the picture, bound to masks, beside the prompt of the whole.

Each region's prompt follows the common one ("a forest" and "a deer" -> "a forest, a deer"), and the network predicts
for each. The predictions are blended by the masks: where regions overlap they share, where none is the common prompt
rules (Bar-Tal et al., "MultiDiffusion: fusing diffusion paths for controlled image generation", 2023, equation 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from .conditioning import Conditioning
from .jobs import RegionUnit
from .text import Guidance

__all__ = ["Region", "guided_by_regions"]


@dataclass(frozen=True)
class Region:
    """A region of one pass: its unit, what guides there, and where, [1, 1, h, w] in 0..1 at latent size."""

    unit: RegionUnit
    guidance: Guidance
    mask: torch.Tensor


def guided_by_regions(common: Guidance, regions: Sequence[Region]) -> Guidance:
    """The entries of all, with their masks; `common` itself, to the last bit, where there is no region.

    The common prompt keeps what the regions leave: 1 - the sum of mask * weight, at least 0. Each part of a prompt with
    AND is blended by itself. Only regions with a negative prompt of their own have one.
    """
    if not regions:
        return common
    negative = [region for region in regions if region.unit.negative.strip()]
    return Guidance(
        _blended(common.positive, [(r.guidance.positive, r) for r in regions]),
        _blended(common.negative, [(r.guidance.negative, r) for r in negative]) if negative else common.negative,
        max(common.calls, *(region.guidance.calls for region in regions)),
    )


def _blended(
    common: tuple[Conditioning, ...], regions: Sequence[tuple[tuple[Conditioning, ...], Region]]
) -> tuple[Conditioning, ...]:
    masks = [region.mask * region.unit.weight for _, region in regions]
    rest = (1 - torch.stack(masks).sum(0)).clamp(min=0)
    # Where regions take all of the picture the common prompt by itself would be a row for nothing.
    own = [replace(entry, mask=rest) for entry in common] if bool((rest > 0).any()) else []
    for (entries, _), mask in zip(regions, masks, strict=True):
        own += [replace(entry, mask=mask) for entry in entries]
    return tuple(own)
