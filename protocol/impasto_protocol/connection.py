"""The two ends of a connection without any socket: frames in -> messages, messages in -> frames out.

Both begin with hello: a client sends it first and waits for the welcome, a server takes nothing before it. What the
sockets do with the bytes is the business of `impasto_client.transport` and the server's shell.
"""

from __future__ import annotations

import enum
from typing import Any, Callable, Mapping, NamedTuple, Optional, Tuple, Union

from .codec import decode, encode
from .errors import AuthError, ImpastoError, ProtocolError
from .images import Buffer
from .messages import CLIENT_MESSAGES, SERVER_MESSAGES, ClientInfo, Error, Hello, Message, Welcome, parse
from .pairing import Pair, Paired
from .version import PROTOCOL, Limits

__all__ = ["CLIENT_FRAME_LIMIT", "ClientConnection", "Received", "ServerConnection", "State"]

CLIENT_FRAME_LIMIT = 64 * 1024 * 1024
"""Bytes of a frame that a client takes: it trusts its server, and a catalogue may be long."""


class State(enum.Enum):
    """Where a connection stands: before the hello was accepted, in use, over."""

    WAITING = "waiting"
    READY = "ready"
    CLOSED = "closed"


class Received(NamedTuple):
    """What a frame came to at the server: a message to act on, or none; a frame to send first; and is it the end?

    With `close` the connection is to be closed once `reply` is sent.
    """

    message: Optional[Message] = None
    reply: Optional[bytes] = None
    close: bool = False


class ServerConnection:
    """The server's end. `check_token` compares in constant time; `welcome` is asked when a hello was accepted.

    `pair` gives a client that proves the code its token, or raises AuthError; None is a server that does not pair.
    """

    def __init__(
        self,
        limits: Limits,
        welcome: Callable[[], Welcome],
        check_token: Callable[[str], bool],
        pair: Optional[Callable[[Pair], Paired]] = None,
    ) -> None:
        self.state = State.WAITING
        self._limits = limits
        self._welcome = welcome
        self._check_token = check_token
        self._pair = pair

    def receive(self, frame: Union[Buffer, str]) -> Received:
        """Take one frame. Never raises for what a client can send: the refusal is in `reply`."""
        if self.state is State.CLOSED:
            return Received()
        try:
            fields = decode(_binary(frame), self._limits)
            if self.state is State.WAITING:
                return self._greet(fields)
            message = parse(fields, CLIENT_MESSAGES)
            if isinstance(message, Hello):
                raise ProtocolError("protocol.bad_message", "The hello was said already; send it once.", path="type")
            if isinstance(message, Pair):
                raise ProtocolError(
                    "protocol.bad_message", "Pairing comes before the hello; connect again for it.", path="type"
                )
            return Received(message)
        except ImpastoError as error:
            close = self.state is State.WAITING
            if close:
                self.state = State.CLOSED
            return Received(reply=encode(_refusal(error).to_wire()), close=close)

    def send(self, message: Message) -> bytes:
        """The frame of a message."""
        return encode(message.to_wire())

    def closed(self) -> None:
        """The socket is gone."""
        self.state = State.CLOSED

    def _greet(self, fields: Mapping[str, Any]) -> Received:
        if fields.get("type") not in (Hello.TYPE, Pair.TYPE):
            raise ProtocolError("protocol.not_ready", "Nothing is taken before the hello; send it first.", path="type")
        # The version goes first: another major version may have another hello.
        _check_version(fields.get("protocol"), "client", "server")
        hello = parse(fields, CLIENT_MESSAGES)
        if isinstance(hello, Pair):
            if self._pair is None:
                raise AuthError("auth.denied", "This server does not pair; use the token of its user's folder.")
            return Received(reply=self.send(self._pair(hello)))
        if not isinstance(hello, Hello):  # pragma: no cover - the table says so
            raise ProtocolError("protocol.bad_message", "The hello is not one.")
        if not self._check_token(hello.token):
            raise AuthError(
                "auth.denied",
                "The token is not one of this server; read it again from the token file named in endpoint.json, or "
                "pair again.",
                path="token",
            )
        self.state = State.READY
        return Received(hello, self.send(self._welcome()))


class ClientConnection:
    """The client's end. Errors of the peer are raised."""

    def __init__(self, client: ClientInfo, token: str) -> None:
        self.state = State.WAITING
        self.welcome: Optional[Welcome] = None
        self._client = client
        self._token = token
        self._limits = Limits(frame=CLIENT_FRAME_LIMIT)

    @property
    def limits(self) -> Limits:
        """What the server accepts: its own figures after the welcome."""
        return self.welcome.limits if self.welcome is not None else Limits()

    def hello(self) -> bytes:
        """The first frame to send."""
        return encode(Hello(PROTOCOL, self._client, self._token).to_wire())

    def receive(self, frame: Union[Buffer, str]) -> Optional[Message]:
        """The message of a frame; None for one of a type that only a newer server knows.

        Before the welcome, an `error` of the server is raised as what it says. Raises ProtocolError for frames that
        are none; after the welcome the connection may go on.
        """
        if self.state is State.CLOSED:
            return None
        try:
            message = parse(decode(_binary(frame), self._limits), SERVER_MESSAGES)
        except ProtocolError as error:
            if self.state is State.READY:
                if error.code == "protocol.unknown_type":
                    return None
                raise
            self.state = State.CLOSED
            raise
        if self.state is State.WAITING:
            self._greeted(message)
        return message

    def send(self, message: Message) -> bytes:
        """The frame of a message. Raises ProtocolError `protocol.not_ready` before the welcome and after the end."""
        if self.state is not State.READY:
            raise ProtocolError("protocol.not_ready", "The connection is not open; wait for the welcome.")
        return encode(message.to_wire())

    def closed(self) -> None:
        """The socket is gone."""
        self.state = State.CLOSED

    def _greeted(self, message: Message) -> None:
        self.state = State.CLOSED
        if isinstance(message, Error):
            raise message.exception()
        if not isinstance(message, Welcome):
            raise ProtocolError("protocol.not_ready", f"The server sent {message.TYPE!r} before its welcome.")
        _check_version(list(message.protocol), "server", "client")
        self.welcome = message
        self.state = State.READY


def _check_version(theirs: Any, peer: str, here: str) -> None:
    whole = isinstance(theirs, list) and len(theirs) == 2 and all(type(part) is int for part in theirs)
    if whole and theirs[0] != PROTOCOL[0]:
        raise ProtocolError(
            "protocol.version",
            f"The {peer} speaks protocol {_dotted(theirs)}, this {here} {_dotted(PROTOCOL)}; "
            "install the plug-in and the server of the same Impasto version.",
            path="protocol",
            data={"need": list(PROTOCOL), "got": theirs},
        )


def _dotted(version: Union[Tuple[int, ...], Any]) -> str:
    return ".".join(str(part) for part in version)


def _binary(frame: Union[Buffer, str]) -> Buffer:
    if isinstance(frame, str):
        raise ProtocolError("protocol.bad_message", "The frame is text; send binary frames.")
    return frame


def _refusal(error: ImpastoError) -> Error:
    if isinstance(error, ProtocolError):
        return Error.of(error, id=error.request_id, job=error.job)
    return Error.of(error)
