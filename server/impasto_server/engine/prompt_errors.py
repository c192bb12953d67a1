"""What is wrong in a prompt, and where. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from impasto_protocol.errors import RequestError

__all__ = ["PromptError", "told_as_request"]

_SHOWN = 60


class PromptError(ValueError):
    """A place in a prompt that would not do what it says; `position` counts characters from 0."""

    def __init__(self, message: str, position: int, excerpt: str) -> None:
        super().__init__(message)
        self.message, self.position, self.excerpt = message, position, excerpt


@contextmanager
def told_as_request(path: str, written: str) -> Iterator[None]:
    """A PromptError of the block becomes a RequestError `request.invalid_param` with `path`.

    Its data hold `position` and `excerpt`. The position is one in the text as it was `written`, where the excerpt is
    found there once; styles, comments and choices may have moved it. Else it is one in the text that they gave, and
    `resolved` is true.
    """
    try:
        yield
    except PromptError as e:
        data: dict[str, Any] = {"position": e.position, "excerpt": e.excerpt}
        if not written.startswith(e.excerpt, e.position):
            if written.count(e.excerpt) == 1:
                data["position"] = written.index(e.excerpt)
            else:
                data["resolved"] = True
        shown = e.excerpt if len(e.excerpt) <= _SHOWN else e.excerpt[: _SHOWN - 1] + "…"
        where = "" if "resolved" in data else f" at character {data['position'] + 1}"
        raise RequestError(
            "request.invalid_param", f"The prompt cannot be used{where}, {shown!r}: {e.message}", path=path, data=data
        ) from e
