"""The seeds of a job and of each of its pictures. No torch here."""

from __future__ import annotations

import secrets
from dataclasses import replace

from .modes import DiffusionParams

__all__ = ["drawn_seeds", "picture_seeds", "seeds_of"]

_SEEDS = 2**32


def drawn_seeds(params: DiffusionParams) -> DiffusionParams:
    """The parameters with the seeds that really run: -1 becomes one that was drawn.

    A variation seed is drawn only where it counts.
    """
    if params.seed < 0:
        params = replace(params, seed=secrets.randbelow(_SEEDS))
    if params.variation_seed < 0 and params.variation_strength > 0:
        params = replace(params, variation_seed=secrets.randbelow(_SEEDS))
    return params


def seeds_of(params: DiffusionParams) -> tuple[int, ...]:
    """The seed of each picture: they follow one another, or are all the same where the variation seeds do."""
    step = 0 if params.variation_strength > 0 else 1
    return tuple((params.seed + i * step) % _SEEDS for i in range(params.batch))


def picture_seeds(params: DiffusionParams, index: int) -> DiffusionParams:
    """The parameters that make picture `index` of the batch alone."""
    variation = params.variation_seed
    return replace(
        params,
        seed=seeds_of(params)[index],
        variation_seed=(variation + index) % _SEEDS if params.variation_strength > 0 else variation,
        batch=1,
    )
