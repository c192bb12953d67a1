"""Pictures in chunks: the sender cuts without copying, the receiver joins, bounds and verifies."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Iterator, NamedTuple, Optional

from .errors import AssetError, ImpastoError, ProtocolError
from .images import Buffer
from .messages import Put
from .version import Limits

__all__ = ["UploadStep", "Uploads", "chunks"]

_MAX_UNFINISHED = 64


def chunks(digest: str, data: Buffer, chunk: int) -> Iterator[Put]:
    """The `put` messages of a whole buffer, at most `chunk` bytes each, as views into `data`."""
    view = memoryview(data).cast("B")
    for offset in range(0, len(view), chunk):
        yield Put(digest, len(view), offset, view[offset : offset + chunk])


class UploadStep(NamedTuple):
    """After a chunk: bytes of `digest` received so far, and the whole buffer once it is complete and verified."""

    digest: str
    received: int
    data: Optional[Buffer]


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
        self._unfinished: OrderedDict[str, _Upload] = OrderedDict()
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of unfinished uploads."""
        return self._held

    def add(self, put: Put) -> UploadStep:
        """Take one chunk.

        Raises AssetError `asset.too_large` or `asset.digest_mismatch`, or ProtocolError `protocol.bad_message` for a
        chunk that does not continue what was received; `data` holds the digest, and the upload starts anew at offset 0.
        """
        try:
            return self._add(put)
        except ImpastoError as error:
            self.forget(put.digest)
            error.data["digest"] = put.digest
            raise

    def forget(self, digest: str) -> None:
        """Drop what was received of a digest."""
        upload = self._unfinished.pop(digest, None)
        if upload is not None:
            self._held -= upload.received

    def _add(self, put: Put) -> UploadStep:
        self._check(put)
        if put.offset == 0:
            self.forget(put.digest)
            self._unfinished[put.digest] = _Upload(put.size)
        upload = self._unfinished.get(put.digest)
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
        self._make_room(put.digest, len(put.data))
        # One buffer that grows: joining pieces at the end would hold the picture twice.
        upload.buffer += put.data
        upload.hash.update(put.data)
        upload.received += len(put.data)
        self._held += len(put.data)
        if upload.received < upload.size:
            return UploadStep(put.digest, upload.received, None)
        if upload.hash.hexdigest() != put.digest:
            raise AssetError(
                "asset.digest_mismatch",
                "The bytes that arrived do not have the digest they were sent under; send the picture again.",
                retryable=True,
                path="digest",
            )
        self.forget(put.digest)
        return UploadStep(put.digest, upload.received, memoryview(upload.buffer).toreadonly())

    def _check(self, put: Put) -> None:
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

    def _make_room(self, digest: str, more: int) -> None:
        self._unfinished.move_to_end(digest)
        while self._held + more > self._in_flight or len(self._unfinished) > _MAX_UNFINISHED:
            self.forget(next(iter(self._unfinished)))
