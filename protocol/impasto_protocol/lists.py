"""Messages about long lists: the models and the results that the server keeps, in pages, and words for a prompt.

A page holds at most `limit` entries, and perhaps fewer; `next` is the `after` of the following page and missing at the
end. What it says is the server's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

from .parts import JOB, UINT, HistoryEntry, Message

__all__ = [
    "PAGE",
    "PAGE_LIMIT",
    "History",
    "HistoryOk",
    "ModelsOk",
    "ModelsRequest",
    "Star",
    "Word",
    "WordsOk",
    "WordsRequest",
]

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


@dataclass(frozen=True)
class WordsRequest(Message):
    """What `typed` may become: at most `limit` words of `kind`, "tag" (from the user's lists of tags) or "style"."""

    TYPE = "words"
    id: int = field(metadata=UINT)
    kind: str
    typed: str
    limit: int = field(default=12, metadata=_AT_LEAST_ONE)


# ---- server -> client


@dataclass(frozen=True)
class Word:
    """`text` goes into the prompt; `uses` is in how many pictures it was met (0: not known), `alias` the other name by
    which it was found.
    """

    text: str
    uses: int = field(default=0, metadata=UINT)
    alias: str = ""


@dataclass(frozen=True)
class WordsOk(Message):
    """The words, the best first."""

    TYPE = "words_ok"
    id: int = field(metadata=UINT)
    words: Tuple[Word, ...] = ()


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
