"""A1111's `parameters` text of our results; `infotext` reads it back. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from impasto_protocol.geometry import Size
from impasto_protocol.schema import AUTO

from .extra_networks import format_networks
from .fields import params_of
from .infotext import mode_of
from .infotext_keys import CONTROLNET, KEYS, OURS, schedule_title
from .infotext_text import format_infotext, format_pairs, split_infotext
from .modelpath import model_name
from .modes import DiffusionParams, Inpaint, Upscale
from .params_hires import Hires, HiresSize
from .sampler_names import SAMPLER_INFO

if TYPE_CHECKING:
    from .addons import UsedLora, UsedVae

__all__ = ["extras_text", "infotext"]

_HIRES = "Hires "
"""How the keys of a hires pass begin."""

_BY_HAND = frozenset(
    {"prompt", "negative_prompt", "styles", "model", "loras", "sampler", "schedule", "width", "height"}
)
"""Parameters that the text says in ways of its own."""

_NEVER = frozenset({"batch", "vary"})
"""Each picture of a batch has a text of its own."""


def infotext(
    mode: str,
    params: DiffusionParams,
    *,
    seed: int,
    model: str,
    working: Size,
    sampler_title: str,
    schedule: str,
    hires_sampler: str = "",
    loras: Sequence[UsedLora] = (),
    embeddings: Mapping[str, str] | None = None,
    vae: UsedVae | None = None,
) -> str:
    """A1111's `parameters` text of one picture: the prompt, the negative prompt, then one line of `key: value` pairs.

    A1111 knows LoRAs only as <lora:...> in the prompt, so those of the parameters are written there. `hires_sampler` is
    A1111's name of the sampler of a hires pass, `vae` the one in place of the checkpoint's own. What it has no key for
    stands in the key "Impasto", so that our own reading of it is complete.
    """
    prompt = params.prompt + format_networks(params.lora_uses)
    pairs: dict[str, Any] = {
        "Steps": params.steps,
        "Sampler": sampler_title,
        "Schedule type": schedule_title(schedule),
        "CFG scale": KEYS["CFG scale"].write(params.cfg),
        "Seed": seed,
        "Size": f"{working.width}x{working.height}",
        "Model": model,
    }
    written = {"steps", "cfg", "seed"}
    if vae is not None:
        pairs |= {"VAE hash": vae.hash} if vae.hash else {}
        pairs["VAE"] = vae.file
        if params.vae in ("", model_name(vae.file)):
            written.add("vae")
    hires = isinstance(params, Hires) and params.hires
    if hires:
        written.add("hires")
    resized = (params.hires_width, params.hires_height) if hires and isinstance(params, HiresSize) else (0, 0)
    if any(resized) and not any(side % 8 for side in resized):
        pairs["Hires resize"] = f"{resized[0]}x{resized[1]}"
        written |= {"hires_width", "hires_height"}
    apart = (params.seed_resize_width, params.seed_resize_height)
    if all(apart) and not any(side % 8 for side in apart):
        pairs["Seed resize from"] = f"{apart[0]}x{apart[1]}"
        written |= {"seed_resize_width", "seed_resize_height"}
    for key, known in KEYS.items():
        if known.param in written or not hasattr(params, known.param) or (known.modes and mode not in known.modes):
            continue
        if key.startswith("Soft inpainting ") and not getattr(params, "soft", False):
            continue
        if key.startswith(_HIRES) and (not hires or (key == "Hires upscale" and any(resized))):
            continue
        value = getattr(params, known.param)
        if known.param == "masked_content" and isinstance(params, Inpaint):
            value = params.content  # what "auto" came to
        text = known.write(value)
        if key == "Hires sampler" and text:
            text = hires_sampler
        if key == "Hires strength" and not hasattr(params, "strength"):
            key = "Denoising strength"
        if key == "Eta" and SAMPLER_INFO[params.sampler].eta == 0:
            key = "Eta DDIM"
        if text != "":
            pairs[key] = text
        if text != "" or value == AUTO:
            written.add(known.param)
    for index, unit in enumerate(unit for unit in params.control if unit.get("enabled", True)):
        pairs[f"{CONTROLNET}{index}"] = format_pairs(_unit(unit).items())
    hashed = {name: digits for name, digits in (embeddings or {}).items() if digits}
    if loras:
        pairs["Lora hashes"] = ", ".join(dict.fromkeys(f"{lora.use.name}: {lora.hash}" for lora in loras))
    if hashed:
        pairs["TI hashes"] = ", ".join(f"{name}: {digits}" for name, digits in hashed.items())
    own = _rest(params, written)
    read = split_infotext(format_infotext(prompt, params.negative_prompt, pairs.items()))
    if mode_of(read, {}) != mode:
        own = {"mode": mode, **own}
    # A prompt may have lines that look like the others of the text, or spaces that are lost.
    for name, meant, got in (
        ("prompt", prompt, read.prompt),
        ("negative_prompt", params.negative_prompt, read.negative_prompt),
    ):
        if meant != got:
            own[name] = json.dumps(meant)
    if own:
        pairs[OURS] = format_pairs(own.items())
    pairs["Version"] = OURS
    return format_infotext(prompt, params.negative_prompt, pairs.items())


def _unit(unit: Mapping[str, Any]) -> dict[str, Any]:
    """A unit of control in the words of A1111's extension."""
    low, high = (-1 if unit[name] == AUTO else unit[name] for name in ("threshold_low", "threshold_high"))
    return {
        "Module": unit["preprocessor"],
        "Model": unit["model"],
        "Weight": unit["weight"],
        "Resize Mode": _RESIZE[unit["resize"]],
        "Threshold A": low,
        "Threshold B": high,
        "Guidance Start": unit["start"],
        "Guidance End": unit["end"],
        "Control Mode": _LEADS[unit["mode"]],
    }


_RESIZE = {"crop": "Crop and Resize", "fill": "Resize and Fill", "stretch": "Just Resize"}
_LEADS = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
}


def extras_text(params: Upscale) -> str:
    """What A1111's Extras say of a picture that was enlarged, its text `postprocessing`."""
    if params.width or params.height:
        pairs = {"Postprocess upscale to": f"{params.width}x{params.height}"}
    else:
        pairs = {"Postprocess upscale by": f"{params.scale:g}"}
    pairs["Postprocess upscaler"] = params.upscaler or "Lanczos"
    if params.second_share > 0:
        pairs["Postprocess upscaler 2"] = params.second_upscaler or "Lanczos"
        pairs["Postprocess upscaler 2 visibility"] = f"{params.second_share:g}"
    return format_pairs(pairs.items())


def _rest(params: DiffusionParams, written: set[str]) -> dict[str, str]:
    """The parameters that no key says and that are not at their default."""
    rest = {}
    for param in params_of(type(params)):
        value = getattr(params, param.name)
        if param.name not in _BY_HAND | _NEVER | written and value not in (param.default, ()):
            rest[param.name] = value if param.enum else json.dumps(value)
    return rest
