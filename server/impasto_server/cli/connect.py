"""A client of the running server, or of one inside this process."""

from __future__ import annotations

import argparse
import asyncio
import queue
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from impasto_client.client import Client
from impasto_client.endpoint import Endpoint, read_endpoint
from impasto_protocol.errors import ImpastoError
from impasto_protocol.home import Endpoint as Record
from impasto_protocol.messages import Message

from ..engine.modelpath import is_model_folder
from ..service.home import ensure_home
from ..service.server import Server
from ..service.settings import Settings
from .generate import client_info
from .server import settings_from

__all__ = ["connection", "local_server"]


@contextmanager
def connection(
    args: argparse.Namespace, values: dict[str, Any], inbox: queue.SimpleQueue[Message | ImpastoError]
) -> Iterator[Client]:
    """A client for one job, events and a lost connection in `inbox`.

    A server of this process is used where none runs, and where options or a model file ask for things that the
    running one was not started with. Files in `values` become names of the catalogue.
    """
    settings = settings_from(args)
    files = {name: path for name in _MODELS if (path := _model_file(values.get(name))) is not None}
    if files:
        settings = replace(settings, models=(*settings.models, *(path.absolute() for path in files.values())))
    own = args.in_process or settings != replace(Settings(), home=settings.home)
    endpoint = None if own else read_endpoint(settings.home)
    if endpoint is not None:
        with _client(endpoint, inbox) as client:
            yield client
        return
    with local_server(replace(settings, worker="thread")) as (server, endpoint):
        for name, file in files.items():
            values[name] = next((m.id for m in server.catalogue.models if m.path.samefile(file)), values[name])
        with _client(endpoint, inbox) as client:
            yield client


_MODELS = ("model", "upscaler", "profile")
"""Parameters that take a name of the catalogue, on the command line also a file or a folder."""


def _model_file(value: Any) -> Path | None:
    path = Path(value).expanduser() if value else None
    return path if path is not None and (path.is_file() or is_model_folder(path)) else None


@contextmanager
def _client(endpoint: Endpoint, inbox: queue.SimpleQueue[Message | ImpastoError]) -> Iterator[Client]:
    client = Client.connect(endpoint, client_info(), inbox.put, inbox.put)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def local_server(settings: Settings) -> Iterator[tuple[Server, Endpoint]]:
    """A server in a thread of this process: a free port, its own token, no records in the user's folder."""
    ensure_home(settings.home)
    token = secrets.token_urlsafe(32)
    there: queue.SimpleQueue[Record | BaseException] = queue.SimpleQueue()
    made: list[tuple[Server, asyncio.AbstractEventLoop]] = []

    async def run() -> None:
        server = Server(replace(settings, owns_home=False), token)
        made.append((server, asyncio.get_running_loop()))
        await server.run(there.put)

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as e:  # raised again in the thread that waits
            there.put(e)

    thread = threading.Thread(target=work, name="impasto-server", daemon=True)
    thread.start()
    record = there.get()
    if isinstance(record, BaseException):
        raise record
    server, loop = made[0]
    try:
        yield server, Endpoint(record.host, record.port, token, record.pid, record.version, record.protocol)
    finally:
        loop.call_soon_threadsafe(server.stop)
        thread.join()
