"""From nothing to a connected client: the record, the server started where there is none, hello."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Callable, Optional

from impasto_protocol.errors import ImpastoError, ResourceError
from impasto_protocol.messages import ClientInfo, Message

from .client import Client
from .launch import OnStatus, find_or_start

__all__ = ["START_SECONDS", "connect_or_start"]

START_SECONDS = 90.0


def connect_or_start(
    info: ClientInfo,
    on_event: Callable[[Message], None],
    on_lost: Callable[[ImpastoError], None],
    *,
    home: Optional[Path] = None,
    start: bool = True,
    timeout: float = START_SECONDS,
    on_status: Optional[OnStatus] = None,
    stop: Optional[threading.Event] = None,
) -> Client:
    """A client of the user's server, which is started first where none answers and `start` is true.

    Raises what `find_or_start` and `Client.connect` raise.
    """

    def connect(stale: Optional[int]) -> Client:
        endpoint = find_or_start(timeout, on_status, home=home, start=start, stop=stop, stale=stale)
        try:
            if on_status is not None:
                on_status("connecting", "Connecting to the Impasto server.")
            return Client.connect(endpoint, info, on_event, on_lost)
        except ResourceError as error:
            # A record can outlive its server, and another program may have got the number of its process.
            if error.code != "resource.connection_lost" or stale is not None or not start:
                raise
            return connect(endpoint.pid)

    return connect(None)
