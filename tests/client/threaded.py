"""The real service, with an engine that only pretends, in a thread of the tests."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from impasto_server.service.server import Server

from tests.service.fakes import running, settings_for


class Running:
    """The service in a thread."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server, self.loop = server, loop

    def code(self) -> str:
        return self.on_loop(lambda: self.server.pairings.open())

    def on_loop(self, work: Any) -> Any:
        async def call() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(30)

    @property
    def inner(self) -> str:
        return self.server.doors[0].address

    @property
    def outer(self) -> str:
        return f"wss://127.0.0.1:{self.server.doors[1].port}"


@contextmanager
def service(home: Path, **changes: Any) -> Iterator[Running]:
    ready, made, end = threading.Event(), [], []

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        end.append(lambda: loop.call_soon_threadsafe(stop.set))
        async with running(settings_for(home, **changes)) as (server, _):
            made.append(Running(server, loop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield made[0]
    finally:
        end[0]()
        thread.join(60)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
