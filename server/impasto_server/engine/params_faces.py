"""The parameters of exchanging faces. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .fields import param

__all__ = ["FaceSwap"]

_PART: dict[str, Any] = {"minimum": 0.0, "maximum": 1.0, "step": 0.05}


@dataclass(frozen=True, kw_only=True)
class FaceSwap:
    """Swap faces: faces of the picture become that of a face profile, which somebody made with that person's consent;
    a layer that is transparent elsewhere."""

    profile: str = param(
        "",
        "Face profile",
        "A profile of the catalogue, made by `impasto faces build`; empty takes the only one there is.",
        maximum=500,
        ui={"widget": "model", "group": "faces"},
        choices={"from": "models", "kind": "face"},
    )
    which: str = param(
        "all",
        "Which faces",
        "All of them, the largest, one by its number, the one at a point, or the one most like the profile.",
        enum=("all", "largest", "number", "point", "similar"),
        ui={"widget": "choice", "group": "faces"},
    )
    number: int = param(
        1,
        "Number",
        "Of the face, counted from 1 in the order below; for the choice by number.",
        minimum=1,
        maximum=100,
        ui={"group": "faces"},
    )
    order: str = param(
        "left",
        "Counted",
        "From left to right, or from the largest to the smallest.",
        enum=("left", "size"),
        ui={"widget": "choice", "group": "faces", "advanced": True},
    )
    x: int = param(
        0,
        "Point, x",
        "Of a point on the face, in pixels of the document; for the choice by a point.",
        minimum=-100_000,
        maximum=100_000,
        ui={"unit": "px", "group": "faces", "advanced": True},
    )
    y: int = param(
        0,
        "Point, y",
        "Of a point on the face, in pixels of the document; for the choice by a point.",
        minimum=-100_000,
        maximum=100_000,
        ui={"unit": "px", "group": "faces", "advanced": True},
    )
    threshold: float = param(
        0.5,
        "Confidence",
        "How sure the detector must be that it is a face.",
        ui={"widget": "slider", "group": "faces", "advanced": True},
        **_PART,
    )
    min_similarity: float = param(
        0.0,
        "Least similarity",
        "Faces that are less like the profile than this are left alone; from 0.4 on it is probably the same person.",
        ui={"widget": "slider", "group": "faces", "advanced": True},
        **_PART,
    )
    shape: float = param(
        0.5,
        "Own features",
        "0 keeps shape and expression of the picture's face, 1 takes those of the photograph.",
        ui={"widget": "slider", "group": "faces"},
        **_PART,
    )
    light: float = param(
        1.0,
        "Match colours and light",
        "0 keeps those of the photograph, 1 takes those of the picture.",
        ui={"widget": "slider", "group": "faces"},
        **_PART,
    )
    sharpen: float = param(
        0.0,
        "Sharpen",
        "How much the new face is sharpened.",
        ui={"widget": "slider", "group": "faces", "advanced": True},
        **{**_PART, "maximum": 2.0},
    )
