"""A blocking websocket for frames: a socket, and the protocol without I/O of `websockets` (13.1, vendored, or newer).

Data frames are written here, masked with zeros. The mask of a client's frame keeps a web page from putting bytes of its
choice before a proxy; neither is here, and in pure Python the masking of a picture costs more than all the rest.
"""

from __future__ import annotations

import collections
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any, Deque, Dict, List, Optional, Union

from impasto_protocol.connection import CLIENT_FRAME_LIMIT
from impasto_protocol.errors import AuthError, ImpastoError, ProtocolError, ResourceError
from impasto_protocol.version import PROTOCOL, SUBPROTOCOL
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from .endpoint import Endpoint

if TYPE_CHECKING:
    from .secure import SecureSocket

__all__ = ["GOING_AWAY", "Transport", "no_answer", "other_version"]

GOING_AWAY = 1001
"""The close code of a server that was told to stop."""

_RECEIVE = 256 * 1024
_TOGETHER = 16 * 1024
"""Bytes up to which a frame is joined with its head, for one packet less."""

_BINARY, _MASKED, _NO_MASK = 0x82, 0x80, bytes(4)
_GOODBYE = bytes((0x88, _MASKED | 2)) + _NO_MASK + struct.pack("!H", 1000)

_HUNG_UP = (OSError, EOFError, ConnectionClosed)


Line = Union[socket.socket, "SecureSocket"]


class Transport:
    """Frames to and from one server. `send` may be called from several threads, `recv` from one."""

    def __init__(self, socket: Line, protocol: ClientProtocol) -> None:
        self._socket = socket
        self._protocol = protocol
        """Belongs to the thread that receives, once the connection is open."""
        self._writing = threading.Lock()
        self._control: Deque[bytes] = collections.deque()
        """Answers to pings that could not be written at once."""
        self._received: Deque[Union[bytes, str]] = collections.deque()
        self._fragments: List[bytes] = []
        self._closed = False

        self.fingerprint = b""
        """SHA-256 of the server's certificate; empty without TLS."""

    @staticmethod
    def connect(endpoint: Endpoint, timeout: float = 10.0) -> Transport:
        """Open the connection.

        Raises ResourceError `resource.connection_lost` where nobody answers, ProtocolError `protocol.version` where
        what answers does not speak this version of the wire, and AuthError `auth.denied` where its certificate is not
        the one that was pinned.
        """
        where = endpoint.address
        protocol = ClientProtocol(
            parse_uri(f"{'wss' if endpoint.secure else 'ws'}://{where}/"),
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
            max_size=CLIENT_FRAME_LIMIT,
        )
        try:
            # No proxy is asked: the server is on this computer, or at the end of a tunnel.
            opened = socket.create_connection((endpoint.host, endpoint.port), timeout)
        except (OSError, UnicodeError, OverflowError) as error:
            raise no_answer(endpoint) from error
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            line = _secured(opened, endpoint) if endpoint.secure else opened
        except OSError as error:
            opened.close()
            raise no_answer(endpoint) from error
        except ImpastoError:
            opened.close()
            raise
        transport = Transport(line, protocol)
        try:
            protocol.send_request(protocol.connect())
            transport._flush()
            while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
                transport._feed(line.recv(_RECEIVE))
            opened.settimeout(None)
        except OSError as error:
            opened.close()
            raise no_answer(endpoint) from error
        if protocol.handshake_exc is not None or protocol.subprotocol != SUBPROTOCOL:
            transport.close()
            raise _refused(endpoint, protocol.handshake_exc) from protocol.handshake_exc
        transport.fingerprint = getattr(line, "fingerprint", b"")
        return transport

    @property
    def near(self) -> bool:
        """Whether the bytes go by loopback."""
        try:
            host = str(self._socket.getpeername()[0])
        except OSError:
            return False
        return host == "::1" or host.startswith("127.")

    def send(self, frame: bytes) -> None:
        """Send one frame. Raises ResourceError `resource.connection_lost`."""
        head = _head(len(frame))
        try:
            with self._writing:
                if len(frame) <= _TOGETHER:
                    self._socket.sendall(head + frame)
                else:
                    self._socket.sendall(head)
                    self._socket.sendall(frame)
                while self._control:
                    self._socket.sendall(self._control.popleft())
        except OSError as error:
            raise self._lost() from error

    def recv(self, timeout: Optional[float] = None) -> Union[bytes, str]:
        """The next frame. Raises ResourceError: `resource.no_answer` after `timeout` seconds, else as `send`.

        With `timeout` nothing may be sent meanwhile.
        """
        try:
            if timeout is not None:
                self._socket.settimeout(timeout)
            while not self._received:
                if self._protocol.state is not State.OPEN:
                    raise self._lost()
                self._feed(self._socket.recv(_RECEIVE))
            if timeout is not None:
                self._socket.settimeout(None)
        except socket.timeout as error:  # noqa: UP041 - two things before Python 3.10
            raise ResourceError(
                "resource.no_answer", "The Impasto server does not answer; stop it and start it again.", retryable=True
            ) from error
        except OSError as error:
            raise self._lost() from error
        return self._received.popleft()

    def close(self) -> None:
        """Close; a `recv` that waits in another thread ends with `resource.connection_lost`. May be repeated."""
        if self._closed:
            return
        self._closed = True
        try:
            # A server that does not read must not hold up the goodbye.
            self._socket.settimeout(1)
            if self._writing.acquire(timeout=1):
                try:
                    self._socket.sendall(_GOODBYE)
                finally:
                    self._writing.release()
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def _feed(self, data: bytes) -> None:
        """Take what arrived; "" is the end."""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
        self._control.extend(part for part in self._protocol.data_to_send() if part)
        # Not at any price: who sends may wait for a server that waits for this thread to read.
        if self._control and self._writing.acquire(timeout=1):
            try:
                self._flush()
            finally:
                self._writing.release()

    def _flush(self) -> None:
        self._control.extend(part for part in self._protocol.data_to_send() if part)
        while self._control:
            self._socket.sendall(self._control.popleft())

    def _take(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
            return
        data = bytes(frame.data)
        if frame.opcode is Opcode.TEXT:
            self._received.append(data.decode("utf-8", "replace"))
        elif frame.fin and not self._fragments:
            self._received.append(data)
        else:
            self._fragments.append(data)
            if frame.fin:
                self._received.append(b"".join(self._fragments))
                self._fragments = []

    def _lost(self) -> ResourceError:
        data: Dict[str, Any] = {}
        if self._protocol.close_rcvd is not None:
            data["close_code"] = int(self._protocol.close_rcvd.code)
        return ResourceError(
            "resource.connection_lost", "The connection to the Impasto server was lost.", retryable=True, data=data
        )


def _head(size: int) -> bytes:
    """What goes before the bytes of a whole binary frame."""
    if size < 126:
        return bytes((_BINARY, _MASKED | size)) + _NO_MASK
    if size < 1 << 16:
        return bytes((_BINARY, _MASKED | 126)) + struct.pack("!H", size) + _NO_MASK
    return bytes((_BINARY, _MASKED | 127)) + struct.pack("!Q", size) + _NO_MASK


def _secured(opened: socket.socket, endpoint: Endpoint) -> SecureSocket:
    """TLS over the socket. Raises AuthError for a certificate that was not pinned, ResourceError without TLS here."""
    try:
        from .secure import SecureSocket, TlsError
    except ImportError as error:
        raise ResourceError(
            "resource.connection_lost", f"This editor's Python cannot encrypt ({error}); use a tunnel instead."
        ) from error
    try:
        line = SecureSocket(opened)
    except TlsError as error:
        raise ProtocolError(
            "protocol.version",
            f"What listens at {endpoint.address} does not answer with an encrypted connection; look at the address, "
            "and whether the server was started with --tls.",
        ) from error
    except OSError as error:
        raise ResourceError(
            "resource.connection_lost",
            f"The Impasto server at {endpoint.address} hung up before the connection was encrypted; look at the "
            "address, and whether it was started with --tls.",
            retryable=True,
        ) from error
    if endpoint.fingerprint and line.fingerprint.hex() != endpoint.fingerprint:
        raise AuthError(
            "auth.denied",
            f"The server at {endpoint.address} shows another certificate than the one it was paired with. If it was "
            "set up anew, pair with it again (`impasto pair` on its computer); if not, another one answers for it.",
        )
    return line


def _refused(endpoint: Endpoint, error: Optional[Exception]) -> ImpastoError:
    """What a handshake that failed means."""
    where = endpoint.address
    if isinstance(error, InvalidStatus) and error.response.status_code == 503:
        return ResourceError(
            "resource.connection_lost",
            f"The Impasto server at {where} has too many connections; close some.",
            retryable=True,
        )
    # A server that is killed in mid-handshake hangs up without an answer; that is no other program.
    if isinstance(error, _HUNG_UP) or (error is not None and isinstance(error.__cause__, _HUNG_UP)):
        return no_answer(endpoint)
    return other_version(endpoint)


def other_version(endpoint: Endpoint) -> ProtocolError:
    """What listens does not speak our major version; the record may tell which side is the older one."""
    here, there = PROTOCOL, endpoint.protocol
    if there[0] > here[0]:
        what = (
            f"The Impasto server (version {endpoint.version}) is newer than this plug-in and speaks another protocol; "
            "install the plug-in that came with it (`impasto plugin install krita` or `gimp`), then restart the editor."
        )
    elif there[0] < here[0] and endpoint.version:
        what = (
            f"The Impasto server (version {endpoint.version}) is older than this plug-in and speaks another protocol; "
            "stop it (`impasto stop`) and install the Impasto of this plug-in's version."
        )
    else:
        what = (
            f"What listens at {endpoint.address} does not speak {SUBPROTOCOL}; install the plug-in and the server of "
            "the same Impasto version."
        )
    return ProtocolError("protocol.version", what, data={"need": list(here), "got": list(there)})


def no_answer(endpoint: Endpoint) -> ResourceError:
    """Nobody answers there."""
    what = f"The Impasto server at {endpoint.address} does not answer"
    if endpoint.paired:
        what += "; start `impasto serve` on its computer and look whether both are in the same network"
    return ResourceError("resource.connection_lost", what + ".", retryable=True)
