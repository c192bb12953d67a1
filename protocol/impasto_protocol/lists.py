"""Messages about long lists, which come in pages: the models, and the results that the server keeps.

A page holds at most `limit` entries, and perhaps fewer; `next` is the `after` of the following page and missing at the
end. What it says is the server's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

from .parts import JOB, UINT, HistoryEntry, Message

__all__ = ["PAGE", "PAGE_LIMIT", "History", "HistoryOk", "ModelsOk", "ModelsRequest", "Star"]

PAGE = 100
"""Entries of a page where a request does not say."""

PAGE_LIMIT = 500
"""Entries of a page at most; a larger wish is cut to it."""

_AT_LEAST_ONE = {"minimum": 1}


# ---- client -> server


@dataclass(frozen=True)
class ModelsRequest(Message):
    """The models of `kind` in whose id, title or family all words of `search` occur."""

    TYPE = "models"
    id: int = field(metadata=UINT)
    kind: Optional[str] = None
    search: Optional[str] = None
    after: Optional[str] = None
    limit: int = field(default=PAGE, metadata=_AT_LEAST_ONE)


@dataclass(frozen=True)
class History(Message):
    """The kept results, newest first: all, those of `job`, those of the jobs whose ids begin with `begins`, those whose
    prompt, name, mode or model has all words of `search`, those with a star. `info` asks for the recipes too.
    """

    TYPE = "history"
    id: int = field(metadata=UINT)
    after: Optional[str] = None
    limit: int = field(default=PAGE, metadata=_AT_LEAST_ONE)
    search: Optional[str] = None
    job: Optional[str] = field(default=None, metadata=JOB)
    starred: bool = False
    info: bool = False
    begins: Optional[str] = field(default=None, metadata=JOB)


@dataclass(frozen=True)
class Star(Message):
    """Keep result `index` of `job` beyond the quota, or no longer. The same again is harmless."""

    TYPE = "star"
    id: int = field(metadata=UINT)
    job: str = field(metadata=JOB)
    index: int = field(metadata=UINT)
    on: bool = True


# ---- server -> client


@dataclass(frozen=True)
class ModelsOk(Message):
    """One page of models; `total` of them fit the request. Another `rev` than the page before: begin again."""

    TYPE = "models_ok"
    id: int = field(metadata=UINT)
    rev: str
    models: Tuple[Dict[str, Any], ...]
    total: int = field(metadata=UINT)
    next: Optional[str] = None


@dataclass(frozen=True)
class HistoryOk(Message):
    """One page of results; `total` of them fit the request."""

    TYPE = "history_ok"
    id: int = field(metadata=UINT)
    entries: Tuple[HistoryEntry, ...]
    total: int = field(metadata=UINT)
    next: Optional[str] = None
