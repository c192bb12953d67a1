"""Pictures in chunks: the sender cuts without copying, the receiver joins, bounds and verifies."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Iterator, NamedTuple, Optional, Union

from .errors import AssetError, ImpastoError, ProtocolError
from .images import Buffer
from .messages import Put, PutNew
from .version import Limits

__all__ = ["UploadStep", "Uploads", "chunks", "new_chunks"]

_MAX_UNFINISHED = 64


def chunks(digest: str, data: Buffer, chunk: int) -> Iterator[Put]:
    """The `put` messages of a whole buffer, at most `chunk` bytes each, as views into `data`."""
    view = memoryview(data).cast("B")
    for offset in range(0, len(view), chunk):
        yield Put(digest, len(view), offset, view[offset : offset + chunk])


def new_chunks(id: int, data: Buffer, chunk: int) -> Iterator[PutNew]:
    """The same for a buffer that the server is to name."""
    view = memoryview(data).cast("B")
    for offset in range(0, len(view), chunk):
        yield PutNew(id, len(view), offset, view[offset : offset + chunk])


class UploadStep(NamedTuple):
    """After a chunk: bytes received so far, and once they are all, the whole buffer and its digest.

    `digest` is known from the start where the client has named the buffer, else empty until then.
    """

    digest: str
    received: int
    data: Optional[Buffer]


AnyPut = Union[Put, PutNew]


class _Upload:
    def __init__(self, size: int) -> None:
        self.size = size
        self.received = 0
        self.buffer = bytearray()
        self.hash = hashlib.blake2b(digest_size=16)


class Uploads:
    """The unfinished uploads of one connection.

    At most `in_flight` bytes (default: `limits.upload_bytes`) are held in all. Where a chunk would go beyond that, the
    upload that was left alone for longest is forgotten: a client that gave one up need not say so.
    """

    def __init__(self, limits: Limits, in_flight: Optional[int] = None) -> None:
        self._limits = limits
        self._in_flight = limits.upload_bytes if in_flight is None else in_flight
        self._unfinished: OrderedDict[Union[str, int], _Upload] = OrderedDict()
        """By the digest, or by the number of a buffer that has none yet."""
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of unfinished uploads."""
        return self._held

    def add(self, put: AnyPut) -> UploadStep:
        """Take one chunk.

        Raises AssetError `asset.too_large` or `asset.digest_mismatch`, or ProtocolError `protocol.bad_message` for a
        chunk that does not continue what was received; `data` holds the digest, if the client gave one, and the upload
        starts anew at offset 0.
        """
        try:
            return self._add(put)
        except ImpastoError as error:
            self._forget(_key(put))
            if isinstance(put, Put):
                error.data["digest"] = put.digest
            raise

    def _forget(self, key: Union[str, int]) -> None:
        upload = self._unfinished.pop(key, None)
        if upload is not None:
            self._held -= upload.received

    def _add(self, put: AnyPut) -> UploadStep:
        self._check(put)
        key = _key(put)
        if put.offset == 0:
            self._forget(key)
            self._unfinished[key] = _Upload(put.size)
        upload = self._unfinished.get(key)
        received = upload.received if upload is not None else 0
        if upload is None or put.offset != received:
            raise ProtocolError(
                "protocol.bad_message",
                f"The chunk starts at byte {put.offset}, but {received} bytes were received; start again at offset 0.",
                path="offset",
            )
        if put.size != upload.size:
            raise ProtocolError(
                "protocol.bad_message",
                f"The chunk speaks of {put.size} bytes in all, the first one of {upload.size}.",
                path="size",
            )
        self._make_room(key, len(put.data))
        # One buffer that grows: joining pieces at the end would hold the picture twice.
        upload.buffer += put.data
        upload.hash.update(put.data)
        upload.received += len(put.data)
        self._held += len(put.data)
        named = put.digest if isinstance(put, Put) else ""
        if upload.received < upload.size:
            return UploadStep(named, upload.received, None)
        digest = upload.hash.hexdigest()
        if named and digest != named:
            raise AssetError(
                "asset.digest_mismatch",
                "The bytes that arrived do not have the digest they were sent under; send the picture again.",
                retryable=True,
                path="digest",
            )
        self._forget(key)
        return UploadStep(digest, upload.received, memoryview(upload.buffer).toreadonly())

    def _check(self, put: AnyPut) -> None:
        limit = min(self._limits.upload_bytes, self._in_flight)
        if put.size > limit:
            raise AssetError(
                "asset.too_large",
                f"An upload of {put.size} bytes is above the limit of {limit}; send a smaller box.",
                path="size",
                data={"limit": limit},
            )
        if not put.data:
            raise ProtocolError("protocol.bad_message", "The chunk is empty; send at least one byte.", path="data")
        if len(put.data) > self._limits.chunk:
            raise ProtocolError(
                "protocol.bad_message",
                f"The chunk has {len(put.data)} bytes, the limit is {self._limits.chunk}.",
                path="data",
            )
        if put.offset + len(put.data) > put.size:
            raise ProtocolError(
                "protocol.bad_message", f"The chunk goes beyond the {put.size} bytes of the upload.", path="offset"
            )

    def _make_room(self, key: Union[str, int], more: int) -> None:
        self._unfinished.move_to_end(key)
        while self._held + more > self._in_flight or len(self._unfinished) > _MAX_UNFINISHED:
            self._forget(next(iter(self._unfinished)))


def _key(put: AnyPut) -> Union[str, int]:
    return put.digest if isinstance(put, Put) else put.id
