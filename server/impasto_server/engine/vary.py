"""A job that varies: its pictures one after the other, each told as soon as it is there."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from .jobs import Cell, Emit, Event, Job, Layer, Result
from .modes import Common, ModeParams

__all__ = ["run_cells"]

_OWN = [f.name for f in fields(Cell) if f.name not in ("variant", "params")]


def run_cells(job: Job, emit: Emit, run: Callable[[Job, Emit], Result]) -> Result:
    """Each cell by `run`, those of one checkpoint together so that none is loaded twice.

    A seed that is to be drawn is drawn once for all, unless the seed itself varies. Layers are counted as they come;
    their `info` says under `variant` where they stand. The result has the seeds of all and what ran first.
    """
    drawn = secrets.randbelow(2**32), secrets.randbelow(2**32)
    order = list(dict.fromkeys(cell.checkpoint for cell in job.cells))
    count = 0
    results: list[Result] = []
    for cell in sorted(job.cells, key=lambda cell: order.index(cell.checkpoint)):

        def told(event: Event, cell: Cell = cell) -> None:
            nonlocal count
            if isinstance(event, Layer):
                said = ", ".join(f"{title} {value}" for title, value in cell.variant.labels)
                name, info = f"{event.name}, {said}", {**event.info, "variant": cell.variant.told}
                event = replace(event, index=count, name=name, info=info)
                count += 1
            emit(event)

        own: dict[str, Any] = {name: getattr(cell, name) for name in _OWN}
        params = _seeded(cell.params, drawn, cell.variant.own_seed)
        results.append(run(replace(job, cells=(), params=params, **own), told))
    seeds = tuple(seed for result in results for seed in result.seeds)
    # The timings are the report's, which counts on from cell to cell.
    return Result(seeds, results[-1].timings, {**results[0].ran, "variants": len(results)})


def _seeded(params: ModeParams, drawn: tuple[int, int], own_seed: bool) -> ModeParams:
    """With the seed and the variation seed that were drawn for all, but for a seed that is drawn for each."""
    if not isinstance(params, Common):
        return params
    if params.seed < 0 and not own_seed:
        params = replace(params, seed=drawn[0])
    if params.variation_seed < 0 and params.variation_strength > 0:
        params = replace(params, variation_seed=drawn[1])
    return params
