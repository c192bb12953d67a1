"""One job from the question to its results, waited for: what the menu procedures and scripts run."""

from __future__ import annotations

import queue
import uuid
from typing import Any, Callable, List, Optional

from gi.repository import Gimp
from impasto_client.document import ResultLayer
from impasto_client.editor import Host, Target
from impasto_client.events import ConnectionChanged, Event, Failed, JobChanged, Planned, ResultReady
from impasto_client.jobs import JobList, JobState
from impasto_client.targets import snapshot
from impasto_client.tasks import Runner
from impasto_client.wording import describe
from impasto_protocol.errors import ImpastoError, ResourceError

__all__ = ["Cancelled", "StatusBar", "host_name", "run_job"]


class Cancelled(Exception):
    """The job ended without a result because someone asked for that."""


def host_name() -> str:
    """How the server's log calls this editor."""
    return f"gimp {Gimp.version()}"


def run_job(host: Host, target: Target, on_progress: Callable[[JobState], None]) -> List[ResultLayer]:
    """Run a job and wait for it; its results. `on_progress` hears of every change, on this thread.

    Raises what the server answers, Obstacle where the image is in the way, and Cancelled. The job ends with this
    process: GIMP's own Cancel kills it, and the server hears that the connection is gone.
    """
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    runner = Runner(host_name(), events.put, preview=None, on_disconnect="cancel")
    runner.start()
    try:
        return _run(host, runner, events, target, on_progress)
    finally:
        runner.stop()
        runner.join()


def _run(
    host: Host,
    runner: Runner,
    events: queue.SimpleQueue[Event],
    target: Target,
    on_progress: Callable[[JobState], None],
) -> List[ResultLayer]:
    job_id = uuid.uuid4().hex
    jobs = JobList()
    on_progress(jobs.add(job_id, target.mode))
    results: List[ResultLayer] = []
    waiting = True
    runner.plan(job_id, target.mode, dict(target.params), target.canvas.size, target.area)
    while True:
        event = events.get()
        if isinstance(event, Planned):
            runner.submit(job_id, target.mode, dict(target.params), snapshot(host, target, event.plan.box))
        elif isinstance(event, Failed):
            raise event.error
        elif isinstance(event, ConnectionChanged) and event.state == "failed" and waiting:
            raise ResourceError("resource.connection_lost", event.message or "The server cannot be reached.")
        elif isinstance(event, ResultReady):
            results.append(event.result)
        job = jobs.apply(event)
        if job is None:
            continue
        waiting = job.state == "waiting"
        if job.state == "finished":
            return results
        if job.state == "failed":
            raise job.error or ImpastoError("internal.failure", "The job failed.")
        if job.state == "cancelled":
            raise Cancelled
        if isinstance(event, JobChanged):
            on_progress(job)


class StatusBar:
    """A job's progress in GIMP's status bar, whose Cancel ends this process."""

    def __init__(self, text: str) -> None:
        Gimp.progress_init(text)
        self._shown: Optional[str] = None

    def __call__(self, job: JobState) -> None:
        text = describe(job)
        if text != self._shown:
            self._shown = text
            Gimp.progress_set_text(text)
        if job.state in ("running", "fetching"):
            Gimp.progress_update(job.fraction)
        else:
            Gimp.progress_pulse()

    def __enter__(self) -> StatusBar:
        return self

    def __exit__(self, *exc: Any) -> None:
        Gimp.progress_end()
