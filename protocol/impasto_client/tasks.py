"""What an editor uses: plan, submit and cancel without ever waiting; everything comes back as events.

Threads: the *link* keeps the connection and asks quick questions (plan, catalogue, cancel), *send* uploads and submits,
*receive* downloads results and tells the ends of jobs, so that none of them waits behind another's pixels. The
client's reading thread passes on progress and previews at once.
"""

from __future__ import annotations

import collections
import logging
import threading
from pathlib import Path
from typing import Any, Callable, Deque, Dict, Mapping, Optional, Tuple, Union

from impasto_protocol import messages as wire
from impasto_protocol.errors import ImpastoError, JobError, ResourceError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.version import VERSION

from .client import Client
from .document import Snapshot
from .events import (
    CatalogChanged,
    Diagnosed,
    Event,
    Failed,
    JobChanged,
    ParametersRead,
    Planned,
    PlanResult,
    PreviewReady,
    ResultReady,
    WordsFound,
)
from .kept import Kept
from .lanes import Lane
from .link import Link, internal_error
from .servers import Servers
from .transfers import fetch_result, send_job, whole_catalog

__all__ = ["Runner"]

_log = logging.getLogger("impasto.client")

_ENDED_KEPT = 256
_DEFAULT_PREVIEW = wire.PreviewWish(max_size=384, interval_ms=150)


class _Job:
    """A job between `submit` and its end. `done_seq` is the last lasting event that was dealt with; after `moving`
    (progress was told) the lasting events that came before it are old news.
    """

    def __init__(
        self,
        id: str,
        mode: str,
        params: Mapping[str, Any],
        snapshot: Snapshot,
        priority: str = "back",
        replaces: Optional[str] = None,
    ) -> None:
        self.id = id
        self.place = (priority, replaces)
        self.mode = mode
        self.params = dict(params)
        self.snapshot: Optional[Snapshot] = snapshot
        self.sent: Dict[str, wire.InputPicture] = {}
        self.stop = threading.Event()
        self.sending = False
        self.submitted = False
        self.started = False
        self.moving = False
        self.done_seq = 0


class Runner:
    """One editor's line to the server. Every method returns at once; `on_event` is called on the runner's threads,
    one call at a time and in order for each job. It must not wait for the editor's main thread.

    With `on_disconnect` "cancel" the server ends a job when this runner's connection ends; with "keep" the job goes on,
    and its result is found in the history.
    """

    def __init__(
        self,
        host_name: str,
        on_event: Callable[[Event], None],
        start_server: bool = True,
        *,
        home: Optional[Path] = None,
        preview: Optional[wire.PreviewWish] = _DEFAULT_PREVIEW,
        on_disconnect: str = "keep",
    ) -> None:
        self._on_event = on_event
        self._preview = preview
        self._on_disconnect = on_disconnect
        self._lock = threading.RLock()
        self._jobs: Dict[str, _Job] = {}
        self._ended: Deque[str] = collections.deque(maxlen=_ENDED_KEPT)
        self._catalog_rev: Optional[str] = None
        self._started = False
        self._stopping = False
        self._link = Link(
            wire.ClientInfo("impasto_client", VERSION, host_name),
            self._emit,
            self._resume,
            self._on_message,
            self._fail_running,
            home=home,
            start_server=start_server,
        )
        self._send = Lane("impasto-send")
        self._receive = Lane("impasto-receive")
        self.servers = Servers(self._link, self._emit, self._leave_server, home)
        """Which server is in use, and pairing with another."""
        self.kept = Kept(self._link, self._receive, self._emit)
        """The results that the server keeps."""

    # ---- for the editor

    def start(self) -> None:
        """Find or start the server and connect. Called again, it tries at once where the last attempt failed."""
        with self._lock:
            first, self._started = not self._started and not self._stopping, True
        if first:
            for thread in (self._link, self._send, self._receive):
                thread.start()
        self._link.nudge()

    def stop(self) -> None:
        """End all threads; no event comes afterwards. The server and its jobs go on. A runner is not started again."""
        with self._lock:
            self._stopping = True
        for thread in (self._link, self._send, self._receive):
            thread.stop()

    def join(self, timeout: float = 5.0) -> None:
        """Wait until the threads have ended after `stop`; for tests and scripts."""
        for thread in (self._link, self._send, self._receive):
            thread.join(timeout)

    def plan(
        self,
        ticket: str,
        mode: str,
        params: Mapping[str, Any],
        canvas: Tuple[int, int],
        selection: Optional[Tuple[int, int, int, int]] = None,
    ) -> None:
        """Ask what a job needs: `Planned` or `Failed` with this ticket follows, unless `cancel(ticket)` came first."""
        size, box = Size(*canvas), Box(*selection) if selection is not None else None

        def ask(client: Client) -> None:
            if ticket not in self._ended:
                plan = client.plan(mode, params, size, box)
                result = PlanResult(
                    *(plan.box, plan.working, plan.reach, plan.steps, plan.seconds, plan.warnings),
                    final=plan.final,
                    outputs=plan.outputs or 1,
                )
                self._emit_for(ticket, Planned(ticket, result))

        self._link.ask(ask, lambda error: self._emit_for(ticket, Failed(ticket, error)))
        self._link.nudge()

    def submit(
        self,
        job_id: str,
        mode: str,
        params: Mapping[str, Any],
        snapshot: Snapshot,
        priority: str = "back",
        replaces: Optional[str] = None,
    ) -> None:
        """Upload and run a job; kept until there is a connection. A known or cancelled id is ignored.

        `priority` "front" puts it before all that wait; it takes the place of the job `replaces` if that still waits.
        """
        with self._lock:
            if job_id in self._jobs or job_id in self._ended:
                return
            job = self._jobs[job_id] = _Job(job_id, mode, params, snapshot, priority, replaces)
            self._emit(JobChanged(job_id, "waiting"))
        self._send.put(lambda: self._guarded(job, lambda: self._submit(job)))
        self._link.nudge()

    def cancel(self, job_id: str) -> None:
        """End a job, or the plan with this ticket: `JobChanged` "cancelled" follows, and no result after this call."""
        with self._lock:
            if job_id in self._ended:
                return
            job = self._jobs.get(job_id)
            if job is None:
                # Planned at most: whatever comes for this id from now on is not wanted.
                self._ended.append(job_id)
                self._emit(JobChanged(job_id, "cancelled"))
                return
            job.stop.set()
            if job.submitted:
                self._ask_to_cancel(job)
            elif not job.sending:
                self._end(job, "cancelled")

    def refresh_catalog(self) -> None:
        """Ask for the catalogue; `CatalogChanged` follows where it is another one than the last."""
        self._link.ask(self._ask_catalog, _ignore)
        self._link.nudge()

    def read_parameters(self, ticket: str, source: Union[str, bytes]) -> None:
        """Ask what job a text, or the bytes of a picture's file, asks for: `ParametersRead` or `Failed` with this
        ticket follows.
        """
        self._send.put(lambda: self._read(ticket, source))

    def further(self, ticket: str, way: str, info: Mapping[str, Any]) -> None:
        """Ask for the job that takes the result with the recipe `info` further by `way` (see `Client.further`):
        `ParametersRead` or `Failed` with this ticket follows.
        """

        def ask(client: Client) -> None:
            read = client.further(way, info)
            self._emit(ParametersRead(ticket, read.mode, read.params, read.notes, read.source))

        self._link.ask(ask, lambda error: self._emit(Failed(ticket, error)))
        self._link.nudge()

    def words(self, ticket: str, kind: str, typed: str) -> None:
        """Ask what `typed` may become (see `Client.words`): `WordsFound` or `Failed` with this ticket follows. It is no
        reason to look for a server.
        """

        def ask(client: Client) -> None:
            self._emit(WordsFound(ticket, client.words(kind, typed)))

        self._link.ask(ask, lambda error: self._emit(Failed(ticket, error)))

    def doctor(self, ticket: str) -> None:
        """Ask the server to look at its installation: `Diagnosed` or `Failed` with this ticket follows, in seconds."""

        def ask() -> None:
            client = self._link.client
            try:
                if client is None:
                    raise ResourceError("resource.connection_lost", "There is no connection to the server; try again.")
                told = client.doctor()
                self._emit(Diagnosed(ticket, told.text, told.bad))
            except ImpastoError as error:
                self._emit(Failed(ticket, error))

        # Not in a lane: jobs must not wait for it.
        threading.Thread(target=ask, name="impasto-doctor", daemon=True).start()

    def _read(self, ticket: str, source: Union[str, bytes]) -> None:
        client = self._link.client
        try:
            if client is None:
                raise ResourceError("resource.connection_lost", "There is no connection to the server; try again.")
            read = client.read_parameters(source)
            self._emit(ParametersRead(ticket, read.mode, read.params, read.notes, read.source))
        except ImpastoError as error:
            self._emit(Failed(ticket, error))
        except Exception as defect:
            _log.exception("a defect of Impasto's client")
            self._emit(Failed(ticket, internal_error(defect)))

    # ---- on the link's thread

    def _resume(self, client: Client) -> None:
        """Go on with the jobs that an earlier connection left: attach to those the server has, send the others."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            if not job.submitted:
                self._send.put(lambda job=job: self._guarded(job, lambda: self._submit(job)))  # type: ignore[misc]
                continue
            try:
                client.attach(job.id, job.done_seq)
                if job.stop.is_set():
                    client.cancel(job.id)
            except JobError as error:
                gone = (
                    "The Impasto server was restarted while this job ran and does not know it any more; run it again."
                )
                message = gone if error.code == "job.unknown" else error.message
                self._end(job, "failed", JobError(error.code, message, retryable=True))
            except ImpastoError as error:
                _log.warning("job %s could not be resumed: %s", job.id, error)
        self._link.ask(self._ask_catalog, _ignore)

    def _fail_running(self, error: ImpastoError) -> None:
        """No server: the jobs that ran there are lost; those that were not sent go on waiting."""
        with self._lock:
            for job in [job for job in self._jobs.values() if job.submitted]:
                lost = "The Impasto server stopped while this job ran; run it again. "
                self._end_lost(job, ResourceError("resource.connection_lost", lost + error.message))

    def _leave_server(self) -> None:
        """Another server is in use now: the jobs go on at the old one, and are not followed any more."""
        with self._lock:
            self._catalog_rev = None
            for job in [job for job in self._jobs.values() if job.submitted]:
                left = (
                    "You went to another server while this job ran; its result will be in the history of the old one."
                )
                self._end_lost(job, ResourceError("resource.connection_lost", left))

    def _end_lost(self, job: _Job, error: ImpastoError) -> None:
        """The server lost a job; one that was cancelled is simply that."""
        if job.stop.is_set():
            self._end(job, "cancelled")
        else:
            self._end(job, "failed", error)

    def _ask_catalog(self, client: Client) -> None:
        catalog = client.catalog(self._catalog_rev)
        if catalog is not None:
            self._catalog_rev = catalog.rev
            self._emit(CatalogChanged(whole_catalog(client, catalog)))

    def _ask_to_cancel(self, job: _Job) -> None:
        self._link.ask(lambda client: client.cancel(job.id), _ignore)

    # ---- send

    def _submit(self, job: _Job) -> None:
        with self._lock:
            client, snapshot = self._link.client, job.snapshot
            if job.id in self._ended or job.submitted or snapshot is None:
                return
            if client is None:
                return  # sent by _resume
            job.sending = True
            self._emit(JobChanged(job.id, "uploading"))
        try:
            told = (job.id, job.mode, job.params, snapshot, self._preview, job.stop, job.sent, self._on_disconnect)
            send_job(client, *told, *job.place)
        except ResourceError as error:
            if error.code != "resource.connection_lost":
                raise
            with self._lock:
                job.sending = False
                if job.stop.is_set():
                    self._end(job, "cancelled")
                else:
                    self._emit(JobChanged(job.id, "waiting"))
            return
        with self._lock:
            job.submitted = True
            job.snapshot = None
            if job.stop.is_set():
                self._ask_to_cancel(job)

    # ---- receive

    def _on_message(self, generation: int, message: wire.Message) -> None:
        """On the client's reading thread."""
        if isinstance(message, wire.CatalogChanged):
            self._link.ask(self._ask_catalog, _ignore)
            return
        job = self._jobs.get(getattr(message, "job", ""))
        if job is None:
            return
        if isinstance(message, wire.Progress):
            numbers = (message.fraction, message.stage, message.step, message.steps)
            with self._lock:
                job.moving = True
                self._emit_for(job.id, JobChanged(job.id, "running", *numbers))
        elif isinstance(message, wire.Preview):
            self._emit_for(job.id, PreviewReady(job.id, message.image, message.width, message.height))
        elif isinstance(message, wire.Position):
            # Behind the lasting events that came before it; where it is late, the job may have started.
            self._receive.put(lambda: self._tell_position(job, message))
        else:
            self._receive.put(lambda: self._guarded(job, lambda: self._take(generation, job, message)))

    def _take(self, generation: int, job: _Job, message: wire.Message) -> None:
        """Deal with a lasting event. One from a connection that is over comes again after `attach`.

        So does one that follows another which could not be dealt with: its connection ends, although the link may not
        know it yet. A job that went on to its end then would be without its result.
        """
        seq = int(getattr(message, "seq", 0))
        client = self._link.client_of(generation)
        if client is None or job.id in self._ended or seq != job.done_seq + 1:
            return
        if isinstance(message, (wire.Queued, wire.Started)):
            job.started = isinstance(message, wire.Started)
            self._tell_begin(job, message)
        elif isinstance(message, wire.Output):
            if not job.stop.is_set():
                result = fetch_result(client, message)
                with self._lock:
                    if not job.stop.is_set():
                        self._emit_for(job.id, ResultReady(job.id, result))
        elif isinstance(message, wire.Failed):
            self._end(job, "failed", message.error.exception())
        elif isinstance(message, wire.Cancelled):
            self._end(job, "cancelled")
        elif isinstance(message, wire.Finished):
            # Cancelled too late: the painter asked for nothing, and gets nothing.
            self._end(job, "cancelled" if job.stop.is_set() else "finished")
        job.done_seq = seq

    def _tell_begin(self, job: _Job, message: Union[wire.Queued, wire.Started]) -> None:
        """Queued or started, unless progress overtook it: this thread may be busy with another job's pixels."""
        with self._lock:
            if job.moving:
                return
            if isinstance(message, wire.Queued):
                self._emit_for(job.id, JobChanged(job.id, "queued", position=message.position))
            else:
                self._emit_for(job.id, JobChanged(job.id, "running"))

    def _tell_position(self, job: _Job, message: wire.Position) -> None:
        with self._lock:
            if not (job.started or job.moving):
                self._emit_for(job.id, JobChanged(job.id, "queued", position=message.position))

    # ---- all threads

    def _guarded(self, job: _Job, work: Callable[[], None]) -> None:
        """Run `work`; what it raises becomes the end of the job."""
        try:
            work()
        except ImpastoError as error:
            if error.code == "resource.connection_lost":
                return  # the job goes on with the next connection
            state = "cancelled" if error.code == "job.cancelled" else "failed"
            self._end(job, state, None if state == "cancelled" else error)
        except Exception as defect:
            _log.exception("a defect of Impasto's client")
            self._end(job, "failed", internal_error(defect))

    def _end(self, job: _Job, state: str, error: Optional[ImpastoError] = None) -> None:
        with self._lock:
            if job.id in self._ended:
                return
            fraction = 1.0 if state == "finished" else 0.0
            self._emit(JobChanged(job.id, state, fraction, error=error))
            self._ended.append(job.id)
            self._jobs.pop(job.id, None)
            job.snapshot = None

    def _emit_for(self, id: str, event: Event) -> None:
        """Emit an event of a job or ticket, unless it has ended."""
        with self._lock:
            if id not in self._ended:
                self._emit(event)

    def _emit(self, event: Event) -> None:
        with self._lock:
            if self._stopping:
                return
            try:
                self._on_event(event)
            except Exception:
                # The editor's defect must not cost it the connection.
                _log.exception("the editor failed at %r", event)


def _ignore(error: ImpastoError) -> None:
    _log.info("not answered: %s", error)
