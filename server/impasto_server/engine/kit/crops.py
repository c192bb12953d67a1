"""Parts of a picture as the networks want them: squares, turned and scaled, and the way back to its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from .runtime import Floats, Picture

__all__ = ["Placed", "check_picture", "resized", "similarity", "square", "upright", "warped"]


@dataclass(frozen=True, eq=False)
class Placed:
    """`pixels` RGB [side, side, 3] 0..255 and `matrix` [2, 3], from their coordinates to the picture's.

    Coordinates are continuous: a pixel's centre lies at .5.
    """

    pixels: Picture
    matrix: npt.NDArray[np.float64]

    def back(self, points: npt.NDArray[np.floating]) -> Floats:
        """Points [n, 2] of the part -> of the picture."""
        return (points @ self.matrix[:, :2].T + self.matrix[:, 2]).astype(np.float32)

    @property
    def scale(self) -> float:
        """How many of the picture's pixels one pixel of the part spans."""
        return float(math.hypot(*self.matrix[:, 0]))


def check_picture(image: npt.NDArray[np.generic]) -> Picture:
    """The picture, if it is RGB [h, w, 3] uint8 and not empty. Raises ValueError."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"a picture is RGB uint8 [h, w, 3], this is {image.dtype} {list(image.shape)}")
    return image.astype(np.uint8, copy=False)


def resized(picture: Picture, width: int, height: int) -> Picture:
    """The whole picture at another size, sides on their own: an average where it shrinks, bilinear where it grows."""
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def warped(image: Picture, matrix: npt.NDArray[np.float64], side: int) -> Placed:
    """The square whose coordinates `matrix` [2, 3] takes to the picture's; black outside of the picture.

    A part that is much larger than `side` is averaged first, so that no detail is skipped.
    """
    reduce = max(1, int(math.hypot(*matrix[:, 0])))
    # Only what is needed of the picture, and some room: to hand over a large one takes longer than all the rest.
    corners = np.array([[0, 0], [side, 0], [0, side], [side, side]]) @ matrix[:, :2].T + matrix[:, 2]
    height, width = image.shape[:2]
    left, top = np.clip(np.floor(corners.min(0)) - reduce - 2, 0, [width, height]).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(0)) + reduce + 2, 0, [width, height]).astype(int).tolist()
    if left >= right or top >= bottom:
        return Placed(np.zeros((side, side, 3), np.uint8), matrix)
    source = Image.fromarray(image[top:bottom, left:right])
    if reduce > 1:
        source = source.reduce(reduce)
    at = matrix.copy()
    at[:, 2] -= (left, top)
    at /= reduce
    part = source.transform((side, side), Image.Transform.AFFINE, tuple(at.ravel()), Image.Resampling.BILINEAR)
    return Placed(np.asarray(part), matrix)


def square(image: Picture, x: float, y: float, width: float, height: float, side: int) -> Placed:
    """A box of the picture, unturned, in the middle of a square; black around it."""
    k = max(width, height) / side
    left, top = x + (width - k * side) / 2, y + (height - k * side) / 2
    return warped(image, np.array([[k, 0, left], [0, k, top]]), side)


def upright(image: Picture, centre: npt.ArrayLike, size: float, angle: float, side: int) -> Placed:
    """A square of `size` pixels about `centre`, turned by `angle` (radians, clockwise as seen)."""
    k, c, s = size / side, math.cos(angle), math.sin(angle)
    matrix = np.zeros((2, 3))
    matrix[:, :2] = [[c * k, -s * k], [s * k, c * k]]
    matrix[:, 2] = np.asarray(centre, np.float64) - matrix[:, :2] @ np.array([side / 2, side / 2])
    return warped(image, matrix, side)


def similarity(source: npt.NDArray[np.floating], target: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The turn, scale and shift [2, 3] that take points [n, 2] nearest to others: Umeyama, "Least-squares estimation of
    transformation parameters between two point patterns", 1991."""
    a, b = source.astype(np.float64), target.astype(np.float64)
    ca, cb = a.mean(0), b.mean(0)
    da, db = a - ca, b - cb
    u, values, v = np.linalg.svd(db.T @ da / len(a))
    mirror = np.diag([1.0, float(np.sign(np.linalg.det(u) * np.linalg.det(v)))])
    turn = u @ mirror @ v
    scale = (values * np.diag(mirror)).sum() / (da**2).sum(1).mean()
    matrix = np.zeros((2, 3))
    matrix[:, :2] = scale * turn
    matrix[:, 2] = cb - scale * turn @ ca
    return matrix
