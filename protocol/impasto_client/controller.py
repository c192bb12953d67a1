"""What both editors' panels do: ask for jobs, read the document when it is planned, add what comes back.

No toolkit here. The editor lends its documents (`Host`) and shows what `changed` tells. Everything runs on the editor's
main thread and is short: pixel calls, and handing plain data to the runner, whose threads do the hashing and the
network.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import uuid
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

from impasto_protocol.errors import ImpastoError

from .document import ResultLayer
from .editor import Host, Obstacle, Target
from .enlarging import RESIZE, area_of, sent
from .estimates import Estimate
from .events import (
    TERMINAL_STATES,
    CatalogChanged,
    ConnectionChanged,
    Diagnosed,
    Done,
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
    WordsFound,
)
from .flips import Sample
from .further import Further
from .gallery import Query, Shown
from .hint_layers import HintLayers, HintWish
from .intents import Aim
from .jobs import JobList, JobState
from .notice import Notice
from .orders import Order, Orders
from .recipes import Packed
from .results import PICTURE_SIZE, Results
from .targets import (
    LAYER,
    NEW_DOCUMENT,
    NOWHERE_ELSE,
    again,
    aim,
    context_box,
    obstacle,
    planned_area,
    remade,
    snapshot,
)
from .tasks import Runner
from .vocabulary import Vocabulary
from .wording import describe_reading

__all__ = ["Controller"]

IDENTITY = re.compile(r"[0-9a-f]{16}")
"""What the ids of a document's jobs begin with."""
WAITING = ("waiting", "uploading", "queued")
"""States of jobs that have not begun."""
LARGEST_READ = 256 << 20
"""Bytes of a file from which settings are read."""
READING = "reading"
DIAGNOSIS = "diagnosis"
"""The ticket of settings that are read."""
KEEP_ENDED = 12
"""Jobs that have ended and are still told of."""


class Controller:
    """State and deeds of the plug-in.

    `post` is given every event, on any thread, and must see to it that `handle(event)` is called on the main thread
    soon after, in order. `changed` is called after every change, `added(result)` for every result of a job of this
    session, `taken(mode, params)` for settings that were read from a picture; what the strip lists is in `gallery`.
    """

    def __init__(self, host: Host, host_name: str, post: Callable[[Event], None]) -> None:
        self.host = host
        self.changed: Callable[[], None] = lambda: None
        self.added: Callable[[ResultLayer], None] = lambda result: None
        self.taken: Callable[[str, Dict[str, Any]], None] = lambda mode, params: None
        self.diagnosed: Callable[[str], None] = lambda text: None
        """Puts the page of `diagnose` into the clipboard."""
        self.connection = ConnectionChanged("idle")
        self.catalog: Optional[ServerCatalog] = None
        self.jobs = JobList(keep_results=1, keep_ended=KEEP_ENDED, keep_bytes=0)
        self.notice: Optional[Notice] = None
        self._orders = Orders()
        self._identities: Dict[Any, str] = {}
        """Of documents that have none in their file yet."""
        # Closing the panel or the editor does not end a job: its result is found in the history.
        self._runner = Runner(host_name, post)
        self.servers = self._runner.servers
        """Which server is in use; a notice says what a choice came to."""
        self.results = Results(host, self._runner.kept, self._orders, self._say)
        self.gallery = self.results.gallery
        self.estimate = Estimate(self._runner)
        self.vocabulary = Vocabulary(self._runner)
        self.further = Further(host, self._runner, self._orders, self._say, self._try)
        self.hints = HintLayers(host, self._say, self._try_hint)

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

    def obstacle(self, mode: str, document: Optional[Any], where: Aim = NOWHERE_ELSE) -> str:
        """Why `mode` cannot be done now, as a sentence that says what to do; empty where it can."""
        sentence = obstacle(self.host, mode, document, where)
        if sentence or self.catalog is None:
            return sentence
        offered = self.catalog.mode(mode)
        if offered is None:
            return "This server cannot do that; update it."
        return "" if offered.available else offered.reason or "The server cannot do that now."

    def expect(self, mode: str, document: Optional[Any], params: Mapping[str, Any], where: Aim = NOWHERE_ELSE) -> None:
        """See what the job would take: `estimate` says it soon. Quick: it is polled."""
        if self.connection.state != "connected" or self.catalog is None or self.obstacle(mode, document, where):
            self.estimate.clear()
        elif document is not None:
            area = planned_area(self.host, mode, document, where)
            if mode == NEW_DOCUMENT:
                area = area_of(self.host, document, params)
            self.estimate.ask(mode, self.host.canvas_of(document), area, sent(mode, params))

    def layers(self, document: Optional[Any]) -> List[Tuple[str, str]]:
        """What a parameter that takes a picture can be: (value, title), the layers of the document."""
        if document is None or not self.host.is_open(document):
            return []
        return [(f"{LAYER}{name}", title) for name, title in self.host.layers_of(document)]

    def masks(self, document: Optional[Any]) -> List[Tuple[str, str]]:
        """The layers and masks that can say where to inpaint, as `layers` gives them."""
        if document is None or not self.host.is_open(document):
            return []
        return [(f"{LAYER}{name}", title) for name, title in self.host.masks_of(document)]

    def running(self) -> Optional[JobState]:
        """The job to show: one that runs, else the oldest that has not ended."""
        active = self.jobs.active
        moving = [job for job in active if job.state in ("running", "fetching")]
        return moving[0] if moving else active[0] if active else None

    def look_at(self, document: Optional[Any], search: str = "", starred: bool = False) -> None:
        """List the results of a document in the strip; with None, all that the server keeps."""
        begins = ""
        if document is not None:
            begins = self._identity(document, make=True) + "-"
        self.gallery.look_for(Query(begins, search, starred))

    # ---- deeds

    def ask(
        self,
        mode: str,
        document: Optional[Any],
        params: Mapping[str, Any],
        place: str = "back",
        where: Aim = NOWHERE_ELSE,
    ) -> bool:
        """Plan and submit a job: at the "back" or "front" of the queue, or instead of what waits in it ("replace").

        False where there is an obstacle, which the notice says.
        """

        def target() -> Target:
            sentence = self.obstacle(mode, document, where)
            if sentence:
                raise Obstacle(sentence)
            return aim(self.host, mode, document, dict(params), where)

        return self._try(target, place)

    def ask_again(self, document: Optional[Any], layer: Any, changes: Optional[Mapping[str, Any]] = None) -> bool:
        """Make a layer of Impasto again from its recipe, as a new layer above it."""
        return self._try(lambda: again(self.host, document, layer, changes or {}))

    def make_again(self, document: Optional[Any], shown: Optional[Shown] = None, new_seed: bool = False) -> bool:
        """Make the active layer again, where Impasto made it, else the result that is looked at in the strip."""
        changes = {"seed": -1} if new_seed else {}
        layer = None
        if document is not None and self.host.is_open(document):
            layer = self.host.active_layer(document)
        if layer is None or not self.host.recipe_of(document, layer):
            order = self._orders.get(shown.job_id) if shown is not None else None
            if order is not None and shown is not None:
                params = {**shown.params, **changes}
                return self._try(lambda: remade(self.host, order.whole(), params))
        return self._try(lambda: again(self.host, document, layer, changes))

    def _try(self, find: Callable[[], Target], place: str = "back", hint: Optional[HintWish] = None) -> bool:
        try:
            target = find()
        except Obstacle as reason:
            self._say(Notice(str(reason), is_error=True))
            return False
        self._begin(target, place, hint)
        return True

    def _try_hint(self, find: Callable[[], Target], wish: HintWish) -> bool:
        return self._try(find, hint=wish)

    def _begin(self, target: Target, place: str, hint: Optional[HintWish] = None) -> None:
        self._runner.start()
        # What is only looked at is none of the document's results.
        looks = hint is not None and not hint.keep
        begins = "hint" if looks else self._identity(target.document, make=True)
        job_id = f"{begins}-{uuid.uuid4().hex}"
        order = Order(target, place, hint=hint)
        if target.region is not None:
            order.mask = Packed(target.region)
        if target.layer is not None:
            order.sketch = self.host.name_of(target.layer)
        order.pictures = {name: self.host.name_of(layer) for name, layer in target.pictures.items()}
        self._orders.add(job_id, order)
        self.jobs.add(job_id, target.mode, str(target.params.get("prompt", "")))
        self._say(None)
        self._runner.plan(job_id, target.mode, dict(target.params), target.canvas.size, target.area)

    def diagnose(self) -> None:
        """Have the server look at its installation: `diagnosed` is given the page in some seconds."""
        self._say(Notice("The server looks at its installation; what it finds is copied in a moment."))
        self._runner.doctor(DIAGNOSIS)

    def read_settings(self, source: Union[str, Path]) -> None:
        """Take over how a picture was made: its file, or the text that other programs write. `taken` hears of it."""
        data: Union[str, bytes]
        if isinstance(source, str):
            data = source
        else:
            try:
                if source.stat().st_size > LARGEST_READ:
                    raise OSError(None, "it is too large for a picture")
                data = source.read_bytes()
            except OSError as error:
                self._say(Notice(f"{source.name} could not be read: {error.strerror}.", is_error=True))
                return
        self._runner.start()
        self._say(None)
        self._runner.read_parameters(READING, data)

    def cancel(self, job_id: str = "") -> None:
        """Cancel a job, or the one that is shown."""
        job = self.jobs.get(job_id) if job_id else self.running()
        if job is not None and job.active:
            self._runner.cancel(job.job_id)

    def cancel_all(self) -> None:
        """Cancel all jobs of this session."""
        for job in reversed(self.jobs.active):  # the ones that wait first: none of them begins in between
            self._runner.cancel(job.job_id)

    def _identity(self, document: Any, make: bool = False) -> str:
        """What the ids of a document's jobs begin with; kept in its file once it has a result."""
        kept = self.host.identity_of(document)
        if IDENTITY.fullmatch(kept):
            return kept
        if not make:
            return ""
        return self._identities.setdefault(self.host.key_of(document), uuid.uuid4().hex[:16])

    # ---- events

    def handle(self, event: Event) -> None:
        """Deal with an event; on the main thread."""
        if self.vocabulary.take(event) or isinstance(event, WordsFound):
            return  # nothing that is shown elsewhere
        if self.estimate.take(event) or self.further.take(event, self.catalog):
            pass
        elif isinstance(event, ConnectionChanged):
            self.connection = event
            if event.state == "connected":
                self.gallery.refresh()
        elif isinstance(event, CatalogChanged):
            self.catalog = event.catalog
            self.vocabulary.learn(event.catalog.models)
            self.estimate.forget()
        elif isinstance(event, HistoryListed):
            self.gallery.listed(event.key, event.entries, event.more)
        elif isinstance(event, ResultFetched):
            self.results.fetched(event)
        elif isinstance(event, Done):
            self.results.done(event)
        elif isinstance(event, Planned):
            self._capture(event)
        elif isinstance(event, Failed) and event.ticket in (READING, DIAGNOSIS):
            self._say(Notice(event.error.message, is_error=True))
        elif isinstance(event, Failed):
            self._end(event.ticket, "failed", event.error)
        elif isinstance(event, ServerChosen):
            self._say(Notice(event.sentence, is_error=event.error is not None))
        elif isinstance(event, ParametersRead):
            self._say(Notice(describe_reading(event)))
            self.taken(event.mode, event.params)
        elif isinstance(event, Diagnosed):
            self.diagnosed(event.text)
            mend = f"{event.bad} of its lines say what to mend" if event.bad else "nothing has to be mended"
            self._say(Notice(f"A diagnosis is in the clipboard: {mend}.", is_error=event.bad > 0))
        elif self.jobs.get(event.job_id) is not None:
            self.jobs.apply(event)
            if isinstance(event, ResultReady):
                self._receive(event.result)
            elif isinstance(event, JobChanged) and event.state in TERMINAL_STATES:
                self.estimate.forget()
                self._orders.ended(event.job_id)
                if event.error is not None:
                    self._say(Notice(event.error.message, is_error=True))
        self.changed()

    def _capture(self, event: Planned) -> None:
        """Read the planned box from the document and submit the job."""
        order, job, box = self._orders.get(event.ticket), self.jobs.get(event.ticket), event.plan.box
        if order is None or not order.unread or job is None or not job.active:
            return
        target = order.target
        if target.context:
            box = context_box(target, box, event.plan.reach)
            order.target = target = dataclasses.replace(target, context=box)
        order.was_read()
        try:
            picture = snapshot(self.host, target, box)
        except Obstacle as reason:
            self._end(event.ticket, "cancelled")
            self._say(Notice(str(reason), is_error=True))
            return
        if target.mode != NEW_DOCUMENT and picture.pixels:
            order.before = self.host.thumbnail(picture.pixels, box.width, box.height, PICTURE_SIZE)
            if target.layer is None and target.without is None:
                order.sample = Sample.of(box, picture.pixels)
        if event.plan.warnings:
            self._say(Notice(" ".join(event.plan.warnings)))
        priority, replaced = self._place(event.ticket, order.place)
        self._runner.submit(event.ticket, target.mode, dict(target.params), picture, priority, replaced)

    def _place(self, job_id: str, place: str) -> Tuple[str, Optional[str]]:
        """The priority of a job, and the one whose place it takes; others that wait with that one are cancelled."""
        if place != "replace":
            return place, None
        waiting = [job.job_id for job in self.jobs.active if job.job_id != job_id and job.state in WAITING]
        for other in waiting[1:]:
            self._runner.cancel(other)
        return "back", waiting[0] if waiting else None

    def _receive(self, result: ResultLayer) -> None:
        order, word = self._orders.get(result.job_id), self.host.word
        if order is not None and order.hint is not None and not order.hint.keep:
            self.hints.receive(result, order.hint, order.target.document, lambda: None)
            return
        self.results.received(result, order.before if order is not None else None)
        self.added(result)
        if result.stage == NEW_DOCUMENT:
            self.results.open(result, order)
            if order is not None and order.target.into == RESIZE and self.host.is_open(order.target.document):
                self._keep_identity(order.target.document)
            return
        if order is None:
            return
        target = order.target
        if not self.host.is_open(target.document):
            self._say(Notice(f"The {word} was closed meanwhile; the picture is kept below, among all pictures."))
            return
        canvas = self.host.canvas_of(target.document)
        if canvas.intersect(result.box) is None:
            self._say(Notice(f"The {word} was cropped meanwhile and the place is gone; the picture is kept below."))
            return
        self._keep_identity(target.document)
        sample = order.sample if canvas == target.canvas else None
        flipped = sample is not None and sample.was_flipped(self.host, target.document, canvas)
        if order.hint is not None:
            paste = functools.partial(self.results.paste, target.document, [result])
            self.hints.receive(result, order.hint, target.document, paste)
        else:
            self.results.paste(target.document, [result])
        if flipped:
            self._say(Notice(f"The {word} was flipped meanwhile; the layer lies where its region was before."))
        if canvas != target.canvas:
            self._say(Notice(f"The {word} changed its size meanwhile; the layer lies where its region was."))

    def _keep_identity(self, document: Any) -> None:
        if not self._identity(document):
            self.host.keep_identity(document, self._identity(document, make=True))

    def _end(self, job_id: str, state: str, error: Optional[ImpastoError] = None) -> None:
        if self.jobs.get(job_id) is None:
            return
        order = self._orders.get(job_id)
        if order is not None:
            order.unread = False
        self.jobs.apply(JobChanged(job_id, state, error=error))
        if error is not None:
            self._say(Notice(error.message, is_error=True))

    def tell(self, text: str) -> None:
        """Show the painter a sentence."""
        self._say(Notice(text))

    def _say(self, notice: Optional[Notice]) -> None:
        self.notice = notice
        self.changed()
