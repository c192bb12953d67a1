"""A blocking websocket for frames, over the vendored `websockets` (13.1) or a newer one."""

from __future__ import annotations

import inspect
import threading
from typing import Any, Dict, Optional, Union

from impasto_protocol.connection import CLIENT_FRAME_LIMIT
from impasto_protocol.errors import ImpastoError, ProtocolError, ResourceError
from impasto_protocol.version import SUBPROTOCOL
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from .endpoint import Endpoint

__all__ = ["FRAGMENT", "GOING_AWAY", "Transport"]

FRAGMENT = 256 * 1024
"""Bytes of a websocket fragment: masking in pure Python holds the interpreter for as long as one fragment takes."""

GOING_AWAY = 1001
"""The close code of a server that was told to stop."""

# An editor may hold the interpreter for seconds while it saves: keep-alive must not take that for a dead peer.
_PING_SECONDS = 60


_HUNG_UP = (OSError, EOFError, ConnectionClosed)


class Transport:
    """Frames to and from one server. `send` may be called from several threads, `recv` from one."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._send_lock = threading.Lock()

    @staticmethod
    def connect(endpoint: Endpoint, timeout: float = 10.0) -> Transport:
        """Open the connection.

        Raises ResourceError `resource.connection_lost` where nobody answers, and ProtocolError `protocol.version`
        where what answers does not speak this version of the wire.
        """
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        where = f"{host}:{endpoint.port}"
        try:
            socket = connect(
                f"ws://{where}/",
                subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
                compression=None,
                max_size=CLIENT_FRAME_LIMIT,
                open_timeout=timeout,
                close_timeout=2,
                **_options_of_this_version(),
            )
        except (WebSocketException, OSError, EOFError) as error:
            # A server that is killed in mid-handshake hangs up without an answer; that is no other program.
            if isinstance(error, InvalidStatus) and error.response.status_code == 503:
                raise ResourceError(
                    "resource.connection_lost",
                    f"The Impasto server at {where} has too many connections; close some.",
                    retryable=True,
                ) from error
            if not isinstance(error, _HUNG_UP) and not isinstance(error.__cause__, _HUNG_UP):
                raise _not_impasto(where) from error
            raise ResourceError(
                "resource.connection_lost", f"The Impasto server at {where} does not answer.", retryable=True
            ) from error
        if socket.subprotocol != SUBPROTOCOL:
            socket.close()
            raise _not_impasto(where)
        return Transport(socket)

    def send(self, frame: bytes) -> None:
        """Send one frame; large ones leave in fragments. Raises ResourceError `resource.connection_lost`."""
        try:
            with self._send_lock:
                if len(frame) <= FRAGMENT:
                    self._socket.send(frame)
                else:
                    view = memoryview(frame)
                    self._socket.send(view[at : at + FRAGMENT] for at in range(0, len(view), FRAGMENT))
        except (ConnectionClosed, OSError) as error:
            raise _lost(error) from error

    def recv(self, timeout: Optional[float] = None) -> Union[bytes, str]:
        """The next frame. Raises ResourceError: `resource.no_answer` after `timeout` seconds, else as `send`."""
        try:
            return self._socket.recv(timeout)
        except TimeoutError as error:
            raise ResourceError(
                "resource.no_answer", "The Impasto server does not answer; stop it and start it again.", retryable=True
            ) from error
        except (ConnectionClosed, OSError, EOFError) as error:
            raise _lost(error) from error

    def close(self) -> None:
        """Close; a `recv` that waits in another thread ends with `resource.connection_lost`. May be repeated."""
        self._socket.close()


def _options_of_this_version() -> Dict[str, Any]:
    """Arguments that `connect` has in newer versions only; the old one would hand them to the socket."""
    wanted = {"proxy": None, "ping_interval": _PING_SECONDS, "ping_timeout": _PING_SECONDS, "legacy": True}
    known = inspect.signature(connect).parameters
    return {name: value for name, value in wanted.items() if name in known}


def _not_impasto(where: str) -> ImpastoError:
    return ProtocolError(
        "protocol.version",
        f"What listens at {where} does not speak {SUBPROTOCOL}; install the plug-in and the server of the same "
        "Impasto version.",
    )


def _lost(error: Exception) -> ResourceError:
    data: Dict[str, Any] = {}
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        data["close_code"] = error.rcvd.code
    return ResourceError(
        "resource.connection_lost", "The connection to the Impasto server was lost.", retryable=True, data=data
    )
