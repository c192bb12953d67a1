"""What a job at work tells: progress that never goes back, seconds by stage, and whether it shall end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

from .jobs import Cancelled, Emit, Progress
from .modes import Annotate, FaceSwap, ModeParams, Refine, Upscale
from .params_hires import Hires, second_pass

__all__ = ["Report", "Share", "expected"]

Share = tuple[str, float]
"""A stage, and how long it takes against the others."""

_DENOISE = 77.0


def expected(params: ModeParams) -> tuple[Share, ...]:
    """The stages of a job, in order."""
    if isinstance(params, Upscale):
        load = (("load", 2.0),) if params.upscaler or params.second_share > 0 else ()
        return (*load, ("upscale", 100))
    if isinstance(params, Annotate):
        return (("annotate", 100),)
    if isinstance(params, FaceSwap):
        return (("detect", 50), ("swap", 50))
    if isinstance(params, Refine):
        return (("load", 8), ("encode", 7), ("denoise", 3 * _DENOISE), ("compose", 10), ("decode", 2))
    first = (("load", 8.0), ("encode", 7.0), ("denoise", _DENOISE))
    if not isinstance(params, Hires) or not params.hires:
        return (*first, ("decode", 8))
    steps = second_pass(params).get("steps", params.steps) if params.hires_strength > 0 else 0
    # A step costs as the pixels that it works on.
    again = _DENOISE * params.hires_scale**2 * steps / params.steps
    kept = (("decode", 4.0),) if params.hires_keep_first else ()
    return (*first, *kept, ("load", 2), ("upscale", 6), ("encode", 6), ("hires", again), ("decode", 20))


class Report:
    """Progress that never goes back, timings by stage, and the cancel check.

    `expect` says which stages will come, in their order. One that was not expected takes no part of the whole.
    """

    def __init__(self, emit: Emit, cancelled: Callable[[], bool]) -> None:
        self.emit, self.cancelled = emit, cancelled
        self.timings: dict[str, float] = {}
        self._fraction = 0.0
        self._spans: list[tuple[str, float, float]] = []
        self._next = 0
        self._span = (0.0, 0.0)

    def expect(self, shares: Sequence[Share]) -> None:
        """The stages of the job, in order."""
        ends = list(accumulate(share for _, share in shares))
        starts = [0.0, *ends]
        whole = ends[-1]
        self._spans = [
            (name, start / whole, end / whole) for (name, _), start, end in zip(shares, starts, ends, strict=False)
        ]
        self._next = 0

    @property
    def place(self) -> int:
        """How many of the expected stages have begun; set back, those from there on come once more."""
        return self._next

    @place.setter
    def place(self, place: int) -> None:
        self._next = place

    def check(self) -> None:
        """Raise Cancelled where the job shall end."""
        if self.cancelled():
            raise Cancelled

    def progress(self, stage: str, step: int, steps: int) -> None:
        """Step `step` of `steps` of the stage that runs is done."""
        self.check()
        start, end = self._span
        self._fraction = max(self._fraction, end if step >= steps else start + (end - start) * step / steps)
        self.emit(Progress(stage, step, steps, self._fraction))

    @contextmanager
    def stage(self, name: str, steps: int = 1) -> Iterator[None]:
        """One stage; its steps in between are reported by `progress`."""
        self._enter(name)
        self.progress(name, 0, steps)
        start = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start
        if steps == 1:
            self.progress(name, 1, 1)

    def _enter(self, name: str) -> None:
        for index in range(self._next, len(self._spans)):
            expected, start, end = self._spans[index]
            if expected == name:
                self._next, self._span = index + 1, (start, end)
                return
        self._span = (self._fraction, self._fraction)
