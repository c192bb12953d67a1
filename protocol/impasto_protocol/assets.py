"""Messages about buffers: pictures there by their digest, or to be named by the server, and results back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional, Tuple

from .images import Buffer
from .parts import DIGEST, UINT, Message

__all__ = ["Data", "Get", "Have", "HaveOk", "Put", "PutNew", "PutNewOk", "PutOk"]


# ---- client -> server


@dataclass(frozen=True)
class Have(Message):
    TYPE = "have"
    id: int = field(metadata=UINT)
    assets: Tuple[str, ...] = field(metadata=DIGEST)


@dataclass(frozen=True)
class Put(Message):
    """One chunk of `size` bytes in all; chunks of a digest come in order, without gaps."""

    TYPE = "put"
    digest: str = field(metadata=DIGEST)
    size: int = field(metadata=UINT)
    offset: int = field(metadata=UINT)
    data: Buffer


@dataclass(frozen=True)
class PutNew(Message):
    """One chunk of `size` bytes in all, of a buffer that the server is to name: whole, it is answered with its digest.

    All chunks of a buffer have the same `id`.
    """

    TYPE = "put_new"
    id: int = field(metadata=UINT)
    size: int = field(metadata=UINT)
    offset: int = field(metadata=UINT)
    data: Buffer


@dataclass(frozen=True)
class Get(Message):
    TYPE = "get"
    id: int = field(metadata=UINT)
    digest: str = field(metadata=DIGEST)
    offset: int = field(metadata=UINT)
    length: int = field(metadata=UINT)


# ---- server -> client


@dataclass(frozen=True)
class HaveOk(Message):
    TYPE = "have_ok"
    id: int = field(metadata=UINT)
    missing: Tuple[str, ...] = field(metadata=DIGEST)


@dataclass(frozen=True)
class PutOk(Message):
    """`received` bytes of `digest` have arrived."""

    TYPE = "put_ok"
    digest: str = field(metadata=DIGEST)
    received: int = field(metadata=UINT)


@dataclass(frozen=True)
class PutNewOk(Message):
    """`received` bytes have arrived; once they are all, `digest` is the name of the buffer."""

    TYPE = "put_new_ok"
    id: int = field(metadata=UINT)
    received: int = field(metadata=UINT)
    digest: Optional[str] = field(default=None, metadata=DIGEST)


@dataclass(frozen=True)
class Data(Message):
    """A piece of `digest`, whose whole is `size` bytes."""

    TYPE = "data"
    id: int = field(metadata=UINT)
    digest: str = field(metadata=DIGEST)
    offset: int = field(metadata=UINT)
    size: int = field(metadata=UINT)
    data: Buffer
