"""Was a document flipped while a job ran? No editor tells, and its size is the same: some pixels are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Tuple

from impasto_protocol.geometry import Box
from impasto_protocol.images import Buffer

from .editor import Host

__all__ = ["Sample"]

ROWS, COLUMNS = 16, 32
ENOUGH = 0.97
"""The share of the points that must be the same: the painter may have gone on painting."""
FLIPS = ((True, False), (False, True), (True, True))
"""Left and right, up and down."""


@dataclass(frozen=True)
class Sample:
    """Points of what was seen in `box`, row by row."""

    box: Box
    points: Tuple[bytes, ...]

    @staticmethod
    def of(box: Box, pixels: Buffer) -> Sample:
        """Of the pixels of `box`, four bytes each."""
        view, length = memoryview(pixels), 4 * box.width
        rows = [view[y * length : (y + 1) * length] for y in _spread(box.height, ROWS)]
        return Sample(box, tuple(point for row in rows for point in _points(row, False)))

    def was_flipped(self, host: Host, document: Any, canvas: Box) -> bool:
        """Is the same there mirrored, and no more as it was? Reads single rows."""
        if self._same(host, document, self.box, False, False):
            return False
        for across, down in FLIPS:
            x = canvas.width - self.box.right if across else self.box.x
            y = canvas.height - self.box.bottom if down else self.box.y
            if self._same(host, document, Box(x, y, self.box.width, self.box.height), across, down):
                return True
        return False

    def _same(self, host: Host, document: Any, box: Box, across: bool, down: bool) -> bool:
        there: List[bytes] = []
        for at in _spread(box.height, ROWS):
            y = box.y + (box.height - 1 - at if down else at)
            there += _points(memoryview(host.read_visible(document, Box(box.x, y, box.width, 1))), across)
        same = sum(one == other for one, other in zip(self.points, there))
        return same >= ENOUGH * len(self.points)


def _spread(length: int, count: int) -> List[int]:
    """At most `count` places from 0 to `length`, evenly, not the same from both ends."""
    count = min(count, length)
    return [(3 * at + 1) * length // (3 * count) for at in range(count)]


def _points(row: memoryview, mirrored: bool) -> List[bytes]:
    width = len(row) // 4
    places = [width - 1 - x if mirrored else x for x in _spread(width, COLUMNS)]
    return [bytes(row[4 * x : 4 * x + 4]) for x in places]
