"""BlazeFace (Bazarevsky et al., 2019): what the network gives for one square of a picture -> faces.

The short range network looks at 128 x 128 pixels for faces that fill a good part of the picture, the full range one at
192 x 192 for smaller ones too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .crops import Placed
from .runtime import Floats, Network

__all__ = ["FULL_RANGE", "SHORT_RANGE", "Detector", "Face", "anchors", "faces_in", "overlap", "same_place"]


@dataclass(frozen=True)
class Detector:
    """What a detecting network wants and gives. `strides` in its pixels, one for each layer of anchors; `signed` ones
    see values in -1..1, the others in 0..1."""

    name: str
    side: int
    strides: tuple[int, ...]
    per_cell: int
    points: int
    signed: bool = True


SHORT_RANGE = Detector("face-short-range", 128, (8, 16, 16, 16), 2, 6)
FULL_RANGE = Detector("face-full-range", 192, (4,), 1, 6)

SAME = 0.3
"""Boxes that share more than this part of their union are one face."""

INSIDE = 0.7
"""And so are those of which more than this part of the smaller one lies in the larger one."""


@dataclass(frozen=True, eq=False)
class Face:
    """One face, in the picture's pixels, which need not all lie within it.

    `box` [4]: x, y, width, height. `score` 0..1. `points` [6, 2]: the eye at the left of the picture, as a face that
    looks at us has it, the other eye, the tip of the nose, the middle of the mouth, the left ear, the right ear.
    """

    box: Floats
    score: float
    points: Floats

    @property
    def angle(self) -> float:
        """How far the head is turned, in radians, clockwise as seen; 0 is upright."""
        x, y = self.points[1] - self.points[0]
        return float(np.arctan2(y, x))


def anchors(detector: Detector) -> Floats:
    """The anchors' centres [n, 2] in the network's pixels, row by row. Layers of the same stride share their cells."""
    found = []
    for stride in dict.fromkeys(detector.strides):
        count = detector.strides.count(stride) * detector.per_cell
        cells = -(-detector.side // stride)
        y, x = np.mgrid[:cells, :cells].reshape(2, -1)
        centres = (np.stack([x, y], 1) + 0.5) * (detector.side / cells)
        found.append(np.repeat(centres, count, axis=0))
    return np.concatenate(found).astype(np.float32)


def faces_in(network: Network, detector: Detector, part: Placed, threshold: float) -> list[Face]:
    """The faces in one part. Candidates that mean the same face are averaged by their scores, as the reference does."""
    values = part.pixels[None].astype(np.float32)
    outputs = network(values / 127.5 - 1 if detector.signed else values / 255)
    values = outputs["boxes"][0]
    scores = 1 / (1 + np.exp(-np.clip(outputs["scores"][0, :, 0], -80, 80)))
    order = [int(i) for i in np.argsort(-scores) if scores[i] >= threshold]
    centres = anchors(detector)
    # Rows of centre, size, points; all but the size relative to the anchor.
    rows = values[order, : 4 + 2 * detector.points].reshape(len(order), 2 + detector.points, 2).copy()
    rows[:, [0, *range(2, rows.shape[1])]] += centres[order][:, None]
    boxes = np.concatenate([rows[:, 0] - rows[:, 1] / 2, rows[:, 1]], axis=1)
    faces = []
    left = list(range(len(order)))
    while left:
        best = left[0]
        group = [i for i in left if i == best or overlap(boxes[i], boxes[best]) > SAME]
        left = [i for i in left if i not in group]
        weights = scores[[order[i] for i in group]]
        mean = np.average(np.concatenate([boxes[group], rows[group, 2:].reshape(len(group), -1)], 1), 0, weights)
        corner = part.back(mean[None, :2])[0]
        box = np.concatenate([corner, mean[2:4] * part.scale]).astype(np.float32)
        faces.append(Face(box, float(scores[order[best]]), part.back(mean[4:].reshape(-1, 2))))
    return faces


def overlap(a: Floats, b: Floats) -> float:
    """The common part of two boxes [x, y, w, h] over their union, 0..1."""
    common = _common(a, b)
    return common / float(a[2] * a[3] + b[2] * b[3] - common)


def _common(a: Floats, b: Floats) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    w, h = np.clip(high - low, 0, None)
    return float(w * h)


def same_place(a: Floats, b: Floats) -> bool:
    """Whether two boxes [x, y, w, h] are so much in one place that they hold one face."""
    return overlap(a, b) > SAME or _common(a, b) > INSIDE * min(float(a[2] * a[3]), float(b[2] * b[3]))
