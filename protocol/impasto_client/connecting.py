"""From nothing to a connected client: which server, the record, the server started where there is none, hello."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Callable, Optional

from impasto_protocol.errors import AuthError, ImpastoError, ResourceError
from impasto_protocol.messages import ClientInfo, Message

from .client import Client
from .endpoint import Endpoint
from .launch import ALREADY_RUNNING, OnStatus, find_or_start
from .paired import chosen_endpoint

__all__ = ["START_SECONDS", "connect_or_start"]

START_SECONDS = 90.0

_NOT_OURS = ("resource.connection_lost", "protocol.version", "auth.denied")
"""What a record leads to that outlived its server, if another program has got the port or the number of the process."""


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
    """A client of the server in use: the paired one that was chosen, else the user's own.

    The user's own is started first where none answers and `start` is true; a paired one is its own computer's business,
    and nothing takes its place where it does not answer. Raises what `read_paired`, `find_or_start` and
    `Client.connect` raise.
    """

    def connect(endpoint: Endpoint) -> Client:
        if on_status is not None:
            where = f" at {endpoint.paired}" if endpoint.paired else ""
            on_status("connecting", f"Connecting to the Impasto server{where}.")
        return Client.connect(endpoint, info, on_event, on_lost)

    paired = chosen_endpoint(home)
    if paired is not None:
        try:
            return connect(paired)
        except AuthError as error:
            raise _of_paired(error, paired) from error

    first = find_or_start(timeout, on_status, home=home, start=start, stop=stop)
    try:
        return connect(first)
    except ImpastoError as error:
        if error.code not in _NOT_OURS or not start:
            raise
        lost = error.code == "resource.connection_lost"
        try:
            # The server itself has the last word: it holds a lock while it runs.
            again = find_or_start(timeout, on_status, home=home, start=True, stop=stop, stale=first.pid, patient=lost)
        except ResourceError as held:
            if held.code == ALREADY_RUNNING and not lost:
                raise _of_own(error, first) from held
            raise
        return connect(again)


def _of_own(error: ImpastoError, own: Endpoint) -> ImpastoError:
    """A refused token of the user's own folder: it is another one than the server began with."""
    if error.path != "token":
        return error
    return AuthError(
        "auth.denied",
        f"The running Impasto server (process {own.pid}) began with another token than the one in the token file now; "
        "end that process, then try again.",
    )


def _of_paired(error: AuthError, paired: Endpoint) -> AuthError:
    """A refused token, in the words of who was paired."""
    if error.path != "token":
        return error
    return AuthError(
        "auth.denied",
        f"The Impasto server at {paired.paired} no longer knows this computer; pair with it again (`impasto pair` on "
        "its computer shows a code).",
    )
