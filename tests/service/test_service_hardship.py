"""What the world does to a server that works: full disks, a full queue, evicted pictures, clocks that jump, doubles."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.messages import (
    Accepted,
    Attach,
    Cancel,
    Error,
    Failed,
    Finished,
    History,
    HistoryOk,
    Jobs,
    JobsOk,
    Ok,
    Output,
    Progress,
    Star,
    Started,
)
from impasto_protocol.version import Limits
from impasto_server.engine import jobs as engine
from impasto_server.service import queue as queue_module
from impasto_server.service.ledger import Ledger

from tests.service.fakes import (
    TERMINAL,
    FakeEngine,
    ask_submit,
    connected,
    inpaint_inputs,
    missing,
    picture,
    running,
    settings_for,
)

LONG = {"steps": 150, "prompt": "slow"}


def full(*args: Any, **rest: Any) -> Any:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("what", ["raw", "recipe", "png", "star", "events", "acceptance", "rewrite"])
def test_a_full_disk_at_each_write(tmp_path: Path, monkeypatch: Any, what: str) -> None:
    """Each write by itself: a typed error or a job that goes on, nothing half is left, and all is well afterwards."""
    replace, write, touch = os.replace, os.write, Path.touch
    ends = {"raw": ".rgba", "recipe": ".json", "png": ".png", "rewrite": "jobs.log"}.get(what)

    def no_replace(source: Any, target: Any) -> None:
        if ends is not None and str(target).endswith(ends):
            full()
        replace(source, target)

    def no_write(number: int, data: bytes) -> int:
        accepted = b'"accepted"' in bytes(data[:40])
        if b'"job"' in bytes(data) and accepted == (what == "acceptance"):
            full()
        return write(number, data)

    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (server, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "before", params={"steps": 1})
            await peer.end("before")
            if what == "rewrite":
                monkeypatch.setattr(queue_module, "_LEDGER_BYTES", 0)
                server.jobs._ledger_limit = 0
            monkeypatch.setattr(os, "replace", no_replace)
            if what in ("events", "acceptance"):
                monkeypatch.setattr("impasto_server.service.ledger.os.write", no_write)
            monkeypatch.setattr(Path, "touch", full if what == "star" else touch)
            answer = await ask_submit(peer, "j", params={"steps": 1})
            if what == "acceptance":
                assert isinstance(answer, Error) and (answer.code, answer.retryable) == ("resource.disk_full", True)
            else:
                end = await peer.end("j")
                if what in ("raw", "recipe"):
                    assert isinstance(end, Failed) and end.error.code == "resource.disk_full" and end.error.retryable
                else:
                    assert isinstance(end, Finished), end
            if what == "star":
                refused = await peer.ask(Star, "before", 0)
                assert isinstance(refused, Error) and refused.code == "resource.disk_full" and refused.retryable
            for name, value in (("replace", replace), ("write", write)):
                monkeypatch.setattr(os, name, value)
            monkeypatch.setattr(Path, "touch", touch)
            # Room again: the same submit works, or is known.
            assert isinstance(await ask_submit(peer, "j", params={"steps": 1}), Accepted)
            await ask_submit(peer, "after", params={"steps": 1})
            assert isinstance(await peer.end("after"), Finished)
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            listed = await peer.ask(Jobs)
            assert isinstance(listed, JobsOk)
            states = {entry.job: entry.state for entry in listed.jobs}
            assert states["before"] == states["after"] == "finished"
            kept = await peer.ask(History)
            assert isinstance(kept, HistoryOk)
            found = {entry.job for entry in kept.entries}
            assert found == {"before", "after", *(() if what in ("raw", "recipe") else ("j",))}
            for entry in kept.entries:
                got = await peer.fetch(entry)  # type: ignore[arg-type]
                assert len(got) == 4 * entry.width * entry.height
        left = [path.suffix for path in (tmp_path / "history").iterdir()]
        assert not {".tmp", ".rgba"} & set(left), left

    asyncio.run(scenario())


def test_a_full_queue_loses_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = settings_for(tmp_path, limits=Limits(queue=1))
        async with running(settings) as (server, endpoint), connected(endpoint) as peer:
            inputs = await inpaint_inputs(peer)
            await ask_submit(peer, "runs", params=LONG)
            await peer.until(Started, "runs")
            await ask_submit(peer, "waits", params={"steps": 1})
            for wish in ({}, {"priority": "front"}, {"replaces": "runs"}, {"replaces": "never"}):
                refused = await ask_submit(peer, "j", "inpaint", inputs=inputs, **wish)
                assert isinstance(refused, Error) and (refused.code, refused.retryable) == ("job.queue_full", True)
            # The one that was refused left no trace and holds nothing; its pictures are still there.
            assert not server.blobs._pins
            listed = await peer.ask(Jobs)
            assert isinstance(listed, JobsOk) and [entry.job for entry in listed.jobs] == ["runs", "waits"]
            assert await missing(peer, *(part.digest for part in inputs.values())) == ()
            await peer.ask(Cancel, "runs")
            assert isinstance(await peer.end("waits"), Finished)
            assert isinstance(await ask_submit(peer, "j", "inpaint", inputs=inputs), Accepted)
            assert isinstance(await peer.end("j"), Finished)

    asyncio.run(scenario())


def test_a_picture_that_was_evicted_is_named_and_can_be_sent_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        room = 64 * 48 * 5
        async with running(settings_for(tmp_path, blob_bytes=room)) as (_, endpoint), connected(endpoint) as peer:
            inputs = await inpaint_inputs(peer)
            await peer.put(picture(seed=1))  # takes the place of the older ones
            gone = {part.digest for part in inputs.values()}
            refused = await ask_submit(peer, "j", "inpaint", inputs=inputs)
            assert isinstance(refused, Error) and refused.code == "asset.missing" and refused.retryable
            assert refused.data is not None and refused.data["digests"] and set(refused.data["digests"]) <= gone
            assert await inpaint_inputs(peer) == inputs
            # Nothing was accepted: the id is free, and the same submit works now.
            assert isinstance(await ask_submit(peer, "j", "inpaint", inputs=inputs), Accepted)
            assert isinstance(await peer.end("j"), Finished)

    asyncio.run(scenario())


def test_two_clients_say_the_same_at_the_same_moment(tmp_path: Path) -> None:
    """One painter, two windows: the same job is one job, both hear all of it, and one may leave."""

    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint):
            async with connected(endpoint) as a, connected(endpoint) as b:
                inputs = await inpaint_inputs(a)
                wishes = {"inputs": inputs, "params": {"steps": 8, "prompt": "slow"}, "on_disconnect": "cancel"}
                both = await asyncio.gather(*(ask_submit(peer, "j", "inpaint", **wishes) for peer in (a, b)))
                assert all(isinstance(answer, Accepted) for answer in both)
                other = await ask_submit(b, "j", "inpaint", inputs=inputs, params={"steps": 9, "prompt": "slow"})
                assert isinstance(other, Error) and other.code == "job.conflict"
                await a.until(Progress, "j")
                a.socket.transport.abort()
                assert isinstance(await b.end("j"), Finished)
                seqs = [event.seq for event in b.events if hasattr(event, "seq")]
                assert seqs == [1, 2, 3, 4] and sum(isinstance(event, TERMINAL) for event in b.events) == 1
            async with connected(endpoint) as c:
                assert isinstance(await c.ask(Attach, "j", 0), Ok)
                assert await c.until(Output) == await b.until(Output)

    asyncio.run(scenario())


def test_a_clock_that_jumps(tmp_path: Path, monkeypatch: Any) -> None:
    """An hour back and a day on, while a job runs and across a restart: results keep their order, jobs their ends."""
    real, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])

    async def scenario() -> None:
        jobs = [f"j{n}" for n in range(6)]
        for restart in range(2):
            async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
                for job, jump in zip(jobs[3 * restart :][:3], (-3600.0, 86400.0, -90000.0), strict=True):
                    await ask_submit(peer, job, params={"steps": 4, "prompt": "slow"})
                    await peer.until(Progress, job)
                    offset[0] += jump
                    assert isinstance(await peer.end(job), Finished)
                kept = await peer.ask(History)
                assert isinstance(kept, HistoryOk)
                assert [entry.job for entry in kept.entries] == jobs[: 3 * restart + 3][::-1]
                for entry in kept.entries:
                    assert len(await peer.fetch(entry)) == 4 * entry.width * entry.height  # type: ignore[arg-type]
                listed = await peer.ask(Jobs)
                assert isinstance(listed, JobsOk)
                assert [e.job for e in listed.jobs if e.job in jobs] == jobs[: 3 * restart + 3]
                await ask_submit(peer, f"long-{restart}", params=LONG)
                await peer.until(Progress, f"long-{restart}")
                offset[0] -= 1e6
                asked = time.monotonic()
                await peer.ask(Cancel, f"long-{restart}")
                await peer.end(f"long-{restart}")
                assert time.monotonic() - asked < 5

    asyncio.run(scenario())


def test_the_ledger_is_whole_after_a_write_that_went_wrong(tmp_path: Path, monkeypatch: Any) -> None:
    """A line that was cut off by a full disk costs itself alone."""
    ledger, write = Ledger(tmp_path / "jobs.log"), os.write

    def half(number: int, data: bytes) -> int:
        return write(number, data[: len(data) // 2])

    ledger.accept("a", "txt2img", "f", 1.0)
    monkeypatch.setattr("impasto_server.service.ledger.os.write", half)
    with pytest.raises(Exception, match="could not be written down"):
        ledger.accept("b", "txt2img", "f", 2.0)
    monkeypatch.setattr("impasto_server.service.ledger.os.write", write)
    ledger.accept("c", "txt2img", "f", 3.0)
    ledger.close()
    assert [past.job for past in Ledger(tmp_path / "jobs.log").load()] == ["a", "c"]


class Torn(FakeEngine):
    """Reads a model's file whose end has just been cut off."""

    def run(self, job: engine.Job, emit: engine.Emit, cancelled: Callable[[], bool]) -> engine.Result:
        import mmap

        path = Path(job.checkpoint)
        path.write_bytes(bytes(8192))
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            file.truncate(0)
            return engine.Result((mapped[5000],), {}, {})


@pytest.mark.skipif(sys.platform != "linux", reason="what a process ends with differs")
def test_a_file_that_is_cut_short_under_the_engine_is_named_as_the_cause(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = settings_for(tmp_path, engine=f"{__name__}:Torn", worker="process")
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            for job in ("a", "b"):  # the server and the next job live on
                await ask_submit(peer, job)
                ended = await peer.end(job)
                assert isinstance(ended, Failed) and ended.error.code == "model.corrupt" and ended.error.retryable
                assert "cut short" in ended.error.message

    asyncio.run(scenario())
