"""Messages about how a picture was made, as its file or a text says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

from .images import Buffer
from .parts import DIGEST, JOB, UINT, ChainLink, Message

__all__ = ["Further", "ParameterNote", "Parameters", "ReadParameters"]


@dataclass(frozen=True)
class ReadParameters(Message):
    """What job does this ask for? One of `text`, `data` (a whole file) and `digest` (of a file that was uploaded)."""

    TYPE = "read_parameters"
    id: int = field(metadata=UINT)
    text: Optional[str] = None
    data: Optional[Buffer] = None
    digest: Optional[str] = field(default=None, metadata=DIGEST)


@dataclass(frozen=True)
class Further(Message):
    """What job takes result `index` of `job`, or the one with the recipe `info`, further? `way` is hires, img2img,
    inpaint, upscale, refine, or then: what is left of its chain; answered with `parameters`."""

    TYPE = "further"
    id: int = field(metadata=UINT)
    way: str
    job: Optional[str] = field(default=None, metadata=JOB)
    index: int = field(default=0, metadata=UINT)
    info: Optional[Dict[str, Any]] = None


@dataclass(frozen=True)
class ParameterNote:
    """Something that was said and is no parameter now, or not as it was said. `kind` is unsupported, unknown, missing,
    changed, assumed or info."""

    kind: str
    key: str
    value: str
    message: str


@dataclass(frozen=True)
class Parameters(Message):
    """The job that was asked for; `source` is the program that said it, "" where that is not known. `then` is what is
    left of a chain behind it."""

    TYPE = "parameters"
    id: int = field(metadata=UINT)
    mode: str
    params: Dict[str, Any]
    notes: Tuple[ParameterNote, ...] = ()
    source: str = ""
    then: Optional[Tuple[ChainLink, ...]] = None
