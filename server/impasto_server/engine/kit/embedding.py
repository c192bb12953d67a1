"""128 numbers that tell one person's face from another's: the network of dlib's face recognition (King, 2017)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .crops import check_picture, similarity, warped
from .runtime import Floats, Kit

__all__ = ["SAME_PERSON", "face_chip", "face_distance", "face_embedding"]

SIDE = 150
PADDING = 0.25

SAME_PERSON = 0.6
"""Embeddings nearer than this are said to be of one person, as dlib says it."""

# Where the network was taught to expect the corners of the eyes and the foot of the nose, in a face from 0 to 1.
_PLACES = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)
_IN_MESH = (263, 362, 33, 133, 2)
"""The points of the mesh that are these five."""


def face_embedding(kit: Kit, image: npt.NDArray[np.generic], points: npt.NDArray[np.floating]) -> Floats:
    """The embedding [128] of a face in an RGB picture [h, w, 3] uint8. Its distances to others are what it says
    (`face_distance`); it is not of length 1.

    `points` are the 468 of its mesh [468, 2 or 3], or the six of the detector [6, 2], which place it less exactly.
    Raises ValueError for other arrays, and what `Kit.network` raises.
    """
    chip = face_chip(image, points)
    found: Floats = kit.network("face-embedding")(chip[None].astype(np.float32))["embedding"][0]
    return found


def face_chip(image: npt.NDArray[np.generic], points: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """The face as the network wants it: upright and of one size, RGB [150, 150, 3] uint8."""
    picture = check_picture(image)
    places = (PADDING + _PLACES) / (1 + 2 * PADDING) * SIDE
    if points.shape in ((468, 2), (468, 3)):
        given = points[list(_IN_MESH), :2]
    elif points.shape == (6, 2):
        # The middles of the eyes: left in the picture, right.
        given, places = points[:2], np.stack([places[2:4].mean(0), places[0:2].mean(0)])
    else:
        raise ValueError(f"points are [468, 2 or 3] of a mesh or [6, 2] of a face, these are {list(points.shape)}")
    return warped(picture, similarity(places, given), SIDE).pixels


def face_distance(a: Floats, b: Floats) -> float:
    """How far two embeddings are from each other; below `SAME_PERSON` they are probably of one person."""
    return float(np.linalg.norm(a.astype(np.float64) - b))
