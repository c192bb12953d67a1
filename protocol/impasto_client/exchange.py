"""Questions and answers over one connection: who waits for what, and what nobody asked for."""

from __future__ import annotations

import itertools
import logging
import threading
from contextlib import contextmanager
from typing import Callable, Dict, Iterator, Optional, Tuple, Type, TypeVar, Union

from impasto_protocol import messages as wire
from impasto_protocol.connection import ClientConnection
from impasto_protocol.errors import ImpastoError, ProtocolError, ResourceError
from impasto_protocol.version import Limits

from .transport import Transport

__all__ = ["REQUEST_SECONDS", "Exchange", "Question", "Waiter", "expect"]

REQUEST_SECONDS = 60.0

_log = logging.getLogger("impasto.client")

M = TypeVar("M", bound=wire.Message)


class Waiter:
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

    def wait(self, ready: Callable[[], bool], timeout: Optional[float] = None) -> None:
        """Until `ready()`; raise the error that arrived instead, or `resource.no_answer` after REQUEST_SECONDS."""
        timeout = REQUEST_SECONDS if timeout is None else timeout
        with self.changed:
            if not self.changed.wait_for(lambda: self.error is not None or ready(), timeout):
                raise ResourceError(
                    "resource.no_answer", f"The Impasto server did not answer within {timeout:.0f} s.", retryable=True
                )
            # An answer that arrived counts, also where the connection ended before this thread could take it.
            if not ready() and self.error is not None:
                raise self.error


Question = Tuple[int, Waiter]
"""A request that was sent: its id, and where its answer arrives."""


class Exchange:
    """A connection after its welcome; see `Client` for what the callbacks are told and what is raised."""

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
        self._waiting: Dict[int, Waiter] = {}
        self._uploading: Dict[str, Waiter] = {}
        self._end: Optional[ImpastoError] = None
        self._reader = threading.Thread(target=self._read, name="impasto-read", daemon=True)

    def start(self) -> None:
        """Begin to receive; once."""
        self._reader.start()

    @property
    def limits(self) -> Limits:
        """What the server accepts."""
        return self.welcome.limits

    @property
    def near(self) -> bool:
        """Whether the server is reached by loopback: what is sent costs no more than what is hashed."""
        return self._transport.near

    def close(self) -> None:
        """End the connection; calls that wait raise `resource.connection_lost`. May be repeated."""
        self._transport.close()

    def ask(self, build: Callable[[int], wire.Message], kind: Type[M], timeout: Optional[float] = None) -> M:
        """Send the request that `build` makes of an id; its answer, which must be of that kind."""
        return self.answer(self.question(build), kind, timeout)

    def question(self, build: Callable[[int], wire.Message]) -> Question:
        """Send a request; `answer` waits for what comes."""
        id = next(self._ids)
        waiter = Waiter()
        with self._lock:
            if self._end is not None:
                raise self._end
            self._waiting[id] = waiter
        try:
            self._transport.send(self._connection.send(build(id)))
        except BaseException:
            self.forget(id)
            raise
        return id, waiter

    def answer(self, question: Question, kind: Type[M], timeout: Optional[float] = None) -> M:
        """The answer of a request that was sent."""
        id, waiter = question
        try:
            waiter.wait(lambda: waiter.answer is not None, timeout)
        finally:
            self.forget(id)
        return expect(waiter.answer, kind)

    def forget(self, id: int) -> None:
        """Its answer is not wanted any more."""
        with self._lock:
            self._waiting.pop(id, None)

    @contextmanager
    def chunked(self, digest: str) -> Iterator[Waiter]:
        """Where the answers to the `put` messages of a digest arrive."""
        waiter = Waiter()
        with self._lock:
            if self._end is not None:
                raise self._end
            self._uploading[digest] = waiter
        try:
            yield waiter
        finally:
            with self._lock:
                self._uploading.pop(digest, None)

    @contextmanager
    def chunked_new(self) -> Iterator[Question]:
        """A number for the chunks of a buffer that the server is to name, and where their answers arrive."""
        id, waiter = next(self._ids), Waiter()
        with self._lock:
            if self._end is not None:
                raise self._end
            self._waiting[id] = waiter
        try:
            yield id, waiter
        finally:
            self.forget(id)

    def put(self, chunk: Union[wire.Put, wire.PutNew]) -> None:
        """Send one chunk."""
        self._transport.send(self._connection.send(chunk))

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
                waiter.put(answer=message, received=getattr(message, "received", None))
        else:
            self._on_event(message)


def _digest_of(message: wire.Message) -> str:
    """The digest that an answer to `put` is about, or ""."""
    if isinstance(message, wire.PutOk):
        return message.digest
    if isinstance(message, wire.Error) and message.data is not None:
        return str(message.data.get("digest", ""))
    return ""


def expect(answer: Optional[wire.Message], kind: Type[M]) -> M:
    """The answer, if it is of that kind; else ProtocolError `protocol.bad_message`."""
    if not isinstance(answer, kind):
        raise ProtocolError("protocol.bad_message", f"The server answered with {getattr(answer, 'TYPE', None)!r}.")
    return answer
