"""Straight lines: M-LSD tiny (Gu et al., "Towards Light-weight and Real-time Line Segment Detection", 2022)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .crops import check_picture, resized
from .runtime import Floats, Kit, Picture

__all__ = ["draw_lines", "straight_lines"]

SIDE = 512
HALF = 2
"""The network's map has half its side."""

SAME, SHARED = 3, 0.7
"""A line so near to a better one (in the network's pixels), and beside it for this part of its length, is no other."""

MOST = 200
"""Of so many centres the network tells apart at most."""


def straight_lines(
    kit: Kit, image: npt.NDArray[np.generic], *, threshold: float = 0.1, shortest: float = 20 / SIDE
) -> tuple[Floats, Floats]:
    """The straight lines of an RGB picture [h, w, 3] uint8, best first: ends [n, 4] (x, y, x, y) in its pixels, and
    scores [n].

    `threshold` 0..1 is the least score; `shortest` the least length, as a part of the picture's sides. Raises
    ValueError for another array, and what `Kit.network` raises.
    """
    picture = check_picture(image)
    height, width = picture.shape[:2]
    small = resized(picture, SIDE, SIDE)
    opaque = np.ones((SIDE, SIDE, 1), np.float32)
    outputs = kit.network("straight-lines")(np.concatenate([small.astype(np.float32), opaque], -1)[None])
    # Scores are those of the lines' middles, 0 but at peaks; offsets lead from there to both ends.
    scores, offsets = outputs["scores"][0, :, :, 0], outputs["offsets"][0]
    order = np.argsort(-scores, axis=None, kind="stable")[:MOST]
    order = order[scores.reshape(-1)[order] > threshold]
    y, x = np.unravel_index(order, scores.shape)
    middle = np.stack([x, y, x, y], 1)
    ends = (middle + offsets[y, x]) * HALF
    long = np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1]) > shortest * SIDE
    ends, found = ends[long], scores[y, x][long]
    kept: list[int] = []
    for i in range(len(ends)):
        if not any(_repeats(ends[i], ends[j]) for j in kept):
            kept.append(i)
    return (ends[kept].reshape(-1, 4) * np.array([width, height, width, height]) / SIDE).astype(np.float32), found[kept]


def _repeats(line: npt.NDArray[np.floating], better: npt.NDArray[np.floating]) -> bool:
    """Whether a line [4] says what a better one says: along a flat edge many middles are equally good."""
    start, along = better[:2], better[2:] - better[:2]
    length = float(np.hypot(*along))
    along = along / length
    places = line.reshape(2, 2) - start
    beside = np.abs(places @ np.array([-along[1], along[0]]))
    low, high = sorted((places @ along).tolist())
    shared = min(high, length) - max(low, 0)
    return bool(beside.max() < SAME) and shared > SHARED * (high - low)


def draw_lines(ends: Floats, width: int, height: int) -> Picture:
    """The hint that ControlNet's mlsd wants: white lines on black, RGB [h, w, 3] uint8."""
    drawn = Image.new("L", (width, height))
    draw = ImageDraw.Draw(drawn)
    for line in ends:
        draw.line(tuple(float(v) for v in line), fill=255, width=1)
    return np.repeat(np.asarray(drawn)[:, :, None], 3, axis=2)
