"""Pictures there and back over one connection: by file where the server's spool can be seen, else in chunks."""

from __future__ import annotations

import collections
import functools
import hashlib
import logging
import threading
from typing import Deque, Dict, Iterable, Iterator, List, Optional, Tuple, Union

from impasto_protocol import messages as wire
from impasto_protocol.errors import AssetError, JobError, ProtocolError, ResourceError
from impasto_protocol.images import Buffer, digest_of
from impasto_protocol.uploads import chunks, new_chunks

from .exchange import Exchange, Question, Waiter, expect
from .spool import SpoolFolder

__all__ = ["CHUNK", "SPOOL_FROM", "Pictures"]

CHUNK = 1024 * 1024
"""Bytes of a chunk at most: small enough that a cancel overtakes a picture within milliseconds."""

SPOOL_FROM = 256 * 1024
"""Bytes from which a picture goes by file: a smaller one is hashed and sent sooner than two questions are answered."""

_log = logging.getLogger("impasto.client")


class Pictures:
    """See `Client` for its methods. One upload is on its way at a time."""

    def __init__(self, exchange: Exchange) -> None:
        self.spool: Optional[SpoolFolder] = None
        self._exchange = exchange
        self._upload_lock = threading.Lock()
        self._filled: Dict[str, Tuple[str, int]] = {}
        """Files that no submit has named yet: digest -> name and generation."""

    def find_spool(self) -> None:
        """Prove that the server's files can be seen from here, if they can."""
        spool = self._exchange.welcome.spool
        if spool is not None:
            self.spool = SpoolFolder.prove(spool, self._share)

    def upload(self, data: Buffer, stop: Optional[threading.Event] = None) -> str:
        """See `Client.upload`."""
        stop = stop or threading.Event()
        with self._upload_lock:
            if self.spool is not None and memoryview(data).nbytes >= SPOOL_FROM:
                name = self._fill(self.spool, data, stop)
                if name is not None:
                    return name
            if self._name_by_server and memoryview(data).nbytes >= SPOOL_FROM:
                return self._put_new(data, stop)
            digest = digest_of(data)
            if self._exchange.ask(lambda id: wire.Have(id, (digest,)), wire.HaveOk).missing:
                self._put(digest, data, stop)
        return digest

    def give_back(self, digest: str) -> None:
        """See `Client.give_back`."""
        filled = self._filled.pop(digest, None)
        if filled is not None:
            self._release(*filled)

    def submitted(self, digest: str) -> None:
        """A job has this picture now; it is not given back."""
        self._filled.pop(digest, None)

    def fetch(self, digest: str, size: Optional[int] = None) -> bytes:
        """See `Client.fetch`."""
        if self.spool is not None and size is not None and size >= SPOOL_FROM:
            whole = self._read_file(self.spool, digest, size)
            if whole is not None:
                return whole
        pieces: List[Buffer] = []
        hashed = hashlib.blake2b(digest_size=16)
        for piece in self._pieces(digest, size):
            pieces.append(piece)
            hashed.update(piece)  # while the next one is on its way
        if hashed.hexdigest() != digest:
            raise AssetError(
                "asset.digest_mismatch", "The result arrived damaged; fetch it again.", retryable=True, path=digest
            )
        return b"".join(pieces)

    @property
    def _name_by_server(self) -> bool:
        """Whether a picture is sent without a question. By loopback that takes no longer than to hash it for one."""
        return self._exchange.near and tuple(self._exchange.welcome.protocol) >= (1, 2)

    @property
    def _chunk(self) -> int:
        return min(CHUNK, self._exchange.limits.chunk)

    def _pieces(self, digest: str, size: Optional[int]) -> Iterator[Buffer]:
        """The bytes of a digest in order; as many pieces are asked for at a time as chunks may be on their way."""
        waiting: Deque[Tuple[int, int, Question]] = collections.deque()
        have = asked = 0
        try:
            while size is None or have < size:
                while len(waiting) < max(1, self._exchange.limits.window) and (
                    asked < size if size is not None else not waiting
                ):
                    want = self._chunk if size is None else min(self._chunk, size - asked)
                    get = functools.partial(wire.Get, digest=digest, offset=asked, length=want)
                    waiting.append((asked, want, self._exchange.question(get)))
                    asked += want
                at, want, question = waiting.popleft()
                piece = self._exchange.answer(question, wire.Data)
                if size is not None and piece.size != size:
                    raise AssetError("asset.bad_image", f"The result has {piece.size} bytes, announced were {size}.")
                if piece.offset != at or not piece.data or at + len(piece.data) > piece.size:
                    raise ProtocolError("protocol.bad_message", "The server sent another piece than was asked for.")
                if at != have:
                    continue  # it was asked for before an earlier one came short
                size = piece.size
                have += len(piece.data)
                if len(piece.data) < want:
                    asked = have
                yield piece.data
        finally:
            for _, _, (id, _) in waiting:
                self._exchange.forget(id)

    def _share(self, read: bytes, wrote: bytes) -> None:
        self._exchange.ask(lambda id: wire.Share(id, read, wrote), wire.Ok)

    def _fill(self, spool: SpoolFolder, data: Buffer, stop: threading.Event) -> Optional[str]:
        """Hand `data` over in a file; its name for a submit, or None where that does not work now."""
        size = memoryview(data).nbytes
        try:
            room = self._exchange.ask(lambda id: wire.Room(id, size), wire.RoomOk)
        except ResourceError as error:
            _need_the_socket(error)
            return None
        try:
            spool.write(room.name, data, stop)
            self._exchange.ask(lambda id: wire.Filled(id, room.name, room.generation), wire.Ok)
        except (OSError, AssetError) as error:
            self._release(room.name, room.generation)
            _log.warning("a picture goes through the connection, its file could not be filled: %s", error)
            return None
        except JobError:
            self._release(room.name, room.generation)
            raise
        except ResourceError as error:
            _need_the_socket(error)
            return None
        self._filled[room.digest] = (room.name, room.generation)
        return room.digest

    def _read_file(self, spool: SpoolFolder, digest: str, size: int) -> Optional[bytes]:
        """The bytes of a digest through a file, or None where that does not work now."""
        try:
            file = self._exchange.ask(lambda id: wire.GetFile(id, digest), wire.File)
        except ResourceError as error:
            _need_the_socket(error)
            return None
        try:
            if file.size == size:
                return spool.read(file.name, size)
        except (OSError, AssetError) as error:
            _log.warning("a result comes through the connection, its file could not be read: %s", error)
            return None
        finally:
            self._release(file.name, file.generation)
        raise AssetError("asset.bad_image", f"The result has {file.size} bytes, announced were {size}.")

    def _release(self, name: str, generation: int) -> None:
        self._exchange.ask(lambda id: wire.Release(id, name, generation), wire.Ok)

    def _put(self, digest: str, data: Buffer, stop: threading.Event) -> None:
        with self._exchange.chunked(digest) as answers:
            self._send(chunks(digest, data, self._chunk), answers, stop)
            size = memoryview(data).nbytes
            answers.wait(lambda: answers.received >= size)

    def _put_new(self, data: Buffer, stop: threading.Event) -> str:
        """Send the bytes; the server names them."""
        with self._exchange.chunked_new() as (id, answers):
            self._send(new_chunks(id, data, self._chunk), answers, stop)
            size = memoryview(data).nbytes
            answers.wait(lambda: answers.received >= size)
            digest = expect(answers.answer, wire.PutNewOk).digest
        if digest is None:
            raise ProtocolError("protocol.bad_message", "The server did not name the picture that it was sent.")
        return digest

    def _send(self, puts: Iterable[Union[wire.Put, wire.PutNew]], answers: Waiter, stop: threading.Event) -> None:
        """All chunks, at most a window of them unanswered."""
        window = self._chunk * max(1, self._exchange.limits.window)
        for put in puts:
            end = put.offset + len(put.data)
            answers.wait(lambda end=end: stop.is_set() or end - answers.received <= window)  # type: ignore[misc]
            if stop.is_set():
                raise JobError("job.cancelled", "The upload was given up.")
            self._exchange.put(put)


def _need_the_socket(error: ResourceError) -> None:
    """Raise what ends the connection; anything else that the spool refuses goes through the connection instead."""
    if error.code in ("resource.connection_lost", "resource.no_answer"):
        raise error
    _log.info("pixels go through the connection: %s", error)
