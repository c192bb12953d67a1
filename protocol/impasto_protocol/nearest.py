"""The nearest right word for a mistyped one."""

from __future__ import annotations

import difflib
from typing import Iterable, List

__all__ = ["nearest"]

_LONGEST = 100
"""Characters that are compared: nobody mistypes more, and the time grows with their square."""


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> List[str]:
    """The one of `known` that was most likely meant, upper and lower case being the same; none where none is near.

    `cutoff` is how much must be the same, 0..1.
    """
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word[:_LONGEST].casefold(), list(by_folded), 1, cutoff)
    return [by_folded[name] for name in near]
