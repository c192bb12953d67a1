"""Boxes and sizes in whole pixels, shared by the wire, the engine and the plug-ins."""

from __future__ import annotations

from typing import NamedTuple, Optional

__all__ = ["Box", "Size"]


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    @property
    def area(self) -> int:
        return self.width * self.height


class Box(NamedTuple):
    """A rectangle in document pixels: left-top corner (x, y), may be negative, and extent (width, height)."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column that is not inside."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First row that is not inside."""
        return self.y + self.height

    @property
    def size(self) -> Size:
        return Size(self.width, self.height)

    @staticmethod
    def of_size(size: Size) -> Box:
        """The box of a whole canvas."""
        return Box(0, 0, size.width, size.height)

    def contains(self, other: Box) -> bool:
        return self.x <= other.x and self.y <= other.y and self.right >= other.right and self.bottom >= other.bottom

    def intersect(self, other: Box) -> Optional[Box]:
        """The common part, or None where the two do not overlap."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Box(x, y, right - x, bottom - y) if right > x and bottom > y else None

    def grow(self, by: int) -> Box:
        """The box with `by` more pixels on each side."""
        return Box(self.x - by, self.y - by, self.width + 2 * by, self.height + 2 * by)

    def shift_into(self, outer: Box) -> Box:
        """The box moved, and where it is larger than `outer` cut, so that `outer` contains it."""
        width, height = min(self.width, outer.width), min(self.height, outer.height)
        x = min(max(self.x, outer.x), outer.right - width)
        y = min(max(self.y, outer.y), outer.bottom - height)
        return Box(x, y, width, height)
