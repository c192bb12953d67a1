"""Faces of a picture exchanged for that of a profile, as one layer that is transparent elsewhere.

A back end makes one face; what chooses, joins and tells is the same for all. `MeshWarp` needs nothing but the kit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box

from .face_blend import joined, match_light, sharpened
from .face_profiles import NETWORK, FaceProfile, SeenFace, is_cut, likeness, read_profile, seen_faces
from .face_warp import best_photo, mesh_mask, own_shape, warp_face
from .jobs import Emit, Job, Layer, Result
from .kit.embedding import face_embedding
from .kit.landmarks import FACE_OVAL, face_mesh
from .kit.runtime import Floats, Kit, Picture
from .params_faces import FaceSwap
from .pictures import flattened
from .recipe import DIGITAL_SOURCE_TYPE
from .report import Report

__all__ = ["FaceBackEnd", "MadeFace", "MeshWarp", "chosen_faces", "faceswap"]

FEATHER = 0.06
"""Of the mask, in widths of the face."""


@dataclass(frozen=True, eq=False)
class MadeFace:
    """What a back end made for `box` (x, y, width, height) of the picture: RGB [height, width, 3] 0..255 and the alpha
    [height, width] 0..1 of the layer; `told` is what ran, as plain values."""

    box: tuple[int, int, int, int]
    pixels: Floats
    alpha: Floats
    told: Mapping[str, Any]


class FaceBackEnd(Protocol):
    """One of the ways to make a face."""

    name: str

    def make(self, picture: Picture, face: SeenFace, profile: FaceProfile, params: FaceSwap) -> MadeFace:
        """That of the profile in the place of one of an RGB picture [h, w, 3] uint8."""
        ...


class MeshWarp:
    """The profile's best matching photograph, moved by the mesh, its light matched, joined in the gradient domain."""

    name = "mesh-warp"

    def make(self, picture: Picture, face: SeenFace, profile: FaceProfile, params: FaceSwap) -> MadeFace:
        target = face.mesh.points
        number, off = best_photo([photo.mesh for photo in profile.photos], target)
        photo = profile.photos[number]
        outline = target[list(FACE_OVAL), :2]
        height, width = picture.shape[:2]
        left, top = np.clip(np.floor(outline.min(0)) - 4, 0, [width, height]).astype(int).tolist()
        right, bottom = np.clip(np.ceil(outline.max(0)) + 4, 0, [width, height]).astype(int).tolist()
        box = (left, top, right - left, bottom - top)
        over, covered = warp_face(photo.pixels, photo.mesh, own_shape(photo.mesh, target, params.shape), box)
        under = picture[top:bottom, left:right].astype(np.float32)
        alpha = mesh_mask(target, box, max(2.0, FEATHER * float(np.ptp(outline[:, 0])))) * covered
        matched = match_light(over, under, alpha, params.light)
        # The rim from which the membrane hangs is where the layer is only just seen.
        made = joined(matched, covered, under, alpha > 0.04) if params.light > 0 else matched
        told = {"photograph": number + 1, "of": len(profile.photos), "pose_difference": round(off, 4)}
        return MadeFace(box, sharpened(made, params.sharpen), alpha, told)


def chosen_faces(
    faces: list[SeenFace], params: FaceSwap, likenesses: list[float], origin: tuple[int, int]
) -> list[tuple[int, str]]:
    """For each of the faces (from left to right) that were asked for its number in the list and why it is left alone
    ("": it is not). `origin` is where the picture's corner lies in the document.

    Raises RequestError `request.no_face` where none is meant.
    """
    ordered = list(range(len(faces)))
    if params.order == "size":
        ordered.sort(key=lambda i: -faces[i].side)
    if params.which == "number":
        if params.number > len(faces):
            raise RequestError(
                "request.no_face",
                f"There is no face {params.number}; {len(faces)} above {params.threshold:g} were found.",
                path="params.number",
                data={"found": len(faces)},
            )
        wanted = [ordered[params.number - 1]]
    elif params.which == "largest":
        wanted = [max(ordered, key=lambda i: faces[i].side)]
    elif params.which == "similar":
        wanted = [max(ordered, key=lambda i: likenesses[i])]
    elif params.which == "point":
        wanted = [_at(faces, params, origin)]
    else:
        wanted = ordered
    reasons = []
    for i in wanted:
        low = likenesses[i] < params.min_similarity
        reason = f"Its similarity {likenesses[i]:.2f} is below {params.min_similarity:g}." if low else ""
        reasons.append((i, reason))
    return reasons


def _at(faces: list[SeenFace], params: FaceSwap, origin: tuple[int, int]) -> int:
    point = np.array([params.x - origin[0], params.y - origin[1]])
    hit = [
        i
        for i, one in enumerate(faces)
        if (one.face.box[:2] <= point).all() and (point <= one.face.box[:2] + one.face.box[2:]).all()
    ]
    if not hit:
        raise RequestError(
            "request.no_face",
            f"There is no face at {params.x}, {params.y}; {len(faces)} were found elsewhere in the picture.",
            path="params.x",
            data={"found": len(faces)},
        )
    return min(hit, key=lambda i: faces[i].side)


def faceswap(job: Job, params: FaceSwap, report: Report, kit: Kit, emit: Emit | None = None) -> Result:
    """The wanted faces of the job's picture with the profile's in their places: one layer, to `emit` or
    through `report`, whose alpha is the faces' masks and 0 elsewhere. `job.checkpoint` is the profile's file.

    `ran` and the layer's recipe tell of each face what became of it. Raises RequestError `request.no_face` and
    `request.face_cut` where nothing could be done, ModelError for the profile, Cancelled at most one face after
    `cancelled()` turned true.
    """
    assert job.image is not None
    picture = flattened(job.image)
    profile = read_profile(Path(job.checkpoint))
    back_end: FaceBackEnd = MeshWarp()
    with report.stage("detect", 1):
        faces = seen_faces(kit, picture, params.threshold)
    own = profile.embeddings[NETWORK]
    likenesses = [likeness(one.embedding, own) for one in faces]
    wanted = chosen_faces(faces, params, likenesses, (job.box.x, job.box.y))
    height, width = picture.shape[:2]
    pixels = np.zeros((height, width, 4), np.uint8)
    told: list[dict[str, Any]] = []
    cut = 0
    with report.stage("swap", len(wanted)):
        for done, (index, reason) in enumerate(wanted):
            report.check()
            one = faces[index]
            entry = _entry(one, index, likenesses[index], job.box)
            if not reason and is_cut(one.mesh.points, width, height):
                reason, cut = "The border of the picture cuts the face.", cut + 1
            if reason:
                told.append({**entry, "done": False, "reason": reason})
            else:
                made = back_end.make(picture, one, profile, params)
                _lay(pixels, made)
                told.append({**entry, "done": True, **made.told})
            report.progress("swap", done + 1, len(wanted))
    if not any(entry["done"] for entry in told):
        raise RequestError(
            "request.face_cut" if cut else "request.no_face",
            f"No face was swapped: {told[0]['reason']} "
            + ("Send more of the picture." if cut else "Lower the least similarity."),
            data={"faces": told},
        )
    _tell_likeness(kit, picture, pixels, faces, told, own)
    x, y, w, h = _bounds(pixels[..., 3])
    info = {
        "mode": job.mode,
        "params": dataclasses.asdict(params),
        "working": [job.box.width, job.box.height],
        "profile": {"name": profile.name, "consent": profile.consent},
        "back_end": back_end.name,
        "faces": told,
        "digital_source_type": DIGITAL_SOURCE_TYPE,
    }
    box = Box(job.box.x + x, job.box.y + y, w, h)
    layer = np.ascontiguousarray(pixels[y : y + h, x : x + w])
    (emit or report.emit)(Layer(0, "faceswap", f"Face of {profile.name}", layer, box, "soft", 0, info))
    ran = {"device": "cpu", "back_end": back_end.name, "profile": profile.name, "faces": told}
    return Result((), dict(report.timings), ran)


def _entry(one: SeenFace, index: int, like: float, box: Box) -> dict[str, Any]:
    x, y, w, h = (round(float(v)) for v in one.face.box)
    return {
        "number": index + 1,
        "box": [x + box.x, y + box.y, w, h],
        "score": round(one.face.score, 3),
        "similarity_before": round(like, 3),
    }


def _lay(pixels: npt.NDArray[np.uint8], made: MadeFace) -> None:
    """Lay one face over the layer as it is so far."""
    x, y, w, h = made.box
    under = pixels[y : y + h, x : x + w].astype(np.float32)
    share, below = made.alpha[..., None], under[..., 3:] / 255 * (1 - made.alpha[..., None])
    alpha = share + below
    color = np.divide(
        made.pixels * share + under[..., :3] * below, alpha, where=alpha > 0, out=np.zeros_like(made.pixels)
    )
    done = np.concatenate([color, alpha * 255], axis=-1)
    pixels[y : y + h, x : x + w] = np.rint(done).clip(0, 255).astype(np.uint8)


def _tell_likeness(
    kit: Kit,
    picture: Picture,
    pixels: npt.NDArray[np.uint8],
    faces: list[SeenFace],
    told: list[dict[str, Any]],
    own: Floats,
) -> None:
    """How like the profile each face is now, as the network sees it in the finished picture."""
    share = pixels[..., 3:].astype(np.float32) / 255
    finished = np.rint(pixels[..., :3] * share + picture * (1 - share)).astype(np.uint8)
    for entry in told:
        if entry["done"]:
            mesh = face_mesh(kit, finished, faces[entry["number"] - 1].face)
            entry["similarity"] = round(likeness(face_embedding(kit, finished, mesh.points), own), 3)


def _bounds(alpha: npt.NDArray[np.uint8]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y
