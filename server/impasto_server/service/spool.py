"""Pixels that change hands in files, where a client has proved that it sees the server's own file system.

Every file is made, named and removed here, so that a name from a client is only ever looked up, never opened. Nothing
is mapped: a peer that cuts a mapped file short would kill whoever reads it (SIGBUS), while `read` and `write` come back
with fewer bytes, and over pages that are in memory they cost the same copy. A file is used again for the next
picture of its connection, under the next generation: its pages are there already.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import io
import logging
import os
import secrets
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path

from impasto_protocol.errors import AssetError, ProtocolError, ResourceError
from impasto_protocol.images import Buffer
from impasto_protocol.messages import PROOF_BYTES, SpoolInfo

__all__ = ["Line", "Spool", "SpoolFile"]

log = logging.getLogger("impasto.spool")

_FILES = 64
"""Files of a connection at a time."""

_KEPT_FILES, _KEPT_BYTES, _KEPT_SECONDS = 4, 256 << 20, 300.0
"""What a connection may keep for its next pictures while nobody uses it."""

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL
_FLAGS |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@dataclass(eq=False)
class SpoolFile:
    """The first `size` bytes of a file; `digest` is what a submit calls them. Reads and writes may be in any thread."""

    line: Line
    path: Path
    file: io.FileIO
    capacity: int
    generation: int = 0
    size: int = 0
    digest: str = ""
    _moving: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        return self.path.name

    def __len__(self) -> int:
        return self.size

    def read(self) -> bytes:
        """All bytes. Raises AssetError `asset.missing` where the file was cut short meanwhile."""
        with self._moving:
            try:
                self.file.seek(0)
                data = self.file.read(self.size)
            except (OSError, ValueError) as e:
                raise self._spoilt() from e
        if data is None or len(data) != self.size:
            raise self._spoilt()
        return data

    def write(self, data: Buffer) -> None:
        """Put these bytes at the beginning. Raises ResourceError `resource.disk_full`."""
        view = memoryview(data)
        try:
            with self._moving:
                self.file.seek(0)
                at = 0
                while at < len(view):
                    at += self.file.write(view[at:]) or 0
        except (OSError, ValueError) as e:
            raise ResourceError(
                "resource.disk_full",
                f"The result could not be put into {self.path.parent} ({e}); fetch it over the connection.",
                retryable=True,
            ) from e

    def check(self) -> None:
        """Raise AssetError `asset.missing` unless this still is the file of its name, and long enough."""
        try:
            here, there = os.fstat(self.file.fileno()), os.stat(self.path, follow_symlinks=False)
        except OSError as e:
            raise self._spoilt() from e
        same = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
        if not (same and stat.S_ISREG(there.st_mode) and here.st_size >= self.size):
            raise self._spoilt()

    def let_go(self) -> None:
        """Nobody needs the bytes any more."""
        self.line.take_back(self)

    def _spoilt(self) -> AssetError:
        return AssetError(
            "asset.missing",
            "The spool file of this picture was replaced or cut short; send the picture again.",
            retryable=True,
            data={"digests": [self.digest]},
        )


class Spool:
    """The folder, 0700; None keeps none. All but the files' reads and writes belongs to the event loop."""

    def __init__(self, folder: Path | None, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        """Bytes of all files together."""
        self.ready = False
        self._lines: set[Line] = set()

    def open(self) -> None:
        """Make the folder, and clear away what an earlier server left. Where that fails the sockets do all the work."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = os.lstat(self.folder)
            if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
                raise OSError("it is no folder of this user's")
            os.chmod(self.folder, 0o700)
            self._clear(self.folder)
            self.ready = True
        except OSError as e:
            log.error("the spool in %s cannot be used, pixels go through the sockets: %s", self.folder, e)

    def close(self) -> None:
        """End all lines and leave an empty folder."""
        for line in tuple(self._lines):
            line.close()
        if self.ready and self.folder is not None:
            self.ready = False
            self._clear(self.folder)

    def line(self, limit: int) -> Line:
        """For one connection, which may have `limit` bytes in files at a time."""
        line = Line(self, limit)
        self._lines.add(line)
        return line

    @property
    def byte_count(self) -> int:
        return sum(line.byte_count for line in self._lines)

    def forget(self, line: Line) -> None:
        self._lines.discard(line)

    def make(self, line: Line, size: int) -> SpoolFile:
        """A new file. Raises ResourceError `resource.no_spool` or `resource.disk_full`."""
        if self.byte_count + size > self.limit:
            for other in self._lines:
                other.trim(0)
        if self.byte_count + size > self.limit:
            raise no_spool("The spool is full")
        assert self.folder is not None
        path = self.folder / secrets.token_hex(8)
        try:
            file = io.FileIO(os.open(path, _FLAGS, 0o600), "r+")
        except OSError as e:
            raise _disk_full(path.parent, e) from e
        try:
            file.truncate(size)
        except OSError as e:
            remove(path, file)
            raise _disk_full(path.parent, e) from e
        return SpoolFile(line, path, file, size)

    @staticmethod
    def _clear(folder: Path) -> None:
        for entry in os.scandir(folder):
            if not entry.is_dir(follow_symlinks=False):
                try:
                    os.unlink(entry.path)
                except OSError as e:
                    log.warning("%s stays in the spool: %s", entry.name, e)


class Line:
    """The files of one connection."""

    def __init__(self, spool: Spool, limit: int) -> None:
        self.spool = spool
        self.limit = limit
        self.proved = False
        self.closed = False
        self._probe: tuple[Path, io.FileIO, bytes] | None = None
        self._files: dict[str, SpoolFile] = {}
        """All that are in use: being written, filled, or lent to the client."""
        self._rooms: set[str] = set()
        self._lent: set[str] = set()
        self._free: list[SpoolFile] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def byte_count(self) -> int:
        return sum(file.capacity for file in (*self._files.values(), *self._free))

    def offer(self) -> SpoolInfo | None:
        """What the welcome says: the folder, and a file that tells whether the client sees it too."""
        if not self.spool.ready or self.spool.folder is None:
            return None
        path, secret = self.spool.folder / secrets.token_hex(8), secrets.token_bytes(PROOF_BYTES)
        try:
            file = io.FileIO(os.open(path, _FLAGS, 0o600), "r+")
        except OSError as e:
            log.warning("the spool is not offered: %s", e)
            return None
        self._probe = (path, file, secret)
        try:
            file.write(secret + bytes(PROOF_BYTES))
        except OSError as e:
            log.warning("the spool is not offered: %s", e)
            self._drop_probe()
            return None
        return SpoolInfo(str(self.spool.folder), path.name)

    def prove(self, read: bytes, wrote: bytes) -> None:
        """The client read the probe and wrote into it. Raises ResourceError `resource.no_spool` where it did not."""
        probe, ours = self._probe, b""
        if probe is not None:
            with contextlib.suppress(OSError):
                probe[1].seek(PROOF_BYTES)
                ours = probe[1].read(PROOF_BYTES) or b""
        self._drop_probe()
        known = probe is not None and hmac.compare_digest(probe[2], bytes(read))
        written = len(ours) == PROOF_BYTES and any(ours) and hmac.compare_digest(ours, bytes(wrote))
        if not (known and written):
            raise no_spool("Client and server do not see the same files")
        self.proved = True

    def room(self, size: int) -> SpoolFile:
        """A file for a picture that the client will write.

        Raises AssetError `asset.too_large`, ResourceError `resource.no_spool` or `resource.disk_full`.
        """
        if size < 1:
            raise ProtocolError("protocol.bad_message", "The room is for no bytes; ask for one at least.", path="size")
        file = self._take(size)
        file.digest = secrets.token_hex(16)
        self._rooms.add(file.name)
        return file

    def filled(self, name: str, generation: int) -> SpoolFile:
        """The file that the client has written, to be kept under its `digest` until `let_go`.

        Raises AssetError `asset.missing` where there is no such room, or where the file is not the one that was made.
        """
        file = self._files.get(name)
        if file is None or name not in self._rooms or file.generation != generation:
            raise AssetError(
                "asset.missing",
                "The server gave no such spool file to be filled (any more); ask for room again.",
                retryable=True,
                path="name",
            )
        self._rooms.discard(name)
        try:
            file.check()
        except AssetError:
            self._remove(file)  # not to be used again
            raise
        return file

    async def lend(self, data: Buffer) -> SpoolFile:
        """A file with these bytes, for the client to read until it releases it. Raises as `room` does."""
        file = self._take(len(data))
        self._lent.add(file.name)
        try:
            await asyncio.to_thread(file.write, data)
        except ResourceError:
            self._remove(file)
            raise
        return file

    def release(self, name: str, generation: int) -> str | None:
        """The client has read a file, or will not fill it; nothing where it has released it already.

        The digest of one that was filled, whose picture no job will need on the client's account.
        """
        file = self._files.get(name)
        if file is None or file.generation != generation:
            return None
        if name not in self._rooms | self._lent:
            return file.digest
        self.take_back(file)
        return None

    def take_back(self, file: SpoolFile) -> None:
        """For the next picture of this connection, whose client writes this one no more."""
        if self._files.get(file.name) is not file:
            return
        if self.closed:
            self._remove(file)
            return
        self._leave(file)
        self._free.append(file)
        self.trim(_KEPT_FILES, _KEPT_BYTES)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_KEPT_SECONDS, self.trim, 0)

    def trim(self, files: int, size: int = 0) -> None:
        """Keep at most this many files and bytes that nobody uses."""
        while self._free and (len(self._free) > files or sum(f.capacity for f in self._free) > size):
            file = self._free.pop(0)
            remove(file.path, file.file)

    def close(self) -> None:
        """The connection is gone: only what a job needs stays until the job ends. May be repeated."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._drop_probe()
        self.trim(0)
        for name in self._rooms | self._lent:
            self._remove(self._files[name])
        self._forget_if_done()

    def _take(self, size: int) -> SpoolFile:
        if not self.proved or self.closed:
            raise no_spool("This client has not proved that it sees the server's files")
        if size > self.limit:
            raise AssetError(
                "asset.too_large",
                f"A picture of {size} bytes is above the limit of {self.limit}; send a smaller box.",
                path="size",
                data={"limit": self.limit},
            )
        used = sum(file.capacity for file in self._files.values())
        if len(self._files) >= _FILES or used + size > self.limit:
            raise no_spool("This client uses too many spool files at once")
        file = self._fitting(size) or self.spool.make(self, size)
        file.generation += 1
        file.size = size
        self._files[file.name] = file
        return file

    def _fitting(self, size: int) -> SpoolFile | None:
        """A file that was used before and still is what it was."""
        for file in sorted(self._free, key=lambda file: file.capacity):
            if size <= file.capacity <= 2 * size:
                self._free.remove(file)
                file.size = file.capacity
                try:
                    file.check()
                except AssetError:
                    remove(file.path, file.file)
                else:
                    return file
        return None

    def _leave(self, file: SpoolFile) -> None:
        self._files.pop(file.name, None)
        self._rooms.discard(file.name)
        self._lent.discard(file.name)

    def _remove(self, file: SpoolFile) -> None:
        self._leave(file)
        remove(file.path, file.file)
        self._forget_if_done()

    def _forget_if_done(self) -> None:
        if self.closed and not self._files:
            self.spool.forget(self)

    def _drop_probe(self) -> None:
        if self._probe is not None:
            remove(self._probe[0], self._probe[1])
            self._probe = None


def remove(path: Path, file: io.FileIO) -> None:
    """Close and unlink; what Windows will not unlink while a client has it open goes with the next start."""
    file.close()
    try:
        path.unlink(missing_ok=True)
    except OSError as e:
        log.warning("the spool file %s stays until the next start: %s", path.name, e)


def no_spool(why: str) -> ResourceError:
    return ResourceError("resource.no_spool", f"{why}; send and fetch pixels over the connection.")


def _disk_full(folder: Path, error: OSError) -> ResourceError:
    return ResourceError(
        "resource.disk_full",
        f"No file could be made in {folder} ({error.strerror}); send the pixels over the connection.",
        retryable=True,
    )
