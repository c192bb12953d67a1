"""The line to the server, kept by one thread: find or start it, connect, ask, connect anew after a loss."""

from __future__ import annotations

import logging
import queue
import threading
import time
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Union

from impasto_protocol.errors import ImpastoError, InternalError
from impasto_protocol.messages import ClientInfo, Message

from .client import Client
from .connecting import connect_or_start
from .events import ConnectionChanged
from .transport import GOING_AWAY

__all__ = ["Link", "internal_error"]

_log = logging.getLogger("impasto.client")

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 15.0
_STABLE_SECONDS = 10.0


class _Question(NamedTuple):
    ask: Callable[[Client], None]
    fail: Callable[[ImpastoError], None]


class _Lost(NamedTuple):
    generation: int
    error: ImpastoError


class _Anew(NamedTuple):
    """Another server may be in use now."""

    generation: int


class Link:
    """One connection after the other. The callbacks run on the link's thread, except `on_message`.

    `on_status` hears every change once. `on_connected` gets each new client before any question is asked.
    `on_message` (on the client's reading thread) gets what no request asked for, with the generation of its
    connection. `on_gave_up` hears that no server could be had, after the questions that waited were failed; the
    link then looks again by itself, and starts a server again only after `nudge`.
    """

    def __init__(
        self,
        info: ClientInfo,
        on_status: Callable[[ConnectionChanged], None],
        on_connected: Callable[[Client], None],
        on_message: Callable[[int, Message], None],
        on_gave_up: Callable[[ImpastoError], None],
        *,
        home: Optional[Path] = None,
        start_server: bool = True,
    ) -> None:
        self._info = info
        self._on_status = on_status
        self._on_connected = on_connected
        self._on_message = on_message
        self._on_gave_up = on_gave_up
        self._home = home
        self._start_server = start_server
        self._lock = threading.Lock()
        self._client: Optional[Client] = None
        self._generation = 0
        self._status_told = ConnectionChanged("")
        self._may_start = start_server
        self._wanted = True
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._questions: queue.SimpleQueue[Union[_Question, _Lost, _Anew, None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="impasto-control", daemon=True)

    # ---- for its owner, from any thread

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def stop(self) -> None:
        """Close the connection and end the thread, without waiting for it."""
        self._stopping.set()
        self._wake.set()
        self._questions.put(None)

    def join(self, timeout: float) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def client(self) -> Optional[Client]:
        """The connected client, if any."""
        return self._client

    def client_of(self, generation: int) -> Optional[Client]:
        """The client, if it is still the one of that generation."""
        with self._lock:
            return self._client if generation == self._generation else None

    def ask(self, ask: Callable[[Client], None], fail: Callable[[ImpastoError], None]) -> None:
        """Run `ask` on the link's thread as soon as there is a client; `fail` where it raises or none can be had."""
        self._questions.put(_Question(ask, fail))

    def nudge(self) -> None:
        """The painter wants something: worth starting a server and connecting at once."""
        with self._lock:
            self._may_start = self._start_server
            self._wanted = True
        self._wake.set()

    def reconnect(self) -> None:
        """Another server is in use now: leave the present one, whose jobs go on, and connect to that."""
        with self._lock:
            if self._client is not None:
                self._questions.put(_Anew(self._generation))
        self.nudge()

    # ---- its thread

    def _run(self) -> None:
        delay = _FIRST_DELAY
        while not self._stopping.is_set():
            client = self._connect()
            if client is not None:
                since = time.monotonic()
                self._serve(client)
                client.close()
                if time.monotonic() - since > _STABLE_SECONDS:
                    delay = _FIRST_DELAY
            self._wake.wait(delay)
            self._wake.clear()
            delay = min(2 * delay, _LONGEST_DELAY)

    def _connect(self) -> Optional[Client]:
        with self._lock:
            wanted, self._wanted = self._wanted, False
            start, self._may_start = self._may_start, False
            self._generation += 1
            generation = self._generation
        try:
            client = connect_or_start(
                self._info,
                lambda message: self._on_message(generation, message),
                lambda error: self._questions.put(_Lost(generation, error)),
                home=self._home,
                start=start,
                on_status=self._tell if wanted else None,
                stop=self._stopping,
            )
        except ImpastoError as error:
            # A silent look for a server that someone else started is no news when there is still none.
            if wanted or error.code != "resource.server_start":
                self._tell("failed", error.message)
            self._fail_questions(error)
            self._on_gave_up(error)
            return None
        with self._lock:
            self._client = client
        server = client.welcome.server
        self._tell("connected", "", f"{server.name} {server.version} ({server.device})", client.place)
        return client

    def _serve(self, client: Client) -> None:
        """Answer questions until the connection ends."""
        self._on_connected(client)
        while not self._stopping.is_set():
            question = self._questions.get()
            if isinstance(question, _Question):
                self._answer(client, question)
            elif question is None or question.generation != self._generation:
                continue
            elif isinstance(question, _Lost):
                self._lost(question.error)
                return
            else:
                self._leave()
                return

    def _leave(self) -> None:
        with self._lock:
            self._client = None
            self._may_start = self._start_server
            self._wanted = True
        self._wake.set()

    def _lost(self, error: ImpastoError) -> None:
        told_to_stop = error.data.get("close_code") == GOING_AWAY
        with self._lock:
            self._client = None
            # A server that was told to stop is not started again behind its owner's back.
            self._may_start = self._start_server and not told_to_stop
            self._wanted = not told_to_stop
        self._tell("lost", "The Impasto server was stopped." if told_to_stop else error.message)

    def _answer(self, client: Client, question: _Question) -> None:
        try:
            question.ask(client)
        except ImpastoError as error:
            question.fail(error)
        except Exception as defect:
            _log.exception("a defect of Impasto's client")
            question.fail(internal_error(defect))

    def _fail_questions(self, error: ImpastoError) -> None:
        while True:
            try:
                question = self._questions.get_nowait()
            except queue.Empty:
                return
            if isinstance(question, _Question):
                question.fail(error)

    def _tell(self, state: str, message: str, server: str = "", place: str = "") -> None:
        status = ConnectionChanged(state, message, server, place)
        if status != self._status_told:
            self._status_told = status
            self._on_status(status)


def internal_error(defect: Exception) -> InternalError:
    """A defect of the client as an error that can be shown; log the defect itself."""
    return InternalError(
        "internal.failure", f"A defect of Impasto's plug-in: {type(defect).__name__}: {defect}. Please report it."
    )
