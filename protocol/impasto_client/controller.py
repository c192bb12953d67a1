"""What both editors' panels do: ask for jobs, read the document when it is planned, add what comes back.

No toolkit here. The editor lends its documents (`Host`) and shows what `changed` and `added` tell. Everything runs on
the editor's main thread and is short: pixel calls, and handing plain data to the runner, whose threads do the hashing
and the network.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional

from impasto_protocol.errors import ImpastoError

from .document import ResultLayer
from .editor import Host, Obstacle, Target
from .events import (
    CatalogChanged,
    ConnectionChanged,
    Diagnosed,
    Event,
    Failed,
    HistoryListed,
    JobChanged,
    ParametersRead,
    Planned,
    ResultFetched,
    ResultReady,
    ServerCatalog,
    ServerChosen,
)
from .jobs import JobList, JobState
from .recipes import Packed, written_recipe
from .targets import NEW_DOCUMENT, again, aim, snapshot
from .tasks import Runner

__all__ = ["PICTURE_SIZE", "Controller", "Notice", "Shown"]

KEEP_RESULTS = 12
"""Results in the strip."""
KEEP_ORDERS = 64
"""Jobs whose document is remembered."""
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
    """A result of the strip: `small` and `before` are pictures of the toolkit's own kind, the result at most
    PICTURE_SIZE pixels a side, and what was there before where that is known.
    """

    result: ResultLayer
    small: Any
    before: Optional[Any] = None


@dataclass
class _Order:
    """A job as it was asked for. `unread` until the document's pixels were read for it."""

    target: Target
    mask: Optional[Packed] = None
    sketch: Any = None
    before: Optional[Any] = None
    unread: bool = True


class Controller:
    """State and deeds of the plug-in.

    `post` is given every event, on any thread, and must see to it that `handle(event)` is called on the main thread
    soon after, in order. `changed` is called after every change, `added(shown, old)` for every result of the strip,
    where `old` says that the server kept it from an earlier session or from another editor.
    """

    def __init__(self, host: Host, host_name: str, post: Callable[[Event], None]) -> None:
        self.host = host
        self.changed: Callable[[], None] = lambda: None
        self.added: Callable[[Shown, bool], None] = lambda shown, old: None
        self.connection = ConnectionChanged("idle")
        self.catalog: Optional[ServerCatalog] = None
        self.jobs = JobList(keep_results=KEEP_RESULTS, keep_ended=KEEP_RESULTS)
        self.notice: Optional[Notice] = None
        self.shown: List[Shown] = []
        """What the strip holds, the newest first."""
        self._orders: Dict[str, _Order] = {}
        self._listed = False
        # Closing the panel or the editor does not end a job: its result is found in the history.
        self._runner = Runner(host_name, post)
        self.servers = self._runner.servers
        """Which server is in use; a notice says what a choice came to."""

    # ---- the server

    def start(self) -> None:
        """Find or start the server; called again, it tries at once where that failed."""
        self._runner.start()

    def try_again(self) -> None:
        """The painter wants a server now."""
        self._say(None)
        self._runner.start()

    def stop(self) -> None:
        """The editor or its panel is closing."""
        self._runner.stop()

    # ---- what can be done now

    def obstacle(self, mode: str, document: Optional[Any]) -> str:
        """Why `mode` cannot be done now, as a sentence that says what to do; empty where it can."""
        sentence = self.host.obstacle(mode, document)
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

    def ask(self, mode: str, document: Optional[Any], params: Mapping[str, Any]) -> bool:
        """Plan and submit a job. False where there is an obstacle, which the notice says."""

        def target() -> Target:
            sentence = self.obstacle(mode, document)
            if sentence:
                raise Obstacle(sentence)
            return aim(self.host, mode, document, dict(params))

        return self._try(target)

    def ask_again(self, document: Optional[Any], layer: Any, changes: Optional[Mapping[str, Any]] = None) -> bool:
        """Make a layer of Impasto again from its recipe, as a new layer above it."""
        return self._try(lambda: again(self.host, document, layer, changes or {}))

    def _try(self, find: Callable[[], Target]) -> bool:
        try:
            target = find()
        except Obstacle as reason:
            self._say(Notice(str(reason), is_error=True))
            return False
        self._begin(target)
        return True

    def _begin(self, target: Target) -> None:
        self._runner.start()
        job_id = uuid.uuid4().hex
        while len(self._orders) >= KEEP_ORDERS:
            del self._orders[next(iter(self._orders))]
        order = self._orders[job_id] = _Order(target)
        if target.region is not None:
            order.mask = Packed(target.region)
        if target.layer is not None:
            order.sketch = self.host.name_of(target.layer)
        self.jobs.add(job_id, target.mode, str(target.params.get("prompt", "")))
        self._say(None)
        self._runner.plan(job_id, target.mode, dict(target.params), target.canvas.size, target.area)

    def cancel(self) -> None:
        """Cancel the job that is shown."""
        job = self.running()
        if job is not None:
            self._runner.cancel(job.job_id)

    def apply(self, result: ResultLayer, document: Optional[Any]) -> None:
        """Add a result as a layer: to the document it came from or, where that is closed, to `document`."""
        order = self._orders.get(result.job_id)
        if order is not None and self.host.is_open(order.target.document):
            document = order.target.document
        if document is None or not self.host.is_open(document):
            word = self.host.word
            one = "an" if word[0] in "aeiou" else "a"
            self._say(Notice(f"Open {one} {word} first; the picture is added at its place there.", is_error=True))
        elif self.host.canvas_of(document).intersect(result.box) is None:
            self._say(Notice(f"The place of this picture lies outside this {self.host.word}.", is_error=True))
        else:
            self._paste(document, result, order)

    # ---- events

    def handle(self, event: Event) -> None:
        """Deal with an event; on the main thread."""
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
                if small and entry.stage != NEW_DOCUMENT and entry.job not in self._orders:
                    self._runner.fetch(entry)
        elif isinstance(event, ResultFetched):
            if event.result is not None:
                self._show(event.result.in_format(self.host.format), None, old=True)
        elif isinstance(event, Planned):
            self._capture(event)
        elif isinstance(event, Failed):
            self._end(event.ticket, "failed", event.error)
        elif isinstance(event, ServerChosen):
            self._say(_notice_of(event))
        elif isinstance(event, (ParametersRead, Diagnosed)):
            pass  # the panel that asked takes it
        elif self.jobs.get(event.job_id) is not None:
            self.jobs.apply(event)
            if isinstance(event, ResultReady):
                self._receive(event.result)
            elif isinstance(event, JobChanged) and event.error is not None:
                self._say(Notice(event.error.message, is_error=True))
        self.changed()

    def _capture(self, event: Planned) -> None:
        """Read the planned box from the document and submit the job."""
        order, job, box = self._orders.get(event.ticket), self.jobs.get(event.ticket), event.plan.box
        if order is None or not order.unread or job is None or not job.active:
            return
        order.unread = False
        target = order.target
        try:
            picture = snapshot(self.host, target, box)
        except Obstacle as reason:
            self._end(event.ticket, "cancelled")
            self._say(Notice(str(reason), is_error=True))
            return
        if target.mode != NEW_DOCUMENT:
            order.before = self.host.thumbnail(picture.pixels, box.width, box.height, PICTURE_SIZE)
        if event.plan.warnings:
            self._say(Notice(" ".join(event.plan.warnings)))
        self._runner.submit(event.ticket, target.mode, dict(target.params), picture)

    def _receive(self, result: ResultLayer) -> None:
        order, word = self._orders.get(result.job_id), self.host.word
        if result.stage == NEW_DOCUMENT:
            self.host.open_new(result, written_recipe(result), order.target.resolution if order is not None else None)
            return
        self._show(result, order.before if order is not None else None, old=False)
        if order is None:
            return
        target = order.target
        if not self.host.is_open(target.document):
            self._say(Notice(f"The {word} was closed meanwhile; the picture is kept below."))
            return
        canvas = self.host.canvas_of(target.document)
        if canvas.intersect(result.box) is None:
            self._say(Notice(f"The {word} was cropped meanwhile and the place is gone; the picture is kept below."))
            return
        self._paste(target.document, result, order)
        if canvas != target.canvas:
            self._say(Notice(f"The {word} changed its size meanwhile; the layer lies where its region was."))

    def _show(self, result: ResultLayer, before: Optional[Any], old: bool) -> None:
        small = self.host.thumbnail(result.pixels, result.box.width, result.box.height, PICTURE_SIZE)
        shown = Shown(result, small, before)
        self.shown.insert(len(self.shown) if old else 0, shown)
        del self.shown[KEEP_RESULTS:]
        self.added(shown, old)

    def _paste(self, document: Any, result: ResultLayer, order: Optional[_Order]) -> None:
        recipe, above = written_recipe(result), None
        if order is not None:
            target = order.target
            recipe = written_recipe(result, target.area, order.mask, order.sketch)
            above = target.above if document is target.document else None
        told = self.host.paste(document, [result], [recipe], above)
        if told:
            self._say(Notice(told))

    def _end(self, job_id: str, state: str, error: Optional[ImpastoError] = None) -> None:
        if self.jobs.get(job_id) is None:
            return
        if job_id in self._orders:
            self._orders[job_id].unread = False
        self.jobs.apply(JobChanged(job_id, state, error=error))
        if error is not None:
            self._say(Notice(error.message, is_error=True))

    def _say(self, notice: Optional[Notice]) -> None:
        self.notice = notice
        self.changed()


def _notice_of(chosen: ServerChosen) -> Notice:
    if chosen.error is not None:
        return Notice(chosen.error.message, is_error=True)
    if chosen.name:
        return Notice(f"The server at {chosen.name} is used from now on.")
    return Notice("This computer's own server is used from now on.")
