"""The parameters of every mode: one frozen dataclass each, with metadata in the fields.

The capability schema, validation, CLI options, panels and the tables of the docs are generated from here, so that
there is one set of names, ranges and defaults. No torch here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from impasto_protocol.errors import RequestError
from impasto_protocol.schema import AUTO, Mode, ModeInput, Param, validate

from .extra_networks import LoraUse

__all__ = [
    "LORA",
    "MODES",
    "SAMPLERS",
    "SCHEDULES",
    "DiffusionParams",
    "Img2Img",
    "Inpaint",
    "ModeParams",
    "Sketch",
    "Txt2Img",
    "Upscale",
    "describe",
    "needs_checkpoint",
    "parse_params",
]

Number = float | Literal["auto"]
Maps = Sequence[Mapping[str, Any]]

SAMPLERS = ("euler", "euler_a", "heun", "dpmpp_2m", "dpmpp_sde", "dpmpp_2m_sde", "ddim", "unipc", "lcm")
TWO_CALLS = ("heun", "dpmpp_sde")
"""Samplers that look twice at every step but the last."""

SCHEDULES = ("automatic", "uniform", "karras", "exponential", "sgm_uniform", "simple", "normal", "beta")
NOISE_SOURCES = ("philox", "torch-cpu")
MASKED_CONTENTS = ("auto", "original", "fill", "latent_noise", "latent_nothing")

FULL_STRENGTH = 0.999
"""From here on nothing of what is masked is kept."""


def param(
    default: Any,
    title: str,
    description: str = "",
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    step: float | None = None,
    auto: bool = False,
    enum: tuple[str, ...] = (),
    ui: Mapping[str, Any] | None = None,
    choices: Mapping[str, Any] | None = None,
    items: tuple[Param, ...] = (),
) -> Any:
    """A dataclass field that carries its description for the schema (see impasto_protocol.schema.Param)."""
    meta = dict(
        title=title,
        description=description,
        minimum=minimum,
        maximum=maximum,
        step=step,
        auto=auto,
        enum=enum,
        ui=ui or {},
        choices=choices or {},
        items=items,
    )
    return dataclasses.field(default=default, metadata={"param": meta})


LORA = (
    Param(
        "model",
        "string",
        "",
        "LoRA",
        "A LoRA of the catalogue.",
        maximum=500,
        ui={"widget": "model"},
        choices={"from": "models", "kind": "lora"},
    ),
    Param(
        "strength",
        "number",
        1.0,
        "Strength",
        "How much of it the network gets; negative ones work the other way.",
        minimum=-10.0,
        maximum=10.0,
        step=0.05,
        ui={"widget": "slider"},
    ),
    Param(
        "text_strength",
        "number",
        AUTO,
        "Strength on the text",
        "How much of it the text encoder gets; auto takes the same.",
        minimum=-10.0,
        maximum=10.0,
        step=0.05,
        auto=True,
        ui={"widget": "slider", "advanced": True},
    ),
)
"""One entry of `loras`."""


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every diffusion mode takes."""

    prompt: str = param(
        "",
        "Prompt",
        "What to paint. (word:1.2) stresses, [word] weakens, [a:b:0.5] changes half-way, {a|b} chooses.",
        maximum=10_000,
        ui={"widget": "prompt", "group": "prompt"},
    )
    negative_prompt: str = param(
        "", "Negative prompt", "What to avoid.", maximum=10_000, ui={"widget": "prompt", "group": "prompt"}
    )
    styles: str = param(
        "",
        "Styles",
        "Names from styles.csv, separated by commas; their text joins the prompts.",
        maximum=2_000,
        ui={"widget": "styles", "group": "prompt", "advanced": True},
    )
    model: str = param(
        "",
        "Model",
        "A checkpoint of the catalogue; empty takes the first one.",
        ui={"widget": "model", "group": "model"},
        choices={"from": "models", "kind": "checkpoint"},
    )
    loras: Maps = param(
        (),
        "LoRAs",
        "Small files that change the model, each with a strength; <lora:name:1> in the prompt does the same.",
        maximum=32,
        ui={"group": "model", "advanced": True},
        items=LORA,
    )
    seed: int = param(
        -1,
        "Seed",
        "The noise that the picture starts from; -1 draws a new one.",
        minimum=-1,
        maximum=2**32 - 1,
        ui={"widget": "seed", "group": "sampling"},
    )
    steps: int = param(
        20, "Steps", "Denoising steps.", minimum=1, maximum=150, ui={"widget": "slider", "group": "sampling"}
    )
    cfg: float = param(
        7.0,
        "Guidance scale",
        "How closely the prompt is followed; 1 ignores the negative prompt and is twice as fast.",
        minimum=1.0,
        maximum=30.0,
        step=0.5,
        ui={"widget": "slider", "group": "sampling"},
    )
    sampler: str = param(
        "dpmpp_2m", "Sampler", enum=SAMPLERS, ui={"widget": "choice", "group": "sampling", "advanced": True}
    )
    schedule: str = param(
        "automatic",
        "Schedule",
        "How the noise levels are spread; automatic takes the sampler's own.",
        enum=SCHEDULES,
        ui={"widget": "choice", "group": "sampling", "advanced": True},
    )
    clip_skip: int = param(
        1,
        "Clip skip",
        "Which layer of the text encoder is read, counted from the end; 2 suits checkpoints of drawn pictures.",
        minimum=1,
        maximum=12,
        ui={"group": "sampling", "advanced": True},
    )
    noise: str = param(
        "philox",
        "Noise source",
        "philox is what AUTOMATIC1111 draws on a GPU, torch-cpu what diffusers and ComfyUI draw.",
        enum=NOISE_SOURCES,
        ui={"widget": "choice", "group": "sampling", "advanced": True},
    )
    batch: int = param(
        1,
        "Pictures",
        "How many pictures to make at once, a layer each; their seeds follow one another.",
        minimum=1,
        maximum=8,
        ui={"group": "sampling", "advanced": True},
    )

    @property
    def lora_uses(self) -> tuple[LoraUse, ...]:
        """The LoRAs of `loras`; the prompt may ask for more."""
        return tuple(
            LoraUse(
                str(entry["model"]),
                float(entry["strength"]),
                float(entry["strength"] if entry["text_strength"] == AUTO else entry["text_strength"]),
            )
            for entry in self.loras
        )


@dataclass(frozen=True, kw_only=True)
class Txt2Img(Common):
    """Text to image: a picture of width x height pixels; 0 takes the checkpoint's native size."""

    width: int = param(
        0,
        "Width",
        "0 takes the model's own size.",
        minimum=0,
        maximum=4096,
        step=8,
        ui={"unit": "px", "group": "size"},
    )
    height: int = param(
        0,
        "Height",
        "0 takes the model's own size.",
        minimum=0,
        maximum=4096,
        step=8,
        ui={"unit": "px", "group": "size"},
    )


STRENGTH: dict[str, Any] = dict(
    minimum=0.0,
    maximum=1.0,
    step=0.01,
    ui={"widget": "slider", "group": "prompt", "unit": "%"},
)


@dataclass(frozen=True, kw_only=True)
class Img2Img(Common):
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


@dataclass(frozen=True, kw_only=True)
class Inpaint(Common):
    """Repaint what is selected; what is beyond the reach of the mask stays bit-identical."""

    strength: float = param(
        1.0, "Strength", "1 replaces what is selected, less keeps more of its forms and colours.", **STRENGTH
    )
    use_partner: bool = param(
        True,
        "Inpainting partner",
        "Inpaint with the inpainting checkpoint that belongs to the model, where there is one.",
        ui={"group": "model", "advanced": True},
    )
    area: str = param(
        "masked",
        "Context",
        "masked: the model sees the selection and its surroundings at its own best size; whole: the whole picture.",
        enum=("masked", "whole"),
        ui={"widget": "choice", "group": "mask"},
    )
    invert: bool = param(
        False,
        "Invert selection",
        "Repaint what is not selected; the model sees the whole picture.",
        ui={"group": "mask", "advanced": True},
    )
    masked_content: str = param(
        "auto",
        "Start from",
        "What the repainting starts from: original keeps what is there, fill smears the surroundings into it, "
        "latent_noise and latent_nothing forget it. auto fills at full strength and keeps below.",
        enum=MASKED_CONTENTS,
        ui={"widget": "choice", "group": "mask", "advanced": True},
    )
    grow: Number = param(
        AUTO,
        "Grow",
        "Pixels by which the mask is grown.",
        minimum=0,
        maximum=512,
        auto=True,
        ui={"unit": "px", "group": "mask", "advanced": True},
    )
    feather: Number = param(
        AUTO,
        "Feather",
        "Pixels over which repainting fades out.",
        minimum=0,
        maximum=512,
        auto=True,
        ui={"unit": "px", "group": "mask", "advanced": True},
    )
    blend: Number = param(
        AUTO,
        "Blend",
        "Pixels over which the layer fades into the picture.",
        minimum=0,
        maximum=512,
        auto=True,
        ui={"unit": "px", "group": "mask", "advanced": True},
    )
    padding: Number = param(
        AUTO,
        "Padding",
        "Pixels of surroundings that the model sees.",
        minimum=0,
        maximum=2048,
        auto=True,
        ui={"unit": "px", "group": "mask", "advanced": True},
    )
    exact: bool = param(
        False,
        "Exact selection",
        "Change only what is selected, with the selection's own softness.",
        ui={"group": "mask", "advanced": True},
    )
    match_color: bool = param(
        True,
        "Match colours",
        "Bring the colours of the result to those around it.",
        ui={"group": "mask", "advanced": True},
    )

    @property
    def content(self) -> str:
        """`masked_content` with "auto" resolved."""
        if self.masked_content != "auto":
            return self.masked_content
        return "fill" if self.strength >= FULL_STRENGTH else "original"


@dataclass(frozen=True, kw_only=True)
class Upscale:
    """Upscale: the picture with `scale` times the pixels on each side, by an upscaler model or by Lanczos."""

    scale: float = param(
        2.0,
        "Scale",
        "How many times as wide and as high.",
        minimum=1.0,
        maximum=8.0,
        step=0.5,
        ui={"widget": "slider", "group": "size", "unit": "×"},
    )
    upscaler: str = param(
        "",
        "Upscaler",
        "An upscaler of the catalogue; empty resamples by Lanczos, which invents nothing.",
        maximum=500,
        ui={"widget": "model", "group": "size", "none": "Lanczos"},
        choices={"from": "models", "kind": "upscaler"},
    )


DiffusionParams = Txt2Img | Img2Img | Sketch | Inpaint
"""Those that need a checkpoint."""

ModeParams = DiffusionParams | Upscale

_IMAGE = ModeInput("image", "image", "Picture")
_BACKDROP = ModeInput("backdrop", "image", "What lies under the sketch", required=False)
_MASK = ModeInput("mask", "mask", "Selection")

MODES: Mapping[str, tuple[type[ModeParams], str, tuple[ModeInput, ...]]] = {
    "txt2img": (Txt2Img, "Text to image", ()),
    "img2img": (Img2Img, "Image to image", (_IMAGE,)),
    "sketch": (Sketch, "Sketch to image", (_IMAGE, _BACKDROP)),
    "inpaint": (Inpaint, "Inpaint selection", (_IMAGE, _MASK)),
    "upscale": (Upscale, "Upscale", (_IMAGE,)),
}
"""Name -> (parameter dataclass, title, inputs)."""

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "Number": "number", "Maps": "array"}


def params_of(cls: type[ModeParams]) -> tuple[Param, ...]:
    """The schema of a parameter dataclass, in the order of its fields."""
    described = []
    for f in dataclasses.fields(cls):
        default = list(f.default) if isinstance(f.default, tuple) else f.default
        meta = f.metadata["param"]
        described.append(Param(name=f.name, type=_TYPES[str(f.type)], default=cast(Any, default), **meta))
    return tuple(described)


def describe() -> tuple[Mode, ...]:
    """All modes with their schema, for the catalogue."""
    return tuple(
        Mode(name, title, (cls.__doc__ or "").strip(), inputs, params_of(cls))
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
        )
    cls = MODES[mode][0]
    return cls(**validate(params_of(cls), values, defaults=hints))
