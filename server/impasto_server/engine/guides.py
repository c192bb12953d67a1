"""What a result says of the units that guided it: what really ran. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .jobs import ControlUnit, IPUnit, Job, ReferenceUnit

__all__ = ["active_steps", "guides_told"]


def active_steps(start: float, end: float, steps: int) -> int:
    """In how many of `steps` steps a unit with this range speaks: A1111's rule, both ends belong to it."""
    return sum(start <= index / steps <= end for index in range(steps))


def guides_told(job: Job, kinds: Mapping[str, Mapping[str, Any]], steps: int) -> dict[str, Any]:
    """The units of the job as plain values, by the lists that they stand in; `kinds` has what is known of the loaded
    networks by the paths of their units, `steps` is the number of the last pass."""

    def told(unit: ControlUnit | ReferenceUnit | IPUnit) -> dict[str, Any]:
        return {**unit.told, **kinds.get(unit.path, {}), "steps": active_steps(unit.start, unit.end, steps)}

    return {
        **({"references": [told(unit) for unit in job.references]} if job.references else {}),
        **({"control": [told(unit) for unit in job.control]} if job.control else {}),
        **({"ip_adapters": [told(unit) for unit in job.ip_adapters]} if job.ip_adapters else {}),
        **({"regions": [unit.told for unit in job.regions]} if job.regions else {}),
    }
