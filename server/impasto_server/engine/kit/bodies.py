"""Where bodies are, and their joints: Bazarevsky et al., "BlazePose: On-device Real-time Body Pose Tracking", 2020.

A detector finds each body's middle and extent, at 224 x 224 pixels; a second network finds the joints in a square that
is turned upright, at 256 x 256.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .blazeface import Detector, Face, faces_in, same_place
from .crops import check_picture, square, upright
from .faces import tiles
from .runtime import Floats, Kit

__all__ = ["BODY", "Body", "detect_bodies"]

BODY = Detector("body-detector", 224, (8, 16, 32, 32, 32), 2, 4)

SIDE = 256
ROOM = 2.5
"""The square that is looked at, in distances between the middle of the hips and the end of the body."""

JOINTS = 33
"""Two more follow: the middle of the hips, and the end of the body."""

LOOKS = 2

TRUNK = (0, 11, 12, 23, 24)
"""Nose, shoulders and hips."""

THERE = 0.5
"""The least score of the second network, and how surely the trunk has to be seen, for a body to count."""

LEAST = 8
"""Joints that have to be seen within the picture."""

CLEAR = 0.65
"""The detector's least score in a tile, which shows parts of bodies, and things without the rest that tells them."""


@dataclass(frozen=True, eq=False)
class Body:
    """`joints` [33, 3]: x and y in the picture's pixels, which need not lie within it, and how surely the joint is
    seen, 0..1; in BlazePose's order (0 nose, 11 and 12 shoulders, left first, 15 and 16 wrists, 23 to 28 hips to
    ankles). `score` 0..1: whether there is a body at all."""

    joints: Floats
    score: float


def detect_bodies(
    kit: Kit, image: npt.NDArray[np.generic], *, threshold: float = 0.5, smallest: float = 0.2, most: int = 20
) -> list[Body]:
    """The bodies in an RGB picture [h, w, 3] uint8, best first.

    `threshold` 0..1 is the detector's least score; bodies down to `smallest` of the longer side are looked for, in
    tiles; 1 looks at the whole picture alone. Raises ValueError for another array, and what `Kit.network` raises.
    """
    picture = check_picture(image)
    height, width = picture.shape[:2]
    network = kit.network(BODY.name)
    seen = faces_in(network, BODY, square(picture, 0, 0, width, height, BODY.side), threshold)
    seen.sort(key=lambda f: -f.score)
    parts: list[Face] = []
    for x, y, side in tiles(width, height, smallest * 0.4):
        parts += faces_in(network, BODY, square(picture, x, y, side, side, BODY.side), max(threshold, CLEAR))
    found: list[Body] = []
    # First what is seen in the whole: tiles cut bodies.
    for candidate in (*seen, *sorted(parts, key=lambda f: -f.score)):
        if len(found) == most:
            break
        body = _joints(kit, picture, *candidate.points[:2])
        if body is not None and not any(_same(body, other) for other in found):
            found.append(body)
    return sorted(found, key=lambda body: -body.score)


def _joints(kit: Kit, picture: npt.NDArray[np.uint8], hips: Floats, end: Floats) -> Body | None:
    """The body whose hips' middle and end are these; None where there is none after all.

    The second network says both places better than the detector: it looks once more from there.
    """
    height, width = picture.shape[:2]
    for _ in range(LOOKS):
        along = end - hips
        angle = float(np.arctan2(along[1], along[0]) + np.pi / 2)
        part = upright(picture, hips, ROOM * float(np.hypot(*along)), angle, SIDE)
        outputs = kit.network("body-pose")(part.pixels[None].astype(np.float32) / 255)
        rows, score = outputs["points"].reshape(-1, 5), float(outputs["score"].item())
        if score < THERE:
            return None
        places = part.back(rows[:, :2])
        hips, end = places[JOINTS], places[JOINTS + 1]
    seen = 1 / (1 + np.exp(-np.clip(rows[:JOINTS, 3:].min(1), -80, 80)))
    joints = np.concatenate([places[:JOINTS], seen[:, None]], axis=1).astype(np.float32)
    inside = ((joints[:, :2] >= 0) & (joints[:, :2] < (width, height))).all(1)
    if seen[list(TRUNK)].mean() < THERE or (inside & (seen > THERE)).sum() < LEAST:
        return None
    return Body(joints, score)


def _same(a: Body, b: Body) -> bool:
    """Whether two are one body: their trunks and heads lie in one place."""
    return same_place(_box(a), _box(b))


def _box(body: Body) -> Floats:
    core = body.joints[list(TRUNK), :2]
    low, high = core.min(0), core.max(0)
    return np.concatenate([low, np.maximum(high - low, 1)]).astype(np.float32)
