"""A sentence for the painter."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Notice"]


@dataclass(frozen=True)
class Notice:
    """A sentence for the painter; `is_error` gives it the colour of a warning."""

    text: str
    is_error: bool = False
