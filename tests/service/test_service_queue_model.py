"""The queue against a model of a few lines: any order of submits, ends, cancels, losses and restarts."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from impasto_protocol.errors import JobError, ModelError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.messages import Cancelled, Failed, Finished, Message, Position, Queued, Submit
from impasto_server.engine import jobs as engine
from impasto_server.engine.modes import parse_params
from impasto_server.engine.planning import plan
from impasto_server.service.blobs import Blobs
from impasto_server.service.catalogue import Model
from impasto_server.service.facts import Facts
from impasto_server.service.journal import Journal
from impasto_server.service.ledger import Ledger
from impasto_server.service.orders import Order
from impasto_server.service.queue import JobQueue
from impasto_server.service.resolving import Resolved

LIMIT, KEPT = 3, 4
MODEL = Model("m", Path("m"), Facts("checkpoint", "sd1", native_size=64))


class Hand:
    """A worker whose jobs end when the test says so."""

    device = "hand"

    def __init__(self) -> None:
        self.running = ""
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def run(self, job: engine.Job) -> AsyncGenerator[Any, None]:
        self.running, self.end = job.id, asyncio.get_running_loop().create_future()
        how = await self.end
        self.running = ""
        if how == "cancelled":
            raise engine.Cancelled
        if how == "failed":
            raise ModelError("model.corrupt", "The file ends early; download it again.")
        yield engine.Result((1,), {})

    def cancel(self, job_id: str) -> None:
        if job_id == self.running and not self.end.done():
            self.end.set_result("cancelled")


def order(job: str, on_disconnect: str, priority: str, replaces: str | None) -> Order:
    wish = dict(on_disconnect=on_disconnect, priority=priority, replaces=replaces)
    submit = Submit(1, job, "txt2img", {}, Size(64, 64), **wish)  # type: ignore[arg-type]
    params = parse_params("txt2img", {})
    planned = plan("txt2img", params, Size(64, 64), None, 64)
    return Order(submit, (Resolved(params, MODEL),), Box(0, 0, 64, 64), (planned,))


class QueueMachine(RuleBasedStateMachine):
    """`waiting` and `running` are the model; `told` is what each job's listeners heard."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.count = 0
        self.waiting: list[str] = []
        self.running = ""
        self.ended: dict[str, type[Message]] = {}
        self.wishes: dict[str, str] = {}
        self.told: dict[str, list[Any]] = {}

    @initialize()
    def begin(self) -> None:
        self.loop.run_until_complete(self._begin())

    async def _begin(self) -> None:
        journal = Journal(Path(self.folder.name), 1 << 20)
        ledger = Ledger(Path(self.folder.name) / "jobs.log")
        self.hand = Hand()
        self.queue = JobQueue(self.hand, Blobs(1 << 20), journal, ledger, limit=LIMIT, keep_ended=KEPT)
        self.queue.restore(ledger.load(), [])
        self.listeners: dict[str, Any] = {}
        self.task = asyncio.create_task(self.queue.run())
        await self._settle()

    async def _settle(self) -> None:
        """Until the queue waits for the hand."""
        for _ in range(500):
            state = self.queue._running
            busy = state is not None and (self.hand.running != state.id or self.hand.end.done())
            if not busy and not (state is None and self.queue._waiting):
                return
            await asyncio.sleep(0.001)
        raise AssertionError("the queue does not settle")

    def _next(self) -> None:
        if not self.running and self.waiting:
            self.running = self.waiting.pop(0)

    def _over(self, job: str, how: type[Message]) -> None:
        self.ended[job] = how
        if job in self.waiting:
            self.waiting.remove(job)
        if job == self.running:
            self.running = ""

    @rule(
        on_disconnect=st.sampled_from(["keep", "cancel"]),
        priority=st.sampled_from(["back", "front"]),
        replaced=st.integers(-3, 3),
    )
    def submit(self, on_disconnect: str, priority: str, replaced: int) -> None:
        job = f"j{self.count}"
        self.count += 1
        replaces = f"j{self.count - 1 - replaced}" if 0 < replaced < self.count else None

        async def act() -> bool:
            try:
                record = self.queue.add(order(job, on_disconnect, priority, replaces))
            except JobError as error:
                assert error.code == "job.queue_full"
                return False
            heard = self.told[job] = []
            self.listeners[job] = heard.append
            self.queue.attach(record, 0, self.listeners[job])
            await self._settle()
            return True

        room = len(self.waiting) < LIMIT or replaces in self.waiting
        assert self.loop.run_until_complete(act()) == room
        if not room:
            return
        self.wishes[job] = on_disconnect
        if priority == "front":
            self.waiting.insert(0, job)
        elif replaces in self.waiting:
            self.waiting.insert(self.waiting.index(replaces), job)
        else:
            self.waiting.append(job)
        if replaces in self.waiting:
            self._over(str(replaces), Cancelled)
        self._next()

    @precondition(lambda self: self.running)
    @rule(how=st.sampled_from([Finished, Failed]))
    def end(self, how: type[Message]) -> None:
        async def act() -> None:
            self.hand.end.set_result(how.TYPE)
            await self._settle()

        self.loop.run_until_complete(act())
        self._over(self.running, how)
        self._next()

    @precondition(lambda self: self.count)
    @rule(back=st.integers(1, 5))
    def cancel(self, back: int) -> None:
        job = f"j{max(0, self.count - back)}"

        async def act() -> None:
            try:
                self.queue.cancel(job)
            except JobError as error:
                assert error.code == "job.unknown" and job not in self.waiting and job != self.running
            await self._settle()

        self.loop.run_until_complete(act())
        if job in self.waiting or job == self.running:
            self._over(job, Cancelled)
            self._next()

    @precondition(lambda self: self.count)
    @rule(back=st.integers(1, 5))
    def lose_the_connection(self, back: int) -> None:
        job = f"j{max(0, self.count - back)}"
        if job not in self.listeners:
            return

        async def act() -> None:
            self.queue.forget_listener(self.listeners.pop(job))
            await self._settle()

        self.loop.run_until_complete(act())
        if self.wishes[job] == "cancel" and (job in self.waiting or job == self.running):
            self._over(job, Cancelled)
            self._next()

    @rule()
    def kill_and_start_again(self) -> None:
        async def act() -> None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.queue.ledger.close()
            await self._begin()

        self.loop.run_until_complete(act())
        for job in (*self.waiting, *([self.running] if self.running else [])):
            self._over(job, Failed)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "queue"):
            return
        assert [record.id for record in self.queue._waiting] == self.waiting
        assert (self.queue._running.id if self.queue._running else "") == self.running
        states = {entry.job: entry.state for entry in self.queue.entries()}
        for job, how in self.ended.items():
            assert states.get(job, how.TYPE) == how.TYPE
        assert sum(state not in ("queued", "running") for state in states.values()) <= KEPT
        for job, events in self.told.items():
            if job not in states:
                continue
            record = self.queue.record(job)
            lasting = record.events
            assert [event.seq for event in lasting] == list(range(1, len(lasting) + 1))  # type: ignore[attr-defined]
            assert sum(isinstance(event, Finished | Failed | Cancelled) for event in lasting) == (job in self.ended)
            heard = [event for event in events if not isinstance(event, Position)]
            assert lasting[: len(heard)] == heard
            if job in self.waiting and job in self.listeners:
                # What was heard last of where it stands is where it stands.
                told = [event.position for event in events if isinstance(event, Queued | Position)]
                assert told[-1] == self.waiting.index(job) + bool(self.running)
                assert all(before != after for before, after in itertools.pairwise(told))

    def teardown(self) -> None:
        if hasattr(self, "task"):
            self.task.cancel()
            self.loop.run_until_complete(asyncio.gather(self.task, return_exceptions=True))
            self.queue.close_disk()
        self.loop.close()
        self.folder.cleanup()


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
