"""The glue between panel, runner and image. Everything here runs on the main thread and is short."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Set

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
from .actions import NEW_IMAGE, Obstacle, Target, again, aim, obstacle, recipe_for, snapshot
from .job import host_name
from .toolkit import GLib, pixbuf_of

__all__ = ["Controller", "Notice", "Shown"]

KEEP_RESULTS = 12
"""Results whose pixels stay in memory, for the strip."""
KEEP_TARGETS = 64
"""Jobs whose image is remembered."""
LARGEST_LISTED = 16 << 20
"""Pixels of a kept result that is fetched only to be listed."""
PICTURE_SIZE = 640
"""Pixels to which a picture is scaled for the panel."""


@dataclass(frozen=True)
class Notice:
    """A sentence for the painter; `is_error` gives it the colour of a warning."""

    text: str
    is_error: bool = False


@dataclass(frozen=True)
class Shown:
    """A result in the strip, and what was there before as a Pixbuf where that is known."""

    result: ResultLayer
    before: Optional[Any] = None


class Controller:
    """State and deeds of the panel, which hears of every change by `changed` and of each result by `added`.

    `added(shown, last)`: `last` is true for what was found in the server's history.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.added: Callable[[Shown, bool], None] = lambda shown, last: None
        self.connection = ConnectionChanged("idle")
        self.catalog: Optional[ServerCatalog] = None
        self.jobs = JobList(keep_results=KEEP_RESULTS, keep_ended=KEEP_RESULTS)
        self.notice: Optional[Notice] = None
        self._targets: Dict[str, Target] = {}
        self._before: Dict[str, Any] = {}
        self._above: Dict[str, Any] = {}
        self._unread: Set[str] = set()
        """Jobs whose pixels have not been read yet."""
        self._listed = False
        # Closing the panel does not end a job: its result is found in the history.
        self._runner = Runner(host_name(), lambda event: GLib.idle_add(self._on_event, event))

    # ---- the server

    def start(self) -> None:
        """Find or start the server; called again, try again where that failed."""
        self._runner.start()

    def try_again(self) -> None:
        """The painter wants a server now."""
        self._say(None)
        self._runner.start()

    def stop(self) -> None:
        """The panel is closing."""
        self._runner.stop()

    # ---- what can be done now

    def obstacle(self, mode: str, image: Optional[Any]) -> str:
        """Why `mode` cannot be done now, as a sentence that says what to do; empty where it can."""
        sentence = obstacle(mode, image)
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

    def ask(self, mode: str, image: Optional[Any], params: Mapping[str, Any]) -> bool:
        """Plan and submit a job. False where there is an obstacle, which the notice says."""
        try:
            sentence = self.obstacle(mode, image)
            if sentence:
                raise Obstacle(sentence)
            target = aim(mode, image, dict(params))
        except Obstacle as reason:
            self._say(Notice(str(reason), is_error=True))
            return False
        self._begin(target, target.layer)
        return True

    def ask_again(self, image: Optional[Any]) -> bool:
        """Make the active layer of the image again from its recipe."""
        try:
            drawables = image.get_selected_drawables() if image is not None and pixels.is_open(image) else []
            if len(drawables) != 1:
                raise Obstacle("Choose one layer that Impasto made.")
            target = again(image, drawables[0], {})
        except Obstacle as reason:
            self._say(Notice(str(reason), is_error=True))
            return False
        self._begin(target, drawables[0])
        return True

    def _begin(self, target: Target, above: Optional[Any]) -> None:
        self._runner.start()
        job_id = uuid.uuid4().hex
        while len(self._targets) >= KEEP_TARGETS:
            oldest = next(iter(self._targets))
            for kept in (self._targets, self._before, self._above):
                kept.pop(oldest, None)
        self._targets[job_id] = target
        self._above[job_id] = above
        self._unread.add(job_id)
        self.jobs.add(job_id, target.mode, str(target.params.get("prompt", "")))
        self._say(None)
        self._runner.plan(job_id, target.mode, dict(target.params), target.canvas.size, target.area)

    def cancel(self) -> None:
        """Cancel the job that is shown."""
        job = self.running()
        if job is not None:
            self._runner.cancel(job.job_id)

    def apply(self, result: ResultLayer, image: Optional[Any]) -> None:
        """Add a result as a layer: to the image it came from or, where that is closed, to `image`."""
        target = self._targets.get(result.job_id)
        if target is not None and pixels.is_open(target.image):
            image = target.image
        if image is None or not pixels.is_open(image):
            self._say(Notice("Open an image first; the picture is added at its place there.", is_error=True))
        elif pixels.canvas_of(image).intersect(result.box) is None:
            self._say(Notice("The place of this picture lies outside this image.", is_error=True))
        else:
            self._paste(image, result, target)

    # ---- events

    def _on_event(self, event: Event) -> bool:
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
                if small and entry.stage != NEW_IMAGE and entry.job not in self._targets:
                    self._runner.fetch(entry)
        elif isinstance(event, ResultFetched):
            if event.result is not None:
                self.added(Shown(event.result.in_format(pixels.FORMAT)), True)
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
        self.changed()
        return False

    def _capture(self, event: Planned) -> None:
        """Read the planned box from the image and submit the job."""
        target = self._targets.get(event.ticket)
        job = self.jobs.get(event.ticket)
        if target is None or event.ticket not in self._unread or job is None or not job.active:
            return
        self._unread.discard(event.ticket)
        box = event.plan.box
        try:
            picture = snapshot(target, box)
        except Obstacle as reason:
            self._end(event.ticket, "cancelled")
            self._say(Notice(str(reason), is_error=True))
            return
        if target.mode != NEW_IMAGE:
            self._before[event.ticket] = pixbuf_of(bytes(picture.pixels), box.width, box.height, PICTURE_SIZE)
        if event.plan.warnings:
            self._say(Notice(" ".join(event.plan.warnings)))
        self._runner.submit(event.ticket, target.mode, dict(target.params), picture)

    def _receive(self, result: ResultLayer) -> None:
        target = self._targets.get(result.job_id)
        if target is None:
            return
        if result.stage == NEW_IMAGE:
            pixels.open_new(result, recipe_for(result, None), target.resolution, show=True)
            return
        self.added(Shown(result, self._before.get(result.job_id)), False)
        if not pixels.is_open(target.image):
            self._say(Notice("The image was closed meanwhile; the picture is kept below."))
            return
        canvas = pixels.canvas_of(target.image)
        if canvas.intersect(result.box) is None:
            self._say(Notice("The image was cropped meanwhile and the place is gone; the picture is kept below."))
            return
        self._paste(target.image, result, target)
        if canvas != target.canvas:
            self._say(Notice("The image changed its size meanwhile; the layer lies where its region was."))

    def _paste(self, image: Any, result: ResultLayer, target: Optional[Target]) -> None:
        above = self._above.get(result.job_id)
        layers = pixels.paste(image, [result], lambda made: recipe_for(made, target), above)
        if layers and pixels.is_indexed(image):
            self._say(Notice("This image has a palette: the layer took its colours. Convert the image to RGB for all."))

    def _end(self, job_id: str, state: str, error: Optional[ImpastoError] = None) -> None:
        if self.jobs.get(job_id) is None:
            return
        self._unread.discard(job_id)
        self.jobs.apply(JobChanged(job_id, state, error=error))
        if error is not None:
            self._say(Notice(error.message, is_error=True))

    def _say(self, notice: Optional[Notice]) -> None:
        self.notice = notice
        self.changed()
