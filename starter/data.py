"""The training pictures: one archive of captioned sprites in two styles.

    python -m starter.data               # writes starter/state/sprites.zip (at most 12 MB)

A sprite is a 128 x 128 RGBA picture of one concept. The archive carries every concept without a skin tone
that has a picture in at least the 3d style, as WebP, and `concepts.json` with label, tags, group and the
concentrated set."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from starter.sources import WORK, fetch

SIZE = 128
STYLES = ("3d", "flat")
ARCHIVE = WORK / "sprites.zip"
QUALITY = {"3d": 86, "flat": 84}


@dataclass(frozen=True)
class Concept:
    """One thing that can be drawn. `core` marks the concentrated set."""

    code: str
    label: str
    tags: tuple[str, ...]
    group: int
    subgroup: int
    core: bool
    aliases: tuple[str, ...] = ()


def core_labels() -> dict[str, tuple[str, ...]]:
    """The concentrated set: label -> other words that people use for it."""
    found = {}
    for line in (Path(__file__).parent / "core.txt").read_text(encoding="utf-8").splitlines():
        for entry in line.split(";") if not line.startswith("#") else ():
            label, _, others = entry.strip().lstrip("*").partition(" (")
            if label:
                found[label] = tuple(word.strip() for word in others.rstrip(")").split(",") if word.strip())
    return found


def first_labels() -> set[str]:
    """The labels that training draws most of all."""
    lines = (Path(__file__).parent / "core.txt").read_text(encoding="utf-8").splitlines()
    entries = (e.strip() for line in lines if not line.startswith("#") for e in line.split(";"))
    return {e[1:].partition(" (")[0] for e in entries if e.startswith("*")}


def _file(folder: Path, code: str, ending: str) -> Path | None:
    """The asset of a code; sets differ in where they write the variation selector fe0f."""
    bare = code.replace("-fe0f", "")
    for name in (code, bare, f"{bare}-fe0f", bare.replace("-200d", "-fe0f-200d")):
        path = folder / f"{name}.{ending}"
        if path.exists():
            return path
    return None


def concepts_from_labels() -> list[Concept]:
    """All concepts with a label, a group and a 3d picture, in emojibase's order."""
    core = core_labels()
    assets = fetch("3d") / "package" / "assets"
    found = []
    for entry in json.loads((fetch("labels") / "package/en/data.json").read_text(encoding="utf-8")):
        code = entry["hexcode"].lower()
        if "group" not in entry or _file(assets, code, "webp") is None:
            continue
        found.append(
            Concept(
                code,
                entry["label"],
                tuple(entry.get("tags", ())),
                entry["group"],
                entry["subgroup"],
                entry["label"] in core,
                core.get(entry["label"], ()),
            )
        )
    missing = core.keys() - {c.label for c in found}
    if missing:
        raise SystemExit(f"core.txt names labels without a picture: {sorted(missing)}")
    return found


def _flat_picture(code: str) -> Image.Image | None:
    path = _file(fetch("flat") / "package" / "assets", code, "svg")
    if path is None:
        return None
    sys.path.insert(0, str(fetch("svg")))
    import resvg_py

    sys.path.pop(0)
    pixels = resvg_py.svg_to_bytes(
        svg_string=path.read_text(encoding="utf-8"), width=SIZE, height=SIZE, skip_system_fonts=True
    )
    return Image.open(io.BytesIO(bytes(pixels))).convert("RGBA")


def _solid_picture(code: str) -> Image.Image:
    path = _file(fetch("3d") / "package" / "assets", code, "webp")
    picture = Image.open(path).convert("RGBA")
    return picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def build(path: Path = ARCHIVE) -> Path:
    """Packs all sprites into one archive that needs no network afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    concepts = concepts_from_labels()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("concepts.json", json.dumps([asdict(c) for c in concepts]), zipfile.ZIP_DEFLATED)
        for concept in concepts:
            for style in STYLES:
                picture = _solid_picture(concept.code) if style == "3d" else _flat_picture(concept.code)
                if picture is None or picture.size != (SIZE, SIZE):
                    continue
                out = io.BytesIO()
                picture.save(out, "WEBP", quality=QUALITY[style], method=4, alpha_quality=70)
                archive.writestr(f"{style}/{concept.code}.webp", out.getvalue())
    return path


@lru_cache(maxsize=1)
def load(path: Path | None = None) -> tuple[list[Concept], dict[tuple[int, str], np.ndarray]]:
    """Concepts, and sprites as uint8 [128, 128, 4] by (index of the concept, style)."""
    sprites = {}
    with zipfile.ZipFile(path or ARCHIVE) as archive:
        names = set(archive.namelist())
        concepts = [
            Concept(**{**c, "tags": tuple(c["tags"]), "aliases": tuple(c["aliases"])})
            for c in json.loads(archive.read("concepts.json"))
        ]
        for i, concept in enumerate(concepts):
            for style in STYLES:
                name = f"{style}/{concept.code}.webp"
                if name in names:
                    sprites[i, style] = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGBA"))
    return concepts, sprites


def held_out(index: int) -> bool:
    """Whether a concept's pictures are kept from the VAE's training (about 3 %), to measure it on."""
    return index % 31 == 7


def main() -> None:
    path = build()
    concepts, sprites = load(path)
    print(
        f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {len(concepts)} concepts "
        f"({sum(c.core for c in concepts)} concentrated), "
        + ", ".join(f"{sum(k[1] == s for k in sprites)} {s}" for s in STYLES)
    )


if __name__ == "__main__":
    main()
