"""The 468 points of a face: Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video", 2019."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .blazeface import Face
from .crops import check_picture, upright
from .runtime import Floats, Kit

__all__ = ["FACE_OVAL", "LEFT_EYE", "LIPS", "RIGHT_EYE", "Mesh", "face_mesh"]

SIDE = 192
ROOM = 1.5
"""The square that is looked at, in longer sides of the box."""

# fmt: off
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
# fmt: on
"""The outline of the face, once round. These and the following are numbers of points."""

RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
"""The rim of the person's right eye, at the left of the picture; from the outer corner, once round."""

LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)

LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
"""The outer rim of the lips, once round."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """`points` [468, 3]: x and y in the picture's pixels, z in the same unit, smaller towards us, 0 near the middle of
    the head. `score` 0..1: whether there is a face at all."""

    points: Floats
    score: float


def face_mesh(kit: Kit, image: npt.NDArray[np.generic], face: Face) -> Mesh:
    """The mesh of one of the faces of an RGB picture [h, w, 3] uint8.

    Raises ValueError for another array, and what `Kit.network` raises.
    """
    picture = check_picture(image)
    x, y, width, height = (float(v) for v in face.box)
    size = ROOM * max(width, height)
    part = upright(picture, (x + width / 2, y + height / 2), size, face.angle, SIDE)
    outputs = kit.network("face-mesh")(part.pixels[None].astype(np.float32) / 255)
    points = outputs["points"].reshape(468, 3)
    flat = part.back(points[:, :2])
    deep = np.concatenate([flat, points[:, 2:] * part.scale], axis=1).astype(np.float32)
    score = 1 / (1 + np.exp(-np.clip(outputs["score"].item(), -80, 80)))
    return Mesh(deep, float(score))
