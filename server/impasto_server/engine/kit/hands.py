"""Hands and their 21 joints: Zhang et al., "MediaPipe Hands: On-device Real-time Hand Tracking", 2020.

A detector finds palms at 192 x 192 pixels; a second network finds the joints in a square about the hand that is turned
so that the fingers point up, at 224 x 224.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .blazeface import Detector, Face, faces_in, overlap
from .crops import check_picture, square, upright
from .runtime import Floats, Kit

__all__ = ["PALM", "Hand", "detect_hands"]

PALM = Detector("palm-detector", 192, (8, 16, 16, 16), 2, 7, signed=False)

SIDE = 224
ROOM = 2.6
"""The square that is looked at, in longer sides of the palm's box."""
AHEAD = 0.5
"""How far its middle lies from the palm's towards the fingers, in sides of the box."""

WRIST, KNUCKLE = 0, 2
"""Points of a palm: the hand points from the first to the second, the middle finger's."""

THERE = 0.5


@dataclass(frozen=True, eq=False)
class Hand:
    """`joints` [21, 3]: x and y in the picture's pixels and the score of the hand, 0..1, in OpenPose's order (0 wrist,
    then four for each finger, thumb first). `right`: how surely it is a person's right hand, 0..1."""

    joints: Floats
    score: float
    right: float


def detect_hands(
    kit: Kit,
    image: npt.NDArray[np.generic],
    areas: list[tuple[float, float, float]] | None = None,
    *,
    threshold: float = 0.5,
) -> list[Hand]:
    """The hands in an RGB picture [h, w, 3] uint8, best first: in the square `areas` (x, y, side) where some are given,
    else in the whole picture.

    `threshold` 0..1 is the detector's least score. Raises ValueError for another array, and what `Kit.network` raises.
    """
    picture = check_picture(image)
    height, width = picture.shape[:2]
    network = kit.network(PALM.name)
    parts = [(x, y, side, side) for x, y, side in areas] if areas is not None else [(0, 0, width, height)]
    seen: list[Face] = []
    for x, y, w, h in parts:
        for palm in faces_in(network, PALM, square(picture, x, y, w, h, PALM.side), threshold):
            if not any(overlap(palm.box, other.box) > 0.3 for other in seen):
                seen.append(palm)
    hands = [_joints(kit, picture, palm) for palm in seen]
    return sorted((hand for hand in hands if hand.score >= THERE), key=lambda hand: -hand.score)


def _joints(kit: Kit, picture: npt.NDArray[np.uint8], palm: Face) -> Hand:
    along = palm.points[KNUCKLE] - palm.points[WRIST]
    angle = float(np.arctan2(along[1], along[0]) + np.pi / 2)
    side = float(max(palm.box[2:]))
    middle = palm.box[:2] + palm.box[2:] / 2 + AHEAD * side * np.array([np.sin(angle), -np.cos(angle)])
    part = upright(picture, middle, ROOM * side, angle, SIDE)
    outputs = kit.network("hand-pose")(part.pixels[None].astype(np.float32) / 255)
    score = float(outputs["score"].item())
    places = part.back(outputs["points"].reshape(21, 3)[:, :2])
    joints = np.concatenate([places, np.full((21, 1), score)], axis=1).astype(np.float32)
    # It was taught on pictures as a mirror shows them.
    return Hand(joints, score, 1 - float(outputs["handedness"].item()))
