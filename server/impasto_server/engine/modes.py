"""The parameters of every mode: one frozen dataclass each, with metadata in the fields.

The capability schema, validation, CLI options, panels and the tables of the docs are generated from here, so that
there is one set of names, ranges and defaults. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from impasto_protocol.errors import RequestError
from impasto_protocol.nearest import nearest
from impasto_protocol.schema import Mode, ModeInput, validate

from .fields import STRENGTH, param, params_of
from .intents import INTENTS
from .params_common import Common
from .params_control import Annotate
from .params_faces import FaceSwap
from .params_hires import Hires, HiresSize
from .params_inpaint import Inpaint
from .params_refine import Panorama, Refine
from .params_sampling import Started
from .params_upscale import Upscale
from .params_vary import Varied

__all__ = [
    "MODES",
    "Annotate",
    "Common",
    "DiffusionParams",
    "FaceSwap",
    "Img2Img",
    "Inpaint",
    "ModeParams",
    "Refine",
    "Sketch",
    "Txt2Img",
    "Upscale",
    "describe",
    "needs_checkpoint",
    "parse_params",
]


@dataclass(frozen=True, kw_only=True)
class Txt2Img(Varied, HiresSize, Panorama, Common):
    """Text to image: a picture of width x height pixels; 0 takes the checkpoint's native size."""

    width: int = param(
        0,
        "Width",
        "0 takes the model's own size.",
        minimum=0,
        maximum=16384,
        step=8,
        ui={"unit": "px", "group": "size"},
    )
    height: int = param(
        0,
        "Height",
        "0 takes the model's own size.",
        minimum=0,
        maximum=16384,
        step=8,
        ui={"unit": "px", "group": "size"},
    )


@dataclass(frozen=True, kw_only=True)
class Img2Img(Varied, Started, Hires, Common):
    """Image to image: repaint the whole of a picture by `strength`."""

    strength: float = param(0.75, "Strength", "0 leaves the picture, 1 repaints it.", **STRENGTH)


@dataclass(frozen=True, kw_only=True)
class Sketch(Img2Img):
    """Sketch to image: a painted layer, which may be mostly transparent, becomes a picture by `strength`."""

    background: str = param(
        "white",
        "Background",
        "What is seen where the sketch is transparent: white paper, or the document.",
        enum=("white", "document"),
        ui={"widget": "choice", "group": "sketch"},
    )


DiffusionParams = Txt2Img | Img2Img | Sketch | Inpaint | Refine
"""Those that need a checkpoint."""

ModeParams = DiffusionParams | Upscale | FaceSwap | Annotate

_IMAGE = ModeInput("image", "image", "Picture")
_BACKDROP = ModeInput("backdrop", "image", "What lies under the sketch", required=False)
_MASK = ModeInput("mask", "mask", "Selection")
_CONTROL = ModeInput("control_*", "image", "Control pictures", required=False)

MODES: Mapping[str, tuple[type[ModeParams], str, tuple[ModeInput, ...]]] = {
    "txt2img": (Txt2Img, "Text to image", (_CONTROL,)),
    "img2img": (Img2Img, "Image to image", (_IMAGE, _CONTROL)),
    "sketch": (Sketch, "Sketch to image", (_IMAGE, _BACKDROP, _CONTROL)),
    "inpaint": (Inpaint, "Inpaint selection", (_IMAGE, _MASK, _CONTROL)),
    "refine": (Refine, "Refine in tiles", (_IMAGE, _CONTROL)),
    "upscale": (Upscale, "Upscale", (_IMAGE,)),
    "faceswap": (FaceSwap, "Swap faces", (_IMAGE,)),
    "annotate": (Annotate, "Annotate", (_IMAGE,)),
}
"""Name -> (parameter dataclass, title, inputs)."""


def describe() -> tuple[Mode, ...]:
    """All modes with their schema, for the catalogue."""
    return tuple(
        Mode(name, title, (cls.__doc__ or "").strip(), inputs, params_of(cls), intents=INTENTS.get(name, ()))
        for name, (cls, title, inputs) in MODES.items()
    )


def needs_checkpoint(mode: str) -> bool:
    """Whether jobs of this mode load a model."""
    return issubclass(MODES[mode][0], Common)


def parse_params(mode: str, values: Mapping[str, Any], *, hints: Mapping[str, Any] | None = None) -> ModeParams:
    """Checked parameters of `mode`; `hints` of the checkpoint go before the schema's defaults.

    Raises RequestError `request.unknown_mode` or `request.invalid_param`.
    """
    if mode not in MODES:
        raise RequestError(
            "request.unknown_mode",
            f"This server has no mode {mode[:40]!r}; it has {', '.join(MODES)}.",
            path="mode",
            data={"nearest": nearest(mode, MODES)},
        )
    cls = MODES[mode][0]
    return cls(**validate(params_of(cls), values, defaults=hints))
