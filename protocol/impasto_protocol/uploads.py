"""Pictures in chunks: the sender cuts without copying, the receiver joins, bounds and verifies."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Iterator, NamedTuple, Optional, Union

from .errors import AssetError, ImpastoError, ProtocolError
from .images import Buffer
from .messages import Put, PutNew
from .version import Limits

__all__ = ["Upload", "UploadStep", "Uploads", "chunks", "new_chunks"]

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


class Upload:
    """One buffer on its way. `hash` belongs to who called `Uploads.take`; `whole` once all bytes have arrived."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.received = 0
        self.buffer = bytearray()
        self.hash = hashlib.blake2b(digest_size=16)

    @property
    def whole(self) -> bool:
        return self.received == self.size


class Uploads:
    """The unfinished uploads of one connection.

    At most `in_flight` bytes (default: `limits.upload_bytes`) are held in all. Where a chunk would go beyond that, the
    upload that was left alone for longest is forgotten: a client that gave one up need not say so.
    """

    def __init__(self, limits: Limits, in_flight: Optional[int] = None) -> None:
        self._limits = limits
        self._in_flight = limits.upload_bytes if in_flight is None else in_flight
        self._unfinished: OrderedDict[Union[str, int], Upload] = OrderedDict()
        """By the digest, or by the number of a buffer that has none yet."""
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of unfinished uploads."""
        return self._held

    def add(self, put: AnyPut) -> UploadStep:
        """Take one chunk and hash it.

        Raises AssetError `asset.too_large` or `asset.digest_mismatch`, or ProtocolError `protocol.bad_message` for a
        chunk that does not continue what was received; `data` holds the digest, if the client gave one, and the upload
        starts anew at offset 0.
        """
        upload = self.take(put)
        upload.hash.update(put.data)
        if upload.whole:
            return self.finish(put, upload)
        return UploadStep(_named(put), upload.received, None)

    def take(self, put: AnyPut) -> Upload:
        """The same without the hash, for who does that elsewhere: update `hash` with the data of each chunk in order,
        and `finish` where the upload is whole. Raises as `add` does, but for the digest."""
        try:
            return self._take(put)
        except ImpastoError as error:
            self._refused(put, error)
            raise

    def finish(self, put: AnyPut, upload: Upload) -> UploadStep:
        """The whole buffer after its last chunk `put`. Raises AssetError `asset.digest_mismatch`."""
        if self._unfinished.get(_key(put)) is upload:  # else it was begun anew meanwhile
            self._forget(_key(put))
        digest = upload.hash.hexdigest()
        if _named(put) not in ("", digest):
            error = AssetError(
                "asset.digest_mismatch",
                "The bytes that arrived do not have the digest they were sent under; send the picture again.",
                retryable=True,
                path="digest",
            )
            error.data["digest"] = _named(put)
            raise error
        return UploadStep(digest, upload.received, memoryview(upload.buffer).toreadonly())

    def _refused(self, put: AnyPut, error: ImpastoError) -> None:
        self._forget(_key(put))
        if isinstance(put, Put):
            error.data["digest"] = put.digest

    def _forget(self, key: Union[str, int]) -> None:
        upload = self._unfinished.pop(key, None)
        if upload is not None:
            self._held -= upload.received

    def _take(self, put: AnyPut) -> Upload:
        self._check(put)
        key = _key(put)
        if put.offset == 0:
            self._forget(key)
            self._unfinished[key] = Upload(put.size)
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
        upload.received += len(put.data)
        self._held += len(put.data)
        return upload

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


def _named(put: AnyPut) -> str:
    return put.digest if isinstance(put, Put) else ""


def _key(put: AnyPut) -> Union[str, int]:
    return put.digest if isinstance(put, Put) else put.id
