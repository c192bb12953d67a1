"""Union ControlNets: one network for many kinds of hints, each told by the number of its control type.

Xinsir's ControlNet++ for SDXL (2024): six kinds, eight in the "ProMax" files. Files have the names of diffusers'
`ControlNetUnionModel`, `transformer_layes` among them. Which kind a hint is follows from the preprocessor that made it,
or is said; it is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from impasto_protocol.errors import RequestError
from impasto_protocol.schema import AUTO

from .families import Shapes
from .jobs import ControlUnit

__all__ = ["CONTROL_TYPE_OF", "TYPE_NUMBERS", "UNION", "is_union", "type_number", "union_config"]

UNION = "union"
"""The variant that identification gives such a file."""

TYPE_NUMBERS: Mapping[str, int] = {
    "openpose": 0,
    "depth": 1,
    "softedge": 2,
    "lines": 3,
    "normal": 4,
    "segmentation": 5,
    "tile": 6,
    "inpaint": 7,
}
"""Control type -> its row of the network's task embedding; the last two are those of ProMax."""

CONTROL_TYPE_OF: Mapping[str, str] = {
    **dict.fromkeys(
        ("openpose", "openpose_hand", "openpose_face", "openpose_faceonly", "openpose_full", "dwpose"), "openpose"
    ),
    **dict.fromkeys(("depth_midas", "depth_anything"), "depth"),
    **dict.fromkeys(("softedge", "softedge_safe", "scribble", "scribble_hed"), "softedge"),
    **dict.fromkeys(("canny", "mlsd", "lineart", "lineart_realistic", "lineart_coarse", "lineart_anime"), "lines"),
    **dict.fromkeys(("normal_bae", "normal_depth"), "normal"),
    **dict.fromkeys(("segmentation", "person"), "segmentation"),
    **dict.fromkeys(("tile", "tile_colorfix", "tile_colorfix_sharp", "blur"), "tile"),
    **dict.fromkeys(("inpaint", "inpaint_only"), "inpaint"),
}
"""Preprocessor -> control type, where there is one for what it makes."""

_HEADS = 8
"""Of the attention between hints, in all published files; shapes do not tell."""


def is_union(shapes: Shapes) -> bool:
    """By the names of the tensors."""
    return "task_embedding" in shapes and "control_add_embedding.linear_1.bias" in shapes


def union_config(shapes: Shapes) -> dict[str, Any]:
    """What diffusers' `ControlNetUnionModel` wants to know beyond a ControlNet, from the shapes.

    Raises KeyError for a file without the projection behind the attention.
    """
    types, width = shapes["task_embedding"]
    layers = 0
    while f"transformer_layes.{layers}.ln_1.weight" in shapes:
        layers += 1
    return {
        "num_control_type": types,
        "num_trans_channel": width,
        "num_trans_head": _HEADS,
        "num_trans_layer": layers,
        "num_proj_channel": shapes["spatial_ch_projs.weight"][0],
    }


def type_number(unit: ControlUnit, types: int) -> int:
    """The number of the unit's control type in a network that knows `types` of them.

    Raises RequestError `request.invalid_param` that names the unit, where the type does not follow from the
    preprocessor and is not said, and where the network does not know it.
    """
    name = CONTROL_TYPE_OF.get(unit.preprocessor, "") if unit.control_type == AUTO else unit.control_type
    if not name:
        raise _refused(
            unit,
            f"The ControlNet of {unit.name} takes many kinds of hints, and which this is does not follow from the "
            f"preprocessor {unit.preprocessor!r}; choose its control type.",
        )
    number = TYPE_NUMBERS[name]
    if number >= types:
        known = ", ".join(kind for kind, row in TYPE_NUMBERS.items() if row < types)
        raise _refused(
            unit, f"The ControlNet of {unit.name} knows no hints of the type {name!r}, only {known}; choose another."
        )
    return number


def _refused(unit: ControlUnit, sentence: str) -> RequestError:
    return RequestError("request.invalid_param", sentence, path=f"{unit.path}.control_type")
