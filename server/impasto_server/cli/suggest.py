"""An argument parser that names the nearest right word for a mistyped verb, option or choice."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from impasto_protocol.nearest import nearest

__all__ = ["SuggestingParser"]


class SuggestingParser(argparse.ArgumentParser):
    """As argparse, which only lists what there is. Parsers of verbs are of the same class as the one they belong to."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as e:
            near = _nearest(str(value), (str(choice) for choice in action.choices or ()))
            if near:
                raise argparse.ArgumentError(action, f"{e.message}; did you mean {near}?") from e
            raise

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse does, with the nearest option for one that the verb does not have."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown, list(self._options(parsed)))
        return parsed

    def _options(self, parsed: argparse.Namespace) -> Iterable[str]:
        """The options of this parser and of the verbs that were chosen."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                chosen = action.choices.get(getattr(parsed, action.dest, None) or "")
                if isinstance(chosen, SuggestingParser):
                    yield from chosen._options(parsed)

    def _refuse(self, unknown: Sequence[str], known: Sequence[str]) -> NoReturn:
        hints = [f"{word}: did you mean {near}?" for word in unknown if (near := _near_option(word, known))]
        self.error(". ".join((f"unrecognized arguments: {' '.join(unknown)}", *hints)))


def _near_option(word: str, known: Sequence[str]) -> str:
    return _nearest(word.partition("=")[0], known) if word.startswith("-") else ""


def _nearest(word: str, known: Iterable[str]) -> str:
    return next(iter(nearest(word, known)), "")
