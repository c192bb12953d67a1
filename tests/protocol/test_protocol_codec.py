from __future__ import annotations

import math
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from impasto_protocol.codec import MAX_INTEGER, decode, encode
from impasto_protocol.errors import ImpastoError, ProtocolError
from impasto_protocol.version import Limits
from vectors import check_vectors, load_vectors

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=40)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MAPS = st.dictionaries(st.text(max_size=8), VALUES, max_size=5)


@given(MAPS)
def test_what_is_encoded_is_decoded(fields: dict[str, Any]) -> None:
    assert decode(encode(fields), Limits(nesting=64)) == fields


@given(st.binary(max_size=200))
def test_any_bytes_are_a_map_or_a_protocol_error(frame: bytes) -> None:
    try:
        assert isinstance(decode(frame, Limits()), dict)
    except ProtocolError as error:
        assert error.code == "protocol.bad_message" and error.message.endswith(".")


@given(MAPS, st.integers(min_value=1))
def test_every_cut_is_refused(fields: dict[str, Any], cut: int) -> None:
    frame = encode(fields)
    with pytest.raises(ProtocolError):
        decode(frame[: -(cut % len(frame)) or -1], Limits())


def test_vectors_hold() -> None:
    assert check_vectors() >= 50
    vectors = load_vectors()
    from impasto_protocol.messages import CLIENT_MESSAGES, SERVER_MESSAGES

    # Every message has a vector, so that a port to another language can be checked in full.
    assert {v["map"]["type"] for v in vectors["client"]} == set(CLIENT_MESSAGES)
    assert {v["map"]["type"] for v in vectors["server"]} == set(SERVER_MESSAGES)


def test_vectors_file_is_what_the_generator_writes() -> None:
    from tests.protocol import make_vectors

    vectors = load_vectors()
    assert [v["frame"] for v in vectors["client"]] == [encode(m.to_wire()).hex() for m in make_vectors.CLIENT]
    assert [v["frame"] for v in vectors["server"]] == [encode(m.to_wire()).hex() for m in make_vectors.SERVER]


def refused(frame: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode(frame, limits or Limits())
    assert caught.value.code == "protocol.bad_message"
    return caught.value.message


def test_refusals_say_what_is_wrong() -> None:
    assert "limit is 10" in refused(b"\x80" * 11, Limits(frame=10))
    assert "goes on" in refused(b"\x80\x80")
    assert "a list" in refused(b"\x90")
    assert "keys are strings" in refused(msgpack.packb({1: 2}))
    assert "keys are strings" in refused(msgpack.packb({"a": [{b"k": 2}]}))
    assert "extension type 5" in refused(msgpack.packb({"a": msgpack.ExtType(5, b"x")}))
    assert "an extension type" in refused(msgpack.packb({"a": msgpack.Timestamp(1, 0)}))
    assert "2^53" in refused(msgpack.packb({"a": [MAX_INTEGER + 1]}))
    assert "2^53" in refused(msgpack.packb({"a": -MAX_INTEGER - 1}))
    assert "UTF-8" in refused(b"\x81\xa1a\xa1\xff")


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"])
@pytest.mark.parametrize("levels", [17, 600, 5000, 400_000])
def test_deep_nesting_is_refused_and_no_recursion(opening: bytes, levels: int) -> None:
    frame = b"\x81\xa1a" + opening * levels + b"\xc0"
    assert "16 levels" in refused(frame, Limits(frame=1 << 24))


def test_nesting_up_to_the_limit_passes() -> None:
    fields: Any = 1
    for _ in range(16):
        fields = {"a": fields}
    assert decode(encode(fields), Limits()) == fields
    refused(encode({"a": fields}))


def test_claimed_lengths_cost_no_memory() -> None:
    for header in (b"\xdd", b"\xdf", b"\xdb", b"\xc6"):  # array, map, string, bytes with 32-bit lengths
        refused(b"\x81\xa1a" + header + struct.pack(">I", 0xFFFFFFFF))


def test_nan_and_infinity_pass_the_codec() -> None:
    fields = decode(encode({"a": math.nan, "b": math.inf}), Limits())
    assert math.isnan(fields["a"]) and fields["b"] == math.inf


def test_memoryviews_are_sent_as_bytes() -> None:
    assert decode(encode({"a": memoryview(b"abc")[1:]}), Limits()) == {"a": b"bc"}


@pytest.mark.parametrize("value", [{1, 2}, object(), 1 << 70, "\ud800"])
def test_what_the_wire_does_not_know_cannot_be_sent(value: object) -> None:
    with pytest.raises(ImpastoError, match="cannot be sent"):
        encode({"a": value})
