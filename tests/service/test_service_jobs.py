"""Jobs over a real socket, on both kinds of worker."""

from __future__ import annotations

import asyncio
import os
import signal
import time
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
    Failed,
    Finished,
    Jobs,
    JobsOk,
    Ok,
    Output,
    Preview,
    Progress,
    Queued,
    Shutdown,
    Started,
)

from tests.service.fakes import (
    TERMINAL,
    WISH,
    Peer,
    ask_submit,
    connected,
    disc,
    inpaint_inputs,
    missing,
    picture,
    running,
    settings_for,
)


@pytest.fixture(params=["thread", "process"])
def settings(request: Any, tmp_path: Path) -> Any:
    return settings_for(tmp_path, worker=request.param)


def one_end(peer: Peer, job: str) -> Any:
    ends = [e for e in peer.events if isinstance(e, TERMINAL) and e.job == job]
    assert len(ends) == 1
    return ends[0]


def test_inpaint_from_submit_to_the_pixels(settings: Any) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            inputs = await inpaint_inputs(peer)
            answer = await ask_submit(
                peer,
                "j1",
                "inpaint",
                inputs=inputs,
                output_format="bgra8",
                params={"steps": 3, "prompt": "many"},
                preview=WISH,
            )
            assert answer == Accepted(answer.id, "j1", 0)  # type: ignore[attr-defined]
            end = await peer.end("j1")
            assert isinstance(end, Finished) and end.seeds == (7,)
            kinds = [type(e) for e in peer.events if not isinstance(e, Preview | Progress)]
            assert kinds == [Queued, Started, Output, Output, Output, Finished]
            assert [e.seq for e in peer.events if hasattr(e, "seq")] == [1, 2, 3, 4, 5, 6]
            output = await peer.until(Output)
            assert output.placement == Box(0, 0, 64, 48) and output.digest == end.outputs[0]
            got = await peer.fetch(output)
            source, mask = picture(), disc()
            for at in (0, 1000, 64 * 47 + 5, 64 * 14 + 20):
                r, g, b = source[4 * at : 4 * at + 3]
                assert got[4 * at : 4 * at + 4] == bytes((b, g, r, mask[at]))

    asyncio.run(scenario())


def test_cancel_within_a_step_and_while_waiting(settings: Any) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "runs", params={"steps": 150, "prompt": "slow"})
            answer = await ask_submit(peer, "waits")
            assert isinstance(answer, Accepted) and answer.position == 1
            await peer.until(Progress, "runs")
            assert isinstance(await peer.ask(Cancel, "waits"), Ok)
            asked = time.monotonic()
            assert isinstance(await peer.ask(Cancel, "runs"), Ok)
            assert isinstance(await peer.end("runs"), Cancelled)
            assert time.monotonic() - asked < 0.5
            assert isinstance(one_end(peer, "waits"), Cancelled)
            # Again is no error, and the next job runs.
            assert isinstance(await peer.ask(Cancel, "runs"), Ok)
            await ask_submit(peer, "next")
            assert isinstance(await peer.end("next"), Finished)
            one_end(peer, "runs")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("prompt", "code"),
    [("refuse", "model.corrupt"), ("defect", "internal.failure"), ("memory", "resource.out_of_memory")],
)
def test_a_failing_job_fails_alone(settings: Any, prompt: str, code: str, caplog: Any) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "bad", params={"prompt": prompt})
            await ask_submit(peer, "good")
            end = await peer.end("bad")
            assert isinstance(end, Failed) and end.error.code == code
            assert "Traceback" not in end.error.message
            if code == "internal.failure":
                assert end.error.data is not None and end.error.data["incident"] in caplog.text
                assert "KeyError" in caplog.text
            assert isinstance(await peer.end("good"), Finished)
            one_end(peer, "bad")

    asyncio.run(scenario())


def test_the_same_submit_again_is_the_same_job(settings: Any) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint), connected(endpoint) as peer, connected(endpoint) as other:
            await ask_submit(peer, "j")
            await peer.end("j")
            assert isinstance(await ask_submit(peer, "j"), Accepted)
            conflict = await ask_submit(peer, "j", params={"steps": 5})
            assert isinstance(conflict, Error) and conflict.code == "job.conflict" and conflict.job == "j"
            # From another connection it is told from the start.
            await ask_submit(other, "j")
            assert isinstance(await other.end("j"), Finished)

    asyncio.run(scenario())


def test_attach_replays_after_a_lost_connection(settings: Any) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint):
            async with connected(endpoint) as peer:
                await ask_submit(peer, "j", params={"steps": 20, "prompt": "slow"})
                await peer.until(Progress)
            async with connected(endpoint) as peer:
                listed = await peer.ask(Jobs)
                assert isinstance(listed, JobsOk) and [j.job for j in listed.jobs] == ["j"]
                assert isinstance(await peer.ask(Attach, "j", 1), Ok)
                end = await peer.end("j")
                assert isinstance(end, Finished)
                assert [e.seq for e in peer.events if hasattr(e, "seq")] == [2, 3, 4]
                unknown = await peer.ask(Attach, "never", 0)
                assert isinstance(unknown, Error) and unknown.code == "job.unknown"

    asyncio.run(scenario())


def test_two_clients_hear_only_of_their_own_jobs(settings: Any) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint), connected(endpoint) as a, connected(endpoint) as b:
            await ask_submit(a, "of-a", params={"steps": 4, "prompt": "slow"})
            await ask_submit(b, "of-b")
            assert isinstance(await b.end("of-b"), Finished)
            assert isinstance(await a.end("of-a"), Finished)
            assert {e.job for e in a.events} == {"of-a"} and {e.job for e in b.events} == {"of-b"}  # type: ignore[attr-defined]

    asyncio.run(scenario())


def test_cancels_at_any_moment_end_every_job_once(settings: Any) -> None:
    import random

    async def scenario() -> None:
        chance = random.Random(1)
        async with running(settings) as (_, endpoint), connected(endpoint) as peer, connected(endpoint) as other:
            jobs = [f"j{n}" for n in range(24)]
            for job in jobs:
                prompt = chance.choice(["", "slow", "defect", "many"])
                await ask_submit(peer, job, params={"steps": chance.randint(1, 3), "prompt": prompt})
                if chance.random() < 0.5:
                    await asyncio.sleep(chance.random() * 0.03)
                    await other.ask(Cancel, chance.choice(jobs[: jobs.index(job) + 1]))
            for job in jobs:
                await peer.end(job)
            await peer.ask(Jobs)
            for job in jobs:
                one_end(peer, job)
                seqs = [e.seq for e in peer.events if hasattr(e, "seq") and e.job == job]
                assert seqs == list(range(1, len(seqs) + 1))

    asyncio.run(scenario())


def test_queue_limit(tmp_path: Path) -> None:
    from impasto_protocol.version import Limits

    async def scenario() -> None:
        settings = settings_for(tmp_path, limits=Limits(queue=2))
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "runs", params={"steps": 150, "prompt": "slow"})
            await peer.until(Started)
            for job in ("a", "b"):
                assert isinstance(await ask_submit(peer, job), Accepted)
            full = await ask_submit(peer, "c")
            assert isinstance(full, Error) and full.code == "job.queue_full" and full.retryable
            await peer.ask(Cancel, "runs")

    asyncio.run(scenario())


def test_results_survive_eviction_and_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        # Room for one picture only.
        settings = settings_for(tmp_path, blob_bytes=64 * 48 * 4 + 64 * 48)
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            inputs = await inpaint_inputs(peer)
            await ask_submit(peer, "j", "inpaint", inputs=inputs)
            await peer.end("j")
            output = await peer.until(Output)
            await peer.put(picture(seed=1))
            first = await peer.fetch(output)
        assert list((tmp_path / "history").glob("*.png")) and not list((tmp_path / "history").glob("*.rgba"))
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            assert await peer.fetch(output) == first

    asyncio.run(scenario())


def test_a_picture_is_sent_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            data = picture(512, 512)
            digest = await peer.put(data)
            assert await missing(peer, digest, "0" * 32) == ("0" * 32,)
            async with connected(endpoint) as other:
                assert await missing(other, digest) == ()

    asyncio.run(scenario())


# ---- only with a process


def segments() -> set[str]:
    shm = Path("/dev/shm")
    # Of this process: servers of other tests, or the painter's own, may be at work beside it.
    return {p.name for p in shm.glob(f"impasto-{os.getpid()}-*")} if shm.is_dir() else set()


def test_worker_killed_in_mid_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = segments()
        async with running(settings_for(tmp_path, worker="process")) as (server, endpoint), connected(endpoint) as peer:
            inputs = await inpaint_inputs(peer)
            await ask_submit(peer, "j", "inpaint", inputs=inputs, params={"steps": 150, "prompt": "slow"})
            await peer.until(Progress)
            pid = server.worker.pid  # type: ignore[attr-defined]
            os.kill(pid, signal.SIGKILL)
            end = await peer.end("j")
            assert isinstance(end, Failed) and end.error.code == "resource.worker_died" and end.error.retryable
            await ask_submit(peer, "next", "inpaint", inputs=inputs)
            end = await peer.end("next")
            assert isinstance(end, Finished) and end.ran["pid"] != pid
            # Between two jobs its death harms nobody.
            os.kill(end.ran["pid"], signal.SIGKILL)
            await ask_submit(peer, "third")
            assert isinstance(await peer.end("third"), Finished)
        assert segments() == before

    asyncio.run(scenario())


def test_worker_that_crashes_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path, worker="process")) as (_, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "j", params={"steps": 5, "prompt": "crash"})
            end = await peer.end("j")
            assert isinstance(end, Failed) and end.error.code == "resource.worker_died"

    asyncio.run(scenario())


def test_a_worker_that_is_deaf_to_cancel_is_killed(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = settings_for(tmp_path, worker="process", cancel_grace=0.3)
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "j", params={"steps": 150, "prompt": "deaf"})
            await peer.until(Progress)
            await peer.ask(Cancel, "j")
            assert isinstance(await peer.end("j"), Cancelled)
            await ask_submit(peer, "next")
            assert isinstance(await peer.end("next"), Finished)

    asyncio.run(scenario())


def test_an_engine_that_cannot_start_is_told(settings: Any) -> None:
    from dataclasses import replace

    async def scenario() -> None:
        async with running(replace(settings, device="broken")) as (_, endpoint), connected(endpoint) as peer:
            for job in ("a", "b"):
                await ask_submit(peer, job)
                end = await peer.end(job)
                assert isinstance(end, Failed) and end.error.code == "internal.failure"
                assert "no such device" in end.error.message

    asyncio.run(scenario())


def test_shutdown_ends_the_running_job(settings: Any) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "j", params={"steps": 150, "prompt": "slow"})
            await peer.until(Progress)
            assert isinstance(await peer.ask(Shutdown), Ok)
            assert isinstance(await peer.end("j"), Cancelled)

    asyncio.run(scenario())
