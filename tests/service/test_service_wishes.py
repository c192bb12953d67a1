"""What a submit may wish beside its pictures: a place, an end with its connection, an order, another job's place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.geometry import Box
from impasto_protocol.messages import (
    Accepted,
    Attach,
    Cancel,
    Cancelled,
    Error,
    Finished,
    Jobs,
    Ok,
    Output,
    Position,
    Progress,
    Queued,
    Started,
)
from impasto_protocol.version import Limits

from tests.service.fakes import ask_submit, connected, inpaint_inputs, running, settings_for

LONG = {"steps": 150, "prompt": "slow"}


def test_a_job_without_pictures_has_a_place(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "placed", canvas=(640, 480), box=Box(96, 32, 64, 64))
            output = await peer.until(Output, "placed")
            assert output.placement == Box(96, 32, 64, 64) and (output.width, output.height) == (64, 64)
            await ask_submit(peer, "whole", canvas=(64, 64))
            assert (await peer.until(Output, "whole")).placement == Box(0, 0, 64, 64)
            beside = await ask_submit(peer, "beside", canvas=(64, 64), box=Box(32, 0, 64, 64))
            assert isinstance(beside, Error) and (beside.code, beside.path) == ("request.bad_geometry", "box")
            inputs = await inpaint_inputs(peer)
            other = await ask_submit(peer, "two", "inpaint", inputs=inputs, box=Box(1, 0, 63, 48))
            assert isinstance(other, Error) and (other.code, other.path) == ("request.bad_geometry", "box")
            assert isinstance(await ask_submit(peer, "same", "inpaint", inputs=inputs, box=Box(0, 0, 64, 48)), Accepted)

    asyncio.run(scenario())


def test_a_dropped_connection_cancels_what_asked_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as other:
            async with connected(endpoint) as peer:
                await ask_submit(peer, "shared", params=LONG, on_disconnect="cancel")
                await peer.until(Progress, "shared")
                for job, wish in (("mine", "cancel"), ("kept", "keep")):
                    await ask_submit(peer, job, on_disconnect=wish)
                assert isinstance(await other.ask(Attach, "shared", 0), Ok)
                peer.socket.transport.abort()
            for _ in range(100):
                listed: Any = await other.ask(Jobs)
                states = {entry.job: entry.state for entry in listed.jobs}
                if states["mine"] != "queued":
                    break
                await asyncio.sleep(0.02)
            # The other connection still follows one; another says that it is to be kept.
            assert states == {"shared": "running", "mine": "cancelled", "kept": "queued"}
            await other.ask(Attach, "mine", 0)
            assert isinstance(await other.end("mine"), Cancelled)
            await other.ask(Attach, "kept", 0)
            await other.ask(Cancel, "shared")
            assert isinstance(await other.end("kept"), Finished)

            async with connected(endpoint) as peer:
                await ask_submit(peer, "runs", params=LONG, on_disconnect="cancel")
                await peer.until(Progress, "runs")
            await other.ask(Attach, "runs", 0)
            assert isinstance(await other.end("runs"), Cancelled)

    asyncio.run(scenario())


def test_front_goes_before_all_that_wait_and_a_replaced_job_leaves_its_place(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = settings_for(tmp_path, limits=Limits(queue=4))
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "runs", params=LONG)
            await peer.until(Started, "runs")
            for job in ("a", "b", "c"):
                await ask_submit(peer, job)
            first: Any = await ask_submit(peer, "first", priority="front")
            assert first.position == 1
            # The queue is full; what takes another's place needs none.
            full: Any = await ask_submit(peer, "full", replaces="never-heard-of")
            assert full.code == "job.queue_full"
            instead: Any = await ask_submit(peer, "instead", replaces="b")
            assert instead.position == 3
            assert isinstance(await peer.end("b"), Cancelled)
            again: Any = await ask_submit(peer, "instead", replaces="b")
            assert isinstance(again, Accepted) and again.position == 3
            await peer.ask(Cancel, "runs")
            await peer.end("c")
            order = [e.job for e in peer.events if isinstance(e, Started)]
            assert order == ["runs", "first", "a", "instead", "c"]
            # What runs, or has ended, is not replaced.
            await ask_submit(peer, "late", replaces="c")
            assert isinstance(await peer.end("late"), Finished)
            assert [type(e) for e in peer.events if e.job == "c"].count(Cancelled) == 0  # type: ignore[attr-defined]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("field", "value"), [("on_disconnect", "maybe"), ("priority", "urgent"), ("replaces", "../x"), ("box", [1, 2])]
)
def test_wishes_that_are_none_are_refused(tmp_path: Path, field: str, value: Any) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            answer = await ask_submit(peer, "j", **{field: value})
            assert isinstance(answer, Error) and (answer.code, answer.path) == ("protocol.bad_message", field)

    asyncio.run(scenario())


def test_waiting_jobs_are_told_where_they_stand_now(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "runs", params=LONG)
            await peer.until(Progress, "runs")
            for job in ("a", "b", "c"):
                await ask_submit(peer, job, params=LONG)
            await ask_submit(peer, "first", priority="front", params=LONG)
            assert (await peer.until(Position, "c")).position == 4
            await peer.ask(Cancel, "b")
            async with connected(endpoint) as other:
                # Who attaches hears what was said first, and where it stands now.
                assert isinstance(await other.ask(Attach, "c", 0), Ok)
                assert (await other.until(Queued, "c")).position == 3
                await peer.ask(Cancel, "runs")
                await peer.until(Started, "first")
                await peer.ask(Cancel, "first")
                await peer.until(Started, "a")
                while (await other.receive()) != Position("c", 1):
                    pass
                await peer.ask(Cancel, "a")
                await other.until(Started, "c")
            heard = [e for e in peer.events if getattr(e, "job", "") == "c" and isinstance(e, Queued | Position)]
            assert [e.position for e in heard][:3] == [3, 4, 3] and heard[-1].position == 1
            await peer.ask(Cancel, "c")
            await peer.end("c")

    asyncio.run(scenario())
