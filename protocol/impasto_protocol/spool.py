"""Messages about the spool: files in which pixels change hands where client and server see the same file system.

All files are the server's: it makes them, names them and removes them. A client proves first that it reads and writes
the very files that the server does (`Share`), and names a file afterwards only by what the server told it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .images import Buffer
from .parts import DIGEST, FILE, PROOF_BYTES, UINT, Message

__all__ = ["PROOF_BYTES", "File", "Filled", "GetFile", "Release", "Room", "RoomOk", "Share"]


# ---- client -> server


@dataclass(frozen=True)
class Share(Message):
    """The proof: what the client has read in the probe's first half, and what it has written into the second."""

    TYPE = "share"
    id: int = field(metadata=UINT)
    read: Buffer
    wrote: Buffer


@dataclass(frozen=True)
class Room(Message):
    """A file for `size` bytes, to be written by the client."""

    TYPE = "room"
    id: int = field(metadata=UINT)
    size: int = field(metadata=UINT)


@dataclass(frozen=True)
class Filled(Message):
    """The client has written all bytes of this file and writes no more."""

    TYPE = "filled"
    id: int = field(metadata=UINT)
    name: str = field(metadata=FILE)
    generation: int = field(metadata=UINT)


@dataclass(frozen=True)
class GetFile(Message):
    """The bytes of `digest` in a file, to be read by the client."""

    TYPE = "get_file"
    id: int = field(metadata=UINT)
    digest: str = field(metadata=DIGEST)


@dataclass(frozen=True)
class Release(Message):
    """The client has done with a file that it was to write or to read."""

    TYPE = "release"
    id: int = field(metadata=UINT)
    name: str = field(metadata=FILE)
    generation: int = field(metadata=UINT)


# ---- server -> client


@dataclass(frozen=True)
class RoomOk(Message):
    """`digest` is what a submit calls the picture once it is filled: a name of a digest's form, not a hash."""

    TYPE = "room_ok"
    id: int = field(metadata=UINT)
    name: str = field(metadata=FILE)
    generation: int = field(metadata=UINT)
    digest: str = field(metadata=DIGEST)


@dataclass(frozen=True)
class File(Message):
    """The first `size` bytes of the file are those of `digest`, until the client releases it."""

    TYPE = "file"
    id: int = field(metadata=UINT)
    digest: str = field(metadata=DIGEST)
    name: str = field(metadata=FILE)
    generation: int = field(metadata=UINT)
    size: int = field(metadata=UINT)
