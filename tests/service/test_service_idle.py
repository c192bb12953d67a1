"""A server that stops by itself when nobody needs it: never while a client is there or a job waits or runs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from impasto_client.launch import STOP_AFTER_MINUTES, find_or_start
from impasto_protocol.errors import ResourceError
from impasto_protocol.home import STOP_AFTER, read_launch
from impasto_protocol.messages import Accepted, Finished, HistoryOk
from impasto_protocol.messages import History as HistoryRequest
from impasto_server.cli import server as cli
from impasto_server.cli.main import parser_for
from impasto_server.service.idle import IdleWatch
from impasto_server.service.server import Server
from websockets.exceptions import ConnectionClosed

from tests.service.fakes import TOKEN, add_model, ask_submit, connected, identify, running, settings_for


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_time_begins_anew_with_every_use() -> None:
    clock, busy = Clock(), [False]
    watch = IdleWatch(600, lambda: busy[0], clock)
    clock.now += 599
    assert not watch.over
    watch.used()
    clock.now += 599
    assert not watch.over
    clock.now += 1
    assert watch.over
    busy[0] = True
    clock.now += 5000
    assert not watch.over
    busy[0] = False
    assert not watch.over
    clock.now += 600
    assert watch.over


@pytest.mark.parametrize("jump", [86400.0 * 365, -86400.0 * 365])
def test_a_clock_that_jumps_makes_nobody_idle(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    real = time.time
    watch = IdleWatch(60, lambda: False)
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    assert not watch.over


async def serve(settings: Any) -> tuple[Server, asyncio.Task[None], Any]:
    add_model(settings.home)
    server = Server(settings, TOKEN, identify=identify)
    there = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.run(there.set_result))
    return server, task, await there


def test_it_stops_after_the_last_client_and_the_last_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        _, task, endpoint = await serve(settings_for(tmp_path, stop_after=0.4))
        async with connected(endpoint) as peer:
            await asyncio.sleep(1.2)
            assert not task.done(), "a client is there"
            accepted = await ask_submit(peer, "slow", params={"prompt": "slow", "steps": 30})
            assert isinstance(accepted, Accepted)
            assert isinstance(await ask_submit(peer, "waits", params={"prompt": "slow", "steps": 2}), Accepted)
        left = time.monotonic()
        await asyncio.wait_for(task, 30)
        assert time.monotonic() - left > 1.5, "the jobs went on without a client"

    asyncio.run(scenario())

    async def look() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            kept = await peer.ask(HistoryRequest)
            assert isinstance(kept, HistoryOk)
            assert {entry.job for entry in kept.entries} == {"slow", "waits"}
            jobs = [await ask_submit(peer, "slow", params={"prompt": "slow", "steps": 30})]
            assert isinstance(jobs[0], Accepted) and isinstance(await peer.end("slow"), Finished)

    asyncio.run(look())


@pytest.mark.parametrize("after", [None, 0])
def test_it_goes_on_where_nobody_asked(tmp_path: Path, after: float | None) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path, stop_after=after)) as (server, endpoint):
            await asyncio.sleep(0.3)
            assert server._idle is None
            async with connected(endpoint):
                pass

    asyncio.run(scenario())


def test_who_comes_in_the_moment_of_the_end_is_told_to_start_it_again(tmp_path: Path) -> None:
    """1001 would mean: stopped by its owner, do not start it behind his back."""

    async def scenario() -> None:
        async with running(settings_for(tmp_path, stop_after=3600)) as (server, endpoint):
            server._went_idle = True
            with pytest.raises(ConnectionClosed) as e:
                async with connected(endpoint):
                    pass
            assert e.value.rcvd is not None and e.value.rcvd.code == 1012

    asyncio.run(scenario())


# ---- who asks for it


def test_minutes_on_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def started(*words: str, environ: str | None = None) -> tuple[float | None, list[str]]:
        served: list[Any] = []
        monkeypatch.setattr(
            "impasto_server.service.serve.serve", lambda settings, launch, *told: served.extend((settings, launch))
        )
        monkeypatch.delenv(STOP_AFTER, raising=False)
        if environ is not None:
            monkeypatch.setenv(STOP_AFTER, environ)
        cli.run(parser_for("serve").parse_args(["serve", *words]))
        return served[0].stop_after, served[1][3:]

    assert started() == (None, ["serve"])
    assert started("--stop-after", "2.5") == (150.0, ["serve", "--stop-after", "2.5"])
    # An editor's wish holds for the server that it starts, is not kept, and gives way to the owner's.
    assert started(environ="10") == (600.0, ["serve"])
    assert started("--stop-after", "0", environ="10") == (0.0, ["serve", "--stop-after", "0"])
    assert started(environ="soon") == (None, ["serve"])
    for wrong in ("soon", "-1", "nan", "1e9"):
        with pytest.raises(SystemExit) as e:
            started(f"--stop-after={wrong}")
        assert e.value.code == 2


def test_an_editor_asks_for_it_and_starts_the_server_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real `impasto serve`, started as an editor does, with the minutes cut down to seconds."""
    monkeypatch.setattr("impasto_client.launch.STOP_AFTER_MINUTES", 1 / 60)
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path))
    add_model(tmp_path)
    cli.remember_launch()
    assert STOP_AFTER_MINUTES == 10 and "--stop-after" not in (read_launch(tmp_path) or ["--stop-after"])
    # The editor's PYTHONPATH is scrubbed, and so is that of these tests.
    first = find_or_start(60, home=tmp_path)
    deadline = time.monotonic() + 60
    while True:
        try:
            assert find_or_start(0, home=tmp_path, start=False).pid == first.pid
        except ResourceError:
            break
        assert time.monotonic() < deadline, "it did not stop"
        time.sleep(0.1)
    second = find_or_start(60, home=tmp_path)
    assert second.pid != first.pid
