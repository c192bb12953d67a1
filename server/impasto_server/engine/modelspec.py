"""What a model file says about itself: the facts that shapes cannot tell, a title, a licence. No torch here.

The facts are a JSON object under `impasto.config` in the file's metadata, and may be overridden by the same key in a
sidecar `NAME.json` beside `NAME.safetensors`::

    {"unet_heads": 8, "unet_norm_groups": 32, "vae_norm_groups": 32, "text_heads": 12, "text_activation": "quick_gelu",
     "native_size": 512, "vae_scaling_factor": 0.18215, "prediction_type": "epsilon",
     "hints": {"steps": 20, "cfg": 7.0, "sampler": "euler", "schedule": "karras"},
     "inpaint_partner": "deliberate_v2-inpainting"}

Every key is optional; unknown keys are left alone. `inpaint_partner` is the name of the checkpoint that inpaints in
place of this one, "" for none; where it is not said, the server goes by the names of the files. A `NAME.yaml` as web
UIs read it may say `parameterization: v` where nothing else says a `prediction_type`. `modelspec.*` are the keys of
Stability AI's metadata specification, which most trainers write.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .modelpath import beside, sidecar_of
from .params_common import SAMPLERS, SCHEDULES

__all__ = ["Facts", "read_facts"]

KEY = "impasto.config"
MAX_SIDECAR = 1_000_000
"""Bytes of a sidecar that are read at most; other programs keep notes in the same file."""


@dataclass(frozen=True)
class Facts:
    """The stated facts; None where the file says nothing. `native_size` is in pixels, a multiple of 8.

    `unet_head_width` and those of `text_2` are of SDXL only: the numbers of each head, and the second text encoder.
    """

    unet_heads: int | None = None
    unet_norm_groups: int | None = None
    vae_norm_groups: int | None = None
    text_heads: int | None = None
    text_activation: str | None = None
    native_size: int | None = None
    vae_scaling_factor: float | None = None
    prediction_type: str | None = None
    unet_head_width: int | None = None
    text_2_heads: int | None = None
    text_2_activation: str | None = None
    hints: Mapping[str, Any] = field(default_factory=dict)
    inpaint_partner: str | None = None


_NONE = Facts()


def read_facts(path: str | Path, metadata: Mapping[str, str]) -> Facts:
    """The facts in `metadata` and in the sidecar of `path`, checked. Raises ValueError with a reason."""
    stated: dict[str, Any] = {}
    if KEY in metadata:
        stated.update(_object(metadata[KEY], "its metadata"))
    sidecar = str(sidecar_of(path))
    try:
        with open(sidecar, "rb") as file:
            raw = file.read(MAX_SIDECAR + 1)
    except FileNotFoundError:
        raw = b""
    except OSError as error:
        raise ValueError(f"{Path(sidecar).name} beside it cannot be read") from error
    # Without the key it is another program's, and what is wrong with it is none of ours.
    if KEY.encode() in raw and len(raw) <= MAX_SIDECAR:
        said = _object(raw, Path(sidecar).name).get(KEY, {})
        stated.update(said if isinstance(said, dict) else _object(said, Path(sidecar).name))
    if "prediction_type" not in stated and _says_v(beside(path) + ".yaml"):
        stated["prediction_type"] = "v_prediction"
    return _checked(stated) if stated else _NONE


_PARAMETERIZATION = re.compile(r"""^\s*parameterization\s*:\s*["']?v["']?\s*(?:#.*)?$""", re.MULTILINE)


def _says_v(sidecar: str) -> bool:
    """Whether NAME.yaml beside a checkpoint, in the form of the original's training settings, says v-prediction."""
    try:
        with open(sidecar, encoding="utf-8", errors="replace") as file:
            return _PARAMETERIZATION.search(file.read(MAX_SIDECAR)) is not None
    except OSError:
        return False


def _object(text: Any, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{KEY} in {where} is not valid JSON") from error
    if not isinstance(value, dict):
        raise ValueError(f"{KEY} in {where} is not a JSON object")
    return value


def _checked(stated: Mapping[str, Any]) -> Facts:
    known: dict[str, Any] = {}
    for name in (
        "unet_heads",
        "unet_head_width",
        "unet_norm_groups",
        "vae_norm_groups",
        "text_heads",
        "text_2_heads",
    ):
        known[name] = _integer(stated, name, 1, 4096)
    known["native_size"] = _integer(stated, "native_size", 8, 8192, multiple=8)
    known["vae_scaling_factor"] = _number(stated, "vae_scaling_factor", 1e-6, 1e6)
    known["prediction_type"] = _one_of(stated, "prediction_type", ("epsilon", "v_prediction"))
    for name in ("text_activation", "text_2_activation"):
        known[name] = _one_of(stated, name, ("quick_gelu", "gelu"))
    partner = stated.get("inpaint_partner")
    if partner is not None and (not isinstance(partner, str) or len(partner) > 500):
        raise ValueError(f"{KEY}: inpaint_partner must be the name of a checkpoint")
    known["inpaint_partner"] = partner
    hints = stated.get("hints", {})
    if not isinstance(hints, dict):
        raise ValueError(f"{KEY}: hints is not an object")
    checked = {
        "steps": _integer(hints, "steps", 1, 150),
        "cfg": _number(hints, "cfg", 1.0, 30.0),
        "sampler": _one_of(hints, "sampler", SAMPLERS),
        "schedule": _one_of(hints, "schedule", SCHEDULES),
    }
    known["hints"] = {name: value for name, value in checked.items() if value is not None}
    return Facts(**known)


def _integer(values: Mapping[str, Any], name: str, low: int, high: int, *, multiple: int = 1) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high or value % multiple:
        raise ValueError(f"{KEY}: {name} must be a whole number from {low} to {high}")
    return value


def _number(values: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{KEY}: {name} must be a number")
    if not low <= value <= high:
        raise ValueError(f"{KEY}: {name} must lie between {low} and {high}")
    return float(value)


def _one_of(values: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str | None:
    value = values.get(name)
    if value is not None and value not in choices:
        raise ValueError(f"{KEY}: {name} must be one of {', '.join(choices)}")
    return value
