"""What a client sends of its pictures: copied as it comes, and hashed meanwhile in a thread of the connection's own."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from impasto_protocol.messages import Put, PutNew
from impasto_protocol.uploads import Uploads, UploadStep
from impasto_protocol.version import Limits

__all__ = ["Arrivals"]

_BIG = 256 << 10
"""Bytes from which a chunk is hashed in the thread: a smaller one is hashed sooner than handed over."""


class Arrivals:
    """The uploads of one connection; belongs to the event loop.

    A chunk is answered once it is copied, so that the next one is on its way while the thread hashes; the last one once
    all are hashed. At most `limits.window` chunks wait for the thread.
    """

    def __init__(self, limits: Limits) -> None:
        self.uploads = Uploads(limits)
        self._window = max(1, limits.window)
        self._behind: deque[asyncio.Future[None]] = deque()
        self._thread: ThreadPoolExecutor | None = None

    async def take(self, put: Put | PutNew) -> UploadStep:
        """Take one chunk; see `Uploads.add`."""
        if not self._behind and len(put.data) < _BIG:
            return self.uploads.add(put)
        upload = self.uploads.take(put)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "impasto-hash")
        update = asyncio.get_running_loop().run_in_executor(self._thread, upload.hash.update, put.data)
        self._behind.append(update)
        while len(self._behind) > (0 if upload.whole else self._window):
            await self._behind.popleft()
        if upload.whole:
            return self.uploads.finish(put, upload)
        return UploadStep(put.digest if isinstance(put, Put) else "", upload.received, None)

    def close(self) -> None:
        """The connection is over."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
