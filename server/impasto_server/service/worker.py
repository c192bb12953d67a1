"""The engine as the service sees it: a worker that takes one job at a time and yields its events.

Two implementations behind one interface: a spawned process (`worker_process`), and the thread in this process for tests
and single jobs on the command line.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

from impasto_protocol.errors import InternalError

from ..engine.jobs import Cancelled, Event, Job, Layer, Result
from .worker_main import (
    OFFLINE,
    Begun,
    EngineLike,
    EngineSpec,
    Failed,
    Ready,
    Reply,
    Stopped,
    create_engine,
    device_of,
    free_engine,
    run_job,
    start_failure,
)

__all__ = ["ThreadWorker", "Worker", "raise_end"]

log = logging.getLogger("impasto.worker")


class Worker(Protocol):
    """Runs one job at a time."""

    runs: int
    """Jobs that it was given."""

    @property
    def device(self) -> str:
        """What the engine runs on; "starting" until that is known."""

    async def start(self) -> None:
        """Begin to make the engine ready, so that the first job need not wait for all of it."""

    def run(self, job: Job) -> AsyncGenerator[Event | Result, None]:
        """The job's events, last its Result. Raises Cancelled, or the ImpastoError that it failed with."""

    def cancel(self, job_id: str) -> None:
        """End that job soon; nothing where it does not run."""

    async def free(self) -> None:
        """Give back the memory of loaded models, between two jobs; ends when that is done."""

    async def close(self) -> None:
        """End the worker, with the job that may be running."""


def raise_end(reply: Failed | Stopped) -> None:
    """Raise what ended a job; a defect gets its incident id, and its traceback goes to the log."""
    if isinstance(reply, Stopped):
        raise Cancelled()
    if isinstance(reply.error, InternalError):
        incident = reply.error.data.setdefault("incident", secrets.token_hex(4))
        log.error("incident %s: %s\n%s", incident, reply.error.message, reply.traceback)
    elif reply.traceback:
        log.warning("%s\n%s", reply.error, reply.traceback)
    raise reply.error


class ThreadWorker:
    """The engine in a thread of this process: the same behaviour, except that nothing can be killed."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.runs = 0
        self._pool = ThreadPoolExecutor(1, "impasto-engine")
        self._engine: EngineLike | None = None
        self._current: str | None = None
        self._stop = threading.Event()
        """Of the running job; each job has its own."""

    @property
    def device(self) -> str:
        return device_of(self._engine) if self._engine is not None else "starting"

    async def start(self) -> None:
        """The engine is made with the first job: a thread would slow the start of a single one."""

    async def run(self, job: Job) -> AsyncGenerator[Event | Result, None]:
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[Reply] = asyncio.Queue()
        self.runs += 1
        self._current, stop = job.id, threading.Event()
        self._stop = stop

        def post(reply: Reply) -> None:
            try:
                loop.call_soon_threadsafe(inbox.put_nowait, reply)
            except RuntimeError:
                log.info("the event loop closed before the engine ended")

        self._pool.submit(self._work, job, post, stop)
        try:
            while True:
                reply = await inbox.get()
                if isinstance(reply, Failed | Stopped):
                    raise_end(reply)
                elif not isinstance(reply, Ready | Begun):
                    yield reply
                    if isinstance(reply, Result):
                        return
        finally:
            stop.set()
            self._current = None

    def _work(self, job: Job, post: Any, stop: threading.Event) -> None:
        if self._engine is None:
            os.environ.update(OFFLINE)
            try:
                self._engine = create_engine(self.spec)
            except Exception as e:  # told to the client, logged with its traceback
                post(start_failure(e))
                return
        # The layer's pixels are the caller's own from here on, as they are with a process.
        post(run_job(self._engine, job, lambda e: post(_own(e)), stop.is_set))

    def cancel(self, job_id: str) -> None:
        if job_id == self._current:
            self._stop.set()

    async def free(self) -> None:
        engine = self._engine
        if engine is not None:
            await asyncio.wrap_future(self._pool.submit(free_engine, engine))

    async def close(self) -> None:
        self._stop.set()
        await asyncio.to_thread(self._pool.shutdown)


def _own(event: Event) -> Event:
    return replace(event, pixels=event.pixels.copy()) if isinstance(event, Layer) else event
