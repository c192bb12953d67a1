"""Pictures by their content address, in memory, with a byte budget: uploads and results.

What a waiting or running job needs is pinned; of the rest the least recently used goes first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable

from impasto_protocol.errors import AssetError, ResourceError
from impasto_protocol.images import Buffer, digest_of

from .spool import Line, SpoolFile

__all__ = ["Blobs", "Held", "bytes_of"]

Held = Buffer | SpoolFile
"""A picture in memory, or in a file that a client has filled."""


def bytes_of(held: Held) -> Buffer:
    """The bytes; those of a file are read. Raises AssetError `asset.missing` for a file that was spoilt."""
    return held.read() if isinstance(held, SpoolFile) else held


class Blobs:
    """A store of immutable buffers; not thread-safe, it belongs to the event loop."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._data: OrderedDict[str, Held] = OrderedDict()
        self._pins: Counter[str] = Counter()
        self._bytes = 0

    def __contains__(self, digest: str) -> bool:
        return digest in self._data

    @property
    def byte_count(self) -> int:
        return self._bytes

    def add(self, data: Held, digest: str | None = None) -> str:
        """Keep `data` (its digest may be known already) and give its digest.

        Raises ResourceError `resource.out_of_memory` where pinned pictures fill the budget.
        """
        name = digest_of(bytes_of(data)) if digest is None else digest
        if name in self._data:
            self._data.move_to_end(name)
            return name
        self._make_room(len(data))
        self._data[name] = data
        self._bytes += len(data)
        return name

    def get(self, digest: str) -> Held:
        """The buffer, now the most recently used. Raises AssetError `asset.missing`."""
        if digest not in self._data:
            raise AssetError(
                "asset.missing",
                "The server does not have this picture (any more); send it again.",
                retryable=True,
                data={"digests": [digest]},
            )
        self._data.move_to_end(digest)
        return self._data[digest]

    def peek(self, digests: Iterable[str]) -> dict[str, Held]:
        """Those of them that are here."""
        return {digest: self._data[digest] for digest in digests if digest in self._data}

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those that are not here; the others count as used, so that they are not the next to go."""
        absent = []
        for digest in digests:
            if digest in self._data:
                self._data.move_to_end(digest)
            else:
                absent.append(digest)
        return absent

    def pin(self, digests: Iterable[str]) -> None:
        """Keep these until they are unpinned as often."""
        self._pins.update(digests)

    def unpin(self, digests: Iterable[str]) -> None:
        self._pins.subtract(digests)
        self._pins = +self._pins

    def files(self, digests: Iterable[str]) -> list[str]:
        """Those of them that are in files."""
        return [digest for digest in digests if isinstance(self._data.get(digest), SpoolFile)]

    def drop_files(self, digests: Iterable[str]) -> None:
        """Let go of those that are files and not pinned: no other client can ask for them, as they have no hash."""
        for digest in self.files(digests):
            if digest not in self._pins:
                self._drop(digest)

    def drop_files_of(self, line: Line) -> None:
        """The same for all that a connection has filled."""
        self.drop_files([name for name, held in self._data.items() if getattr(held, "line", None) is line])

    def _drop(self, digest: str) -> None:
        held = self._data.pop(digest)
        self._bytes -= len(held)
        if isinstance(held, SpoolFile):
            held.let_go()

    def _make_room(self, size: int) -> None:
        if self._bytes + size <= self.budget:
            return
        for name in [name for name in self._data if name not in self._pins]:
            self._drop(name)
            if self._bytes + size <= self.budget:
                return
        raise ResourceError(
            "resource.out_of_memory",
            f"The pictures of waiting jobs fill the server's {self.budget >> 20} MB; wait for a job to end, "
            "or send a smaller region.",
            retryable=True,
            data={"needed": size, "free": max(0, self.budget - self._bytes)},
        )
