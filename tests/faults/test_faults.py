"""Kills of the worker, the connection and the server at random moments: nothing finished is lost, each job ends once.

`IMPASTO_FAULTS` is the number of kills (default 12, at most 200), `IMPASTO_FAULTS_SEED` chooses the moments.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.geometry import Size
from impasto_protocol.messages import (
    Accepted,
    Attach,
    Cancel,
    Error,
    Finished,
    HistoryEntry,
    HistoryOk,
    InputPicture,
    Jobs,
    Ok,
    Submit,
)
from impasto_protocol.messages import History as HistoryRequest

from tests.faults.ground import Book, Ground, Line, Lost, kill_workers
from tests.service.fakes import disc, picture

KILLS = min(200, int(os.environ.get("IMPASTO_FAULTS", "12")))
SEED = int(os.environ.get("IMPASTO_FAULTS_SEED", "1"))
CANVAS = Size(64, 48)
SHM = Path("/dev/shm")


class Painter:
    """Submits jobs and follows them, whatever happens."""

    def __init__(self, ground: Ground, chance: random.Random) -> None:
        self.ground = ground
        self.chance = chance
        self.book = Book()
        self.orders: dict[str, Any] = {}
        self.accepted: set[str] = set()
        self.line: Line | None = None

    async def connected(self) -> Line:
        """The line; a new one goes on with every job that has not ended."""
        while self.line is None:
            try:
                line = await Line.open(self.ground, self.book)
                for job in [job for job in self.orders if job in self.accepted and not self.book.ended(job)]:
                    answer = await line.ask(Attach, job, len(self.book.events.get(job, [])))
                    assert isinstance(answer, Ok), answer
                self.line = line
            except Lost:
                await asyncio.sleep(0.02)
        return self.line

    async def send_waiting(self) -> None:
        """Submit what was not accepted yet; Lost where the connection ends meanwhile."""
        line = await self.connected()
        for job, order in self.orders.items():
            if job in self.accepted:
                continue
            inputs = {}
            if order["mode"] == "inpaint":
                image, mask = await line.upload(picture(*CANVAS)), await line.upload(disc(*CANVAS))
                inputs["image"] = InputPicture(image, *CANVAS, "rgba8")
                inputs["mask"] = InputPicture(mask, *CANVAS, "l8")
            answer = await line.ask(Submit, job, canvas=CANVAS, inputs=inputs, **order)
            assert isinstance(answer, Accepted), answer
            self.accepted.add(job)

    def order(self) -> None:
        job = f"job-{len(self.orders)}"
        prompt = self.chance.choice(["", "slow", "slow", "many", "many slow", "defect"])
        self.orders[job] = {
            "mode": self.chance.choice(["inpaint", "txt2img"]),
            "params": {"prompt": prompt, "steps": self.chance.randint(1, 6)},
            "on_disconnect": self.chance.choice(["keep", "keep", "cancel"]),
        }

    async def work_until(self, moment: float) -> None:
        """Submit and cancel as painters do, until then."""
        try:
            while True:
                await self.send_waiting()
                left = moment - time.monotonic()
                if left <= 0:
                    return
                await asyncio.sleep(min(left, self.chance.random() * 0.2))
                if self.chance.random() < 0.15 and self.accepted:
                    line = await self.connected()
                    recent = [job for job in self.orders if job in self.accepted][-20:]  # old ones are forgotten
                    answer = await line.ask(Cancel, self.chance.choice(recent))
                    assert isinstance(answer, Ok), answer
        except Lost:
            await self.lost()

    async def lost(self) -> None:
        line, self.line = self.line, None
        if line is not None:
            await line.drop()

    async def all_ended(self) -> None:
        async with asyncio.timeout(60):
            while not all(self.book.ended(job) for job in self.orders):
                await self.work_until(time.monotonic() + 0.05)

    async def one_in_peace(self) -> None:
        """After the storm a job runs to its end as if nothing had been (all others may have been hit)."""
        job = f"job-{len(self.orders)}"
        self.orders[job] = {"mode": "inpaint", "params": {"prompt": "", "steps": 2}, "on_disconnect": "keep"}
        await self.send_waiting()
        async with asyncio.timeout(60):
            while not self.book.ended(job):
                await asyncio.sleep(0.02)
        assert isinstance(self.book.events[job][-1], Finished)

    async def history(self) -> dict[tuple[str, int], HistoryEntry]:
        line = await self.connected()
        kept, after = {}, None
        while True:
            answer = await line.ask(HistoryRequest, after, 50)
            assert isinstance(answer, HistoryOk)
            kept.update({(entry.job, entry.index): entry for entry in answer.entries})
            after = answer.next
            if after is None:
                return kept


async def kill(kind: str, painter: Painter) -> None:
    if kind == "worker":
        assert painter.ground.process is not None
        kill_workers(painter.ground.process.pid)
    elif kind == "connection":
        await painter.lost()
    else:
        painter.ground.kill()
        await painter.lost()
        await painter.ground.start()


async def check_results(painter: Painter) -> None:
    """Every result that was told can be had, and what is kept is what was told."""
    line, kept = await painter.connected(), await painter.history()
    for output in painter.book.outputs():
        entry = kept.pop((output.job, output.index))
        assert (entry.digest, entry.placement) == (output.digest, output.placement)
        assert len(await line.fetch(output)) == 4 * output.width * output.height
    assert not kept, "a result is in the history that its job never told"


@pytest.mark.skipif(sys.platform != "linux", reason="the worker is found through /proc, its memory in /dev/shm")
def test_kills_at_random_moments(tmp_path: Path) -> None:
    async def scenario() -> None:
        chance, ground = random.Random(SEED), Ground(tmp_path)
        painter = Painter(ground, chance)
        before = {path.name for path in SHM.glob("impasto-*")}
        await ground.start()
        try:
            # Each kind often enough, in an order of chance.
            kinds = [("worker", "connection", "server")[n % 3] for n in range(KILLS)]
            chance.shuffle(kinds)
            for kind in kinds:
                for _ in range(chance.randint(1, 2)):
                    painter.order()
                moment = time.monotonic() + chance.random() * 0.5
                work = asyncio.create_task(painter.work_until(moment + 0.05))
                await asyncio.sleep(max(0.0, moment - time.monotonic()))
                if kind == "connection":
                    await work
                await kill(kind, painter)
                await work
            await painter.all_ended()
            await painter.one_in_peace()
            await check_results(painter)

            # A last kill while nothing runs: what was told is told again, word for word.
            ground.kill()
            await painter.lost()
            await ground.start()
            line = await painter.connected()
            listed = await line.ask(Jobs)
            assert {e.job for e in listed.jobs} >= set(list(painter.orders)[-200:])
            for entry in listed.jobs:
                assert entry.last_seq == len(painter.book.events[entry.job])
                assert isinstance(await line.ask(Attach, entry.job, 0), Ok)
            await check_results(painter)
            unknown = await line.ask(Attach, "never", 0)
            assert isinstance(unknown, Error) and unknown.code == "job.unknown"
            line.check()
            await painter.lost()
            await ground.stop()
        finally:
            if ground.process is not None and ground.process.poll() is None:
                ground.kill()
        await clean(ground, before)

    asyncio.run(scenario())


async def clean(ground: Ground, before: set[str]) -> None:
    """No half results, no shared memory, no process is left."""
    left = [path.name for path in (ground.home / "history").iterdir() if path.suffix not in (".json", ".png", ".log")]
    assert not left, left
    assert not list((ground.home / "spool").iterdir())
    deadline = time.monotonic() + 15
    while True:
        segments = {path.name for path in SHM.glob("impasto-*")} - before
        mine = {name for name in segments if name.split("-")[1] in map(str, ground.pids)}
        alive = [pid for pid in ground.pids if Path(f"/proc/{pid}").exists()]
        if not mine and not alive:
            return
        assert time.monotonic() < deadline, (mine, alive)
        await asyncio.sleep(0.1)
