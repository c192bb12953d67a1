"""Which colours can be read on which: not every theme's own pairs can."""

from __future__ import annotations

from typing import Any

from .qt import QColor, QPalette

__all__ = ["READABLE", "contrast", "ink_on_highlight"]

READABLE = 5.0
"""Contrast of a text that is read with ease: the 4.5 of WCAG 2.1 (1.4.3), and some for what smoothing takes away."""


def contrast(one: Any, other: Any) -> float:
    """The contrast of two QColors, 1 to 21, as WCAG 2.1 defines it."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def ink_on_highlight(palette: Any) -> Any:
    """The colour of texts on the highlight: the theme's own where it can be read, else black or white."""
    ground, own = palette.color(QPalette.ColorRole.Highlight), palette.color(QPalette.ColorRole.HighlightedText)
    if contrast(own, ground) >= READABLE:
        return own
    return max((QColor("black"), QColor("white")), key=lambda ink: contrast(ink, ground))


def _luminance(color: Any) -> float:
    parts = [part / 255 for part in color.getRgb()[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
