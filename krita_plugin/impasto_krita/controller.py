"""The glue between docker, runner and document. One controller serves all windows of a Krita.

Everything here runs on Krita's main thread and is short: pixel calls, and handing plain data to the runner, whose
threads do the hashing and the network. Events come back from them through a queued signal.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Set

from impasto_client.document import ResultLayer
from impasto_client.events import (
    CatalogChanged,
    ConnectionChanged,
    Event,
    Failed,
    HistoryListed,
    JobChanged,
    Planned,
    ResultFetched,
    ResultReady,
    ServerCatalog,
)
from impasto_client.jobs import JobList, JobState
from impasto_client.tasks import Runner
from impasto_protocol.errors import ImpastoError

from . import document as pixels
from .actions import Obstacle, Target, aim, obstacle, snapshot
from .qt import QObject, Qt, pyqtSignal

__all__ = ["Controller", "Notice"]

KEEP_RESULTS = 12
"""Results whose pixels stay in memory, for the strip."""
KEEP_TARGETS = 64
"""Jobs whose document is remembered."""
LARGEST_LISTED = 16 << 20
"""Pixels of a kept result that is fetched only to be listed."""
FORMAT = "bgra8"
NEW_DOCUMENT = "upscale"
"""The stage of results that are no layers but new documents."""


@dataclass(frozen=True)
class Notice:
    """A sentence for the painter; `is_error` gives it the colour of a warning."""

    text: str
    is_error: bool = False


class Controller(QObject):
    """State and deeds of the plug-in; dockers show the state at every `changed` and `result_added`."""

    changed = pyqtSignal()
    result_added = pyqtSignal(object)
    result_found = pyqtSignal(object)
    """One that the server kept from an earlier session or from another editor; the newest comes first."""
    _arrived = pyqtSignal(object)

    def __init__(self, host_name: str, parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self.connection = ConnectionChanged("idle")
        self.catalog: Optional[ServerCatalog] = None
        self.jobs = JobList(keep_results=KEEP_RESULTS, keep_ended=KEEP_RESULTS)
        self.notice: Optional[Notice] = None
        self.found: List[ResultLayer] = []
        self._listed = False
        self._targets: Dict[str, Target] = {}
        self._unread: Set[str] = set()
        """Jobs whose pixels have not been read yet."""
        self._started = False
        # Whichever thread emits it, an event is dealt with in a turn of its own on the main thread.
        self._arrived.connect(self._on_event, Qt.ConnectionType.QueuedConnection)
        self._runner = Runner(host_name, self._arrived.emit)

    # ---- the server

    def start(self) -> None:
        """Find or start the server, once; further calls do nothing."""
        if not self._started:
            self._started = True
            self._runner.start()

    def try_again(self) -> None:
        """Connect anew after a failure, starting the server where none runs."""
        self._say(None)
        self._started = True
        self._runner.start()

    def stop(self) -> None:
        """Krita is closing."""
        self._runner.stop()

    # ---- what can be done now

    def obstacle(self, mode: str) -> str:
        """Why `mode` cannot be done now, as a sentence that says what to do; empty where it can."""
        sentence = obstacle(mode, pixels.active_document())
        if sentence or self.catalog is None:
            return sentence
        offered = self.catalog.mode(mode)
        if offered is None:
            return "This server cannot do that; update it."
        return "" if offered.available else offered.reason or "The server cannot do that now."

    def running(self) -> Optional[JobState]:
        """The job to show: the oldest that has not ended."""
        active = self.jobs.active
        return active[0] if active else None

    # ---- deeds

    def ask(self, mode: str, params: Mapping[str, Any]) -> bool:
        """Plan and submit a job for the document in front. False where there is an obstacle, which the notice says."""
        try:
            sentence = self.obstacle(mode)
            if sentence:
                raise Obstacle(sentence)
            target = aim(mode, pixels.active_document(), dict(params))
        except Obstacle as reason:
            self._say(Notice(str(reason), is_error=True))
            return False
        self.start()
        job_id = uuid.uuid4().hex
        while len(self._targets) >= KEEP_TARGETS:
            del self._targets[next(iter(self._targets))]
        self._targets[job_id] = target
        self._unread.add(job_id)
        self.jobs.add(job_id, mode, str(params.get("prompt", "")))
        self._say(None)
        self._runner.plan(job_id, mode, dict(params), target.canvas.size, target.area)
        return True

    def cancel(self) -> None:
        """Cancel the job that is shown."""
        job = self.running()
        if job is not None:
            self._runner.cancel(job.job_id)

    def add_again(self, result: ResultLayer) -> None:
        """Add a result once more, into the document it came from or, where that is closed, the one in front."""
        target = self._targets.get(result.job_id)
        document = target.document if target is not None and pixels.is_open(target.document) else None
        document = document or pixels.active_document()
        if document is None:
            self._say(Notice("Open a document first; the picture is added at its place there.", is_error=True))
            return
        self._paste(document, result)

    # ---- events

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ConnectionChanged):
            self.connection = event
        elif isinstance(event, CatalogChanged):
            self.catalog = event.catalog
            if not self._listed:
                self._listed = True
                self._runner.list_history(KEEP_RESULTS)
        elif isinstance(event, HistoryListed):
            for entry in event.entries:
                small = entry.width * entry.height <= LARGEST_LISTED
                if small and entry.stage != NEW_DOCUMENT and entry.job not in self._targets:
                    self._runner.fetch(entry)
        elif isinstance(event, ResultFetched):
            if event.result is not None:
                self.found.append(event.result.in_format(FORMAT))
                self.result_found.emit(self.found[-1])
        elif isinstance(event, Planned):
            self._capture(event)
        elif isinstance(event, Failed):
            self._end(event.ticket, "failed", event.error)
        elif self.jobs.get(event.job_id) is not None:
            self.jobs.apply(event)
            if isinstance(event, ResultReady):
                self._receive(event.result)
            elif isinstance(event, JobChanged) and event.error is not None:
                self._say(Notice(event.error.message, is_error=True))
        self.changed.emit()

    def _capture(self, event: Planned) -> None:
        """Read the planned box from the document and submit the job."""
        target = self._targets.get(event.ticket)
        job = self.jobs.get(event.ticket)
        if target is None or event.ticket not in self._unread or job is None or not job.active:
            return
        self._unread.discard(event.ticket)
        try:
            if not pixels.is_open(target.document):
                raise Obstacle("The document was closed before its picture could be read; nothing was done.")
            if pixels.canvas_of(target.document) != target.canvas:
                raise Obstacle("The document changed its size just now; try once more.")
            picture = snapshot(target, event.plan.box)
        except Obstacle as reason:
            self._end(event.ticket, "cancelled")
            self._say(Notice(str(reason), is_error=True))
            return
        self._targets[event.ticket] = dataclasses.replace(target, region=None)  # it has been read
        if event.plan.warnings:
            self._say(Notice(" ".join(event.plan.warnings)))
        self._runner.submit(event.ticket, target.mode, dict(target.params), picture)

    def _receive(self, result: ResultLayer) -> None:
        target = self._targets.get(result.job_id)
        if result.stage == NEW_DOCUMENT:
            resolution = target.resolution if target is not None else 72.0
            document, node_id = pixels.open_new(result.name, result.box, result.pixels, resolution)
            self._keep_recipe(document, node_id, result)
            return
        self.result_added.emit(result)
        if target is None:
            return
        if not pixels.is_open(target.document):
            self._say(Notice("The document was closed meanwhile; the picture is kept below."))
            return
        canvas = pixels.canvas_of(target.document)
        if canvas.intersect(result.box) is None:
            self._say(Notice("The document was cropped meanwhile and the place is gone; the picture is kept below."))
            return
        self._paste(target.document, result, target.layer)
        if canvas != target.canvas:
            self._say(Notice("The document changed its size meanwhile; the layer lies where its region was."))

    def _paste(self, document: Any, result: ResultLayer, above: Optional[Any] = None) -> None:
        self._keep_recipe(document, pixels.paste(document, result.name, result.box, result.pixels, above), result)

    def _keep_recipe(self, document: Any, node_id: str, result: ResultLayer) -> None:
        recipe = {"seed": result.seed, "box": list(result.box), **result.recipe}
        pixels.keep_recipe(document, node_id, json.dumps(recipe, default=str).encode())

    def _end(self, job_id: str, state: str, error: Optional[ImpastoError] = None) -> None:
        if self.jobs.get(job_id) is None:
            return
        self._unread.discard(job_id)
        self.jobs.apply(JobChanged(job_id, state, error=error))
        if error is not None:
            self._say(Notice(error.message, is_error=True))

    def _say(self, notice: Optional[Notice]) -> None:
        self.notice = notice
        self.changed.emit()

    def models(self) -> List[Mapping[str, Any]]:
        """The checkpoints of the catalogue, and after them the files that cannot be used, which say why."""
        if self.catalog is None:
            return []
        usable = [m for m in self.catalog.models if m.get("kind") == "checkpoint" and m.get("usable", True)]
        return usable + [m for m in self.catalog.models if not m.get("usable", True)]
