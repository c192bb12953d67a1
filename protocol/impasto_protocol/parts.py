"""What messages are made of: ids and their rules, pictures, wishes, errors as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, Optional

from .errors import ImpastoError
from .geometry import Box
from .wire import to_map

__all__ = [
    "DIGEST",
    "DIGEST_PATTERN",
    "FILE",
    "JOB",
    "JOB_PATTERN",
    "PROOF_BYTES",
    "UINT",
    "ChainLink",
    "ClientInfo",
    "ErrorInfo",
    "HistoryEntry",
    "InputPicture",
    "JobEntry",
    "Message",
    "PreviewWish",
    "ServerInfo",
    "SpoolInfo",
]

JOB_PATTERN = r"[0-9A-Za-z_-]{1,64}"
"""A job id is chosen by the client (a UUID in hex is right); these characters are safe in any file name."""
DIGEST_PATTERN = r"[0-9a-f]{32}"
PROOF_BYTES = 32
"""Bytes of each half of a probe."""

UINT = {"minimum": 0}
JOB = {"pattern": JOB_PATTERN, "need": "a job id of 1 to 64 letters, digits, - and _"}
FILE = {"pattern": r"[0-9a-z]{1,64}", "need": "the name of a spool file, letters a to z and digits"}
DIGEST = {"pattern": DIGEST_PATTERN, "need": "a digest of 32 lowercase hex digits"}


@dataclass(frozen=True)
class Message:
    """What every message can do. `TYPE` is the field `type` on the wire."""

    TYPE: ClassVar[str] = ""

    def to_wire(self) -> Dict[str, Any]:
        """The plain map for the codec; fields that are None are left out."""
        fields = {"type": self.TYPE}
        fields.update(to_map(self))
        return fields


@dataclass(frozen=True)
class ChainLink:
    """What follows a job, over the picture that it made: of several that with the index `pick`, counted from 0."""

    mode: str
    params: Dict[str, Any] = field(default_factory=dict)
    pick: int = field(default=0, metadata=UINT)


@dataclass(frozen=True)
class ClientInfo:
    """Who connects: program and version, and the editor around it ("krita 5.2.9")."""

    name: str
    version: str
    host: str = ""


@dataclass(frozen=True)
class ServerInfo:
    """Who answers. `device` is what jobs run on, in words."""

    name: str
    version: str
    device: str = ""


@dataclass(frozen=True)
class SpoolInfo:
    """Where the server's spool files lie, and the one by which a client proves that it sees the same ones.

    The probe is a file of 2 x PROOF_BYTES: the first half is to be read, the second to be written.
    """

    folder: str
    probe: str = field(metadata=FILE)


@dataclass(frozen=True)
class InputPicture:
    """A picture or mask of a job: the digest of its bytes, what they are, and where its top left corner lies."""

    digest: str = field(metadata=DIGEST)
    width: int = field(metadata=UINT)
    height: int = field(metadata=UINT)
    format: str
    x: int = 0
    y: int = 0


@dataclass(frozen=True)
class PreviewWish:
    """Previews of at most `max_size` pixels on the longer side, at most one every `interval_ms`."""

    max_size: int = field(default=256, metadata={"minimum": 1})
    interval_ms: int = field(default=0, metadata=UINT)


@dataclass(frozen=True)
class JobEntry:
    """One job in the answer to `jobs`. `created` is seconds since 1970."""

    job: str = field(metadata=JOB)
    state: str
    mode: str
    created: float
    last_seq: int = field(metadata=UINT)


@dataclass(frozen=True)
class HistoryEntry:
    """One kept result. `created` is seconds since 1970; `info` is the recipe, where it was asked for."""

    job: str = field(metadata=JOB)
    index: int = field(metadata=UINT)
    created: float
    digest: str = field(metadata=DIGEST)
    width: int = field(metadata=UINT)
    height: int = field(metadata=UINT)
    format: str
    placement: Box
    name: str
    mode: str
    stage: str
    alpha: str
    seed: int
    starred: bool = False
    info: Optional[Dict[str, Any]] = None


@dataclass(frozen=True)
class ErrorInfo:
    """An error as data."""

    code: str
    message: str
    retryable: bool = False
    path: Optional[str] = None
    data: Optional[Dict[str, Any]] = None

    @staticmethod
    def of(error: ImpastoError) -> ErrorInfo:
        return ErrorInfo(error.code, error.message, error.retryable, error.path, error.data or None)

    def exception(self) -> ImpastoError:
        return ImpastoError.from_wire(to_map(self))
