"""The memory of loaded models is given back on request and after an idle time, by both workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.messages import Accepted, Cancel, Error, Free, Ok, Progress
from impasto_server.cli.server import launch_command, settings_from
from impasto_server.engine import jobs as engine

from tests.service.fakes import FakeEngine, ask_submit, connected, running, settings_for


class Keeping(FakeEngine):
    """Writes down what it was told to do."""

    log = Path("none")

    def __init__(self, device: str, precision: str, memory_budget: int | None) -> None:
        super().__init__(device, precision, memory_budget)
        self.path = Path(device)

    def run(self, job: engine.Job, emit: engine.Emit, cancelled: Callable[[], bool]) -> engine.Result:
        self._say("run")
        return super().run(job, emit, cancelled)

    def free(self) -> None:
        self._say("free")

    def _say(self, word: str) -> None:
        with self.path.open("a") as file:
            file.write(word + "\n")


def told(tmp_path: Path) -> list[str]:
    path = tmp_path / "log"
    return path.read_text().split() if path.exists() else []


def keeping(tmp_path: Path, worker: str, **changes: Any) -> Any:
    values = dict(engine=f"{__name__}:Keeping", device=str(tmp_path / "log"), worker=worker, free_after=None)
    return settings_for(tmp_path, **{**values, **changes})


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_on_request(tmp_path: Path, worker: str) -> None:
    async def scenario() -> None:
        async with running(keeping(tmp_path, worker)) as (_, endpoint), connected(endpoint) as peer:
            assert isinstance(await peer.ask(Free), Ok), "also before anything was loaded"
            for job in ("a", "b"):
                assert isinstance(await ask_submit(peer, job, params={"steps": 1}), Accepted)
                await peer.end(job)
                assert isinstance(await peer.ask(Free), Ok)
            assert told(tmp_path)[-4:] == ["run", "free", "run", "free"]
            await ask_submit(peer, "long", params={"prompt": "slow", "steps": 100})
            await peer.until(Progress, "long")
            refused = await peer.ask(Free)
            assert isinstance(refused, Error) and refused.code == "resource.busy" and refused.retryable
            await peer.ask(Cancel, "long")
            await peer.end("long")
            assert isinstance(await peer.ask(Free), Ok) and told(tmp_path)[-1] == "free"

    asyncio.run(scenario())


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_after_an_idle_time(tmp_path: Path, worker: str) -> None:
    async def freed(times: int) -> None:
        deadline = time.monotonic() + 30
        while told(tmp_path).count("free") < times:
            assert time.monotonic() < deadline, told(tmp_path)
            await asyncio.sleep(0.02)

    async def scenario() -> None:
        async with running(keeping(tmp_path, worker, free_after=0.3)) as (_, endpoint), connected(endpoint) as peer:
            for times, job in enumerate(("a", "b"), 1):
                await ask_submit(peer, job, params={"steps": 1})
                await peer.end(job)
                await freed(times)
            await asyncio.sleep(0.8)
            assert told(tmp_path) == ["run", "free", "run", "free"], "once for each time of work"

    asyncio.run(scenario())


def test_the_option(tmp_path: Path) -> None:
    from impasto_server.cli.main import parser_for

    def settings(*words: str) -> Any:
        return settings_from(parser_for("serve").parse_args(["serve", *words]))

    assert settings().free_after == 600 and "--free-after" not in launch_command(settings())
    for words, seconds in ((("--free-after", "2.5"), 150), (("--free-after", "0"), 0)):
        kept = settings(*words)
        assert (kept.free_after or 0) == seconds
        command = launch_command(kept)
        assert command[command.index("--free-after") + 1] == words[1]
