"""The engine in a spawned process: a crash or a lack of memory takes only the job, and a deaf one can be killed."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import secrets
import signal
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from impasto_protocol.errors import ImpastoError, ModelError, ResourceError

from ..engine.jobs import Cancelled, Event, Job, Result
from .share import copy_in, copy_out, discard
from .worker import raise_end
from .worker_main import (
    Begun,
    Cancel,
    EngineSpec,
    Failed,
    Free,
    Freed,
    Ready,
    Reply,
    SharedJob,
    SharedLayer,
    Stopped,
    Taken,
    main,
)

__all__ = ["ProcessWorker"]

log = logging.getLogger("impasto.worker")


def _is_end(reply: Reply | None) -> bool:
    return reply is None or isinstance(reply, Result | Failed | Stopped)


class _Link:
    """One worker process: its pipe, and a thread that reads it."""

    def __init__(self, spec: EngineSpec, loop: asyncio.AbstractEventLoop) -> None:
        context = multiprocessing.get_context("spawn")
        self.prefix = f"impasto-{os.getpid()}-{secrets.token_hex(4)}"
        self.loop = loop
        self.inbox: asyncio.Queue[Reply | None] = asyncio.Queue()
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=main, args=(theirs, f"{self.prefix}-out", spec), name="impasto-worker", daemon=True
        )
        self.process.start()
        theirs.close()
        self.sending = threading.Lock()
        self.received = 0
        self.jobs = 0
        self.device = ""
        self.freed = asyncio.Event()
        """Set when the process has given memory back, or is gone."""
        self.broken = False
        """The engine could not be made; the process is ending."""
        self.reader = threading.Thread(target=self._read, name="impasto-worker-reader", daemon=True)
        self.reader.start()

    def send(self, message: Any) -> None:
        """Raises OSError where the process is gone."""
        with self.sending:
            self.connection.send(message)

    def send_job(self, job: Job) -> list[SharedMemory]:
        """Hand over a job; the segments are to be closed and unlinked when it has ended."""
        self.jobs += 1
        kept: list[SharedMemory] = []
        parts: dict[str, Any] = {}
        try:
            for key in ("image", "mask", "backdrop"):
                pixels = getattr(job, key)
                if pixels is not None:
                    parts[key], memory = copy_in(pixels, f"{self.prefix}-{key[:2]}-{self.jobs}")
                    kept.append(memory)
            self.send(SharedJob(replace(job, image=None, mask=None, backdrop=None), **parts))
        except BaseException:
            _release(kept)
            raise
        return kept

    def _read(self) -> None:
        while True:
            try:
                message: Any = self.connection.recv()
                if isinstance(message, SharedLayer):
                    self.received += 1
                    pixels = copy_out(message.pixels, unlink=True)
                    message = replace(message.layer, pixels=pixels)
                    self._post(message)
                    self.send(Taken(f"{self.prefix}-out-{self.received - 1}"))
                    continue
            except (EOFError, OSError):
                break
            if isinstance(message, Ready):
                self.device = message.device
                continue
            if isinstance(message, Freed):
                self._call(self.freed.set)
                continue
            if isinstance(message, Failed) and not self.device:
                self.broken = True
            self._post(message)
        self.process.join()
        # Segments that the process made and could no longer announce.
        while discard(f"{self.prefix}-out-{self.received}"):
            self.received += 1
        self._call(self.freed.set)
        self._post(None)

    def _post(self, message: Reply | None) -> None:
        self._call(self.inbox.put_nowait, message)

    def _call(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            log.info("the event loop closed before the worker's last message")

    def kill(self) -> None:
        self.process.kill()

    async def join(self) -> None:
        await asyncio.to_thread(self.reader.join)
        self.connection.close()


def _release(segments: list[SharedMemory]) -> None:
    """Close and unlink the segments of a job that has ended."""
    for memory in segments:
        memory.close()
        memory.unlink()


class ProcessWorker:
    """A spawned process; one that died is replaced when the next job comes."""

    def __init__(self, spec: EngineSpec, cancel_grace: float = 10.0) -> None:
        self.spec = spec
        self.cancel_grace = cancel_grace
        self.runs = 0
        self._link: _Link | None = None
        self._current: str | None = None
        self._cancelled = False
        self._killer: asyncio.TimerHandle | None = None
        self._device = "starting"
        self._starting = asyncio.Lock()

    @property
    def device(self) -> str:
        if self._link is not None and self._link.device:
            self._device = self._link.device
        return self._device

    @property
    def pid(self) -> int | None:
        """The process id, or None while there is no process."""
        return self._link.process.pid if self._link is not None else None

    async def start(self) -> None:
        await self._living_link()

    async def run(self, job: Job) -> AsyncGenerator[Event | Result, None]:
        self.runs += 1
        self._current, self._cancelled = job.id, False
        kept: list[SharedMemory] = []
        link, running = None, False
        try:
            link = await self._living_link()
            kept = await self._hand_over(link, job)
            running, begun, again = True, False, True
            while True:
                reply = await link.inbox.get()
                running = not _is_end(reply)
                if reply is None:
                    gone = await self._died(link)
                    if begun or not again or self._cancelled:
                        raise gone
                    # It died between two jobs, unnoticed: this one was never begun.
                    again = False
                    _release(kept)
                    kept = []
                    link = await self._living_link()
                    kept = await self._hand_over(link, job)
                    running = True
                elif isinstance(reply, Begun):
                    begun = True
                elif isinstance(reply, Failed | Stopped):
                    raise_end(reply)
                elif not isinstance(reply, Ready):
                    yield reply
                    if isinstance(reply, Result):
                        return
        finally:
            if running and link is not None:
                # The caller gave up in mid-job; what is left of its events must not reach the next job.
                self.cancel(job.id)
                while not _is_end(await link.inbox.get()):
                    pass
            self._current = None
            if self._killer is not None:
                self._killer.cancel()
                self._killer = None
            _release(kept)

    async def _hand_over(self, link: _Link, job: Job) -> list[SharedMemory]:
        if self._cancelled:
            raise Cancelled()
        try:
            kept = await asyncio.to_thread(link.send_job, job)
        except OSError:
            return []  # the process is gone, which the inbox will tell
        if self._cancelled:
            self._tell_cancel(link, job.id)
        return kept

    def cancel(self, job_id: str) -> None:
        if job_id != self._current or self._cancelled:
            return
        self._cancelled = True
        if self._link is not None:
            self._tell_cancel(self._link, job_id)

    def _tell_cancel(self, link: _Link, job_id: str) -> None:
        try:
            link.send(Cancel(job_id))
        except OSError:
            log.info("the worker process was gone when a job was cancelled")
        if self._killer is None:
            self._killer = asyncio.get_running_loop().call_later(self.cancel_grace, self._kill, link)

    async def free(self) -> None:
        link = self._link
        if link is None:
            return
        link.freed.clear()
        try:
            link.send(Free())
        except OSError:
            return  # a process that is gone holds nothing
        await link.freed.wait()

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.kill()
            await link.join()

    def _kill(self, link: _Link) -> None:
        log.warning("the worker did not hear a cancel within %g s and is killed", self.cancel_grace)
        link.kill()

    async def _living_link(self) -> _Link:
        async with self._starting:
            if self._link is not None and (self._link.broken or not self._link.process.is_alive()):
                await self._link.join()
                self._link = None
            if self._link is None:
                self._link = await asyncio.to_thread(_Link, self.spec, asyncio.get_running_loop())
            return self._link

    async def _died(self, link: _Link) -> ImpastoError | Cancelled:
        code = link.process.exitcode
        await link.join()
        if self._link is link:
            self._link = None
        if self._cancelled:
            return Cancelled()
        log.error("the worker process ended with code %s while it ran a job", code)
        if code is not None and code == -getattr(signal, "SIGBUS", 0):
            return ModelError(
                "model.corrupt",
                "A model's file was cut short or replaced while it was in use; let the copying end, then run the job "
                "again.",
                retryable=True,
            )
        return ResourceError(
            "resource.worker_died",
            "The process that computes the picture ended unexpectedly (often the machine ran out of memory); "
            "it is started again with the next job. Try again, perhaps at a smaller size.",
            retryable=True,
            data={"exit_code": code if code is not None else 0},
        )
