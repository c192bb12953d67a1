"""What the prompts of a panel are completed from: the catalogue's names, and the tags that the server looks up."""

from __future__ import annotations

import itertools
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from impasto_protocol.lists import Word

from .completion import Completions, complete, names_of
from .events import Failed, WordsFound
from .tasks import Runner

__all__ = ["Vocabulary"]

KEPT = 500
"""Answers that are kept; typing goes over the same beginnings again and again."""


class Vocabulary:
    """`offer` answers at once with what is known; where the server has to be asked, those in `listeners` are called
    when it has answered, and may offer again. On the editor's main thread.
    """

    def __init__(self, runner: Optional[Runner] = None) -> None:
        self.listeners: List[Any] = []
        """Callables without arguments."""
        self._runner = runner
        self._numbers = itertools.count(1)
        self._names: Dict[str, List[str]] = {}
        self._known: Dict[str, Tuple[Word, ...]] = {}
        self._asked: Dict[str, str] = {}
        """By ticket what was typed; the newest alone is waited for."""

    def learn(self, models: Sequence[Mapping[str, Any]]) -> None:
        """Take the names of a new catalogue; what was looked up is forgotten, for the lists may be others too."""
        self._names = names_of(models)
        self._known.clear()

    def offer(self, text: str, caret: int) -> Completions:
        """What can be meant at the caret, as far as it is known now."""
        return complete(text, caret, self._names, self._tags)

    def take(self, event: object) -> bool:
        """Take an answer; False where the event is none."""
        if not isinstance(event, (WordsFound, Failed)) or not event.ticket.startswith("words-"):
            return False
        typed = self._asked.pop(event.ticket, None)
        if typed is not None and isinstance(event, WordsFound):
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[typed] = event.words
            for listener in self.listeners:
                listener()
        return True

    def _tags(self, typed: str) -> Sequence[Word]:
        key = typed.casefold().replace("_", " ")
        found = self._known.get(key)
        if found is None:
            if self._runner is not None and key not in self._asked.values():
                ticket = f"words-{next(self._numbers)}"
                self._asked = {ticket: key}
                self._runner.words(ticket, "tag", key)
            return ()
        return found
