"""Where clients come in: a plain socket on loopback always, and one that `--host` or `--tls` opens beyond it."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from impasto_protocol.errors import ResourceError
from impasto_protocol.pairing import REMOTE_PORT
from impasto_protocol.version import SUBPROTOCOL
from websockets.asyncio.server import Server as Listener
from websockets.asyncio.server import ServerConnection as Socket
from websockets.asyncio.server import serve as listen
from websockets.http11 import Request, Response

from .settings import Settings
from .tls import Identity

__all__ = ["Door", "check_host", "doors_of", "is_loopback", "open_door", "warning_of"]

log = logging.getLogger("impasto.server")

_HANDSHAKE_SECONDS = 10.0


@dataclass(frozen=True)
class Door:
    """`inner` is the plain one on loopback, which the endpoint record names. `fingerprint` is b"" without TLS."""

    host: str
    port: int
    inner: bool = True
    identity: Identity | None = None

    @property
    def fingerprint(self) -> bytes:
        return self.identity.fingerprint if self.identity is not None else b""

    @property
    def may_pair(self) -> bool:
        """A token must not cross a network where others can read it."""
        return self.inner or self.identity is not None

    @property
    def address(self) -> str:
        """As a client types it; for all addresses of the machine, its name."""
        host = self.host
        if host in ("0.0.0.0", "::", ""):
            host = socket.gethostname()
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Does this address reach no further than this machine?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_host(settings: Settings) -> None:
    """Raises ResourceError `resource.beyond_loopback` where `--host` leaves the machine and nobody said how."""
    if is_loopback(settings.host) or settings.tls or settings.insecure:
        return
    raise ResourceError(
        "resource.beyond_loopback",
        f"Listening on {settings.host} would open the server to the network. Say --tls for an encrypted connection "
        "with paired computers, or --insecure where something else encrypts it (a tunnel, a VPN).",
    )


def doors_of(settings: Settings, identity: Identity | None) -> list[Door]:
    """The doors that the settings ask for, the inner one first; a port of 0 is a free one."""
    beyond = not is_loopback(settings.host)
    if not beyond and identity is None:
        return [Door(settings.host, settings.port)]
    inner = Door("127.0.0.1", 0)
    return [inner, Door(settings.host, settings.port or REMOTE_PORT, False, identity)]


async def open_door(
    door: Door,
    serve: Callable[[Door, Socket], Awaitable[None]],
    admit: Callable[[Door, Socket, Request], Response | None],
    frame: int,
    wish: int | None = None,
) -> tuple[Listener, Door]:
    """Listen; the listener, and the door with its real port. `wish` is tried first where any port will do.

    Raises ResourceError `resource.cannot_listen`.
    """
    ports = [wish, 0] if door.port == 0 and wish else [door.port]
    for port in ports:
        try:
            listener = await listen(
                lambda socket: serve(door, socket),
                door.host,
                port,
                ssl=door.identity.context if door.identity is not None else None,
                origins=[None],  # browsers name their origin; no page may talk to this server
                subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
                process_request=lambda socket, request: admit(door, socket, request),
                compression=None,
                # Frames a little too long are refused in words; those far too long end the connection.
                max_size=2 * frame,
                open_timeout=_HANDSHAKE_SECONDS,
                ping_interval=20,
                ping_timeout=60,
                close_timeout=2,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if door.identity is not None else None,
            )
        except OSError as e:
            if port is wish and len(ports) > 1:
                log.warning(
                    "port %d is taken (%s): editors paired on this machine must be paired again", port, e.strerror
                )
                continue
            mend = "choose another one with --port" if not door.inner else "leave --port out to take a free one"
            raise ResourceError(
                "resource.cannot_listen", f"{door.host} port {port} cannot be listened on ({e.strerror or e}); {mend}."
            ) from e
        except (OverflowError, UnicodeError) as e:
            raise ResourceError(
                "resource.cannot_listen", f"{door.host} port {port} is no address to listen on ({e})."
            ) from e
        host, port = listener.sockets[0].getsockname()[:2]
        return listener, replace(door, host=host if door.inner else door.host, port=port)
    raise AssertionError("a port was tried")


def warning_of(door: Door) -> str:
    """What the outer door opens, to whom, and how to close it."""
    everywhere = door.host in ("0.0.0.0", "::", "")
    where = f"every address of this computer, port {door.port}" if everywhere else f"{door.host}, port {door.port}"
    can = "make pictures on this computer, see and fetch every result in its history, and read the names of its models"
    if door.identity is not None:
        print_ = door.fingerprint.hex(":").upper()
        who = (
            f"Who has been paired can {can}. The connection is encrypted; the certificate's SHA-256 is {print_}. "
            "Pair a computer with `impasto pair`, take it back with `impasto pair --revoke NAME`."
        )
    else:
        who = (
            "THE CONNECTION IS NOT ENCRYPTED: who can listen in on that network sees the pictures and the token, and "
            f"with the token can {can}, and stop the server. Nobody can be paired this way."
        )
    return (
        f"This server is open to the network: computers that reach {where} can connect to it. {who} "
        "To close it: `impasto stop`, then `impasto serve` without --host."
    )
