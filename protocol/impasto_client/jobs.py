"""What an editor shows of its jobs, built from the runner's events alone. Not thread-safe: feed it on one thread."""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass, field
from typing import Deque, Dict, Optional, Tuple

from impasto_protocol.errors import ImpastoError

from .document import ResultLayer
from .events import TERMINAL_STATES, Event, JobChanged, PreviewReady, ResultReady

__all__ = ["JobList", "JobState"]


@dataclass(frozen=True)
class JobState:
    """One job as the docker shows it; fields as in `JobChanged`, plus the latest preview and the number of results."""

    job_id: str
    mode: str = ""
    title: str = ""
    state: str = "waiting"
    fraction: float = 0.0
    stage: str = ""
    step: int = 0
    steps: int = 0
    position: int = 0
    error: Optional[ImpastoError] = None
    preview: Optional[bytes] = field(default=None, repr=False)
    results: int = 0

    @property
    def active(self) -> bool:
        """True until the terminal event."""
        return self.state not in TERMINAL_STATES


class JobList:
    """Active jobs in the order of their submission, and the last results, newest first.

    At most `keep_results` results of `keep_bytes` together are kept, and `keep_ended` jobs that have ended.
    """

    def __init__(self, keep_results: int = 20, keep_ended: int = 20, keep_bytes: int = 256 << 20) -> None:
        self._jobs: Dict[str, JobState] = {}
        self._results: Deque[ResultLayer] = deque(maxlen=keep_results)
        self._keep_bytes = keep_bytes
        self._keep_ended = keep_ended

    def add(self, job_id: str, mode: str = "", title: str = "") -> JobState:
        """Note a job that is being submitted, so that it shows before the first event."""
        self._jobs[job_id] = state = JobState(job_id, mode, title)
        return state

    def apply(self, event: Event) -> Optional[JobState]:
        """The new state of the job that `event` is about, or None for events of no job.

        An event after the job's end changes nothing: a late preview must not bring it back.
        """
        if not isinstance(event, (JobChanged, PreviewReady, ResultReady)):
            return None
        old = self._jobs.get(event.job_id) or self.add(event.job_id)
        if not old.active:
            return old
        if isinstance(event, JobChanged):
            new = dataclasses.replace(
                old,
                state=event.state,
                fraction=1.0 if event.state == "finished" else max(old.fraction, event.fraction),
                stage=event.stage,
                step=event.step,
                steps=event.steps,
                position=event.position,
                error=event.error,
            )
        elif isinstance(event, PreviewReady):
            new = dataclasses.replace(old, preview=event.jpeg)
        else:
            new = dataclasses.replace(old, results=old.results + 1)
            self._remember(event.result)
        self._jobs[event.job_id] = new
        self._forget_ended()
        return new

    def get(self, job_id: str) -> Optional[JobState]:
        return self._jobs.get(job_id)

    @property
    def active(self) -> Tuple[JobState, ...]:
        """Jobs that have not ended, oldest first."""
        return tuple(job for job in self._jobs.values() if job.active)

    @property
    def ended(self) -> Tuple[JobState, ...]:
        """The last jobs that ended, oldest first."""
        return tuple(job for job in self._jobs.values() if not job.active)

    @property
    def results(self) -> Tuple[ResultLayer, ...]:
        """The last results of all jobs, newest first."""
        return tuple(self._results)

    def _remember(self, result: ResultLayer) -> None:
        self._results.appendleft(result)
        while len(self._results) > 1 and sum(len(kept.pixels) for kept in self._results) > self._keep_bytes:
            self._results.pop()

    def _forget_ended(self) -> None:
        for job in self.ended[: -self._keep_ended]:
            del self._jobs[job.job_id]
