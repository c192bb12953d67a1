"""One face in the place of another: a photograph of it, moved triangle by triangle from its mesh to that of the other.

The triangles are a Delaunay triangulation of the mean of many meshes, cut to the outline of the face. No torch here.
"""

from __future__ import annotations

import math
from importlib import resources

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from .kit.crops import similarity
from .kit.landmarks import FACE_OVAL
from .kit.runtime import Floats, Picture

__all__ = ["best_photo", "fitted_mesh", "mesh_mask", "own_shape", "triangles", "warp_face"]

RIM = 0.25
"""How far from its outline, in widths of the face, a face has wholly the shape that it is given."""


_CROWN, _BROW = 10, 9
_NEAR_CROWN = (0.5, 0.5, 0.45, 0.4, 0.3, 0.15)
_LOWERED = np.zeros(len(FACE_OVAL))
_LOWERED[: len(_NEAR_CROWN)] = _NEAR_CROWN
_LOWERED[-len(_NEAR_CROWN) + 1 :] = _NEAR_CROWN[:0:-1]
"""How far each point of the outline is lowered for the mask, in heights of the forehead."""


def triangles() -> npt.NDArray[np.intp]:
    """The triangles [n, 3] of the 468 points, as numbers of points; together they cover the face once."""
    text = (resources.files(__package__) / "data" / "face_triangles.txt").read_text("ascii")
    return np.array([[int(n) for n in each.split(",")] for each in text.split()], np.intp)


def fitted_mesh(mesh: Floats, onto: Floats) -> npt.NDArray[np.float64]:
    """`mesh` [468, 3] turned, scaled and shifted in space so that it lies nearest to another one (Umeyama, 1991)."""
    a, b = mesh.astype(np.float64), onto.astype(np.float64)
    ca, cb = a.mean(0), b.mean(0)
    da, db = a - ca, b - cb
    u, values, v = np.linalg.svd(db.T @ da / len(a))
    mirror = np.diag([1.0, 1.0, float(np.sign(np.linalg.det(u) * np.linalg.det(v)))])
    scale = (values * np.diag(mirror)).sum() / max(float((da**2).sum(1).mean()), 1e-12)
    placed: npt.NDArray[np.float64] = scale * da @ (u @ mirror @ v).T + cb
    return placed


def best_photo(meshes: list[Floats], target: Floats) -> tuple[int, float]:
    """Which of the meshes [468, 3] shows pose and expression most like the target's, and how far it is from it: the
    root mean square of what no turn, scale or shift *in the picture* explains, in widths of the face."""
    width = _width(target)
    found = []
    for mesh in meshes:
        matrix = similarity(mesh[:, :2], target[:, :2])
        off = mesh[:, :2] @ matrix[:, :2].T + matrix[:, 2] - target[:, :2]
        found.append(math.sqrt(float((off**2).sum(1).mean())) / width)
    best = int(np.argmin(found))
    return best, found[best]


def own_shape(mesh: Floats, target: Floats, share: float) -> Floats:
    """The points [468, 2] to which a face of `mesh` moves in the place of `target` (both [468, 3]): on the outline the
    target's, within it by `share` (0..1) those of the face itself, turned as the target is."""
    place = target[:, :2].astype(np.float64)
    if share <= 0:
        return place.astype(np.float32)
    own = fitted_mesh(mesh, target)[:, :2]
    outline = place[list(FACE_OVAL)]
    distance = np.sqrt(((place[:, None] - outline[None]) ** 2).sum(-1)).min(1)
    near = np.clip(distance / (RIM * _width(target)), 0, 1)
    weight = share * near * near * (3 - 2 * near)
    places: Floats = (place + weight[:, None] * (own - place)).astype(np.float32)
    return places


def warp_face(
    photo: Picture, points: Floats, places: Floats, box: tuple[int, int, int, int]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """A face of a photograph, RGB [h, w, 3] uint8 with `points` [468, 2 or 3], moved to `places` [468, 2].

    Gives what then lies in `box` (x, y, width, height): RGB [height, width, 3] 0..255, and where it is, [height,
    width]. A face that becomes much smaller is averaged first.
    """
    left, top, width, height = box
    table = triangles()
    source, target = points[:, :2].astype(np.float64), places[:, :2].astype(np.float64) - (left, top)
    shrink = math.sqrt(_area(source) / max(_area(target), 1.0))
    picture = Image.fromarray(photo)
    if shrink >= 2:
        picture = picture.reduce(int(shrink))
        source = source / int(shrink)
    where = np.full((height, width, 2), np.nan, np.float32)
    for corners in table:
        _fill(where, target[corners], source[corners])
    covered = np.isfinite(where[..., 0])
    result = np.zeros((height, width, 3), np.float32)
    result[covered] = _sampled(np.asarray(picture, np.float32), where[covered] - 0.5)
    return result, covered


def mesh_mask(points: Floats, box: tuple[int, int, int, int], feather: float) -> Floats:
    """The inside of a face in `box` (x, y, width, height), [height, width] 0..1: 0 from its rim on, 1 from `feather`
    pixels within it. The rim is the outline, but below the brow's upper part, where hair may hang."""
    left, top, width, height = box
    rim = points[list(FACE_OVAL), :2].astype(np.float64)
    rim += _LOWERED[:, None] * (points[_BROW, :2] - points[_CROWN, :2])
    outline = [(float(x) - left, float(y) - top) for x, y in rim]
    plain = Image.new("L", (width, height))
    ImageDraw.Draw(plain).polygon(outline, fill=255)
    inset = max(1, round(feather / 2))
    # A room of zeros, so that the border of the box is no border of the face to the filters.
    room = Image.new("L", (width + 4 * inset, height + 4 * inset))
    room.paste(plain, (2 * inset, 2 * inset))
    for _ in range(inset):
        room = room.filter(ImageFilter.MinFilter(3))
    room = room.filter(ImageFilter.GaussianBlur(inset / 2))
    soft = np.asarray(room, np.float32)[2 * inset : 2 * inset + height, 2 * inset : 2 * inset + width] / 255
    masked: Floats = np.where(np.asarray(plain) > 0, soft, 0).astype(np.float32)
    return masked


def _fill(where: Floats, target: npt.NDArray[np.float64], source: npt.NDArray[np.float64]) -> None:
    """Write into `where` for the pixels of one triangle which place of the photograph they show."""
    height, width = where.shape[:2]
    x0, y0 = np.clip(np.floor(target.min(0) - 0.5), 0, [width, height]).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(target.max(0) + 0.5), 0, [width, height]).astype(int).tolist()
    edges = (target[1:] - target[0]).T
    if x0 >= x1 or y0 >= y1 or abs(np.linalg.det(edges)) < 1e-9:
        return
    xs, ys = np.meshgrid(np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5)
    at = np.stack([xs - target[0, 0], ys - target[0, 1]], -1) @ np.linalg.inv(edges).T
    inside = (at >= -1e-6).all(-1) & (at.sum(-1) <= 1 + 1e-6)
    places = source[0] + at @ (source[1:] - source[0])
    where[y0:y1, x0:x1][inside] = places[inside]


def _sampled(picture: Floats, at: npt.NDArray[np.floating]) -> Floats:
    """Values [n, 3] of a picture [h, w, 3] at `at` [n, 2], pixels' centres at whole numbers: Catmull-Rom splines."""
    height, width = picture.shape[:2]
    base = np.floor(at).astype(np.intp)
    part = at - base
    weights = [_spline(part[:, axis]) for axis in (0, 1)]
    result = np.zeros((len(at), 3), np.float32)
    for row in range(4):
        y = np.clip(base[:, 1] + row - 1, 0, height - 1)
        for column in range(4):
            x = np.clip(base[:, 0] + column - 1, 0, width - 1)
            result += picture[y, x] * (weights[0][column] * weights[1][row])[:, None].astype(np.float32)
    np.clip(result, 0, 255, out=result)
    return result


def _spline(t: npt.NDArray[np.floating]) -> list[npt.NDArray[np.floating]]:
    square, cube = t * t, t * t * t
    return [
        (-cube + 2 * square - t) / 2,
        (3 * cube - 5 * square + 2) / 2,
        (-3 * cube + 4 * square + t) / 2,
        (cube - square) / 2,
    ]


def _width(mesh: npt.NDArray[np.floating]) -> float:
    return max(float(np.ptp(mesh[list(FACE_OVAL), 0])), 1e-6)


def _area(points: npt.NDArray[np.floating]) -> float:
    """Of the outline, by the shoelace formula."""
    x, y = points[list(FACE_OVAL), :2].T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2
