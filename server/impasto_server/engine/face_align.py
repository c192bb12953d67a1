"""Faces brought to the place in which networks for faces expect them, by five points, and back into the picture.

Coordinates are continuous, as in the kit: a pixel's centre lies at .5. No torch here.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from .kit.crops import Placed, check_picture, similarity, warped
from .kit.landmarks import LEFT_EYE, RIGHT_EYE
from .kit.runtime import Floats, Picture

__all__ = ["aligned", "arcface_template", "ffhq_template", "five_points", "paste_part", "soft_square"]

# As insightface and facexlib publish them: of whole pixels, whose centres lie at 0.
_ARCFACE_112 = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
_FFHQ_512 = (
    (192.98138, 239.94708),
    (318.90277, 240.1936),
    (256.63416, 314.01935),
    (201.26117, 371.41043),
    (313.08905, 371.15118),
)

_NOSE, _MOUTH_LEFT, _MOUTH_RIGHT = 4, 61, 291
"""The tip of the nose and the corners of the mouth among the 468 points."""


def arcface_template(side: int) -> npt.NDArray[np.float64]:
    """The five points [5, 2] in a square of `side` pixels for ArcFace (Deng et al., 2019) and what was made beside it.

    Multiples of 112 scale the places of 112 pixels. Others are seen as 128 with 8 more at the left and the right, which
    is what insightface does, and inswapper with its 128 pixels expects.
    """
    places = np.array(_ARCFACE_112)
    if side % 112 == 0:
        scale, shift = side / 112, 0.0
    else:
        scale = side / 128
        shift = 8.0 * scale
    return places * scale + (shift + 0.5, 0.5)


def ffhq_template(side: int) -> npt.NDArray[np.float64]:
    """The five points [5, 2] in a square of `side` pixels as in FFHQ, where faces are smaller; GFPGAN, CodeFormer and
    RestoreFormer look at these, at 512."""
    return (np.array(_FFHQ_512) + 0.5) * (side / 512)


def five_points(mesh: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The five points [5, 2] of a face from the 468 of its mesh [468, 2 or 3]: the eye at the left of the picture, the
    other one, the tip of the nose, the corners of the mouth. Raises ValueError for another array."""
    if mesh.shape not in ((468, 2), (468, 3)):
        raise ValueError(f"the points of a mesh are [468, 2 or 3], these are {list(mesh.shape)}")
    flat = mesh[:, :2].astype(np.float64)
    eyes = [flat[list(rim)].mean(0) for rim in (RIGHT_EYE, LEFT_EYE)]
    return np.stack([*eyes, flat[_NOSE], flat[_MOUTH_LEFT], flat[_MOUTH_RIGHT]])


def aligned(
    image: npt.NDArray[np.generic], points: npt.NDArray[np.floating], template: npt.NDArray[np.floating], side: int
) -> Placed:
    """The square of `side` pixels in which the `points` of a face of an RGB picture [h, w, 3] uint8 lie nearest to the
    `template`'s; black outside of the picture. Its `matrix` leads back, for `paste_part`.

    Both are [n, 2], n at least 2. Raises ValueError for other arrays, and for points that all lie in one place.
    """
    picture = check_picture(image)
    if points.ndim != 2 or points.shape != template.shape or points.shape[1] != 2 or len(points) < 2:
        raise ValueError(f"points and template are [n, 2], these are {list(points.shape)}, {list(template.shape)}")
    if not np.isfinite(points).all() or np.ptp(points, axis=0).max() < 1e-3:
        raise ValueError("the points of a face lie apart from each other")
    return warped(picture, similarity(template, points), side)


def soft_square(side: int, inset: float = 0.1, feather: float = 0.1) -> Floats:
    """A mask [side, side] 0..1 for a pasted square: 0 on its rim, 1 from `inset` + `feather` (parts of the side) on,
    with round corners."""
    at = (np.arange(side) + 0.5) / side
    depth = np.minimum(at, 1 - at) - inset
    near = np.clip(1 - depth / max(feather, 1e-6), 0, None)
    distance = np.hypot(near[:, None], near[None, :])
    ramp = np.clip(1 - distance, 0, 1)
    ramp[0] = ramp[-1] = ramp[:, 0] = ramp[:, -1] = 0
    smooth: Floats = (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
    return smooth


def paste_part(
    image: Picture, part: Picture, matrix: npt.NDArray[np.float64], mask: npt.NDArray[np.floating]
) -> Picture:
    """A copy of an RGB picture [h, w, 3] uint8 with `part` laid over it by `mask`: where that is 0 it is bit-identical.

    `matrix` [2, 3] takes coordinates of the part to those of the picture, as `Placed.matrix` of the square that was
    taken out. `part` is RGB [s, s, 3] uint8 and `mask` [s, s] 0..1; both may be n times that square's side, if the
    matrix is divided by n. Where the part is shrunk it is averaged first. Raises ValueError for other arrays.
    """
    picture = check_picture(image)
    part = check_picture(part)
    if mask.shape != part.shape[:2]:
        raise ValueError(f"the mask is of the part's size {list(part.shape[:2])}, this is {list(mask.shape)}")
    height, width = picture.shape[:2]
    rows, columns = part.shape[:2]
    corners = np.array([[0, 0], [columns, 0], [0, rows], [columns, rows]]) @ matrix[:, :2].T + matrix[:, 2]
    left, top = np.clip(np.floor(corners.min(0)), 0, [width, height]).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(0)), 0, [width, height]).astype(int).tolist()
    result = picture.copy()
    if left >= right or top >= bottom:
        return result
    reduce = max(1, int(1 / max(math.hypot(*matrix[:, 0]), 1e-6)))
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    back[:, 2] += back[:, :2] @ (left, top)
    back /= reduce
    size = (right - left, bottom - top)

    def placed(value: Image.Image, how: Image.Resampling) -> npt.NDArray[np.generic]:
        small = value.reduce(reduce) if reduce > 1 else value
        return np.asarray(small.transform(size, Image.Transform.AFFINE, tuple(back.ravel()), how))

    over = placed(Image.fromarray(part), Image.Resampling.BICUBIC).astype(np.float32)
    share = placed(Image.fromarray(mask.astype(np.float32)), Image.Resampling.BILINEAR).astype(np.float32)
    share = np.clip(share, 0, 1)[..., None]
    under = result[top:bottom, left:right]
    mixed = np.rint(under + (over - under) * share).clip(0, 255).astype(np.uint8)
    np.copyto(under, mixed, where=share > 0)
    return result
