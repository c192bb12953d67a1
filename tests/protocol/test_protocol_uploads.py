from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from impasto_protocol.errors import AssetError, ImpastoError, ProtocolError
from impasto_protocol.images import digest_of
from impasto_protocol.messages import Put, PutNew
from impasto_protocol.uploads import Uploads, chunks, new_chunks
from impasto_protocol.version import Limits


@given(st.binary(min_size=1, max_size=400), st.integers(1, 64))
def test_what_is_cut_is_joined(data: bytes, chunk: int) -> None:
    uploads, digest = Uploads(Limits(chunk=64)), digest_of(data)
    steps = [uploads.add(put) for put in chunks(digest, data, chunk)]
    assert [s.received for s in steps[:-1]] == [chunk * (i + 1) for i in range(len(steps) - 1)]
    assert all(s.data is None for s in steps[:-1])
    assert steps[-1].data == data and steps[-1].received == len(data) and uploads.held == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=30)), min_size=2, max_size=6), st.data())
def test_interleaved_uploads_arrive(pictures: list[tuple[int, bytes]], draw: st.DataObject) -> None:
    buffers = {digest_of(data): data for _, data in pictures}
    queues = {digest: list(chunks(digest, data, 7)) for digest, data in buffers.items()}
    uploads, arrived = Uploads(Limits()), {}
    while any(queues.values()):
        digest = draw.draw(st.sampled_from(sorted(d for d, q in queues.items() if q)))
        step = uploads.add(queues[digest].pop(0))
        if step.data is not None:
            arrived[digest] = step.data
    assert arrived == buffers and uploads.held == 0


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=4), st.integers(1, 64), st.data())
def test_what_is_sent_without_a_name_is_named(buffers: list[bytes], chunk: int, draw: st.DataObject) -> None:
    uploads, arrived = Uploads(Limits(chunk=64)), {}
    queues = {id: list(new_chunks(id, data, chunk)) for id, data in enumerate(buffers)}
    while any(queues.values()):
        id = draw.draw(st.sampled_from([id for id, queue in queues.items() if queue]))
        step = uploads.add(queues[id].pop(0))
        assert (step.data is None) == bool(queues[id])
        if step.data is not None:
            arrived[id] = (step.digest, bytes(step.data))
    assert arrived == {id: (digest_of(data), data) for id, data in enumerate(buffers)} and uploads.held == 0


_AMOUNTS = (st.integers(0, 50), st.integers(0, 50), st.binary())


@given(
    st.lists(
        st.builds(Put, st.sampled_from(["a" * 32, "b" * 32]), *_AMOUNTS)
        | st.builds(PutNew, st.integers(0, 2), *_AMOUNTS)
    )
)
def test_nothing_a_client_sends_breaks_the_bounds(puts: list[Put | PutNew]) -> None:
    uploads = Uploads(Limits(chunk=20, upload_bytes=40), in_flight=50)
    for put in puts:
        try:
            uploads.add(put)
        except ImpastoError as error:
            assert error.data.get("digest") == getattr(put, "digest", None)
        assert 0 <= uploads.held <= 50


def test_chunks_do_not_copy() -> None:
    data = bytearray(b"abcdef")
    first = next(chunks("0" * 32, data, 4))
    data[0] = ord("z")
    assert bytes(first.data) == b"zbcd"
    assert [bytes(c.data) for c in chunks("0" * 32, b"abcdefgh", 4)] == [b"abcd", b"efgh"]


def test_damage_is_refused_and_the_upload_may_start_again() -> None:
    uploads, data = Uploads(Limits()), b"x" * 10
    digest = digest_of(data)
    uploads.add(Put(digest, 10, 0, b"y" * 5))
    with pytest.raises(AssetError) as caught:
        uploads.add(Put(digest, 10, 5, b"x" * 5))
    assert caught.value.code == "asset.digest_mismatch" and caught.value.data == {"digest": digest}
    assert uploads.held == 0
    assert uploads.add(Put(digest, 10, 0, data)).data == data


@pytest.mark.parametrize(
    ("put", "code", "path"),
    [
        (Put("0" * 32, 10, 4, b"1234"), "protocol.bad_message", "offset"),  # a gap
        (Put("0" * 32, 10, 2, b"1234"), "protocol.bad_message", "offset"),  # a step back
        (Put("0" * 32, 11, 3, b"1234"), "protocol.bad_message", "size"),
        (Put("0" * 32, 10, 3, b"12345678"), "protocol.bad_message", "offset"),  # beyond the end
        (Put("0" * 32, 10, 3, b""), "protocol.bad_message", "data"),
        (Put("0" * 32, 10, 3, b"1" * 9), "protocol.bad_message", "data"),  # above the chunk limit
        (Put("0" * 32, 101, 3, b"1"), "asset.too_large", "size"),
        (Put("1" * 32, 0, 0, b""), "protocol.bad_message", "data"),
    ],
)
def test_chunks_that_do_not_fit(put: Put, code: str, path: str) -> None:
    uploads = Uploads(Limits(chunk=8, upload_bytes=100))
    uploads.add(Put("0" * 32, 10, 0, b"123"))
    with pytest.raises((ProtocolError, AssetError)) as caught:
        uploads.add(put)
    assert (caught.value.code, caught.value.path) == (code, path)


def test_an_abandoned_upload_makes_room_for_the_next() -> None:
    uploads = Uploads(Limits(chunk=60, upload_bytes=100))
    uploads.add(Put("0" * 32, 100, 0, b"a" * 60))
    data = b"b" * 60
    assert uploads.add(Put(digest_of(data), 60, 0, data)).data == data
    assert uploads.held == 0
    # Starting anew at offset 0 is always right.
    uploads.add(Put("0" * 32, 100, 0, b"a" * 60))
    uploads.add(Put("0" * 32, 100, 0, b"a" * 10))
    assert uploads.held == 10


def test_many_beginnings_are_bounded() -> None:
    uploads = Uploads(Limits())
    for i in range(1000):
        uploads.add(Put(f"{i:032x}", 10, 0, b"1"))
    assert uploads.held == 64
