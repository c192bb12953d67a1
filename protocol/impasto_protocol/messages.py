"""The messages of the wire, one frozen dataclass each; SPEC.md tells what each one means and when it is sent.

A message type may exist in both directions with other fields (`catalog`), so `parse` is told which table holds:
`CLIENT_MESSAGES` are those that a client sends, `SERVER_MESSAGES` those that a server sends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple, Type

from . import pairing
from .assets import Data, Get, Have, HaveOk, Put, PutNew, PutNewOk, PutOk
from .diagnosis import Doctor, DoctorOk
from .errors import ImpastoError, ProtocolError
from .geometry import Box, Size
from .lists import PAGE, PAGE_LIMIT, History, HistoryOk, ModelsOk, ModelsRequest, Star, Word, WordsOk, WordsRequest
from .parts import (
    DIGEST,
    DIGEST_PATTERN,
    JOB,
    JOB_PATTERN,
    UINT,
    ChainLink,
    ClientInfo,
    ErrorInfo,
    HistoryEntry,
    InputPicture,
    JobEntry,
    Message,
    PreviewWish,
    ServerInfo,
    SpoolInfo,
)
from .reading import Further, ParameterNote, Parameters, ReadParameters
from .schema import Mode
from .spool import PROOF_BYTES, File, Filled, GetFile, Release, Room, RoomOk, Share
from .version import Limits
from .wire import from_map, to_map

__all__ = [
    "CLIENT_MESSAGES",
    "DIGEST_PATTERN",
    "JOB_PATTERN",
    "PAGE",
    "PAGE_LIMIT",
    "PROOF_BYTES",
    "SERVER_MESSAGES",
    "Accepted",
    "Attach",
    "Cancel",
    "Cancelled",
    "Catalog",
    "CatalogChanged",
    "CatalogRequest",
    "ChainLink",
    "ClientInfo",
    "Data",
    "Doctor",
    "DoctorOk",
    "Error",
    "ErrorInfo",
    "Failed",
    "File",
    "Filled",
    "Finished",
    "Free",
    "Further",
    "Get",
    "GetFile",
    "Have",
    "HaveOk",
    "Hello",
    "History",
    "HistoryEntry",
    "HistoryOk",
    "InputPicture",
    "JobEntry",
    "Jobs",
    "JobsOk",
    "Message",
    "ModelsOk",
    "ModelsRequest",
    "NotModified",
    "Ok",
    "Output",
    "ParameterNote",
    "Parameters",
    "Plan",
    "PlanOk",
    "Position",
    "Preview",
    "PreviewWish",
    "Progress",
    "Put",
    "PutNew",
    "PutNewOk",
    "PutOk",
    "Queued",
    "ReadParameters",
    "Release",
    "Room",
    "RoomOk",
    "ServerInfo",
    "Share",
    "Shutdown",
    "SpoolInfo",
    "Star",
    "Started",
    "Submit",
    "Welcome",
    "Word",
    "WordsOk",
    "WordsRequest",
    "parse",
]


# ---- client -> server


@dataclass(frozen=True)
class Hello(Message):
    TYPE = "hello"
    protocol: Tuple[int, int] = field(metadata=UINT)
    client: ClientInfo
    token: str = ""


@dataclass(frozen=True)
class CatalogRequest(Message):
    """`rev` is the revision that the client has; the same one is answered with `not_modified`."""

    TYPE = "catalog"
    id: int = field(metadata=UINT)
    rev: Optional[str] = None


@dataclass(frozen=True)
class Plan(Message):
    """What would this job need? `selection` holds the bounds of the mask, in document pixels."""

    TYPE = "plan"
    id: int = field(metadata=UINT)
    mode: str
    params: Dict[str, Any]
    canvas: Size
    selection: Optional[Box] = None


@dataclass(frozen=True)
class Submit(Message):
    """A job. `box` is where the result belongs that is made without a picture; None is the whole canvas.

    `on_disconnect` "cancel" ends the job when no connection follows it any more. `priority` "front" puts it before all
    that wait. `replaces` names a job that is cancelled in the same moment if it still waits; this one takes its place.
    `then` are the links of a chain, maps of `mode`, `params` and `pick`, each over the picture of the one before.
    """

    TYPE = "submit"
    id: int = field(metadata=UINT)
    job: str = field(metadata=JOB)
    mode: str
    params: Dict[str, Any]
    canvas: Size
    inputs: Dict[str, InputPicture] = field(default_factory=dict)
    output_format: str = "rgba8"
    preview: Optional[PreviewWish] = None
    box: Optional[Box] = None
    on_disconnect: str = field(default="keep", metadata={"pattern": "keep|cancel", "need": "keep or cancel"})
    priority: str = field(default="back", metadata={"pattern": "front|back", "need": "front or back"})
    replaces: Optional[str] = field(default=None, metadata=JOB)
    then: Optional[Tuple[ChainLink, ...]] = None


@dataclass(frozen=True)
class Cancel(Message):
    TYPE = "cancel"
    id: int = field(metadata=UINT)
    job: str = field(metadata=JOB)


@dataclass(frozen=True)
class Jobs(Message):
    TYPE = "jobs"
    id: int = field(metadata=UINT)


@dataclass(frozen=True)
class Attach(Message):
    """Send the lasting events of `job` with seq > `after_seq` to this connection, then the live ones."""

    TYPE = "attach"
    id: int = field(metadata=UINT)
    job: str = field(metadata=JOB)
    after_seq: int = field(default=0, metadata=UINT)


@dataclass(frozen=True)
class Shutdown(Message):
    TYPE = "shutdown"
    id: int = field(metadata=UINT)


@dataclass(frozen=True)
class Free(Message):
    """Give back the memory of loaded models; since 1.7."""

    TYPE = "free"
    id: int = field(metadata=UINT)


# ---- server -> client: answers


@dataclass(frozen=True)
class Welcome(Message):
    TYPE = "welcome"
    protocol: Tuple[int, int] = field(metadata=UINT)
    server: ServerInfo
    limits: Limits
    catalog_rev: str = ""
    spool: Optional[SpoolInfo] = None


@dataclass(frozen=True)
class Catalog(Message):
    """All that the server can do. A model is a map with at least id, kind and title (SPEC.md).

    `models` are the first ones of a list that may be longer: `models_total` in all, `models` gives the others.
    `device` is what jobs run on, in words; "starting" until the worker has said it (`catalog_changed` follows then).
    `presets` are maps of `id`, `title`, `family` and `params`.
    """

    TYPE = "catalog"
    id: int = field(metadata=UINT)
    rev: str
    modes: Tuple[Mode, ...]
    models: Tuple[Dict[str, Any], ...]
    samplers: Tuple[str, ...]
    schedules: Tuple[str, ...]
    device: str = ""
    models_total: Optional[int] = field(default=None, metadata=UINT)
    presets: Optional[Tuple[Dict[str, Any], ...]] = None


@dataclass(frozen=True)
class NotModified(Message):
    TYPE = "not_modified"
    id: int = field(metadata=UINT)


@dataclass(frozen=True)
class PlanOk(Message):
    """The box to send, the size it is worked at, how far the mask reaches, and an estimate of the time.

    `final` is the size of the picture in the end where a hires pass enlarges it; `outputs` how many results will come.
    """

    TYPE = "plan_ok"
    id: int = field(metadata=UINT)
    box: Box
    working: Size
    reach: int = 0
    steps: int = 0
    seconds: Optional[float] = None
    warnings: Tuple[str, ...] = ()
    final: Optional[Size] = None
    outputs: Optional[int] = field(default=None, metadata=UINT)


@dataclass(frozen=True)
class Accepted(Message):
    TYPE = "accepted"
    id: int = field(metadata=UINT)
    job: str = field(metadata=JOB)
    position: int = field(default=0, metadata=UINT)


@dataclass(frozen=True)
class Ok(Message):
    TYPE = "ok"
    id: int = field(metadata=UINT)


@dataclass(frozen=True)
class JobsOk(Message):
    TYPE = "jobs_ok"
    id: int = field(metadata=UINT)
    jobs: Tuple[JobEntry, ...]


@dataclass(frozen=True)
class Error(Message):
    """A refusal: of the request `id`, of something about `job`, or of a frame that could not be read at all."""

    TYPE = "error"
    code: str
    message: str
    retryable: bool = False
    id: Optional[int] = field(default=None, metadata=UINT)
    job: Optional[str] = None
    path: Optional[str] = None
    data: Optional[Dict[str, Any]] = None

    @staticmethod
    def of(error: ImpastoError, *, id: Optional[int] = None, job: Optional[str] = None) -> Error:
        return Error(
            error.code, error.message, error.retryable, id=id, job=job, path=error.path, data=error.data or None
        )

    def exception(self) -> ImpastoError:
        return ImpastoError.from_wire(to_map(self))


# ---- server -> client: events of a job


@dataclass(frozen=True)
class Queued(Message):
    """`position` jobs are before this one."""

    TYPE = "queued"
    job: str = field(metadata=JOB)
    seq: int = field(metadata=UINT)
    position: int = field(default=0, metadata=UINT)


@dataclass(frozen=True)
class Position(Message):
    """A waiting job has moved: `position` jobs are before it now. Not replayed, the latest holds."""

    TYPE = "position"
    job: str = field(metadata=JOB)
    position: int = field(metadata=UINT)


@dataclass(frozen=True)
class Started(Message):
    TYPE = "started"
    job: str = field(metadata=JOB)
    seq: int = field(metadata=UINT)


@dataclass(frozen=True)
class Progress(Message):
    """`fraction` (0..1) of the whole job never goes back. Not replayed, the latest holds."""

    TYPE = "progress"
    job: str = field(metadata=JOB)
    stage: str
    step: int = field(metadata=UINT)
    steps: int = field(metadata=UINT)
    fraction: float = field(metadata={"minimum": 0, "maximum": 1})


@dataclass(frozen=True)
class Preview(Message):
    """A JPEG of what the picture looks like after `step`. Not replayed, the latest holds."""

    TYPE = "preview"
    job: str = field(metadata=JOB)
    image: bytes
    width: int = field(metadata=UINT)
    height: int = field(metadata=UINT)
    step: int = field(metadata=UINT)


@dataclass(frozen=True)
class Output(Message):
    """A result, ready to be fetched by `get`, and where it belongs in the document."""

    TYPE = "output"
    job: str = field(metadata=JOB)
    seq: int = field(metadata=UINT)
    index: int = field(metadata=UINT)
    digest: str = field(metadata=DIGEST)
    width: int = field(metadata=UINT)
    height: int = field(metadata=UINT)
    format: str
    placement: Box
    name: str
    stage: str
    alpha: str
    seed: int
    info: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished(Message):
    """The job succeeded: digests of its outputs, seeds, seconds by stage, and what really ran. Terminal."""

    TYPE = "finished"
    job: str = field(metadata=JOB)
    seq: int = field(metadata=UINT)
    outputs: Tuple[str, ...] = field(default=(), metadata=DIGEST)
    seeds: Tuple[int, ...] = ()
    timings: Dict[str, float] = field(default_factory=dict)
    ran: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed(Message):
    """Terminal."""

    TYPE = "failed"
    job: str = field(metadata=JOB)
    seq: int = field(metadata=UINT)
    error: ErrorInfo


@dataclass(frozen=True)
class Cancelled(Message):
    """Terminal."""

    TYPE = "cancelled"
    job: str = field(metadata=JOB)
    seq: int = field(metadata=UINT)


@dataclass(frozen=True)
class CatalogChanged(Message):
    TYPE = "catalog_changed"
    rev: str


def _table(*classes: Type[Message]) -> Mapping[str, Type[Message]]:
    return {cls.TYPE: cls for cls in classes}


CLIENT_MESSAGES: Mapping[str, Type[Message]] = _table(
    *(Hello, CatalogRequest, ModelsRequest, Plan, Have, Put, PutNew, Submit, Cancel, Jobs, Attach, Get),
    *(History, Star, Shutdown, Free, Share, Room, Filled, GetFile, Release, ReadParameters, Doctor, Further),
    WordsRequest,
    *pairing.CLIENT,
)
SERVER_MESSAGES: Mapping[str, Type[Message]] = _table(
    *(
        Welcome,
        Catalog,
        ModelsOk,
        WordsOk,
        NotModified,
        PlanOk,
        HaveOk,
        PutOk,
        PutNewOk,
        Accepted,
        Ok,
        JobsOk,
        Data,
        HistoryOk,
        Error,
    ),
    *pairing.SERVER,
    *(RoomOk, File, Parameters, DoctorOk, Error),
    *(Queued, Position, Started, Progress, Preview, Output, Finished, Failed, Cancelled, CatalogChanged),
)


def parse(fields: Mapping[str, Any], table: Mapping[str, Type[Message]]) -> Message:
    """The message of a decoded map.

    Raises ProtocolError `protocol.unknown_type` or `protocol.bad_message`; its `request_id` and `job` are those of the
    map where they can be read, and its data names the digest of a put, so that the refusal reaches who asked.
    """
    kind = fields.get("type")
    try:
        if not isinstance(kind, str):
            raise ProtocolError("protocol.bad_message", "The message has no string field `type`.", path="type")
        if kind not in table:
            raise ProtocolError(
                "protocol.unknown_type",
                f"The message type {kind[:60]!r} is not known; known are {', '.join(table)}.",
                path="type",
            )
        return from_map(table[kind], fields)
    except ProtocolError as error:
        number, job, digest = fields.get("id"), fields.get("job"), fields.get("digest")
        if isinstance(number, int) and not isinstance(number, bool) and number >= 0:
            error.request_id = number
        if isinstance(job, str) and len(job) <= 64:
            error.job = job
        if kind == Put.TYPE and isinstance(digest, str) and len(digest) <= 64:
            error.data["digest"] = digest
        raise
