"""The parameters of control: pictures that guide the structure of the result, each through a network. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from impasto_protocol.schema import AUTO, Param

from .fields import Maps, Number, param

__all__ = [
    "COLOR_FIXES",
    "CONTROL",
    "CONTROL_MODES",
    "CONTROL_TYPES",
    "ENABLED",
    "INPAINTS",
    "KEEPS_AROUND",
    "MASK",
    "POSES",
    "POSE_PREPROCESSORS",
    "PREPROCESSORS",
    "REFERENCES",
    "RESIZE_MODES",
    "SHARP",
    "Annotate",
    "Controlled",
]

PREPROCESSORS = (
    "none",
    "invert",
    "canny",
    "threshold",
    "blur",
    "lineart",
    "scribble",
    "tile",
    "tile_colorfix",
    "tile_colorfix_sharp",
    "color_grid",
    "shuffle",
    "recolor_luminance",
    "recolor_intensity",
    "inpaint",
    "inpaint_only",
    "mlsd",
    "person",
    "softedge",
    "softedge_safe",
    "scribble_hed",
    "openpose",
    "openpose_hand",
    "openpose_face",
    "openpose_faceonly",
    "openpose_full",
    "dwpose",
    "depth_midas",
    "depth_anything",
    "normal_bae",
    "normal_depth",
    "lineart_realistic",
    "lineart_coarse",
    "lineart_anime",
    "segmentation",
)
"""What makes a hint of a picture; "none" where the picture is one already. From "mlsd" on networks do it."""

INPAINTS = ("inpaint", "inpaint_only")
"""Preprocessors whose hint says where to paint: where the picture is transparent, and where the job's mask selects."""

COLOR_FIXES, SHARP = ("tile_colorfix", "tile_colorfix_sharp"), "tile_colorfix_sharp"
"""Preprocessors that keep the coarse colours of their picture in the result; the last one sharpens it as well."""

KEEPS_AROUND = "inpaint_only"
"""The one that keeps what lies around the place to be painted, also in modes that would repaint it."""

POSES: Mapping[str, Mapping[str, bool]] = {
    "openpose": {},
    "openpose_hand": {"hands": True},
    "openpose_face": {"face": True},
    "openpose_faceonly": {"body": False, "face": True},
    "openpose_full": {"hands": True, "face": True},
}
"""Preprocessors that find joints with the kit's networks -> what `kit.poses.find_pose` is to look for."""

POSE_PREPROCESSORS = (*POSES, "dwpose")
"""All that draw joints, and take those that are given."""

CONTROL_MODES = ("balanced", "prompt", "control")
RESIZE_MODES = ("crop", "fill", "stretch")
CONTROL_TYPES = ("openpose", "depth", "softedge", "lines", "normal", "segmentation", "tile", "inpaint")
"""Kinds of hints that union ControlNets tell apart; "lines" are canny, line art and straight lines."""

STRENGTHS: tuple[Mapping[str, Any], ...] = (
    {"title": "Hinted at", "values": {"weight": 0.5, "start": 0.0, "end": 0.6}},
    {"title": "Followed", "values": {"weight": 0.8, "start": 0.0, "end": 0.8}},
    {"title": "Followed closely", "values": {"weight": 1.0, "start": 0.0, "end": 1.0}},
    {"title": "Traced", "values": {"weight": 1.4, "start": 0.0, "end": 1.0}},
)
"""How strongly a unit leads, in words: values of its parameters that belong together."""

_LOW = (
    "canny: below are no edges (100); threshold: grey level (127); blur: pixels (9); scribble: difference (32); mlsd: "
    "least score (0.1); shuffle: its seed (0); recolor: gamma (1); normal_depth: from which nearness on "
    "slopes are told (0.4); tile_colorfix: how far colours may differ, in "
    "latent pixels (8)."
)
_HIGH = "canny: above are edges (200); tile_colorfix_sharp: sharpness (1)."
_POSE = (
    "Joints in OpenPose's keypoint format (JSON), which a pose preprocessor draws in place of those that it finds; "
    "results of annotate say theirs."
)
_POSE_LENGTH = 400_000

_STEP: dict[str, Any] = {"minimum": 0.0, "maximum": 1.0, "step": 0.01, "ui": {"widget": "slider", "unit": "%"}}

ENABLED = Param(
    "enabled",
    "boolean",
    True,
    "On",
    "Off keeps what is set here without using it.",
    ui={"widget": "check"},
)

MASK = Param(
    "mask",
    "string",
    "",
    "Only there",
    "The input of the job that says where it counts: where its picture is painted, or bright where it is opaque; empty "
    "means everywhere.",
    maximum=40,
    ui={"widget": "picture", "none": "Everywhere", "advanced": True},
)

CONTROL = (
    Param(
        "model",
        "string",
        "",
        "ControlNet",
        "A ControlNet of the catalogue.",
        maximum=500,
        ui={"widget": "model"},
        choices={"from": "models", "kind": "controlnet"},
    ),
    ENABLED,
    Param(
        "image",
        "string",
        "",
        "Picture",
        "The input of the job that holds the picture (control_1, control_2, ...); empty takes what is painted over.",
        maximum=40,
        ui={"widget": "picture"},
    ),
    Param(
        "preprocessor",
        "string",
        "none",
        "Preprocessor",
        "What makes the hint of the picture: none where it is one already.",
        enum=PREPROCESSORS,
        ui={"widget": "choice"},
    ),
    Param(
        "weight",
        "number",
        1.0,
        "Weight",
        "How strongly the hint is followed.",
        minimum=0.0,
        maximum=2.0,
        step=0.05,
        ui={"widget": "slider"},
    ),
    Param("start", "number", 0.0, "Start", "From which part of the steps on.", **_STEP),
    Param("end", "number", 1.0, "End", "Up to which part of the steps.", **_STEP),
    Param(
        "mode",
        "string",
        "balanced",
        "Who leads",
        "balanced; prompt: the hint weakens towards the fine details; control: so, too, and it speaks with the prompt "
        "only, which guidance makes stronger.",
        enum=CONTROL_MODES,
        ui={"widget": "choice", "advanced": True},
    ),
    Param(
        "resize",
        "string",
        "crop",
        "Fit",
        "How a picture of another shape is fitted: crop what is too much, fill what is missing, or stretch.",
        enum=RESIZE_MODES,
        ui={"widget": "choice", "advanced": True},
    ),
    Param(
        "threshold_low",
        "number",
        AUTO,
        "Lower threshold",
        _LOW,
        minimum=0.0,
        maximum=1000.0,
        auto=True,
        ui={"advanced": True},
    ),
    Param(
        "threshold_high",
        "number",
        AUTO,
        "Upper threshold",
        _HIGH,
        minimum=0.0,
        maximum=1000.0,
        auto=True,
        ui={"advanced": True},
    ),
    Param("pose", "string", "", "Joints", _POSE, maximum=_POSE_LENGTH, ui={"advanced": True}),
    Param(
        "control_type",
        "string",
        AUTO,
        "Control type",
        "What the hint shows, for a union ControlNet; auto takes what the preprocessor makes. Others do not ask.",
        enum=(AUTO, *CONTROL_TYPES),
        ui={"widget": "choice", "advanced": True},
    ),
    MASK,
    Param(
        "low_memory",
        "boolean",
        False,
        "Save memory",
        "Keep the network in the computer's memory and bring it to the card for each use only: slower.",
        ui={"advanced": True},
    ),
)
"""One unit of `control`."""

_NAMED = {param.name: param for param in CONTROL}

REFERENCES = (
    _NAMED["image"],
    ENABLED,
    Param(
        "kind",
        "string",
        "attention",
        "What is taken",
        "attention: things and manner; adain: colours and contrast; or both.",
        enum=("attention", "adain", "both"),
        ui={"widget": "choice"},
    ),
    Param(
        "weight",
        "number",
        1.0,
        "Weight",
        "How many of the network's layers look at it.",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        ui={"widget": "slider"},
    ),
    Param(
        "fidelity",
        "number",
        0.5,
        "Style fidelity",
        "More follows the reference, less the prompt.",
        **{**_STEP, "ui": {"widget": "slider"}},
    ),
    _NAMED["start"],
    _NAMED["end"],
    _NAMED["resize"],
)
"""One picture of `references`."""


@dataclass(frozen=True, kw_only=True)
class Annotate:
    """Annotate: the hint that a preprocessor makes of a picture, as a layer to look at, correct and feed in again."""

    preprocessor: str = param(
        "canny",
        "Preprocessor",
        "What makes the hint of the picture.",
        enum=PREPROCESSORS[1:],
        ui={"widget": "choice", "group": "control"},
    )
    threshold_low: Number = param(
        AUTO, "Lower threshold", _LOW, minimum=0.0, maximum=1000.0, auto=True, ui={"group": "control", "advanced": True}
    )
    threshold_high: Number = param(
        AUTO,
        "Upper threshold",
        _HIGH,
        minimum=0.0,
        maximum=1000.0,
        auto=True,
        ui={"group": "control", "advanced": True},
    )
    pose: str = param("", "Joints", _POSE, maximum=_POSE_LENGTH, ui={"group": "control", "advanced": True})


@dataclass(frozen=True, kw_only=True)
class Controlled:
    """What guides the structure of the picture."""

    control: Maps = param(
        (),
        "Control",
        "Pictures that guide the structure of the result, each through a ControlNet.",
        maximum=8,
        ui={"group": "control", "advanced": True, "strengths": STRENGTHS},
        items=CONTROL,
    )
    references: Maps = param(
        (),
        "References",
        "Pictures in whose manner the result is painted; they need no model, and twice the time.",
        maximum=4,
        ui={"group": "control", "advanced": True},
        items=REFERENCES,
    )
