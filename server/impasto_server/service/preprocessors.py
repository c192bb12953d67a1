"""What the preprocessors with networks need: which work now, with which files, and what to do about the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from impasto_protocol.errors import ModelError, RequestError
from impasto_protocol.schema import Mode, Param

from ..engine.kit.runtime import known
from ..engine.openpose import read_pose
from ..engine.params_control import POSE_PREPROCESSORS, POSES
from .catalogue import Catalogue, Model

__all__ = ["Need", "annotators_for", "check_joints", "described", "unavailable"]


@dataclass(frozen=True)
class Need:
    """What a preprocessor runs with: the user's own files, one of each of the variants `own` (`|`: or), or else the
    networks `pulled` of the kit, which `command` fetches. `files` says which files are meant, and where they are
    published; `named` is a part of the name of the one that is wanted where several have the same layout."""

    own: tuple[str, ...] = ()
    files: str = ""
    named: str = ""
    pulled: tuple[str, ...] = ()
    command: str = ""


_HED = Need(("hed",), "ControlNetHED.pth (lllyasviel/Annotators)", pulled=("hed",), command="impasto models pull hed")
_BODY = ("body-detector", "body-pose")
_HANDS = ("palm-detector", "hand-pose")
_PULL_POSE = "impasto models pull pose"

NEEDS: Mapping[str, Need] = {
    "softedge": _HED,
    "softedge_safe": _HED,
    "scribble_hed": _HED,
    "dwpose": Need(("people-detector", "whole-body"), "yolox_l.onnx and dw-ll_ucoco_384.onnx (yzd-v/DWPose)"),
    "depth_midas": Need(
        ("depth_midas",),
        "dpt_hybrid-midas-501f0c75.pt (lllyasviel/Annotators) or a folder with a DPT of transformers (Intel/dpt-large)",
        command="impasto models pull annotator-midas",
    ),
    "depth_anything": Need(
        ("depth_anything",),
        "depth_anything_v2_vits.pth (depth-anything/Depth-Anything-V2-Small), one of its larger kinds, or the folder "
        "of one for transformers",
    ),
    "normal_depth": Need(("depth_midas|depth_anything",), "a file for depth_midas or for depth_anything"),
    "normal_bae": Need(("normal_bae",), "scannet.pt (lllyasviel/Annotators)"),
    "lineart_realistic": Need(
        ("lineart",), "sk_model.pth (lllyasviel/Annotators)", command="impasto models pull annotator-lineart"
    ),
    "lineart_coarse": Need(("lineart",), "sk_model2.pth (lllyasviel/Annotators)", named="sk_model2"),
    "lineart_anime": Need(("lineart_anime",), "netG.pth (lllyasviel/Annotators)"),
    "segmentation": Need(
        ("segmentation",),
        "the folder of a network of ADE20K's 150 classes for transformers (shi-labs/oneformer_ade20k_swin_tiny, "
        "openmmlab/upernet-convnext-tiny)",
    ),
    **{
        name: Need(
            pulled=(_BODY if parts.get("body", True) else ()) + (_HANDS if parts.get("hands") else ()),
            command=_PULL_POSE,
        )
        for name, parts in POSES.items()
        if parts.get("body", True) or parts.get("hands")
    },
}
"""Preprocessor -> what it needs beside what comes along."""


def annotators_for(catalogue: Catalogue, preprocessor: str, pose: str, name: str, path: str) -> tuple[str, ...]:
    """The user's files that the preprocessor of a unit runs with; none where the kit's networks do it, and where the
    joints are given.

    Raises ModelError `model.unknown` that names the unit (`name`, at `path`), and what it needs.
    """
    if preprocessor not in NEEDS or pose:
        return ()
    own = _own(catalogue, NEEDS[preprocessor])
    if own is not None:
        return tuple(str(model.path) for model in own)
    reason = _lacks(catalogue, NEEDS[preprocessor])
    if reason:
        raise ModelError(
            "model.unknown",
            f"The preprocessor {preprocessor} of {name} cannot run: {reason}",
            path=f"{path}.preprocessor",
            data={"preprocessor": preprocessor},
        )
    return ()


def check_joints(preprocessor: str, pose: str, name: str, path: str) -> None:
    """Raise RequestError `request.invalid_param` where joints are given that no preprocessor draws, or that cannot be
    read; `name` and `path` are those of the unit."""
    if not pose:
        return
    if preprocessor not in POSE_PREPROCESSORS:
        raise RequestError(
            "request.invalid_param",
            f"The joints of {name} are drawn by {', '.join(POSE_PREPROCESSORS)}, not by {preprocessor}; choose one of "
            "these, or leave the joints out.",
            path=f"{path}.pose",
        )
    try:
        read_pose(pose)
    except ValueError as error:
        raise RequestError(
            "request.invalid_param", f"The joints of {name} cannot be read: {error}.", path=f"{path}.pose"
        ) from error


def unavailable(catalogue: Catalogue) -> dict[str, str]:
    """The preprocessors that cannot run now -> a sentence about what to do."""
    reasons = {name: _lacks(catalogue, need) for name, need in NEEDS.items() if _own(catalogue, need) is None}
    return {name: reason for name, reason in reasons.items() if reason}


def _own(catalogue: Catalogue, need: Need) -> tuple[Model, ...] | None:
    """The first of the catalogue for each of its variants; None where one is missing."""
    if not need.own:
        return None
    usable = [m for m in catalogue.models if m.facts.kind == "annotator" and m.facts.usable]
    found = [_first(usable, variants.split("|"), need) for variants in need.own]
    return None if None in found else tuple(m for m in found if m is not None)


def _first(usable: Sequence[Model], variants: Sequence[str], need: Need) -> Model | None:
    fitting = [m for variant in variants for m in usable if m.facts.variant == variant]
    if need.named:
        return next((m for m in fitting if need.named in m.id.casefold()), None)
    # Not the one that another preprocessor wants by its name.
    taken = [other.named for other in NEEDS.values() if other.named and other.own == need.own]
    return next((m for m in fitting if not any(name in m.id.casefold() for name in taken)), None)


def _lacks(catalogue: Catalogue, need: Need) -> str:
    """What is missing, where no own files are there; "" where nothing is."""
    if need.pulled:
        if catalogue.kit is None:
            return ""  # the engine will tell
        try:
            there = known()
        except ModelError as error:
            return error.message
        if all(name in there and (catalogue.kit / str(there[name]["file"])).exists() for name in need.pulled):
            return ""
    ways = []
    if need.command:
        ways.append(f"run `{need.command}`")
    if need.files:
        ways.append(f"put {need.files} into the models folder")
    return f"its network is not there; {', or '.join(ways)}."


def described(catalogue: Catalogue) -> tuple[Mode, ...]:
    """The modes of the catalogue, their preprocessors with what is to be done about those that cannot run now."""
    reasons = unavailable(catalogue)
    return tuple(replace(mode, params=tuple(_told(p, reasons) for p in mode.params)) for mode in catalogue.modes())


def _told(param: Param, reasons: Mapping[str, str]) -> Param:
    if param.items:
        return replace(param, items=tuple(_told(item, reasons) for item in param.items))
    if param.name != "preprocessor":
        return param
    return replace(param, ui={**param.ui, "unavailable": {n: r for n, r in reasons.items() if n in param.enum}})
