"""How many steps run, and how often they look at the network: A1111's rules. No torch here."""

from __future__ import annotations

from .params_sampling import Sampled
from .sampler_names import SAMPLER_INFO, resolve_schedule

__all__ = ["level_count", "model_calls", "model_steps", "run_steps", "scheduled_steps"]

_ROWS = 1000
"""Rows of the training table."""

_ADAPTIVE_CALLS = 60
"""Looks of DPM adaptive at common settings; how many there will be nobody knows before."""


def model_steps(steps: int, strength: float) -> int:
    """Steps that really run: A1111's rule, int(min(strength, .999) * steps) + 1."""
    return int(min(strength, 0.999) * steps) + 1


def scheduled_steps(steps: int, strength: float) -> int:
    """The steps of the schedule whose last `steps` run where exactly that many shall: int(steps / min(strength, .999)).

    A1111's rule; but never more than the training table has rows. The strength is above 0.
    """
    return min(_ROWS, int(steps / min(strength, 0.999)))


def level_count(schedule: str, sampler: str, steps: int) -> int:
    """How many steps a schedule has when it is asked for `steps`: the same number, but for "ddim".

    That takes every (1000 // steps)-th timestep of 1000, from 1 on.
    """
    if resolve_schedule(schedule, sampler) != "ddim":
        return steps
    left_out = int(SAMPLER_INFO[sampler].discards)
    return len(range(1, _ROWS, max(_ROWS // (steps + left_out), 1))) - left_out


def run_steps(params: Sampled, strength: float = 1.0) -> int:
    """The steps that run, for a job that starts from a picture by its strength."""
    if params.exact_steps and strength > 0:
        return params.steps
    return model_steps(level_count(params.schedule, params.sampler, params.steps), strength)


def model_calls(sampler: str, steps: int) -> int:
    """How often `steps` steps look at the network; a guess for DPM adaptive, which decides as it goes."""
    if sampler == "dpm_adaptive":
        return _ADAPTIVE_CALLS if steps else 0
    if SAMPLER_INFO[sampler].two_calls:
        return max(2 * steps - 1, 0)
    return steps + 1 if sampler == "plms" and steps > 1 else steps
