"""The strip of results: those of this document, or all that the server keeps, found by words or stars.

What is listed lies on the server's disk in full quality; here are small pictures alone. The controller feeds it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Set, Tuple

from impasto_protocol.geometry import Box
from impasto_protocol.parts import HistoryEntry

from .document import ResultLayer

__all__ = ["PAGE", "Gallery", "Key", "Query", "Shown"]

PAGE = 24
"""Results that are listed at a time."""
LARGEST_LISTED = 16 << 20
"""Pixels of a result that is fetched only to be listed."""
SMALL_KEPT = 24
"""Small pictures that stay in memory beyond those that are listed."""

Key = Tuple[str, int]
"""A result: the id of its job, and its number among that job's."""


@dataclass(frozen=True)
class Shown:
    """One result of the strip. `small` and `before` are pictures of the toolkit's own kind: the result, None until it
    has been fetched, and what was there before, where that is known.
    """

    job_id: str
    index: int
    name: str
    stage: str
    seed: int
    box: Box
    recipe: Mapping[str, Any] = field(default_factory=dict, repr=False)
    starred: bool = False
    small: Optional[Any] = field(default=None, repr=False)
    before: Optional[Any] = field(default=None, repr=False)

    @property
    def key(self) -> Key:
        return (self.job_id, self.index)

    @property
    def mode(self) -> str:
        """The mode that made it, "" where that is not known."""
        return str(self.recipe.get("mode", ""))

    @property
    def params(self) -> Dict[str, Any]:
        """The parameters that made it, with the prompt as it was written."""
        params = self.recipe.get("params")
        asked = self.recipe.get("asked")
        return {
            **(params if isinstance(params, Mapping) else {}),
            **(asked if isinstance(asked, Mapping) else {}),
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Query:
    """What the strip lists: results of the jobs whose ids begin with `begins` ("" for all), with all words, a star."""

    begins: str = ""
    search: str = ""
    starred: bool = False


class Gallery:
    """`changed` hears when `visible` is another list. `ask(query, count)` has the server list, `fetch(key)` a picture
    come.
    """

    def __init__(self, ask: Callable[[Query, int], None], fetch: Callable[[Key], None]) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.query: Optional[Query] = None
        self.more = False
        """Are there older ones?"""
        self._ask, self._fetch = ask, fetch
        self._count = PAGE
        self._keys: List[Key] = []
        self._known: Dict[Key, Shown] = {}
        self._wanted: Set[Key] = set()

    @property
    def visible(self) -> Tuple[Shown, ...]:
        """What is listed, the newest first."""
        return tuple(self._known[key] for key in self._keys)

    def get(self, key: Key) -> Optional[Shown]:
        return self._known.get(key)

    def look_for(self, query: Query) -> None:
        """List something else; nothing where it is listed already."""
        if query != self.query:
            self.query = query
            self._count = PAGE
            self._keys = []
            self.more = False
            self.changed()
            self._ask(query, self._count)

    def refresh(self) -> None:
        """Ask again: the server is another one, or has more."""
        if self.query is not None:
            self._ask(self.query, self._count)

    def show_more(self) -> None:
        """List older ones too."""
        self._count += PAGE
        self.refresh()

    def listed(self, query: Query, entries: Tuple[HistoryEntry, ...], more: bool) -> None:
        """The server's answer; one to an older question is let go."""
        if query != self.query:
            return
        self.more = more
        self._keys = []
        for entry in entries:
            shown = self._known.get((entry.job, entry.index)) or _shown(entry)
            self._known[shown.key] = dataclasses.replace(shown, starred=entry.starred)
            self._keys.append(shown.key)
            small = entry.width * entry.height <= LARGEST_LISTED
            if small and shown.small is None and shown.key not in self._wanted:
                self._wanted.add(shown.key)
                self._fetch(shown.key)
        self._forget()
        self.changed()

    def add(self, result: ResultLayer, small: Any, before: Optional[Any]) -> Shown:
        """A result that has just come: the first in the strip, where that lists such ones."""
        shown = Shown(
            result.job_id,
            result.index,
            result.name,
            result.stage,
            result.seed,
            result.box,
            result.recipe,
            small=small,
            before=before,
        )
        self._known[shown.key] = shown
        query = self.query
        if shown.key not in self._keys and (query is None or self._fits(query, shown)):
            self._keys.insert(0, shown.key)
        self._forget()
        self.changed()
        return shown

    def fetched(self, key: Key, small: Optional[Any]) -> None:
        """The small picture of a result has come; None where the server does not keep it any more."""
        self._wanted.discard(key)
        shown = self._known.get(key)
        if shown is None:
            return
        if small is None:
            self._keys = [other for other in self._keys if other != key]
        else:
            self._known[key] = dataclasses.replace(shown, small=small)
        self.changed()

    def starred(self, key: Key, on: bool) -> None:
        """The painter set or took a star."""
        if key in self._known:
            self._known[key] = dataclasses.replace(self._known[key], starred=on)
            self.changed()

    @staticmethod
    def _fits(query: Query, shown: Shown) -> bool:
        words = f"{shown.name} {shown.mode} {shown.params.get('prompt', '')}".casefold()
        listed = all(word in words for word in query.search.casefold().split())
        return shown.job_id.startswith(query.begins) and not query.starred and listed

    def _forget(self) -> None:
        for key in [key for key in self._known if key not in self._keys][:-SMALL_KEPT]:
            del self._known[key]


def _shown(entry: HistoryEntry) -> Shown:
    return Shown(
        entry.job, entry.index, entry.name, entry.stage, entry.seed, entry.placement, entry.info or {}, entry.starred
    )
