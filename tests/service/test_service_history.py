"""The history over the wire, and what a server still knows after it was stopped or killed."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_protocol.errors import JobError, ResourceError
from impasto_protocol.images import digest_of
from impasto_protocol.messages import (
    Accepted,
    Attach,
    Error,
    Failed,
    Finished,
    History,
    HistoryOk,
    Jobs,
    Ok,
    Output,
    Progress,
    Queued,
    Star,
    Started,
)
from impasto_server.service import journal as journal_module
from impasto_server.service.journal import Entry, Journal
from impasto_server.service.ledger import Ledger

from tests.service.fakes import ask_submit, connected, running, settings_for


async def history(peer: Any, **fields: Any) -> HistoryOk:
    answer = await peer.ask(History, **fields)
    assert isinstance(answer, HistoryOk), answer
    return answer


def test_pages_search_and_stars(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            assert (await history(peer)).entries == ()
            for n, prompt in enumerate(["a red apple", "a GREEN apple", "many pears", "a red car"]):
                await ask_submit(peer, f"j{n}", params={"steps": 1, "prompt": prompt})
                await peer.end(f"j{n}")
            everything = (await history(peer)).entries
            assert [(e.job, e.index) for e in everything] == [
                *(("j3", 0), ("j2", 2), ("j2", 1), ("j2", 0)),
                *(("j1", 0), ("j0", 0)),
            ]
            seen, after = [], None
            while True:
                answer = await history(peer, limit=4, after=after)
                assert answer.total == 6 and len(answer.entries) <= 4
                seen += answer.entries
                after = answer.next
                if after is None:
                    break
            assert tuple(seen) == everything
            found = await history(peer, search="apple green", info=True)
            assert found.total == 1 and found.next is None
            (entry,) = found.entries
            assert entry.job == "j1" and entry.info is not None and entry.info["params"]["seed"] == 7
            assert (await history(peer, job="j2")).total == 3 and everything[0].info is None
            assert (await history(peer, begins="j")).total == 6 and (await history(peer, begins="j2")).total == 3
            assert (await history(peer, begins="2")).total == 0

            assert isinstance(await peer.ask(Star, "j0", 0), Ok) and isinstance(await peer.ask(Star, "j0", 0), Ok)
            (starred,) = (await history(peer, starred=True)).entries
            assert starred.job == "j0" and starred.starred
            await peer.ask(Star, "j0", 0, False)
            assert (await history(peer, starred=True)).total == 0
            unknown = await peer.ask(Star, "j0", 1)
            assert isinstance(unknown, Error) and unknown.code == "job.unknown"
            none = await peer.ask(History, limit=0)
            assert isinstance(none, Error) and none.path == "limit"

    asyncio.run(scenario())


def test_a_restart_forgets_neither_jobs_nor_pictures(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "good", params={"steps": 1, "prompt": "many"})
            await ask_submit(peer, "bad", params={"prompt": "refuse"})
            await peer.end("good")
            await peer.end("bad")
            told = [e for e in peer.events if not isinstance(e, Progress)]
            output = await peer.until(Output)
            pixels = await peer.fetch(output)
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            listed: Any = await peer.ask(Jobs)
            assert [(j.job, j.state, j.last_seq) for j in listed.jobs] == [
                ("good", "finished", 6),
                ("bad", "failed", 3),
            ]
            for job in ("good", "bad"):
                await peer.ask(Attach, job, 0)
                await peer.end(job)
            assert sorted(peer.events, key=str) == sorted(told, key=str)
            assert await peer.fetch(output) == pixels
            # The same submit again is still the same job, another one a conflict.
            assert isinstance(await ask_submit(peer, "good", params={"steps": 1, "prompt": "many"}), Accepted)
            conflict = await ask_submit(peer, "good", params={"steps": 2, "prompt": "many"})
            assert isinstance(conflict, Error) and conflict.code == "job.conflict"

    asyncio.run(scenario())


def entry_of(journal: Journal, job: str, index: int = 0, side: int = 4) -> Entry:
    pixels = np.random.default_rng(index).integers(0, 256, (side, side, 4), np.uint8)
    return journal.write(
        job=job,
        index=index,
        mode="txt2img",
        pixels=pixels,
        format="rgba8",
        digest=digest_of(pixels.tobytes()),
        box=(0, 0, side, side),
        layer="A layer",
        alpha="opaque",
        seed=index,
        recipe={},
    )


def test_what_a_kill_leaves_becomes_one_end_with_the_results_that_were_finished(tmp_path: Path, caplog: Any) -> None:
    """The state of the files at the worst moment: a result on the disk and not yet told, a line cut off, halves."""
    folder = tmp_path / "history"
    journal, ledger = Journal(folder, 1 << 30), Ledger(folder / "jobs.log")
    folder.mkdir()
    ledger.accept("cut", "txt2img", "f", 1.0)
    ledger.tell(Queued("cut", 1, 0))
    ledger.tell(Started("cut", 2))
    ledger.accept("waits", "txt2img", "g", 2.0)
    ledger.close()
    with open(folder / "jobs.log", "ab") as file:
        file.write(b'{"type":"queued","job":"wai')
    kept = entry_of(journal, "cut")
    name = kept.name[:-5] + "lost-0"
    old = time.time() - 60
    for half in (f"{name}.rgba", f"{name}.json.tmp", f"{name}.star"):
        (folder / half).write_bytes(b"half")
        os.utime(folder / half, (old, old))
    (folder / "holiday.png").write_bytes(b"not ours")
    (folder / "jobs.log.123.tmp").write_bytes(b"half")

    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            listed: Any = await peer.ask(Jobs)
            assert [(j.job, j.state) for j in listed.jobs] == [("cut", "failed"), ("waits", "failed")]
            await peer.ask(Attach, "cut", 0)
            end = await peer.end("cut")
            assert isinstance(end, Failed) and end.error.code == "resource.server_died" and end.error.retryable
            assert [type(e) for e in peer.events] == [Queued, Started, Output, Failed]
            assert [e.seq for e in peer.events if hasattr(e, "seq")] == [1, 2, 3, 4]
            assert len(await peer.fetch(await peer.until(Output))) == 4 * 4 * 4
            await ask_submit(peer, "new", params={"steps": 1})
            assert isinstance(await peer.end("new"), Finished)

    asyncio.run(scenario())
    assert "line 5 of jobs.log is dropped" in caplog.text and "half-written" in caplog.text
    left = {path.name for path in folder.iterdir()}
    assert not any("lost" in name or name.endswith((".tmp", ".rgba")) for name in left) and "holiday.png" in left
    # Each job of the next start has the one end that it had.
    past = {job.job: job for job in Ledger(folder / "jobs.log").load()}
    assert [past[job].state for job in ("cut", "waits", "new")] == ["failed", "failed", "finished"]


def test_damaged_lines_cost_their_jobs_alone(tmp_path: Path) -> None:
    file = tmp_path / "jobs.log"
    ledger = Ledger(file)
    for job in ("a", "b"):
        ledger.accept(job, "txt2img", "f", 1.0)
        ledger.tell(Queued(job, 1, 0))
        ledger.tell(Finished(job, 2))
    ledger.tell(Finished("a", 3))  # nothing follows an end
    ledger.close()
    lines = file.read_bytes().split(b"\n")
    lines[1:1] = [b"\xff\xfe", b"[]", b'{"type": "queued"}', b"3", b'{"type":"welcome","job":"a"}']
    file.write_bytes(b"\n".join(lines))
    assert [(job.job, job.state, len(job.events)) for job in Ledger(file).load()] == [
        ("a", "finished", 2),
        ("b", "finished", 2),
    ]


def test_the_ledger_says_when_the_disk_is_full(tmp_path: Path, monkeypatch: Any) -> None:
    ledger = Ledger(tmp_path / "jobs.log")
    ledger.accept("a", "txt2img", "f", 1.0)
    write = os.write

    def half(file: int, data: bytes) -> int:
        return write(file, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(ResourceError) as e:
        ledger.accept("b", "txt2img", "f", 1.0)
    assert e.value.code == "resource.disk_full" and e.value.retryable
    monkeypatch.setattr(os, "write", write)
    ledger.accept("c", "txt2img", "f", 1.0)
    ledger.close()
    assert [job.job for job in Ledger(tmp_path / "jobs.log").load()] == ["a", "c"]


def test_the_quota_passes_stars_by(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 3000)
    for index in range(6):
        entry = entry_of(journal, "j", index, side=8)
        journal.finish(entry)
        if index == 1:
            journal.star("j", 1, True)
    left = [entry.index for entry in journal.entries()]
    assert left[-1] == 1 and left[0] == 5 and len(left) < 6
    with pytest.raises(JobError):
        journal.star("j", 0, True)
    journal.star("j", 1, False)
    journal.finish(entry_of(journal, "j", 6, side=8))
    assert 1 not in [entry.index for entry in journal.entries()]


def test_a_clock_that_is_set_back_does_not_make_a_new_result_the_oldest(tmp_path: Path, monkeypatch: Any) -> None:
    journal = Journal(tmp_path, 1 << 20)
    clock = [2_000_000_000.999_999]
    monkeypatch.setattr(journal_module.time, "time", lambda: clock[0])
    for index in range(4):
        entry_of(journal, "j", index)
        clock[0] -= 3600
    assert [entry.index for entry in journal.entries()] == [3, 2, 1, 0]


def test_a_second_server_in_the_folder_leaves_the_first_ones_jobs_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "slow", params={"steps": 20, "prompt": "slow"})
            await peer.until(Progress)
            before = (tmp_path / "history" / "jobs.log").read_bytes()
            async with running(settings_for(tmp_path, owns_home=False)) as (_, beside), connected(beside) as other:
                assert (await other.ask(Jobs)).jobs == ()  # type: ignore[attr-defined]
                await ask_submit(other, "mine", params={"steps": 1})
                await other.end("mine")
            assert (tmp_path / "history" / "jobs.log").read_bytes() == before
            assert isinstance(await peer.end("slow"), Finished)
            # A result of either is in the history of both.
            assert {e.job for e in (await history(peer)).entries} == {"slow", "mine"}

    asyncio.run(scenario())


def test_a_recipe_that_is_no_json_is_left_out(tmp_path: Path, caplog: Any) -> None:
    journal = Journal(tmp_path, 1 << 20)
    entry_of(journal, "j")
    (tmp_path / "20990101-000000-000000-x-0.json").write_text(json.dumps({"name": "x"}))
    assert len(list(journal.entries())) == len(list(journal.entries())) == 1
    assert caplog.text.count("cannot be read") == 1


def test_a_full_disk_is_told_at_each_write(tmp_path: Path, monkeypatch: Any) -> None:
    """The ledger, the result, the star: a typed error each, the server goes on, and nothing half is left."""
    (tmp_path / "history").write_text("a file where the folder should be")

    async def no_folder() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            refused = await ask_submit(peer, "j", params={"steps": 1})
            assert isinstance(refused, Error) and refused.code == "resource.disk_full" and refused.retryable
            assert (await peer.ask(Jobs)).jobs == () and (await history(peer)).total == 0  # type: ignore[attr-defined]

    asyncio.run(no_folder())
    (tmp_path / "history").unlink()
    replace, full = os.replace, ".json"

    def filling(source: Any, target: Any) -> None:
        if str(target).endswith(full):
            raise OSError(28, "No space left on device")
        replace(source, target)

    async def no_room() -> None:
        nonlocal full
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            monkeypatch.setattr(os, "replace", filling)
            await ask_submit(peer, "j", params={"steps": 1})
            end = await peer.end("j")
            assert isinstance(end, Failed) and end.error.code == "resource.disk_full"
            assert {p.name for p in (tmp_path / "history").iterdir()} == {"jobs.log"}
            # Without room for the PNG the raw pixels stay, and can be had.
            full = ".png"
            await ask_submit(peer, "k", params={"steps": 1})
            assert isinstance(await peer.end("k"), Finished)
            output = await peer.until(Output, "k")
            pixels = await peer.fetch(output)
        monkeypatch.setattr(os, "replace", replace)
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            assert await peer.fetch(output) == pixels
        assert [p.suffix for p in (tmp_path / "history").iterdir()].count(".png") == 1

    asyncio.run(no_room())
    assert not list((tmp_path / "history").glob("*.rgba")) and not list((tmp_path / "history").glob("*.tmp"))


def test_a_result_can_be_had_while_pinned_pictures_fill_the_memory(tmp_path: Path) -> None:
    from tests.service.fakes import inpaint_inputs

    async def scenario() -> None:
        settings = settings_for(tmp_path, blob_bytes=64 * 48 * 4 + 64 * 48)
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "done", canvas=(64, 64), params={"steps": 1})
            await peer.end("done")
            output = await peer.until(Output)
            inputs = await inpaint_inputs(peer)
            await ask_submit(peer, "runs", "inpaint", inputs=inputs, params={"steps": 150, "prompt": "slow"})
            await peer.until(Progress, "runs")
            assert len(await peer.fetch(output)) == 64 * 64 * 4

    asyncio.run(scenario())
