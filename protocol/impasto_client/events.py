"""What a `Runner` tells its editor. Delivered on a thread of the runner; the editor hands them to its main thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple, Union

from impasto_protocol.errors import ImpastoError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.lists import Word
from impasto_protocol.parts import HistoryEntry
from impasto_protocol.reading import ParameterNote
from impasto_protocol.schema import Mode

from .document import ResultLayer

__all__ = [
    "TERMINAL_STATES",
    "CatalogChanged",
    "ConnectionChanged",
    "Diagnosed",
    "Done",
    "Event",
    "Failed",
    "HistoryListed",
    "JobChanged",
    "ParametersRead",
    "PlanResult",
    "Planned",
    "PreviewReady",
    "ResultFetched",
    "ResultReady",
    "ServerCatalog",
    "ServerChosen",
    "WordsFound",
]

TERMINAL_STATES = frozenset(("finished", "failed", "cancelled"))
"""A job has exactly one `JobChanged` with one of these states, and no event after it."""


@dataclass(frozen=True)
class ConnectionChanged:
    """`state` is "starting" (the server program), "connecting", "connected", "failed" (tried again later) or "lost".

    `message` is a sentence for the painter; `server` names the server and its device once connected, and `place` where
    it is if it is a paired one.
    """

    state: str
    message: str = ""
    server: str = ""
    place: str = ""


@dataclass(frozen=True)
class ServerCatalog:
    """What the server can do. Each model is a map with at least id, kind and title.

    `models` holds all checkpoints, of the other kinds that parameters choose from a thousand, and of the rest perhaps
    the first ones only: `models_total` are there in all. `presets` are settings that belong together (see `presets`).
    """

    rev: str
    modes: Tuple[Mode, ...]
    models: Tuple[Dict[str, Any], ...]
    samplers: Tuple[str, ...]
    schedules: Tuple[str, ...]
    device: str = ""
    models_total: int = 0
    presets: Tuple[Dict[str, Any], ...] = ()

    def mode(self, name: str) -> Optional[Mode]:
        """The mode of that name, or None where the server does not have it."""
        return next((mode for mode in self.modes if mode.name == name), None)


@dataclass(frozen=True)
class CatalogChanged:
    catalog: ServerCatalog


@dataclass(frozen=True)
class PlanResult:
    """The box to read from the document, the size it is worked at, and what to expect.

    `reach` is how many pixels beyond the mask the result may change; `seconds` is None where nothing is known yet.
    `final` is the size of the picture in the end, where a hires pass enlarges it; `outputs` how many results will come.
    """

    box: Box
    working: Size
    reach: int = 0
    steps: int = 0
    seconds: Optional[float] = None
    warnings: Tuple[str, ...] = ()
    final: Optional[Size] = None
    outputs: int = 1


@dataclass(frozen=True)
class Planned:
    """The answer to `Runner.plan` with this ticket."""

    ticket: str
    plan: PlanResult


@dataclass(frozen=True)
class ParametersRead:
    """The answer to `Runner.read_parameters` with this ticket: a mode, values of its parameters, what was said beyond
    that, and the program that wrote it, "" where that is not known.
    """

    ticket: str
    mode: str
    params: Dict[str, Any]
    notes: Tuple[ParameterNote, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class WordsFound:
    """The answer to `Runner.words` with this ticket."""

    ticket: str
    words: Tuple[Word, ...]


@dataclass(frozen=True)
class Diagnosed:
    """The answer to `Runner.doctor` with this ticket: a page to read and to copy, and how many findings are bad."""

    ticket: str
    text: str
    bad: int


@dataclass(frozen=True)
class Failed:
    """`Runner.plan`, `Runner.read_parameters` or `Runner.doctor` with this ticket could not be answered."""

    ticket: str
    error: ImpastoError


@dataclass(frozen=True)
class JobChanged:
    """The present state of a job.

    `state` is "waiting" (for a connection), "uploading", "queued" (with `position` jobs before it), "running" (with
    `fraction` 0..1, which never goes back, `stage`, `step` of `steps`), "fetching", or one of TERMINAL_STATES.
    `error` is set when it failed.
    """

    job_id: str
    state: str
    fraction: float = 0.0
    stage: str = ""
    step: int = 0
    steps: int = 0
    position: int = 0
    error: Optional[ImpastoError] = None


@dataclass(frozen=True)
class PreviewReady:
    """A small JPEG of how the picture looks now."""

    job_id: str
    jpeg: bytes = field(repr=False)
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class ServerChosen:
    """What `Servers.change` came to: the server in use now, "" this computer's own, or the error."""

    name: str
    error: Optional[ImpastoError] = None

    @property
    def sentence(self) -> str:
        """What to tell the painter."""
        if self.error is not None:
            return self.error.message
        if self.name:
            return f"The server at {self.name} is used from now on."
        return "This computer's own server is used from now on."


@dataclass(frozen=True)
class ResultReady:
    """A result with its pixels; comes before the job's "finished"."""

    job_id: str
    result: ResultLayer


@dataclass(frozen=True)
class HistoryListed:
    """The answer to `Kept.list`: what the server keeps, newest first, whichever editor asked for it.

    `key` is that of the question; `more` says that there are older ones.
    """

    entries: Tuple[HistoryEntry, ...]
    key: Any = None
    more: bool = False


@dataclass(frozen=True)
class ResultFetched:
    """The answer to `Kept.fetch`: result `index` of a job with its pixels; None and the error where it is gone.

    `entry` is what the server's history says of it.
    """

    job_id: str
    index: int
    entry: Optional[HistoryEntry] = None
    result: Optional[ResultLayer] = None
    error: Optional[ImpastoError] = None


@dataclass(frozen=True)
class Done:
    """What `Kept.do` was given under this key is done, or has failed with `error`."""

    key: Any
    error: Optional[Exception] = None


Event = Union[
    ConnectionChanged,
    CatalogChanged,
    Planned,
    ParametersRead,
    WordsFound,
    Diagnosed,
    Failed,
    JobChanged,
    PreviewReady,
    ResultReady,
    ServerChosen,
    HistoryListed,
    ResultFetched,
    Done,
]
