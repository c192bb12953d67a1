"""What a result carries: how it was made, for people, for programs, and for AUTOMATIC1111's readers. No torch here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from impasto_protocol.geometry import Size

from .extra_networks import format_networks
from .modelpath import model_name
from .modes import DiffusionParams, Img2Img, Inpaint, Sketch, Upscale

if TYPE_CHECKING:
    from .addons import UsedLora

__all__ = ["DIGITAL_SOURCE_TYPE", "addons_told", "infotext", "layer_name", "recipe", "upscale_recipe"]

DIGITAL_SOURCE_TYPE = "trainedAlgorithmicMedia"
"""IPTC's word for a picture that a trained model made."""

ENHANCED_SOURCE_TYPE = "algorithmicallyEnhanced"
"""IPTC's word for a picture that an algorithm changed a little."""

_RNG = {"philox": "NV", "torch-cpu": "CPU"}


def recipe(
    mode: str,
    params: DiffusionParams,
    *,
    seed: int,
    title: str,
    checkpoint: str,
    working: Size,
    steps: int,
    sampler: str,
    sampler_title: str,
    schedule: str,
    loras: Sequence[UsedLora] = (),
    embeddings: Mapping[str, str] | None = None,
    partner_of: str = "",
    asked: DiffusionParams | None = None,
) -> dict[str, Any]:
    """Everything that is needed to make the picture again, as plain values.

    `params` are those of the job with this picture's own seed, and without the rest of its batch; `sampler`, `schedule`
    and `steps` say what really ran; so does `model`, which names the checkpoint whose inpainting partner it is, if it
    is one. `parameters` is A1111's text. The prompts in them are resolved: no comment, style or choice is left. Where
    that changed them, `asked` holds prompts and styles as they were written.
    """
    stem = model_name(checkpoint)
    return {
        "mode": mode,
        "params": {**dataclasses.asdict(params), "seed": seed, "batch": 1},
        "model": {"title": title or stem, "file": stem, **({"partner_of": partner_of} if partner_of else {})},
        "working": [working.width, working.height],
        "sampler": sampler,
        "schedule": schedule,
        "steps": steps,
        "parameters": infotext(
            params,
            seed=seed,
            model=stem,
            working=working,
            sampler_title=sampler_title,
            schedule=schedule,
            loras=loras,
            embeddings=embeddings,
        ),
        **addons_told(loras, embeddings or {}),
        "digital_source_type": DIGITAL_SOURCE_TYPE,
        **_as_written(params, asked),
    }


def _as_written(params: DiffusionParams, asked: DiffusionParams | None) -> dict[str, Any]:
    names = ("prompt", "negative_prompt", "styles")
    if asked is None or all(getattr(asked, name) == getattr(params, name) for name in names):
        return {}
    return {"asked": {name: getattr(asked, name) for name in names if getattr(asked, name)}}


def upscale_recipe(params: Upscale, size: Size) -> dict[str, Any]:
    """What an upscaled picture of `size` carries. Lanczos invents nothing; a model adds detail, and that is said."""
    made: dict[str, Any] = {
        "mode": "upscale",
        "params": dataclasses.asdict(params),
        "working": [size.width, size.height],
    }
    if params.upscaler:
        made |= {"upscaler": params.upscaler, "digital_source_type": ENHANCED_SOURCE_TYPE}
    return made


def addons_told(loras: Sequence[UsedLora], embeddings: Mapping[str, str]) -> dict[str, Any]:
    """What ran beside the checkpoint, as plain values; nothing where nothing did."""
    told: dict[str, Any] = {}
    if loras:
        told["loras"] = [
            {"model": lora.use.name, "strength": lora.use.unet, "text_strength": lora.use.text, "hash": lora.hash}
            for lora in loras
        ]
    if embeddings:
        told["embeddings"] = [{"model": name, "hash": digits} for name, digits in embeddings.items()]
    return told


def infotext(
    params: DiffusionParams,
    *,
    seed: int,
    model: str,
    working: Size,
    sampler_title: str,
    schedule: str,
    loras: Sequence[UsedLora] = (),
    embeddings: Mapping[str, str] | None = None,
) -> str:
    """A1111's `parameters` text: the prompt, the negative prompt, then one line of `key: value` pairs.

    A1111 knows LoRAs only as <lora:...> in the prompt, so those of the parameters are written there.
    """
    values: dict[str, Any] = {
        "Steps": params.steps,
        "Sampler": sampler_title,
        "Schedule type": schedule.replace("_", " ").title().replace("Sgm", "SGM"),
        "CFG scale": f"{params.cfg:g}",
        "Seed": seed,
        "Size": f"{working.width}x{working.height}",
        "Model": model,
        "RNG": _RNG[params.noise],
    }
    if params.clip_skip != 1:
        values["Clip skip"] = params.clip_skip
    if isinstance(params, (Img2Img, Inpaint)):
        values["Denoising strength"] = f"{params.strength:g}"
    if isinstance(params, Inpaint):
        values["Inpaint area"] = "Only masked" if params.area == "masked" else "Whole picture"
        values["Masked content"] = params.content.replace("_", " ")
        if params.invert:
            values["Mask mode"] = "Inpaint not masked"
    if isinstance(params, Sketch) and params.background == "document":
        values["Sketch over"] = "document"
    hashed = {name: digits for name, digits in (embeddings or {}).items() if digits}
    if loras:
        values["Lora hashes"] = ", ".join(dict.fromkeys(f"{lora.use.name}: {lora.hash}" for lora in loras))
    if hashed:
        values["TI hashes"] = ", ".join(f"{name}: {digits}" for name, digits in hashed.items())
    values["Version"] = "Impasto"
    lines = [params.prompt + format_networks(params.lora_uses)]
    if params.negative_prompt:
        lines.append(f"Negative prompt: {params.negative_prompt}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in values.items()))
    return "\n".join(lines)


def layer_name(mode_title: str, params: DiffusionParams, seed: int) -> str:
    """What the layer is called in the editor: what was asked for, and the seed."""
    words = " ".join(params.prompt.split())
    if len(words) > 40:
        words = words[:39].rstrip() + "…"
    return f"{words or mode_title} ({seed})"


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ",:\n") else text
