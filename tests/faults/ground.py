"""A server process that can be killed, and a client that follows its jobs through every loss."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from impasto_protocol.codec import decode, encode
from impasto_protocol.errors import ImpastoError
from impasto_protocol.home import read_endpoint
from impasto_protocol.images import digest_of
from impasto_protocol.messages import (
    SERVER_MESSAGES,
    Cancelled,
    ClientInfo,
    Data,
    Error,
    Failed,
    Finished,
    Get,
    Hello,
    Message,
    Output,
    Put,
    parse,
)
from impasto_protocol.version import PROTOCOL, SUBPROTOCOL, Limits
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.service.fakes import TOKEN

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TERMINAL = (Finished, Failed, Cancelled)
_WIDE = Limits(frame=64 << 20)


class Lost(Exception):
    """The connection is gone."""


def workers_of(server: int) -> list[int]:
    """The process ids of a server's workers (of Linux's /proc)."""
    found = []
    for task in Path(f"/proc/{server}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
            found += [c for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
        except OSError:
            continue  # it ended while we looked
    return found


def kill_workers(server: int) -> None:
    """None may be there at the moment."""
    for pid in workers_of(server):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Ground:
    """One folder, and the server process that lives in it at present."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.pids: list[int] = []

    async def start(self) -> None:
        path = [str(ROOT), str(ROOT / "protocol"), str(ROOT / "server")]
        with open(self.home / "stderr.txt", "ab") as log:
            argv = [sys.executable, str(HERE / "serve_faulty.py"), str(self.home), *path]
            self.process = subprocess.Popen(argv, stderr=log)
        self.pids.append(self.process.pid)
        deadline = time.monotonic() + 60
        while True:
            record = read_endpoint(self.home)
            if record is not None and record.pid == self.process.pid:
                self.port = record.port
                return
            assert self.process.poll() is None and time.monotonic() < deadline, (self.home / "stderr.txt").read_text()
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """The whole server at once; its worker hears of it by the end of the pipe."""
        assert self.process is not None
        self.pids += self.workers()
        self.process.kill()
        self.process.wait()

    def workers(self) -> list[int]:
        """The process ids of the present workers."""
        assert self.process is not None
        return workers_of(self.process.pid)

    async def stop(self) -> None:
        assert self.process is not None
        self.pids += self.workers()
        (self.home / "stop").touch()
        assert await asyncio.to_thread(self.process.wait, 30) == 0


class Book:
    """The lasting events of every job, as they were told; a repeated one must be the same."""

    def __init__(self) -> None:
        self.events: dict[str, list[Message]] = {}

    def note(self, event: Any) -> None:
        told = self.events.setdefault(event.job, [])
        if event.seq <= len(told):
            assert told[event.seq - 1] == event, (told[event.seq - 1], event)
            return
        assert event.seq == len(told) + 1, (told, event)
        assert not told or not isinstance(told[-1], TERMINAL), (told, event)
        told.append(event)

    def ended(self, job: str) -> bool:
        return bool(self.events.get(job)) and isinstance(self.events[job][-1], TERMINAL)

    def outputs(self) -> list[Output]:
        return [event for told in self.events.values() for event in told if isinstance(event, Output)]


class Line:
    """One connection; its events go into the book."""

    def __init__(self, socket: ClientConnection, book: Book) -> None:
        self.socket = socket
        self.book = book
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._put: asyncio.Queue[Message] = asyncio.Queue()
        self._defect: BaseException | None = None
        self._reader = asyncio.create_task(self._read())

    @staticmethod
    async def open(ground: Ground, book: Book) -> Line:
        url = f"ws://127.0.0.1:{ground.port}"
        try:
            socket = await connect(
                url,
                compression=None,
                proxy=None,
                max_size=64 << 20,
                subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
            )
            await socket.send(encode(Hello(PROTOCOL, ClientInfo("faults", "0"), TOKEN).to_wire()))
            await socket.recv()
        except (OSError, ConnectionClosed) as e:
            raise Lost from e
        return Line(socket, book)

    async def _read(self) -> None:
        try:
            while True:
                message = parse(decode(await self.socket.recv(), _WIDE), SERVER_MESSAGES)
                number = getattr(message, "id", None)
                if number is not None:
                    self._waiting.pop(number).set_result(message)
                elif hasattr(message, "seq"):
                    self.book.note(message)
                elif message.TYPE in ("put_ok", "error"):
                    self._put.put_nowait(message)
        except ConnectionClosed:
            pass
        except (AssertionError, ImpastoError, KeyError) as e:
            self._defect = e
        for waiting in self._waiting.values():
            waiting.set_exception(Lost())

    async def ask(self, kind: Any, *args: Any, **fields: Any) -> Any:
        """The answer, also where it is an error. Raises Lost."""
        self.check()
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        if self._reader.done():
            raise Lost
        try:
            await self.socket.send(encode(kind(number, *args, **fields).to_wire()))
        except ConnectionClosed as e:
            raise Lost from e
        return await asyncio.wait_for(answer, 30)

    async def upload(self, data: bytes) -> str:
        """Small buffers only: one chunk."""
        digest = digest_of(data)
        try:
            await self.socket.send(encode(Put(digest, len(data), 0, data).to_wire()))
        except ConnectionClosed as e:
            raise Lost from e
        got = asyncio.create_task(self._put.get())
        await asyncio.wait([got, self._reader], return_when=asyncio.FIRST_COMPLETED, timeout=30)
        if not got.done():
            got.cancel()
            raise Lost
        assert not isinstance(got.result(), Error), got.result()
        return digest

    async def fetch(self, output: Output) -> bytes:
        piece = await self.ask(Get, output.digest, 0, Limits().chunk)
        assert isinstance(piece, Data) and len(piece.data) == piece.size, piece
        return bytes(piece.data)

    def check(self) -> None:
        """Raise what the reader found wrong."""
        if self._defect is not None:
            raise AssertionError("the events were not right") from self._defect

    async def drop(self) -> None:
        """Without a goodbye."""
        self.socket.transport.abort()
        await self._reader
        self.check()
