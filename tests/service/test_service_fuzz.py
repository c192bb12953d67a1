"""A peer that sends nonsense over a real socket, and a healthy one beside it that must not notice."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from pathlib import Path
from typing import Any

from impasto_protocol.home import Endpoint, spool_folder
from impasto_protocol.messages import ClientInfo, Error, Finished, Have, Hello, Jobs, JobsOk
from impasto_protocol.version import PROTOCOL, Limits
from impasto_server.service.server import Server
from websockets.exceptions import ConnectionClosed

from tests.protocol.fuzzing import frames, seeds
from tests.service.fakes import TOKEN, ask_submit, connected, inpaint_inputs, open_socket, running, settings_for, share

FRAMES = 2000
SEED = 5

# A right `shutdown` would end the test rightly, and a right txt2img could be a large one.
WITHOUT = ("shutdown", "submit")


async def nonsense(endpoint: Endpoint, chance: random.Random) -> int:
    """Frames over one connection after the other; how many refusals came back."""
    refusals, left, maps = 0, FRAMES, seeds(WITHOUT)
    while left > 0:
        batch = min(left, chance.randrange(1, 400))
        left -= batch
        async with open_socket(endpoint) as peer:
            peer.numbers = itertools.count(10**9)  # no frame of the noise has these
            if chance.random() < 0.8:
                await peer.send(Hello(PROTOCOL, ClientInfo("fuzz", "0"), TOKEN))
                peer.welcome = await peer.receive()
                if chance.random() < 0.5:
                    await share(peer)  # nonsense about files, by one who may have some
            try:
                for number, frame in enumerate(frames(chance, batch, maps)):
                    if number % 100 == 99:
                        await peer.socket.send(chance.choice(["text", "", b""]))
                    await peer.socket.send(frame)
                    if chance.random() < 0.02:
                        await asyncio.sleep(0)
                if left == 0:
                    await peer.socket.send(os.urandom(3 << 20))  # far too long: this ends the connection
                # One that is answered in any case: all before it were dealt with.
                answer = await peer.ask(Jobs)
                assert isinstance(answer, JobsOk | Error)
                refusals += 1
            except ConnectionClosed:
                pass
            if chance.random() < 0.3:
                peer.socket.transport.abort()
    return refusals


async def work(server: Server, endpoint: Endpoint, over: asyncio.Event) -> tuple[int, float]:
    """Jobs as usual; how many, and the longest time that a small request took."""
    done, longest = 0, 0.0
    async with connected(endpoint) as peer:
        inputs = await inpaint_inputs(peer)
        while not over.is_set():
            job = f"healthy-{done}"
            await ask_submit(peer, job, "inpaint", inputs=inputs, params={"steps": 2})
            assert isinstance(await peer.end(job), Finished)
            begun = time.monotonic()
            await peer.ask(Have, ())
            longest = max(longest, time.monotonic() - begun)
            done += 1
            peer.events.clear()
            await asyncio.sleep(0.01)
    return done, longest


def test_nonsense_beside_a_healthy_client(tmp_path: Path, caplog: Any) -> None:
    async def scenario() -> None:
        settings = settings_for(tmp_path, limits=Limits(frame=1 << 20))
        async with running(settings) as (server, endpoint):
            over = asyncio.Event()
            healthy = asyncio.create_task(work(server, endpoint, over))
            try:
                refusals = await nonsense(endpoint, random.Random(SEED))
            finally:
                over.set()
                done, longest = await healthy
            assert refusals > 0 and done > 5 and longest < 2.0
            for _ in range(100):
                if not server._sessions:
                    break
                await asyncio.sleep(0.02)
            assert not server._sessions
            # Nothing of the nonsense is held: what is in memory is the healthy client's.
            assert server.blobs.byte_count < 1 << 20
            assert not server.spool.byte_count and not list(spool_folder(tmp_path).iterdir())

    asyncio.run(scenario())
    assert "incident" not in caplog.text, caplog.text
