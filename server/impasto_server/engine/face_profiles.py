"""What is kept of a person's face, from photographs and with that person's consent: a safetensors file.

It holds each photograph's face, cut out upright, its mesh, and one embedding for each network that tells people apart.
No torch here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from impasto_protocol.errors import ImpastoError, ModelError, RequestError
from PIL import Image

from .checkpoint import corrupt, read_header, unreadable
from .face_align import aligned, ffhq_template, five_points
from .kit.blazeface import Face
from .kit.embedding import SAME_PERSON, face_distance, face_embedding
from .kit.faces import detect_faces
from .kit.landmarks import FACE_OVAL, Mesh, face_mesh
from .kit.runtime import Floats, Kit, Picture

__all__ = [
    "NETWORK",
    "FacePhoto",
    "FaceProfile",
    "PhotoNote",
    "SeenFace",
    "build_profile",
    "is_cut",
    "likeness",
    "read_profile",
    "seen_faces",
    "write_profile",
]

NETWORK = "dlib"
"""The network of the kit whose embeddings are kept."""

SIDE = 512
"""Of a cut-out face, in pixels: as in FFHQ."""

MAX_PIXELS = 40_000_000
"""Of a photograph."""

SURE = 0.5
LEAST_SEEN = 0.1
"""The score down to which is looked, to say how near it was."""

MARK = "impasto.face"
CUT = 0.1
"""A face of whose outline more than this part lies beyond the border is cut by it."""


@dataclass(frozen=True, eq=False)
class SeenFace:
    """A face of a picture: where the detector and the mesh see it, and its embedding [128]."""

    face: Face
    mesh: Mesh
    embedding: Floats

    @property
    def side(self) -> float:
        """The longer side of its box, in pixels."""
        return float(max(self.face.box[2:]))


@dataclass(frozen=True, eq=False)
class FacePhoto:
    """One photograph of a profile: RGB [512, 512, 3] uint8, the mesh [468, 3] in its pixels, how good it is, 0..1."""

    pixels: Picture
    mesh: Floats
    quality: float


@dataclass(frozen=True, eq=False)
class FaceProfile:
    """A person's face. `embeddings` by the name of the network; `consent` is what was said of that person's."""

    name: str
    photos: tuple[FacePhoto, ...]
    embeddings: Mapping[str, Floats]
    consent: str = ""


@dataclass(frozen=True)
class PhotoNote:
    """What became of one photograph: `similarity` to the profile, 0..1, `quality`, why it was left out ("": used)."""

    label: str
    similarity: float = 0.0
    quality: float = 0.0
    left_out: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)


def likeness(a: Floats, b: Floats) -> float:
    """How like two faces are by their embeddings, 0..1: one minus their distance. From 0.4 on they are said to be of
    one person."""
    return max(0.0, 1.0 - face_distance(a, b))


def seen_faces(kit: Kit, picture: Picture, threshold: float = SURE) -> list[SeenFace]:
    """The faces of an RGB picture [h, w, 3] uint8 from left to right.

    Raises RequestError `request.no_face`, which tells the best that was seen, and what `Kit.network` raises.
    """
    faces = detect_faces(kit, picture, threshold=threshold)
    if not faces:
        best = detect_faces(kit, picture, threshold=min(LEAST_SEEN, threshold), most=1, confirm=False)
        seen = f"the best seen has {best[0].score:.2f}" if best else "nothing like one was seen"
        raise RequestError(
            "request.no_face",
            f"There is no face above {threshold:g} in the picture; {seen}. Take a picture in which one is seen from "
            "the front, or lower the confidence.",
            data={"threshold": threshold, "best": round(best[0].score, 3) if best else 0.0},
        )
    found = []
    for face in faces:
        mesh = face_mesh(kit, picture, face)
        found.append(SeenFace(face, mesh, face_embedding(kit, picture, mesh.points)))
    return sorted(found, key=lambda one: float(one.face.box[0]))


def is_cut(mesh: Floats, width: int, height: int) -> bool:
    """Whether the picture's border cuts a face of that mesh [468, 2 or 3] so much that it cannot be used."""
    x, y = mesh[list(FACE_OVAL), :2].T
    beyond = (x < 0) | (y < 0) | (x > width) | (y > height)
    return float(beyond.mean()) > CUT


def build_profile(
    kit: Kit,
    photos: Sequence[tuple[str, Picture]],
    name: str,
    consent: str,
    picks: Mapping[int, int] | None = None,
) -> tuple[FaceProfile, tuple[PhotoNote, ...]]:
    """A profile from photographs: (label, RGB [h, w, 3] uint8) each; `picks` says which face of one (from 1, from left
    to right; by default the largest).

    Photographs without a usable face, and those that are unlike the others, are left out, and the notes say so. The
    embedding is the mean of theirs, weighed by quality. Raises RequestError `request.no_consent`, `request.no_face`
    (in none), `request.face_cut` (in all), `request.two_people`, `request.bad_geometry` (above 40 megapixels).
    """
    if not consent.strip():
        raise RequestError(
            "request.no_consent",
            "A profile holds a person's face: say that this person agrees, and how you know it, for example "
            "'my own face' or 'agreed on 2 May, by mail'.",
            path="consent",
        )
    notes: list[PhotoNote] = []
    used: list[tuple[int, FacePhoto, Floats]] = []
    errors: list[ImpastoError] = []
    for index, (label, picture) in enumerate(photos):
        try:
            photo, embedding, told = _taken(kit, label, picture, (picks or {}).get(index, 0))
        except RequestError as error:
            if error.code not in ("request.no_face", "request.face_cut"):
                raise
            errors.append(error)
            notes.append(PhotoNote(label, left_out=error.message))
            continue
        used.append((index, photo, embedding))
        notes.append(PhotoNote(label, quality=photo.quality, notes=told))
    if not used:
        raise errors[0] if errors else RequestError("request.no_face", "There is no photograph; give one at least.")
    vectors = [embedding for _, _, embedding in used]
    apart = np.array([[face_distance(a, b) for b in vectors] for a in vectors])
    middle = int(np.argmin(np.median(apart, axis=1)))
    same = apart[middle] < SAME_PERSON
    _check_one_person(apart, same, [notes[index].label for index, _, _ in used])
    weights = np.array([photo.quality for _, photo, _ in used]) * same
    mean = np.average(np.stack(vectors), axis=0, weights=weights).astype(np.float32)
    for (index, _, embedding), fits in zip(used, same, strict=True):
        old, like = notes[index], likeness(embedding, mean)
        reason = "" if fits else "It is unlike the other photographs."
        notes[index] = PhotoNote(old.label, like, old.quality, reason, old.notes)
    kept = tuple(photo for (_, photo, _), fits in zip(used, same, strict=True) if fits)
    return FaceProfile(name, kept, {NETWORK: mean}, consent.strip()), tuple(notes)


def _check_one_person(apart: npt.NDArray[np.float64], same: npt.NDArray[np.bool_], labels: list[str]) -> None:
    """One that is unlike three others is an outlier; where others agree with it, or there are no more, nobody can say
    who is meant."""
    others = np.flatnonzero(~same)
    agreed = [i for i in others if (apart[i][others] < SAME_PERSON).sum() > 1]
    if not len(others) or (not agreed and same.sum() > len(others)):
        return
    named = ", ".join(labels[i] for i in (agreed or others))
    raise RequestError(
        "request.two_people",
        f"The photographs seem to show two people: {named} against the rest. Take photographs of one person alone.",
        data={"others": [labels[i] for i in others]},
    )


def _taken(kit: Kit, label: str, picture: Picture, pick: int) -> tuple[FacePhoto, Floats, tuple[str, ...]]:
    """The wanted face of one photograph, its embedding, and what is to be told of the choice."""
    height, width = picture.shape[:2]
    if width * height > MAX_PIXELS:
        raise RequestError(
            "request.bad_geometry",
            f"{label} has {width} x {height} pixels, above the limit of 40 megapixels for a photograph of a face; "
            "scale it down.",
            data={"limit": MAX_PIXELS},
        )
    try:
        faces = seen_faces(kit, picture)
    except RequestError as error:
        error.message = f"{label}: {error.message}"
        raise
    if pick > len(faces):
        raise RequestError(
            "request.invalid_param", f"{label} has {len(faces)} face(s), there is no number {pick}.", path="pick"
        )
    chosen = faces[pick - 1] if pick else max(faces, key=lambda one: one.side)
    if is_cut(chosen.mesh.points, width, height):
        raise RequestError(
            "request.face_cut", f"{label}: the border of the picture cuts the face; take one on which it is whole."
        )
    part = aligned(picture, five_points(chosen.mesh.points), ffhq_template(SIDE), SIDE)
    inverse = np.linalg.inv(np.vstack([part.matrix, [0, 0, 1]]))[:2]
    mesh = np.empty((468, 3), np.float32)
    mesh[:, :2] = chosen.mesh.points[:, :2] @ inverse[:, :2].T + inverse[:, 2]
    mesh[:, 2] = chosen.mesh.points[:, 2] / part.scale
    quality = chosen.face.score * min(1.0, chosen.side / 200)
    told = (f"the largest of {len(faces)} faces",) if len(faces) > 1 and not pick else ()
    return FacePhoto(part.pixels, mesh, float(quality)), chosen.embedding, told


def write_profile(profile: FaceProfile, path: Path) -> None:
    """Write it to `path`, and its preview beside it; whole or not at all. Raises OSError."""
    from safetensors.numpy import save_file

    tensors: dict[str, npt.NDArray[Any]] = {f"embedding.{name}": v for name, v in profile.embeddings.items()}
    for index, photo in enumerate(profile.photos):
        tensors[f"photo.{index}.pixels"] = np.ascontiguousarray(photo.pixels)
        tensors[f"photo.{index}.mesh"] = photo.mesh
    said = {"name": profile.name, "consent": profile.consent, "quality": [p.quality for p in profile.photos]}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    save_file(tensors, part, {MARK: json.dumps(said), "modelspec.title": profile.name})
    os.replace(part, path)
    best = max(profile.photos, key=lambda one: one.quality)
    Image.fromarray(best.pixels).resize((256, 256)).save(path.with_suffix(".png"))


def read_profile(path: Path) -> FaceProfile:
    """The profile at `path`. Raises ModelError: `model.corrupt`, or `model.unsupported` for what is no profile with
    photographs."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    header = read_header(path)
    if MARK not in header.metadata:
        raise ModelError(
            "model.unsupported",
            f"{path.name} is no face profile with photographs; make one with `impasto faces build`.",
            data={"file": path.name},
        )
    try:
        tensors = load_file(path)
        said = json.loads(header.metadata[MARK])
        qualities = [float(value) for value in said["quality"]]
        photos = tuple(
            FacePhoto(
                _shaped(tensors[f"photo.{index}.pixels"], np.uint8, (SIDE, SIDE, 3)),
                _shaped(tensors[f"photo.{index}.mesh"], np.float32, (468, 3)),
                quality,
            )
            for index, quality in enumerate(qualities)
        )
        own = _shaped(tensors[f"embedding.{NETWORK}"], np.float32, (128,))
        name, consent = str(said["name"]), str(said["consent"])
    except OSError as error:
        raise unreadable(path, error) from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise corrupt(path, f"it is no whole face profile ({type(error).__name__}: {str(error)[:80]})") from error
    if not photos:
        raise corrupt(path, "it holds no photograph")
    return FaceProfile(name, photos, {NETWORK: own}, consent)


def _shaped(values: npt.NDArray[Any], dtype: type, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if values.dtype != dtype or values.shape != shape or not np.isfinite(values).all():
        raise ValueError(f"{values.dtype} {list(values.shape)} where {list(shape)} is wanted")
    return values
