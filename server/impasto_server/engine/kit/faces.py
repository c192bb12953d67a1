"""Where faces are: box, score and six points.

Large pictures are looked at whole and in tiles that overlap, down to the tiles in which the smallest wanted face is
large enough. What is seen in a tile alone, or not clearly, counts if the mesh's network agrees that it is a face: on
photographs of gravel, stars and machines that left none of 18 false ones, and lost none of the true ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .blazeface import FULL_RANGE, SHORT_RANGE, Face, faces_in, same_place
from .crops import check_picture, square
from .landmarks import face_mesh
from .runtime import Kit

__all__ = ["detect_faces", "tiles"]

SMALLEST_IN_TILE = 0.1
"""A face of this part of the side is found well by the full range network, one of half of it hardly."""

TILE_OVERLAP = 0.3

CLEAR = 0.7
"""From this score on a face that was seen in the whole picture needs no second opinion."""

AGREED = 0.5
"""The mesh's score that is one."""


def detect_faces(
    kit: Kit,
    image: npt.NDArray[np.generic],
    *,
    threshold: float = 0.5,
    smallest: float = 0.025,
    most: int = 100,
    confirm: bool = True,
) -> list[Face]:
    """The faces of an RGB picture [h, w, 3] uint8, best first.

    `threshold` 0..1 is the least score. `smallest`: faces down to this part of the longer side are looked for; 1 looks
    at the whole picture alone, .025 at some 40 tiles. At most `most` are given. `confirm` False leaves out the second
    opinion, for faces that are no human ones. Raises ValueError for another array, and what `Kit.network` raises.
    """
    picture = check_picture(image)
    height, width = picture.shape[:2]
    found: list[tuple[Face, bool]] = []
    for detector in (SHORT_RANGE, FULL_RANGE):
        whole = square(picture, 0, 0, width, height, detector.side)
        seen = faces_in(kit.network(detector.name), detector, whole, threshold)
        found += [(face, face.score >= CLEAR) for face in seen]
    full = kit.network(FULL_RANGE.name)
    for x, y, side in tiles(width, height, smallest):
        seen = faces_in(full, FULL_RANGE, square(picture, x, y, side, side, FULL_RANGE.side), threshold)
        found += [(face, False) for face in seen if _whole(face, x, y, side, width, height)]
    kept: list[Face] = []
    for face, clear in sorted(found, key=lambda f: -f[0].score):
        if len(kept) == most:
            break
        if any(same_place(face.box, other.box) for other in kept):
            continue
        if clear or not confirm or face_mesh(kit, picture, face).score >= AGREED:
            kept.append(face)
    return kept


def tiles(width: int, height: int, smallest: float) -> Iterator[tuple[float, float, float]]:
    """x, y and side of the square tiles in which faces of `smallest` times the longer side can be seen.

    Each level has tiles of half the side of the one before; they overlap, so that a face that is small for its level
    is whole in one of them. None are smaller than the network's own side, which would show nothing new.
    """
    longer = max(width, height)
    side = longer / 2
    while side * SMALLEST_IN_TILE * 2 > smallest * longer and side >= FULL_RANGE.side:
        for y in _starts(height, side):
            for x in _starts(width, side):
                yield x, y, side
        side /= 2


def _starts(length: int, side: float) -> list[float]:
    if length <= side:
        return [(length - side) / 2]
    count = int(np.ceil((length - side * TILE_OVERLAP) / (side * (1 - TILE_OVERLAP))))
    return [float(v) for v in np.linspace(0, length - side, max(count, 2))]


def _whole(face: Face, x: float, y: float, side: float, width: int, height: int) -> bool:
    """Whether a face that was seen in a tile is not cut by it; the picture's own edges may cut it."""
    left, top, w, h = (float(v) for v in face.box)
    return (
        (left > x or x <= 0)
        and (top > y or y <= 0)
        and (left + w < x + side or x + side >= width)
        and (top + h < y + side or y + side >= height)
    )
