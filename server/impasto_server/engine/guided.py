"""The guided network of one pass: its prompts encoded, its noise levels laid out. `Work` puts the adapters on it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from .adapters import Adapter
from .denoise import Denoiser
from .jobs import RegionUnit
from .params_control import SHARP
from .params_sampling import Started
from .prompt_schedule import total_calls
from .prompt_words import Words
from .regions import Region, guided_by_regions
from .sampler_names import SAMPLER_INFO
from .samplers import guidance_scale
from .schedule import known_timesteps, run_levels, scaled_linear, zero_terminal_snr
from .text import Guidance, guidance

if TYPE_CHECKING:
    from .work import Work

__all__ = ["guided_denoiser"]


def guided_denoiser(
    work: Work,
    words: Words,
    strength: float,
    adapters: tuple[Adapter, ...],
    coverage: Callable[[RegionUnit], torch.Tensor | None],
) -> tuple[Denoiser, float]:
    """The denoiser of a pass for the steps that `strength` leaves, and the highest level of its schedule.

    `coverage` says where a region counts, [1, 1, h, w] at latent size.
    """
    params, info, family = work.params, work.components.info, work.components.family
    calls = total_calls(params.sampler, params.steps)
    guided = _guidance(work, words, calls)
    if work.job.regions:
        guided = guided_by_regions(guided, _regions(work, words, calls, coverage))
    table = scaled_linear(family.beta_start, family.beta_end, family.train_steps)
    if params.zero_terminal_snr:
        table = zero_terminal_snr(table)
    levels, highest = run_levels(table, params, strength, exact=work.first is not None)
    sharpens = any(unit.preprocessor == SHARP for unit in work.job.control)
    denoiser = Denoiser(
        network=work.components.unet,
        prediction=info.prediction_type or family.prediction_type,
        positive=guided.positive,
        negative=guided.negative,
        cfg=guidance_scale(params),
        cfg_rescale=params.cfg_rescale,
        image_cfg=params.image_cfg if work.edits and isinstance(params, Started) else 1.0,
        ngms=params.ngms,
        ngms_all=params.ngms_all,
        keep_unguided=SAMPLER_INFO[params.sampler].unguided or sharpens,
        sigmas=levels,
        timestep_of=known_timesteps(table, levels, work.components.device),
        adapters=adapters,
        sequential=work.sequential,
        fractions=(call / guided.calls for call in itertools.count()) if guided.calls else None,
    )
    return denoiser, highest


def _guidance(work: Work, words: Words, calls: int) -> Guidance:
    return guidance(
        work.components,
        words,
        calls,
        cache=work.texts,
        clip_skip=work.params.clip_skip,
        vectors=work.vectors,
        before=None if work.first is None else work.first.calls,
        size=work.plan.working,
    )


def _regions(
    work: Work, words: Words, calls: int, coverage: Callable[[RegionUnit], torch.Tensor | None]
) -> list[Region]:
    found = []
    for unit, said in zip(work.job.regions, words.regions, strict=True):
        mask = coverage(unit)
        assert mask is not None, "the service asks for a mask"
        if bool(mask.any()):  # in a tile there may be nothing of it
            found.append(Region(unit, _guidance(work, said, calls), mask))
    return found
