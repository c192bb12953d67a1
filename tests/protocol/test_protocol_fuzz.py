"""Whatever bytes arrive: a message, or a refusal in words. Never an exception, never the end of the connection."""

from __future__ import annotations

import gc
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_protocol.codec import decode, encode
from impasto_protocol.connection import Received, ServerConnection, State
from impasto_protocol.errors import ImpastoError
from impasto_protocol.messages import (
    CLIENT_MESSAGES,
    SERVER_MESSAGES,
    ClientInfo,
    Error,
    Hello,
    Message,
    Put,
    PutNew,
    ServerInfo,
    Welcome,
    parse,
)
from impasto_protocol.uploads import Uploads
from impasto_protocol.version import PROTOCOL, Limits

from tests.protocol.fuzzing import frames, seeds

LIMITS = Limits(frame=4096, chunk=1024, upload_bytes=65536)
CODES = {"protocol.bad_message", "protocol.unknown_type"}


def ready() -> ServerConnection:
    connection = ServerConnection(LIMITS, lambda: Welcome(PROTOCOL, ServerInfo("s", "0"), LIMITS), lambda token: True)
    assert isinstance(connection.receive(encode(Hello(PROTOCOL, ClientInfo("c", "0")).to_wire())).message, Hello)
    return connection


def check(connection: ServerConnection, received: Received) -> str:
    """What it came to: the type of the message, or the code of the refusal."""
    assert connection.state is State.READY and not received.close
    if received.message is not None:
        assert received.reply is None and type(received.message) in CLIENT_MESSAGES.values()
        # What was taken can be said again.
        assert type(parse(received.message.to_wire(), CLIENT_MESSAGES)) is type(received.message)
        return received.message.TYPE
    assert received.reply is not None and len(received.reply) < 4096
    error = parse(decode(received.reply, Limits()), SERVER_MESSAGES)
    assert isinstance(error, Error) and error.code in CODES and error.message.endswith(".")
    return error.code


def fuzz(seed: int, count: int) -> Counter[str]:
    connection, uploads = ready(), Uploads(LIMITS)
    seen: Counter[str] = Counter()
    for number, frame in enumerate(frames(random.Random(seed), count, seeds())):
        try:
            received = connection.receive(frame)
            seen[check(connection, received)] += 1
            if isinstance(received.message, (Put, PutNew)):
                _upload(uploads, received.message)
        except Exception as e:
            raise AssertionError(f"frame {number} of seed {seed}: {frame.hex()}") from e
    return seen


def _upload(uploads: Uploads, put: Message) -> None:
    assert isinstance(put, (Put, PutNew))
    try:
        uploads.add(put)
    except ImpastoError as error:
        assert error.data.get("digest") == getattr(put, "digest", None)
    assert uploads.held <= LIMITS.upload_bytes


def test_fuzz_100_000_frames() -> None:
    fuzz(0, 1000)
    gc.collect()
    before = len(gc.get_objects())
    seen = fuzz(1, 100_000)
    assert set(seen) >= CODES | (CLIENT_MESSAGES.keys() - {"hello", "pair"})
    gc.collect()
    assert len(gc.get_objects()) - before < 1000


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes(frame: bytes) -> None:
    connection = ready()
    check(connection, connection.receive(frame))


_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted(CLIENT_MESSAGES)), st.data())
@settings(max_examples=200, deadline=None)
def test_any_values_in_any_message(kind: str, data: st.DataObject) -> None:
    names = [f for f in CLIENT_MESSAGES[kind].__dataclass_fields__ if not f.isupper()]
    fields = {name: data.draw(_PLAIN, label=name) for name in names}
    connection = ready()
    check(connection, connection.receive(encode({"type": kind, **fields})))


@given(st.binary(max_size=100))
@settings(max_examples=100, deadline=None)
def test_any_bytes_instead_of_a_hello_end_the_connection_in_words(frame: bytes) -> None:
    connection = ServerConnection(LIMITS, lambda: Welcome(PROTOCOL, ServerInfo("s", "0"), LIMITS), lambda token: True)
    received = connection.receive(frame)
    assert received.close and received.message is None and received.reply is not None
    assert connection.state is State.CLOSED and connection.receive(frame) == Received()
