"""No socket but loopback: an audit hook in this process, and an engine that installs it in the worker."""

from __future__ import annotations

import sys
from typing import Any

_EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind", "socket.getaddrinfo")
_LOOPBACK = ("127.0.0.1", "::1", "localhost", "", None)

watching = [False]
"""Audit hooks cannot be taken away again, so this switches it."""


class NetworkUsed(Exception):
    """Something reached for the network."""


def watch() -> None:
    """Refuse every address beyond loopback in this process, from now on."""
    if not watching[0]:
        watching[0] = True
        sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not watching[0] or event not in _EVENTS:
        return
    address = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
    if isinstance(address, (str, bytes)) and event != "socket.getaddrinfo":
        return  # a Unix socket
    host = address[0] if isinstance(address, tuple) else address
    if host not in _LOOPBACK:
        raise NetworkUsed(f"{event} {arguments[1:]}")


def engine(device: str, precision: str, memory_budget: int | None) -> Any:
    """The real engine, in a worker that can reach nothing but this machine."""
    watch()
    import socket

    try:
        socket.create_connection(("192.0.2.1", 9), timeout=0.1)
    except NetworkUsed:
        pass
    else:
        raise AssertionError("the guard does not hold")
    from impasto_server.engine.run import Engine

    return Engine(device, precision, memory_budget)
