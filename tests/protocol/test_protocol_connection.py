from __future__ import annotations

from typing import Any

import pytest
from impasto_protocol import messages as m
from impasto_protocol.codec import decode, encode
from impasto_protocol.connection import ClientConnection, Received, ServerConnection, State
from impasto_protocol.errors import AuthError, ProtocolError
from impasto_protocol.version import PROTOCOL, Limits

INFO = m.ClientInfo("test", "1", "krita")
WELCOME = m.Welcome(PROTOCOL, m.ServerInfo("impasto", "1", "cpu"), Limits(), "r")


def server() -> ServerConnection:
    return ServerConnection(Limits(), lambda: WELCOME, lambda token: token == "right")


def ready() -> ServerConnection:
    connection = server()
    connection.receive(encode(m.Hello(PROTOCOL, INFO, "right").to_wire()))
    return connection


def error_of(received: Received) -> m.Error:
    assert received.message is None and received.reply is not None
    message = m.parse(decode(received.reply, Limits()), m.SERVER_MESSAGES)
    assert isinstance(message, m.Error)
    return message


def test_both_ends_shake_hands() -> None:
    ours, theirs = ClientConnection(INFO, "right"), server()
    received = theirs.receive(ours.hello())
    assert isinstance(received.message, m.Hello) and received.message.client == INFO and not received.close
    assert received.reply is not None and ours.receive(received.reply) == WELCOME
    assert (ours.state, theirs.state, ours.welcome) == (State.READY, State.READY, WELCOME)
    assert theirs.receive(ours.send(m.Cancel(1, "j"))).message == m.Cancel(1, "j")
    assert ours.receive(theirs.send(m.Ok(1))) == m.Ok(1)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (encode(m.Jobs(1).to_wire()), "protocol.not_ready"),
        (encode({"type": "dance"}), "protocol.not_ready"),
        (b"\xc1", "protocol.bad_message"),
        (b"", "protocol.bad_message"),
        ("hello", "protocol.bad_message"),
        (encode({"type": "hello"}), "protocol.bad_message"),
        (encode({"type": "hello", "protocol": "1.0", "client": {}}), "protocol.bad_message"),
        (encode(m.Hello((2, 0), INFO, "right").to_wire()), "protocol.version"),
        (encode({"type": "hello", "protocol": [2, 3], "shape": "unheard of"}), "protocol.version"),
        (encode(m.Hello(PROTOCOL, INFO, "wrong").to_wire()), "auth.denied"),
        (encode(m.Hello(PROTOCOL, INFO).to_wire()), "auth.denied"),
    ],
)
def test_nothing_but_a_good_hello_opens(frame: Any, code: str) -> None:
    connection = server()
    received = connection.receive(frame)
    assert received.close and connection.state is State.CLOSED and error_of(received).code == code
    assert connection.receive(encode(m.Hello(PROTOCOL, INFO, "right").to_wire())) == Received()


def test_wrong_version_names_both() -> None:
    error = error_of(server().receive(encode(m.Hello((2, 7), INFO, "right").to_wire())))
    assert "2.7" in error.message and "1.12" in error.message


def test_a_higher_minor_is_welcome() -> None:
    connection = server()
    assert connection.receive(encode(m.Hello((1, 99), INFO, "right").to_wire())).reply == encode(WELCOME.to_wire())


@pytest.mark.parametrize(
    ("frame", "code", "id"),
    [
        (b"\xc1", "protocol.bad_message", None),
        ("text", "protocol.bad_message", None),
        (b"\x80" * (Limits().frame + 1), "protocol.bad_message", None),
        (encode({"type": "dance", "id": 5}), "protocol.unknown_type", 5),
        (encode({"type": "cancel", "id": 6}), "protocol.bad_message", 6),
        (encode(m.Hello(PROTOCOL, INFO, "right").to_wire()), "protocol.bad_message", None),
    ],
)
def test_a_bad_frame_is_answered_and_the_connection_goes_on(frame: Any, code: str, id: int | None) -> None:
    connection = ready()
    received = connection.receive(frame)
    error = error_of(received)
    assert (error.code, error.id, received.close) == (code, id, False)
    assert connection.receive(encode(m.Jobs(7).to_wire())).message == m.Jobs(7)


def test_client_raises_the_refusal_of_its_hello() -> None:
    ours = ClientConnection(INFO, "wrong")
    received = server().receive(ours.hello())
    assert received.reply is not None
    with pytest.raises(AuthError):
        ours.receive(received.reply)
    assert ours.state is State.CLOSED and ours.receive(encode(WELCOME.to_wire())) is None


def test_client_sends_nothing_before_the_welcome() -> None:
    ours = ClientConnection(INFO, "right")
    with pytest.raises(ProtocolError, match="wait for the welcome"):
        ours.send(m.Jobs(1))
    with pytest.raises(ProtocolError, match="before its welcome"):
        ours.receive(encode(m.Ok(1).to_wire()))


def test_client_refuses_another_major_and_passes_over_news() -> None:
    ours = ClientConnection(INFO, "right")
    with pytest.raises(ProtocolError) as caught:
        ours.receive(encode(m.Welcome((2, 0), m.ServerInfo("s", "2"), Limits()).to_wire()))
    assert caught.value.code == "protocol.version"
    ours = ClientConnection(INFO, "right")
    ours.receive(encode(WELCOME.to_wire()))
    assert ours.receive(encode({"type": "confetti", "id": 3})) is None
    with pytest.raises(ProtocolError):
        ours.receive(b"\xc1")
    assert ours.state is State.READY
