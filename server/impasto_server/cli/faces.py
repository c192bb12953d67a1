"""`impasto faces build | list | find | compare`: profiles of faces, and the faces of a picture."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from impasto_protocol.errors import AssetError, ModelError, RequestError
from impasto_protocol.home import home_folder, kit_folder, models_folder
from PIL import Image, ImageOps, UnidentifiedImageError

from ..engine.face_profiles import (
    MAX_PIXELS,
    NETWORK,
    FaceProfile,
    SeenFace,
    build_profile,
    is_cut,
    likeness,
    read_profile,
    seen_faces,
    write_profile,
)
from ..engine.kit.embedding import SAME_PERSON
from ..engine.kit.runtime import Floats, Kit, Picture
from ..service.home import ensure_home

__all__ = ["add_arguments", "run"]

SAME = 1 - SAME_PERSON


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb `faces`."""
    faces = subparsers.add_parser("faces", help="make, list and compare face profiles; find the faces of a picture")
    verbs = faces.add_subparsers(dest="faces_verb", required=True, metavar="build|list|find|compare")
    build = verbs.add_parser("build", help="a profile of one person from photographs")
    build.add_argument("name", help="what it is called")
    build.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="photographs of this person")
    build.add_argument(
        "--consent",
        default="",
        metavar="TEXT",
        help="that this person agrees and how you know it; it is kept in the profile and told by results",
    )
    text = "which face of a photograph, from 1, from left to right (default: the largest)"
    build.add_argument("--pick", action="append", default=[], metavar="PHOTO=NUMBER", help=text)
    build.add_argument("--replace", action="store_true", help="take the place of a profile of that name")
    listed = verbs.add_parser("list", help="the profiles of your models folder")
    find = verbs.add_parser("find", help="the faces of a picture: boxes, scores, likeness to a profile")
    find.add_argument("image", type=Path, metavar="FILE")
    find.add_argument("--profile", metavar="NAME", help="a profile or its file")
    find.add_argument("--threshold", type=float, default=0.5, help="how sure the detector must be, 0..1 (default: 0.5)")
    compare = verbs.add_parser("compare", help="how like two faces are: pictures or profiles")
    compare.add_argument("first", help="a picture, or a profile")
    compare.add_argument("second", help="another one")
    for parser in (build, listed, find, compare):
        parser.add_argument("--json", action="store_true", help="tell the results as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run `faces`."""
    home = home_folder()
    ensure_home(home)
    kit = Kit(kit_folder(home))
    if args.faces_verb == "build":
        told, lines = _build(args, kit, home)
    elif args.faces_verb == "list":
        told, lines = _list(home)
    elif args.faces_verb == "find":
        told, lines = _find(args, kit, home)
    else:
        told, lines = _compare(args, kit, home)
    print(json.dumps(told) if args.json else "\n".join(lines))
    return 0


def _folder(home: Path) -> Path:
    return models_folder(home) / "faces"


def _build(args: argparse.Namespace, kit: Kit, home: Path) -> tuple[Any, list[str]]:
    if not re.fullmatch(r"[\w][\w .\-]{0,79}", args.name):
        raise RequestError(
            "request.invalid_param", "A name has letters, digits, spaces, dots and hyphens.", path="name"
        )
    path = _folder(home) / f"{args.name}.safetensors"
    if path.exists() and not args.replace:
        raise RequestError(
            "request.invalid_param", f"There is a profile {args.name!r} already; add --replace, or take another name."
        )
    photos = [(str(file), _picture(file)) for file in args.photos]
    profile, notes = build_profile(kit, photos, args.name, args.consent, _picks(args))
    write_profile(profile, path)
    lines = []
    for note in notes:
        said = note.left_out and f"left out: {note.left_out}"
        said = said or ", ".join((f"similarity {note.similarity:.2f}, quality {note.quality:.2f}", *note.notes))
        lines.append(f"{note.label}: {said}")
    told = {
        "file": str(path),
        "photographs": len(profile.photos),
        "photos": [
            {"file": n.label, "similarity": n.similarity, "quality": n.quality, "left_out": n.left_out} for n in notes
        ],
    }
    return told, [*lines, str(path)]


def _picks(args: argparse.Namespace) -> dict[int, int]:
    picks = {}
    names = [str(file) for file in args.photos]
    for each in args.pick:
        file, _, number = each.rpartition("=")
        if file not in names or not number.isdecimal() or int(number) < 1:
            raise RequestError(
                "request.invalid_param", f"--pick {each}: give one of the photographs, = and a number from 1 on."
            )
        picks[names.index(file)] = int(number)
    return picks


def _list(home: Path) -> tuple[Any, list[str]]:
    rows: list[dict[str, Any]] = []
    for path in sorted(_folder(home).glob("*.safetensors")):
        try:
            profile = read_profile(path)
        except ModelError as error:
            rows.append({"name": path.stem, "file": str(path), "error": error.message})
            continue
        rows.append(
            {
                "name": path.stem,
                "file": str(path),
                "photographs": len(profile.photos),
                "networks": sorted(profile.embeddings),
                "consent": profile.consent,
            }
        )
    lines = [
        f"{row['name']:<30} {row['error']}"
        if "error" in row
        else f"{row['name']:<30} {row['photographs']} photograph(s), {row['consent']}"
        for row in rows
    ]
    return rows, lines or ["There is no profile yet: impasto faces build NAME PHOTO... --consent TEXT"]


def _find(args: argparse.Namespace, kit: Kit, home: Path) -> tuple[Any, list[str]]:
    picture = _picture(args.image)
    profile = _profile(args.profile, home) if args.profile else None
    rows, lines = [], []
    for number, one in enumerate(seen_faces(kit, picture, args.threshold), 1):
        row = _told(number, one, picture, profile)
        rows.append(row)
        x, y, w, h = row["box"]
        like = f", similarity {row['similarity']:.2f}" if profile is not None else ""
        cut = ", cut by the border" if row["cut"] else ""
        lines.append(f"{number}: {w} x {h} at {x}, {y}, score {row['score']:.2f}{like}{cut}")
    return rows, lines


def _told(number: int, one: SeenFace, picture: Picture, profile: FaceProfile | None) -> dict[str, Any]:
    height, width = picture.shape[:2]
    told: dict[str, Any] = {
        "number": number,
        "box": [round(float(v)) for v in one.face.box],
        "score": round(one.face.score, 4),
        "cut": is_cut(one.mesh.points, width, height),
    }
    if profile is not None:
        told["similarity"] = round(likeness(one.embedding, profile.embeddings[NETWORK]), 4)
    return told


def _compare(args: argparse.Namespace, kit: Kit, home: Path) -> tuple[Any, list[str]]:
    first, second = (_embedding(each, kit, home) for each in (args.first, args.second))
    like = likeness(first, second)
    same = like > SAME
    said = "probably one person" if same else "probably two people"
    return {"similarity": round(like, 4), "same": same}, [f"similarity {like:.2f}: {said} (from {SAME:g} on the same)"]


def _embedding(named: str, kit: Kit, home: Path) -> Floats:
    """Of a profile, or of the largest face of a picture."""
    path = Path(named)
    if not path.is_file() or path.suffix.lower() == ".safetensors":
        return _profile(named, home).embeddings[NETWORK]
    return max(seen_faces(kit, _picture(path)), key=lambda one: one.side).embedding


def _profile(named: str, home: Path) -> FaceProfile:
    path = Path(named)
    if not path.is_file():
        path = _folder(home) / f"{named}.safetensors"
    if not path.is_file():
        raise ModelError("model.unknown", f"There is no picture and no profile {named[:80]!r}; see impasto faces list.")
    return read_profile(path)


def _picture(path: Path) -> Picture:
    """RGB, turned as the camera says. Raises RequestError, AssetError."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise RequestError(
                    "request.bad_geometry",
                    f"{path} has {image.width} x {image.height} pixels, above the limit of 40 megapixels for a "
                    "photograph of a face; scale it down.",
                    data={"limit": MAX_PIXELS},
                )
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise AssetError("asset.bad_image", f"{path} cannot be read as a picture ({str(error)[:80]}).") from error
