"""One connection to the server as plain blocking calls: requests and answers, uploads, downloads, events of jobs."""

from __future__ import annotations

import collections
import functools
import hashlib
import itertools
import logging
import threading
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Type, TypeVar

from impasto_protocol import messages as wire
from impasto_protocol.connection import ClientConnection
from impasto_protocol.errors import AssetError, ImpastoError, JobError, ProtocolError, ResourceError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.images import Buffer, digest_of
from impasto_protocol.uploads import chunks
from impasto_protocol.version import Limits

from .endpoint import Endpoint
from .spool import SPOOL_FROM, SpoolFolder
from .transport import Transport

__all__ = ["CHUNK", "Client"]

CHUNK = 1024 * 1024
"""Bytes of a chunk at most: small enough that a cancel overtakes a picture within milliseconds."""

REQUEST_SECONDS = 60.0

_log = logging.getLogger("impasto.client")

M = TypeVar("M", bound=wire.Message)


class _Waiter:
    """Where an answer, or the bytes received of an upload, arrive from the reading thread."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.answer: Optional[wire.Message] = None
        self.received = 0
        self.error: Optional[ImpastoError] = None

    def put(
        self,
        answer: Optional[wire.Message] = None,
        received: Optional[int] = None,
        error: Optional[ImpastoError] = None,
    ) -> None:
        with self.changed:
            self.answer = answer or self.answer
            self.received = max(self.received, received or 0)
            self.error = error or self.error
            self.changed.notify_all()

    def wait(self, ready: Callable[[], bool], timeout: float) -> None:
        """Until `ready()`, or raise the error that arrived instead, or `resource.no_answer`."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.error is not None or ready(), timeout):
                raise ResourceError(
                    "resource.no_answer", f"The Impasto server did not answer within {timeout:.0f} s.", retryable=True
                )
            # An answer that arrived counts, also where the connection ended before this thread could take it.
            if not ready() and self.error is not None:
                raise self.error


class Client:
    """A connection after its welcome. All methods may be called from any thread and block until answered.

    `on_event` gets the messages that no request asked for (events of jobs, `catalog_changed`); `on_lost` is called
    once when the connection ends, also by `close`. Both run on the reading thread: they must not call the client.
    Every method raises the error that the server answered, ResourceError `resource.connection_lost` when the
    connection ends and `resource.no_answer` when it stays silent.
    """

    def __init__(
        self,
        transport: Transport,
        connection: ClientConnection,
        welcome: wire.Welcome,
        on_event: Callable[[wire.Message], None],
        on_lost: Callable[[ImpastoError], None],
    ) -> None:
        self.welcome = welcome
        self._transport = transport
        self._connection = connection
        self._on_event = on_event
        self._on_lost = on_lost
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: Dict[int, _Waiter] = {}
        self._uploading: Dict[str, _Waiter] = {}
        self._upload_lock = threading.Lock()
        self._end: Optional[ImpastoError] = None
        self._spool: Optional[SpoolFolder] = None
        self._filled: Dict[str, Tuple[str, int]] = {}
        """Files that no submit has named yet: digest -> name and generation."""
        self._reader = threading.Thread(target=self._read, name="impasto-read", daemon=True)

    @staticmethod
    def connect(
        endpoint: Endpoint,
        client: wire.ClientInfo,
        on_event: Callable[[wire.Message], None],
        on_lost: Callable[[ImpastoError], None],
        timeout: float = 15.0,
        *,
        files: bool = True,
    ) -> Client:
        """Open the connection and say hello; with `files`, find out whether pixels can go through the spool.

        Raises AuthError `auth.denied`, ProtocolError `protocol.version`, ResourceError `resource.connection_lost`.
        """
        transport = Transport.connect(endpoint, timeout)
        connection = ClientConnection(client, endpoint.token)
        try:
            transport.send(connection.hello())
            while connection.welcome is None:
                connection.receive(transport.recv(timeout))
        except ImpastoError:
            transport.close()
            raise
        opened = Client(transport, connection, connection.welcome, on_event, on_lost)
        opened._reader.start()
        spool = connection.welcome.spool
        if files and spool is not None:
            try:
                opened._spool = SpoolFolder.prove(spool, opened._share)
            except ImpastoError:
                opened.close()
                raise
        return opened

    @property
    def limits(self) -> Limits:
        """What the server accepts."""
        return self.welcome.limits

    @property
    def through_files(self) -> bool:
        """Whether large pictures go through the spool: client and server see the same files."""
        return self._spool is not None

    # ---- requests

    def catalog(self, rev: Optional[str] = None) -> Optional[wire.Catalog]:
        """What the server can do; None where `rev` is still its revision."""
        answer = self._ask(lambda id: wire.CatalogRequest(id, rev), wire.Message)
        if isinstance(answer, wire.NotModified):
            return None
        return _expect(answer, wire.Catalog)

    def plan(self, mode: str, params: Mapping[str, Any], canvas: Size, selection: Optional[Box] = None) -> wire.PlanOk:
        """The box to send for a job, and what to expect. RequestError for parameters that cannot work."""
        return self._ask(lambda id: wire.Plan(id, mode, dict(params), canvas, selection), wire.PlanOk)

    def have(self, digests: Iterable[str]) -> Tuple[str, ...]:
        """Those of the digests that the server does not hold."""
        return self._ask(lambda id: wire.Have(id, tuple(digests)), wire.HaveOk).missing

    def submit(
        self,
        job: str,
        mode: str,
        params: Mapping[str, Any],
        canvas: Size,
        inputs: Optional[Mapping[str, wire.InputPicture]] = None,
        output_format: str = "rgba8",
        preview: Optional[wire.PreviewWish] = None,
        *,
        box: Optional[Box] = None,
        on_disconnect: str = "keep",
        priority: str = "back",
        replaces: Optional[str] = None,
    ) -> int:
        """Hand in a job whose pictures are uploaded; the number of jobs before it. The same job again is harmless.

        `box`, `on_disconnect`, `priority` and `replaces` are those of `Submit`.
        """
        pictures, rest = dict(inputs or {}), (box, on_disconnect, priority, replaces)
        answer = self._ask(
            lambda id: wire.Submit(id, job, mode, dict(params), canvas, pictures, output_format, preview, *rest),
            wire.Accepted,
        )
        for picture in pictures.values():
            self._filled.pop(picture.digest, None)  # the job's now
        return answer.position

    def cancel(self, job: str) -> None:
        """Ask for the end of a job; its terminal event follows."""
        self._ask(lambda id: wire.Cancel(id, job), wire.Ok)

    def jobs(self) -> Tuple[wire.JobEntry, ...]:
        """The jobs that the server knows."""
        return self._ask(wire.Jobs, wire.JobsOk).jobs

    def attach(self, job: str, after_seq: int = 0) -> None:
        """Have the events of a job sent here: those after `after_seq` again, then new ones. JobError `job.unknown`."""
        self._ask(lambda id: wire.Attach(id, job, after_seq), wire.Ok)

    def models(self, kind: Optional[str] = None, search: str = "", page: int = wire.PAGE) -> Iterator[Dict[str, Any]]:
        """All models of a kind in which the words of `search` occur; each page is asked for when it is needed."""
        after: Optional[str] = None
        while True:
            ask = functools.partial(wire.ModelsRequest, kind=kind, search=search or None, after=after, limit=page)
            answer = self._ask(ask, wire.ModelsOk)
            yield from answer.models
            after = answer.next
            if after is None:
                return

    def history(
        self,
        search: str = "",
        job: Optional[str] = None,
        starred: bool = False,
        info: bool = False,
        page: int = wire.PAGE,
    ) -> Iterator[wire.HistoryEntry]:
        """The results that the server keeps, newest first; each page is asked for when it is needed.

        Their pixels come by `fetch(entry.digest)`.
        """
        wishes: Dict[str, Any] = dict(search=search or None, job=job, starred=starred, info=info, limit=page)
        after: Optional[str] = None
        while True:
            answer = self._ask(functools.partial(wire.History, after=after, **wishes), wire.HistoryOk)
            yield from answer.entries
            after = answer.next
            if after is None:
                return

    def star(self, job: str, index: int, on: bool = True) -> None:
        """Keep a result beyond the quota, or no longer. JobError `job.unknown` where it is gone."""
        self._ask(lambda id: wire.Star(id, job, index, on), wire.Ok)

    def shutdown(self) -> None:
        """Stop the server after its running step."""
        self._ask(wire.Shutdown, wire.Ok)

    # ---- pixels

    def upload(self, data: Buffer, stop: Optional[threading.Event] = None) -> str:
        """Make sure that the server holds `data`; what a submit calls it: its digest, or the name of a file's bytes.

        A large picture goes through the spool where that is shared. Else only what is missing is sent, with at most
        `limits.window` chunks on their way at a time, so that other messages get between them. Raises AssetError, and
        JobError `job.cancelled` soon after `stop` was set.
        """
        stop = stop or threading.Event()
        with self._upload_lock:
            if self._spool is not None and memoryview(data).nbytes >= SPOOL_FROM:
                name = self._fill(self._spool, data, stop)
                if name is not None:
                    return name
            digest = digest_of(data)
            if self.have((digest,)):
                self._put(digest, data, stop)
        return digest

    def give_back(self, digest: str) -> None:
        """A picture that was uploaded will be in no job; nothing where the server forgets it by itself."""
        filled = self._filled.pop(digest, None)
        if filled is not None:
            self._release(*filled)

    def fetch(self, digest: str, size: Optional[int] = None) -> bytes:
        """The bytes of a digest, checked; `size` is what they are expected to be."""
        if self._spool is not None and size is not None and size >= SPOOL_FROM:
            whole = self._read_file(self._spool, digest, size)
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

    def close(self) -> None:
        """End the connection; calls that wait raise `resource.connection_lost`. May be repeated."""
        self._transport.close()

    # ---- inside

    @property
    def _chunk(self) -> int:
        return min(CHUNK, self.limits.chunk)

    def _ask(self, build: Callable[[int], wire.Message], kind: Type[M]) -> M:
        return self._answer(self._question(build), kind)

    def _question(self, build: Callable[[int], wire.Message]) -> Tuple[int, _Waiter]:
        """Send a request; `_answer` waits for what comes."""
        id = next(self._ids)
        waiter = _Waiter()
        with self._lock:
            if self._end is not None:
                raise self._end
            self._waiting[id] = waiter
        try:
            self._transport.send(self._connection.send(build(id)))
        except BaseException:
            self._forget(id)
            raise
        return id, waiter

    def _answer(self, question: Tuple[int, _Waiter], kind: Type[M]) -> M:
        id, waiter = question
        try:
            waiter.wait(lambda: waiter.answer is not None, REQUEST_SECONDS)
        finally:
            self._forget(id)
        return _expect(waiter.answer, kind)

    def _forget(self, id: int) -> None:
        with self._lock:
            self._waiting.pop(id, None)

    def _pieces(self, digest: str, size: Optional[int]) -> Iterator[Buffer]:
        """The bytes of a digest in order; as many pieces are asked for at a time as chunks may be on their way."""
        waiting: Deque[Tuple[int, int, Tuple[int, _Waiter]]] = collections.deque()
        have = asked = 0
        try:
            while size is None or have < size:
                while len(waiting) < max(1, self.limits.window) and (asked < size if size is not None else not waiting):
                    want = self._chunk if size is None else min(self._chunk, size - asked)
                    get = functools.partial(wire.Get, digest=digest, offset=asked, length=want)
                    waiting.append((asked, want, self._question(get)))
                    asked += want
                at, want, question = waiting.popleft()
                piece = self._answer(question, wire.Data)
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
                self._forget(id)

    def _share(self, read: bytes, wrote: bytes) -> None:
        self._ask(lambda id: wire.Share(id, read, wrote), wire.Ok)

    def _fill(self, spool: SpoolFolder, data: Buffer, stop: threading.Event) -> Optional[str]:
        """Hand `data` over in a file; its name for a submit, or None where that does not work now."""
        size = memoryview(data).nbytes
        try:
            room = self._ask(lambda id: wire.Room(id, size), wire.RoomOk)
        except ResourceError as error:
            _need_the_socket(error)
            return None
        try:
            spool.write(room.name, data, stop)
            self._ask(lambda id: wire.Filled(id, room.name, room.generation), wire.Ok)
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
            file = self._ask(lambda id: wire.GetFile(id, digest), wire.File)
        except ResourceError as error:
            _need_the_socket(error)
            return None
        try:
            if file.size != size:
                raise AssetError("asset.bad_image", f"The result has {file.size} bytes, announced were {size}.")
            return spool.read(file.name, size)
        except OSError as error:
            _log.warning("a result comes through the connection, its file could not be read: %s", error)
            return None
        finally:
            self._release(file.name, file.generation)

    def _release(self, name: str, generation: int) -> None:
        self._ask(lambda id: wire.Release(id, name, generation), wire.Ok)

    def _put(self, digest: str, data: Buffer, stop: threading.Event) -> None:
        waiter = _Waiter()
        with self._lock:
            if self._end is not None:
                raise self._end
            self._uploading[digest] = waiter
        window = self._chunk * max(1, self.limits.window)
        try:
            for put in chunks(digest, data, self._chunk):
                end = put.offset + len(put.data)
                waiter.wait(lambda end=end: stop.is_set() or end - waiter.received <= window, REQUEST_SECONDS)  # type: ignore[misc]
                if stop.is_set():
                    raise JobError("job.cancelled", "The upload was given up.")
                self._transport.send(self._connection.send(put))
            size = memoryview(data).nbytes
            waiter.wait(lambda: waiter.received >= size, REQUEST_SECONDS)
        finally:
            with self._lock:
                self._uploading.pop(digest, None)

    def _read(self) -> None:
        error: ImpastoError = ResourceError("resource.connection_lost", "The connection was ended.", retryable=True)
        try:
            while True:
                message = self._connection.receive(self._transport.recv())
                if message is not None:
                    self._dispatch(message)
        except ImpastoError as ended:
            error = ended
        finally:
            # Also when a callback raised: whoever waits must not wait for ever.
            self._connection.closed()
            with self._lock:
                self._end = error
                waiters = [*self._waiting.values(), *self._uploading.values()]
            for waiter in waiters:
                waiter.put(error=error)
            self._transport.close()
            self._on_lost(error)

    def _dispatch(self, message: wire.Message) -> None:
        id = getattr(message, "id", None)
        with self._lock:
            waiter = self._waiting.get(id) if id is not None else None
            upload = self._uploading.get(_digest_of(message))
        if isinstance(message, wire.Error):
            error = message.exception()
            if waiter is not None:
                waiter.put(error=error)
            elif upload is not None:
                upload.put(error=error)
            else:
                _log.warning("the server reports: %s", error)
        elif isinstance(message, wire.PutOk):
            if upload is not None:
                upload.put(received=message.received)
        elif id is not None:
            if waiter is not None:
                waiter.put(answer=message)
        else:
            self._on_event(message)


def _need_the_socket(error: ResourceError) -> None:
    """Raise what ends the connection; anything else that the spool refuses goes through the connection instead."""
    if error.code in ("resource.connection_lost", "resource.no_answer"):
        raise error
    _log.info("pixels go through the connection: %s", error)


def _digest_of(message: wire.Message) -> str:
    """The digest that an answer to `put` is about, or ""."""
    if isinstance(message, wire.PutOk):
        return message.digest
    if isinstance(message, wire.Error) and message.data is not None:
        return str(message.data.get("digest", ""))
    return ""


def _expect(answer: Optional[wire.Message], kind: Type[M]) -> M:
    if not isinstance(answer, kind):
        raise ProtocolError("protocol.bad_message", f"The server answered with {getattr(answer, 'TYPE', None)!r}.")
    return answer
