"""The keys of A1111's `parameters` text, and what each is for us. No torch here.

One table serves reading, writing and docs/a1111-parameters.md. A key whose parameter a mode does not have is told as
not supported; a key in none of these tables as unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from impasto_protocol.schema import AUTO

from .modelpath import model_name
from .params_hires import LATENT_UPSCALERS, SAME
from .sampler_names import SCHEDULE_TITLES

__all__ = [
    "CONTROLNET",
    "KEYS",
    "NEUTRAL",
    "OURS",
    "PREFIXES",
    "SYNONYMS",
    "TOLD",
    "UNSUPPORTED",
    "Key",
    "enum_name",
    "schedule_title",
]

OURS = "Impasto"
"""Our own key: the mode, and every parameter that A1111 has no key for and that is not at its default."""


CONTROLNET = "ControlNet "
"""How the keys of A1111's units of control begin."""


@dataclass(frozen=True)
class Key:
    """A key that sets one parameter. `read` raises ValueError for a value that it does not know; `write` gives "" where
    the key is to be left out, as A1111 does."""

    param: str
    read: Callable[[str], Any]
    write: Callable[[Any], Any] = str
    modes: tuple[str, ...] = ()
    """Those in which the key means this parameter; empty: all that have it."""


def enum_name(title: str) -> str:
    """A1111's title of a sampler or schedule as one of our names: "DPM++ 2M SDE" -> "dpmpp_2m_sde"."""
    return title.strip().lower().replace("++", "pp").replace(" ", "_")


def schedule_title(name: str) -> str:
    """A1111's title of a schedule."""
    return SCHEDULE_TITLES.get(name, name)


def _one_of(values: Mapping[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        known = {title.lower(): value for title, value in values.items()}
        if text.strip().lower() not in known:
            raise ValueError(f"known are {', '.join(values)}")
        return known[text.strip().lower()]

    return read


def _title_of(values: Mapping[str, Any], left_out: Any = None) -> Callable[[Any], str]:
    def write(value: Any) -> str:
        return "" if value == left_out else next(title for title, known in values.items() if known == value)

    return write


def _number(text: str) -> float:
    return float(text)


def _whole(text: str) -> int:
    value = float(text)
    if value != int(value):
        raise ValueError("a whole number is needed")
    return int(value)


def _plain(value: Any) -> str:
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _unless(neutral: Any) -> Callable[[Any], str]:
    return lambda value: "" if value == neutral else _plain(value)


def _limit(text: str) -> float:
    """A number; infinity is no limit, which is 0 here."""
    value = float(text)
    return 0.0 if value == float("inf") else value


def _unless_auto(value: Any) -> str:
    return "" if value == AUTO else _plain(value)


def _unless_same(value: str) -> str:
    return "" if value == SAME else schedule_title(value)


_UPSCALERS = {"": "Lanczos", **LATENT_UPSCALERS}


def _upscaler(title: str) -> str:
    # A1111's "None" enlarges by Lanczos, too.
    known = {"none": "", **{shown.lower(): name for name, shown in _UPSCALERS.items()}}
    return known.get(title.strip().lower(), title)


_RNG = {"NV": "philox", "GPU": "philox", "CPU": "torch-cpu"}
_BOOL = {"True": True, "False": False}
_NOISE_SCHEDULE = {"Default": False, "Zero Terminal SNR": True}
_AREA = {"Only masked": "masked", "Whole picture": "whole"}
_MASK_MODE = {"Inpaint masked": False, "Inpaint not masked": True}
_CONTENT = {
    "fill": "fill",
    "original": "original",
    "latent noise": "latent_noise",
    "latent nothing": "latent_nothing",
}


def _vae(text: str) -> str:
    """A1111 names the file with its ending."""
    return {"None": "none", "Automatic": ""}.get(text, model_name(text))


def _vae_title(value: Any) -> str:
    """What is read back as the same; "" leaves it to our own key."""
    title = "None" if value == "none" else str(value)
    return title if _vae(title) == value else ""


KEYS: Mapping[str, Key] = {
    "Steps": Key("steps", _whole),
    "CFG scale": Key("cfg", _number, _plain),
    "Seed": Key("seed", _whole),
    "RNG": Key("noise", _one_of(_RNG), _title_of(_RNG)),
    "Clip skip": Key("clip_skip", _whole, _unless(1)),
    "VAE": Key("vae", _vae, _vae_title),
    "Variation seed": Key("variation_seed", _whole, _unless(-1)),
    "Variation seed strength": Key("variation_strength", _number, _unless(0)),
    "ENSD": Key("ensd", _whole, _unless(0)),
    "Eta": Key("eta", _number, _unless_auto),
    "Sigma churn": Key("s_churn", _number, _unless(0)),
    "Sigma tmin": Key("s_tmin", _number, _unless(0)),
    "Sigma tmax": Key("s_tmax", _limit, _unless(0)),
    "Sigma noise": Key("s_noise", _number, _unless(1)),
    "NGMS": Key("ngms", _number, _unless(0)),
    "NGMS all steps": Key("ngms_all", _one_of(_BOOL), _title_of(_BOOL, left_out=False)),
    "CFG Rescale": Key("cfg_rescale", _number, _unless(0)),
    "Noise Schedule": Key("zero_terminal_snr", _one_of(_NOISE_SCHEDULE), _title_of(_NOISE_SCHEDULE, left_out=False)),
    "Denoising strength": Key("strength", _number, _plain),
    "Image CFG scale": Key("image_cfg", _number, _unless(1.5)),
    "Noise multiplier": Key("noise_multiplier", _number, _unless(1)),
    "Extra noise": Key("extra_noise", _number, _unless(0)),
    "Inpaint area": Key("area", _one_of(_AREA), _title_of(_AREA)),
    "Masked content": Key("masked_content", _one_of(_CONTENT), _title_of(_CONTENT)),
    "Mask mode": Key("invert", _one_of(_MASK_MODE), _title_of(_MASK_MODE, left_out=False)),
    "Masked area padding": Key("padding", _number, _unless_auto),
    "Hires strength": Key("hires_strength", _number, _plain),
    "Hires upscale": Key("hires_scale", _number, _plain),
    "Hires steps": Key("hires_steps", _whole, _unless(0)),
    "Hires upscaler": Key("hires_upscaler", _upscaler, lambda name: _UPSCALERS.get(name, name)),
    "Hires checkpoint": Key("hires_model", str),
    "Hires sampler": Key("hires_sampler", enum_name, _unless_same),
    "Hires schedule type": Key("hires_schedule", enum_name, _unless_same),
    "Hires prompt": Key("hires_prompt", str),
    "Hires negative prompt": Key("hires_negative_prompt", str),
    "Soft inpainting enabled": Key("soft", _one_of({"True": True, "False": False}), str),
    "Soft inpainting schedule bias": Key("soft_bias", _number, _plain),
    "Soft inpainting preservation strength": Key("soft_preservation", _number, _plain),
    "Soft inpainting transition contrast boost": Key("soft_contrast", _number, _plain),
    "Soft inpainting mask influence": Key("soft_mask_influence", _number, _plain),
    "Soft inpainting difference threshold": Key("soft_threshold", _number, _plain),
    "Soft inpainting difference contrast": Key("soft_difference_contrast", _number, _plain),
}
"""Key -> the parameter that it sets, in the order in which they are written. Sampler, Schedule type, Size, Seed
resize from and Model are read by `infotext` itself, for they say more than one thing."""

SYNONYMS: Mapping[str, str] = {
    "Eta DDIM": "Eta",
    "Negative Guidance minimum sigma": "NGMS",
    "CLIP stop at last layers": "Clip skip",
}
"""Other names of keys -> the key."""

TOLD: Mapping[str, str] = {
    "Version": "which program wrote it",
    "Model hash": "the checkpoint by its hash",
    "Lora hashes": "the LoRAs by their hashes",
    "TI hashes": "the embeddings by their hashes",
    "Hashes": "all files by their hashes",
    "VAE hash": "the VAE by its hash",
    "Init image hash": "the picture that it began with, by its hash",
    "Batch size": "how many pictures were made at once; the seed is that of this one",
    "Batch pos": "which picture of a batch it was; the seed is its own",
    "User": "who made it",
    "App": "which program wrote it",
    "Created Date": "when it was made",
    "Software": "which program wrote it",
    "Wildcard prompt": "the prompt before choices were drawn",
    "Wildcard negative prompt": "the negative prompt before choices were drawn",
}
"""Keys that say something of the picture and set nothing: what they say."""

UNSUPPORTED: Mapping[str, str] = {
    "Face restoration": "restoring faces",
    "Conditional mask weight": "a weight for what inpainting checkpoints see",
    "Tiling": "seamless textures",
    "VAE Encoder": "how pictures are encoded",
    "VAE Decoder": "how pictures are decoded",
    "Emphasis": "how attention weights are scaled",
    "FP8 weight": "weights of eight bits",
    "Cache FP16 weight for LoRA": "weights of eight bits",
    "Token merging ratio": "a speed-up that changes the picture",
    "Token merging ratio hr": "a speed-up that changes the picture",
    "Pad conds": "prompts filled up to the same length",
    "Old prompt editing timelines": "an older way to count steps",
    "Use old emphasis implementation": "an older way to weigh words",
    "Use old scheduling": "an older way to count steps",
    "Downcast alphas_cumprod": "an older table of noise",
    "Discard penultimate sigma": "a schedule without its last step but one",
    "Skip Early CFG": "steps without guidance",
    "Schedule rho": "a schedule of one's own",
    "Schedule min sigma": "a schedule of one's own",
    "Schedule max sigma": "a schedule of one's own",
    "UniPC variant": "another form of UniPC",
    "UniPC skip type": "another form of UniPC",
    "UniPC order": "another order of UniPC",
    "UniPC lower order final": "another end of UniPC",
    "Refiner": "a second checkpoint for the last steps",
    "Refiner switch at": "a second checkpoint for the last steps",
    "First pass size": "a hires pass in its oldest form",
    "Hypernet": "hypernetworks",
    "Hypernet strength": "hypernetworks",
    "Hypernet hash": "hypernetworks",
    "Color correction": "colours brought back to those of the picture",
    "Script": "a script of A1111",
    "X Type": "a plot over parameters",
    "Y Type": "a plot over parameters",
    "Z Type": "a plot over parameters",
}
"""Keys that A1111 and its relatives write and that set nothing here: what they were for."""

NEUTRAL: Mapping[str, str] = {
    "Emphasis": "Original",
    "Tiling": "False",
    "Conditional mask weight": "1.0",
    "Discard penultimate sigma": "False",
}
"""Keys that say what is so here without any setting."""

PREFIXES: Mapping[str, str] = {
    "Hires ": "something of the hires pass",
    "Soft inpainting": "soft inpainting",
    "ADetailer": "the extension ADetailer",
    "AddNet": "the extension Additional Networks",
    "Ultimate SD upscale": "the script Ultimate SD upscale",
    "SD upscale": "the script SD upscale",
    "Tiled Diffusion": "the extension Tiled Diffusion",
    "Dynamic thresholding": "the extension Dynamic Thresholding",
    "Postprocess": "A1111's Extras",
    "FreeU": "FreeU",
    "freeu": "FreeU",
    "RP ": "the extension Regional Prompter",
    "Regional Prompter": "the extension Regional Prompter",
    "Cutoff": "the extension Cutoff",
    "roop": "a face swap",
    "FaceSwapLab": "a face swap",
    "ReActor": "a face swap",
    "Style Selector": "an extension that joins styles to the prompt",
    "Tile": "an extension that works in tiles",
}
"""Beginnings of keys that set nothing here: whose they are."""
