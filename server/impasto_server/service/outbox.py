"""What waits to be sent to one client: answers and lasting events in order, the latest progress, position and preview.

A client that reads slowly misses previews first, then steps of progress and positions, never anything else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from impasto_protocol.messages import Cancelled, Failed, Finished, Message, Position, Preview, Progress, Started

__all__ = ["Outbox"]


class _Slot(NamedTuple):
    job: str
    kind: str


class Outbox:
    """A queue of frames with `room` bytes before requests have to wait; belongs to the event loop."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._lasting: deque[bytes] = deque()
        self._bytes = 0
        self._latest: dict[_Slot, bytes] = {}
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    def put(self, message: Message, frame: bytes) -> None:
        """Add a message; never waits."""
        if isinstance(message, Progress | Preview | Position):
            slot = _Slot(message.job, message.TYPE)
            # The latest goes to the end, so that no job starves another.
            self._latest.pop(slot, None)
            self._latest[slot] = frame
        else:
            if isinstance(message, Finished | Failed | Cancelled | Started):
                for kind in (Progress.TYPE, Preview.TYPE, Position.TYPE):
                    self._latest.pop(_Slot(message.job, kind), None)
            self._lasting.append(frame)
            self._bytes += len(frame)
            if self._bytes > self._room:
                self._drained.clear()
        self._filled.set()

    async def get(self) -> bytes:
        """The next frame: lasting ones first, previews last."""
        while not self._lasting and not self._latest:
            self._filled.clear()
            await self._filled.wait()
        if self._lasting:
            frame = self._lasting.popleft()
            self._bytes -= len(frame)
            if self._bytes <= self._room:
                self._drained.set()
            return frame
        slot = next((s for s in self._latest if s.kind != Preview.TYPE), None) or next(iter(self._latest))
        return self._latest.pop(slot)

    async def has_room(self) -> None:
        """Wait until the client has read enough for the next answer."""
        await self._drained.wait()

    @property
    def empty(self) -> bool:
        return not self._lasting and not self._latest
