"""The jobs: queued -> running -> finished | failed | cancelled, with exactly one terminal event each.

A job keeps its lasting events (all but progress and previews), numbered by `seq`, so that a client that lost its
connection can attach again. All of it belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from impasto_protocol.errors import ImpastoError, JobError, ResourceError
from impasto_protocol.images import digest_of
from impasto_protocol.messages import (
    Cancelled,
    ErrorInfo,
    Failed,
    Finished,
    JobEntry,
    Message,
    Output,
    Position,
    Preview,
    Progress,
    Queued,
    Started,
    Submit,
)

from ..engine import jobs as engine
from ..engine.chain import next_job, outputs_expected
from .blobs import Blobs
from .history import output_of
from .incidents import as_impasto_error
from .journal import Entry, Journal
from .ledger import Ledger, PastJob
from .orders import Order, to_engine_job
from .pixels import to_wire
from .records import ACTIVE, Listener, Record, fingerprint, plain, record_of
from .worker import Worker

__all__ = ["JobQueue"]

log = logging.getLogger("impasto.queue")

_LEDGER_BYTES = 16 << 20
"""The ledger is written anew beyond this, and beyond twice what it was then."""

Measured = Callable[[Order, float, float], None]
"""Told the seconds that a finished job took without loading, and those of loading."""


class JobQueue:
    """Runs one job after the other on a worker."""

    def __init__(
        self,
        worker: Worker,
        blobs: Blobs,
        journal: Journal,
        ledger: Ledger,
        *,
        limit: int,
        keep_ended: int,
        measured: Measured = lambda order, seconds, load: None,
    ) -> None:
        self.worker = worker
        self.blobs = blobs
        self.journal = journal
        self.ledger = ledger
        self.limit = limit
        self.keep_ended = keep_ended
        self.measured = measured
        self._records: dict[str, Record] = {}
        self._waiting: deque[Record] = deque()
        self._running: Record | None = None
        self._work = asyncio.Event()
        self._closing = False
        self._ledger_limit = _LEDGER_BYTES
        # Results are written in order; their PNGs are made beside the next job and delay nothing.
        self._disk = ThreadPoolExecutor(1, "impasto-journal")
        self._png = ThreadPoolExecutor(1, "impasto-png")

    @property
    def busy(self) -> bool:
        return self._running is not None or bool(self._waiting)

    def known(self, submit: Submit) -> Record | None:
        """The record of a submit that was here before, or None.

        Raises JobError `job.conflict` where that one asked for other things.
        """
        record = self._records.get(submit.job)
        if record is not None and record.fingerprint != fingerprint(submit):
            raise JobError(
                "job.conflict",
                "This job id was used for another job; choose a new id for each job.",
                data={"job": submit.job},
            )
        return record

    def add(self, order: Order) -> Record:
        """Queue a new job; its pictures are pinned until it ends.

        It takes the place of a waiting job that it replaces, else it goes to the end that it asks for. Raises JobError
        `job.queue_full`, ResourceError `resource.stopping`.
        """
        if self._closing:
            raise ResourceError("resource.stopping", "The server is stopping; start it again.", retryable=True)
        replaced = next((waiting for waiting in self._waiting if waiting.id == order.submit.replaces), None)
        if replaced is None and len(self._waiting) >= self.limit:
            raise JobError(
                "job.queue_full",
                f"{self.limit} jobs are waiting already; cancel some, or wait for one to end.",
                retryable=True,
            )
        submit = order.submit
        record = Record(submit.job, submit.mode, fingerprint(submit), time.time(), order)
        self.ledger.accept(record.id, record.mode, record.fingerprint, record.created)
        self.blobs.pin(order.digests)
        record.pinned = order.digests
        self._records[record.id] = record
        if submit.priority == "front":
            self._waiting.appendleft(record)
        elif replaced is not None:
            self._waiting.insert(self._waiting.index(replaced), record)
        else:
            self._waiting.append(record)
        if replaced is not None:
            self.cancel(replaced.id)
        record.position = self.position(record)
        self._tell(record, Queued(record.id, record.next_seq, record.position))
        self._tell_positions()
        self._work.set()
        return record

    def position(self, record: Record) -> int:
        """How many jobs run or wait before this one."""
        if record not in self._waiting:
            return 0
        return self._waiting.index(record) + (1 if self._running is not None else 0)

    def record(self, job: str) -> Record:
        """Raises JobError `job.unknown`."""
        if job not in self._records:
            raise JobError(
                "job.unknown",
                "The server does not know this job (any more); finished pictures are in the history.",
                data={"job": job},
            )
        return self._records[job]

    def attach(self, record: Record, after_seq: int, listener: Listener) -> None:
        """Replay the lasting events with seq > `after_seq`, then send the live ones."""
        record.listeners.add(listener)
        for event in record.events[after_seq:]:
            listener(event)
        if record.state == "queued":
            told = next(event for event in reversed(record.events) if isinstance(event, Queued))
            if told.position != record.position:
                listener(Position(record.id, record.position))

    def forget_listener(self, listener: Listener) -> None:
        """A connection is gone: jobs that nobody follows any more end where their submit says so."""
        for record in tuple(self._records.values()):
            if listener in record.listeners:
                record.listeners.discard(listener)
                if not record.listeners and record.order and record.order.submit.on_disconnect == "cancel":
                    self.cancel(record.id)

    def cancel(self, job: str) -> None:
        """Ask a job to end; nothing where it has ended. Raises JobError `job.unknown`."""
        record = self.record(job)
        if record.state == "queued":
            self._waiting.remove(record)
            self._end(record, "cancelled", Cancelled(record.id, record.next_seq))
            self._tell_positions()
        elif record.state == "running" and not record.cancel_asked:
            record.cancel_asked = True
            self.worker.cancel(record.id)

    def entries(self) -> tuple[JobEntry, ...]:
        """All jobs that are still known, oldest first."""
        return tuple(JobEntry(r.id, r.state, r.mode, r.created, len(r.events)) for r in self._records.values())

    def restore(self, past: list[PastJob], entries: list[Entry]) -> None:
        """Know the jobs of earlier runs again; those that a crash cut off have failed, with the results they had.

        `entries` are the results in the journal. Before `run`.
        """
        for job in past:
            if not job.state:
                told = {event.index for event in job.events if isinstance(event, Output)}
                kept = sorted((e for e in entries if e.job == job.job and e.index not in told), key=lambda e: e.index)
                for entry in kept:
                    job.events.append(output_of(entry, len(job.events) + 1))
                job.events.append(Failed(job.job, len(job.events) + 1, ErrorInfo.of(_cut_off())))
                log.warning("job %s was cut off by the end of the server", job.job)
            self._records[job.job] = record_of(job)
        self._forget_ended()
        self._rewrite_ledger()

    def finish_pictures(self, entries: list[Entry]) -> None:
        """Make the PNGs that an earlier run did not get to."""
        for entry in entries:
            self._png.submit(self._finish, entry)

    async def run(self) -> None:
        """Work until `close`."""
        while not self._closing:
            if not self._waiting:
                self._work.clear()
                await self._work.wait()
                continue
            record = self._running = self._waiting.popleft()
            self._tell_positions()
            try:
                assert record.order is not None, "what waits is of this run"
                await self._run_one(record, record.order)
            finally:
                self._running = None

    async def close(self, reason: str = "The server was stopped.") -> None:
        """Take no more jobs, cancel what waits and what runs, and finish what is being written."""
        self._closing = True
        for record in tuple(self._waiting):
            self.cancel(record.id)
        if self._running is not None:
            self.cancel(self._running.id)
        self._work.set()
        log.info("closing: %s", reason)

    def close_disk(self) -> None:
        """Wait for the pictures that are still being written; blocks."""
        self._disk.shutdown()
        self._png.shutdown()
        self.ledger.close()

    async def _run_one(self, record: Record, order: Order) -> None:
        record.state = "running"
        self._tell(record, Started(record.id, record.next_seq))
        begun = time.monotonic()
        try:
            result = await self._work_through(record, order)
        except engine.Cancelled:
            self._end(record, "cancelled", Cancelled(record.id, record.next_seq))
        except Exception as e:  # ends the job with a typed error; what is not one is logged as an incident
            error = as_impasto_error(e, f"job {record.id}")
            self._end(record, "failed", Failed(record.id, record.next_seq, ErrorInfo.of(error)))
        else:
            load = result.timings.get("load", 0.0)
            if not order.links:  # of a chain nobody knows what took how long
                self.measured(order, time.monotonic() - begun - load, load)
            finished = Finished(
                record.id,
                record.next_seq,
                outputs=tuple(record.outputs),
                seeds=tuple(result.seeds),
                timings={stage: float(seconds) for stage, seconds in result.timings.items()},
                ran=plain(result.ran),
            )
            self._end(record, "finished", finished)

    async def _work_through(self, record: Record, order: Order) -> engine.Result:
        job = await asyncio.to_thread(to_engine_job, order, self.blobs.peek(order.digests))
        # What was in files is in memory now: the files are free for the next pictures.
        read = self.blobs.files(record.pinned)
        self.blobs.unpin(read)
        self.blobs.drop_files(read)
        record.pinned = tuple(digest for digest in record.pinned if digest not in read)
        if record.cancel_asked:
            raise engine.Cancelled()
        while True:
            at, made = job, list[engine.Layer]()
            try:
                async with aclosing(self.worker.run(job)) as events:
                    async for event in events:
                        if isinstance(event, engine.Result):
                            return event
                        await self._take(record, order, event)
                        if isinstance(event, engine.Layer) and at.chain.then:
                            made.append(event)
                            if len(made) == outputs_expected(at):
                                at, made = next_job(at, made), []
            except ResourceError as error:
                # A link that has ended is not run again. One that ends the worker twice ends the job.
                if error.code != "resource.worker_died" or at is job or record.cancel_asked:
                    raise
                log.warning("job %s goes on from its last finished link: %s", record.id, error)
                job = at
                continue
            raise AssertionError("a worker ends with a Result or raises")

    async def _take(self, record: Record, order: Order, event: engine.Event) -> None:
        if isinstance(event, engine.Progress):
            fraction = min(max(event.fraction, 0.0), 1.0)
            record.tell(Progress(record.id, event.stage, event.step, event.steps, fraction), lasting=False)
        elif isinstance(event, engine.Preview):
            preview = Preview(record.id, event.jpeg, event.width, event.height, event.step)
            record.tell(preview, lasting=False)
        else:
            await self._save(record, order.submit.output_format, event)

    async def _save(self, record: Record, format: str, layer: engine.Layer) -> None:
        """Onto the disk first, then announced."""

        def write() -> tuple[Entry, bytes]:
            data = to_wire(layer.pixels, format)
            entry = self.journal.write(
                job=record.id,
                index=layer.index,
                mode=record.mode,
                pixels=layer.pixels,
                format=format,
                digest=digest_of(data),
                box=(layer.box.x, layer.box.y, layer.box.width, layer.box.height),
                layer=layer.name,
                alpha=layer.alpha,
                seed=layer.seed,
                recipe=layer.info,
                stage=layer.stage,
            )
            return entry, data

        entry, data = await asyncio.get_running_loop().run_in_executor(self._disk, write)
        try:
            self.blobs.add(data, entry.digest)
        except ResourceError as e:
            log.info("result %s is kept on disk only: %s", entry.name, e)
        record.outputs.append(entry.digest)
        self._tell(record, output_of(entry, record.next_seq))
        self._png.submit(self._finish, entry)

    def _finish(self, entry: Entry) -> None:
        try:
            self.journal.finish(entry)
        except (OSError, ValueError, ImpastoError):
            log.exception("the PNG of %s could not be made; its raw pixels stay", entry.name)

    def _tell(self, record: Record, event: Message) -> None:
        """A lasting event: written down first."""
        self.ledger.tell(event)
        record.tell(event)

    def _tell_positions(self) -> None:
        """Tell each waiting job's listeners where it stands now; not written down, the latest holds."""
        if self._closing:
            return  # all of them are about to end
        before = 1 if self._running is not None else 0
        for position, record in enumerate(self._waiting, before):
            if record.position != position:
                record.position = position
                record.tell(Position(record.id, position), lasting=False)

    def _end(self, record: Record, state: str, terminal: Message) -> None:
        assert record.state in ACTIVE, "a job ends once"
        record.state = state
        self.blobs.unpin(record.pinned)
        self.blobs.drop_files(record.pinned)
        self._tell(record, terminal)
        record.listeners.clear()
        self._forget_ended()
        if self.ledger.byte_count > self._ledger_limit:
            self._rewrite_ledger()

    def _forget_ended(self) -> None:
        ended = [r.id for r in self._records.values() if r.state not in ACTIVE]
        for job in ended[: max(0, len(ended) - self.keep_ended)]:
            del self._records[job]

    def _rewrite_ledger(self) -> None:
        self.ledger.rewrite(record.past for record in self._records.values())
        self._ledger_limit = max(_LEDGER_BYTES, 2 * self.ledger.byte_count)


def _cut_off() -> ResourceError:
    return ResourceError(
        "resource.server_died",
        "The Impasto server ended while this job waited or ran; run it again. Pictures that it had finished are kept.",
        retryable=True,
    )
