"""Chains over the wire: checked as a whole before they are accepted, and gone on with after a crash."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.geometry import Size
from impasto_protocol.messages import (
    ChainLink,
    Error,
    Failed,
    Finished,
    Further,
    Jobs,
    JobsOk,
    Output,
    Parameters,
    Submit,
)
from impasto_server.engine import jobs as engine
from impasto_server.engine.chain import run_chain

from tests.service.fakes import FakeEngine, connected, running, settings_for

CANVAS = Size(64, 64)


class ChainEngine(FakeEngine):
    """Runs chains; one whose prompt says `once FILE` ends the process where the file is not there yet."""

    def run(self, job: engine.Job, emit: engine.Emit, cancelled: Callable[[], bool]) -> engine.Result:
        if job.chain.is_one:
            return run_chain(job, emit, lambda one, told: self._one(one, told, cancelled))
        return self._one(job, emit, cancelled)

    def _one(self, job: engine.Job, emit: engine.Emit, cancelled: Callable[[], bool]) -> engine.Result:
        words = job.params.prompt.split()  # type: ignore[union-attr]
        if "once" in words and not Path(words[-1]).exists():
            Path(words[-1]).touch()
            os._exit(9)
        return super().run(job, emit, cancelled)


def settings(home: Path, **changes: Any) -> Any:
    return settings_for(home, engine="tests.service.test_service_chain:ChainEngine", **changes)


async def submit(peer: Any, job: str, prompt: str, *links: ChainLink) -> Any:
    return await peer.ask(Submit, job, "txt2img", {"prompt": prompt}, CANVAS, then=links)


async def to_the_end(peer: Any, job: str) -> tuple[list[Output], Any]:
    end = await peer.end(job)
    return [e for e in peer.events if isinstance(e, Output) and e.job == job], end


def refine(prompt: str, pick: int = 0) -> ChainLink:
    return ChainLink("refine", {"prompt": prompt}, pick)


def test_a_chain(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            await submit(peer, "c", "many", refine("first"), refine("second"))
            outputs, end = await to_the_end(peer, "c")
            assert isinstance(end, Finished) and len(end.ran["chain"]) == 3
            assert [o.index for o in outputs] == list(range(5))
            assert [len(o.info.get("then", ())) for o in outputs] == [2, 2, 2, 1, 0]
            left = await peer.ask(Further, "then", "c", 2)
            assert isinstance(left, Parameters) and (left.mode, left.params["prompt"]) == ("refine", "first")
            assert left.then is not None and left.then[0].params["prompt"] == "second"
            none = await peer.ask(Further, "then", "c", 4)
            assert isinstance(none, Error) and none.code == "request.invalid_param"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("links", "code", "path"),
    [
        ([ChainLink("inpaint", {})], "request.invalid_param", "then[0].mode"),
        ([ChainLink("magic", {})], "request.invalid_param", "then[0].mode"),
        ([refine("x", pick=1)], "request.invalid_param", "then[0].pick"),
        ([refine("x"), ChainLink("refine", {"tile": 1})], "request.invalid_param", "then[1].params.tile"),
        ([ChainLink("upscale", {"scale": 0})], "request.invalid_param", "then[0].params.scale"),
        ([ChainLink("upscale", {"upscaler": "gone"}), refine("x")], "model.unknown", "then[0].params.upscaler"),
        ([refine("x"), ChainLink("refine", {"model": "gone"})], "model.unknown", "then[1].params.model"),
        ([ChainLink("upscale", {"scale": 8})] * 3, "request.bad_geometry", "then[2].params.scale"),
        ([ChainLink("refine", {"vary": [{"param": "seed", "values": "1-2"}]})], "request.invalid_param", None),
        ([refine("x")] * 9, "request.invalid_param", "then"),
    ],
)
def test_what_is_wrong_is_told_before_it_is_accepted(tmp_path: Path, links: Any, code: str, path: str | None) -> None:
    async def scenario() -> None:
        async with running(settings(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            answer = await submit(peer, "bad", "x", *links)
            assert isinstance(answer, Error) and answer.code == code, answer
            assert path is None or answer.path == path
            jobs = await peer.ask(Jobs)
            assert isinstance(jobs, JobsOk) and not jobs.jobs

    asyncio.run(scenario())


def test_the_worker_dies_in_a_link_and_the_chain_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        marker = tmp_path / "marker"
        async with running(settings(tmp_path, worker="process")) as (_, endpoint), connected(endpoint) as peer:
            await submit(peer, "c", "first", refine(f"once {marker}"), refine("last"))
            outputs, end = await to_the_end(peer, "c")
            assert isinstance(end, Finished), end
            assert [o.index for o in outputs] == [0, 1, 2] and marker.exists()

            # One that ends it each time ends the job; what was finished stays.
            await submit(peer, "d", "first", refine("crash"), refine("last"))
            outputs, end = await to_the_end(peer, "d")
            assert isinstance(end, Failed) and end.error.code == "resource.worker_died"
            assert [o.index for o in outputs] == [0]

    asyncio.run(scenario())


def test_after_the_server_was_cut_off_it_can_be_gone_on_with(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            await submit(peer, "c", "first", refine("slow " * 400))
            await peer.until(Output, "c")
            ledger = (tmp_path / "history" / "jobs.log").read_bytes()
        # As if the power had gone: what was written after the output is not there.
        lines = ledger.split(b"\n")
        cut = [line for line in lines if b'"cancelled"' not in line]
        (tmp_path / "history" / "jobs.log").write_bytes(b"\n".join(cut))
        async with running(settings(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            left = await peer.ask(Further, "then", "c", 0)
            assert isinstance(left, Parameters) and left.mode == "refine" and left.then == ()

    asyncio.run(scenario())
