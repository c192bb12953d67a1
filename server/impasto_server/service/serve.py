"""`impasto serve`: the server with its records in the user's folder, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from impasto_protocol.home import Endpoint

from .home import ensure_home, ensure_token, remove_endpoint, single_instance, to_log_file, write_endpoint, write_launch
from .server import Server
from .settings import Settings

__all__ = ["serve"]

log = logging.getLogger("impasto.server")


def serve(
    settings: Settings,
    launch: Sequence[str],
    listening: Callable[[Endpoint], None] = lambda e: None,
    opened: Callable[[str], None] = lambda w: None,
) -> None:
    """Run the one server of `settings.home`; blocks. `launch` is the command that would start it again.

    `listening` is told where it listens, `opened` what lies open beyond loopback, in a sentence.

    Raises ResourceError (already running, cannot listen, folder not usable) and AuthError (token file open to others).
    """
    ensure_home(settings.home)
    with single_instance(settings.home), to_log_file(settings.home):
        token = ensure_token(settings.home)
        write_launch(settings.home, launch)
        server = Server(settings, token)

        def announce(endpoint: Endpoint) -> None:
            write_endpoint(settings.home, endpoint)
            listening(endpoint)

        async def run() -> None:
            with _signals(server):
                await server.run(announce, opened)

        try:
            asyncio.run(run())
        except Exception:
            log.exception("the server ends with an error")
            raise
        finally:
            remove_endpoint(settings.home, os.getpid())


@contextmanager
def _signals(server: Server) -> Iterator[None]:
    """Ctrl+C and SIGTERM stop the server in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def stop(number: int, frame: object) -> None:
        loop.call_soon_threadsafe(server.stop)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
