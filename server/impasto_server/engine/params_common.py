"""The parameters that all diffusion modes share. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from impasto_protocol.schema import AUTO, Param

from .extra_networks import LoraUse
from .fields import Maps, param

__all__ = ["LORA", "SAMPLERS", "SCHEDULES", "TWO_CALLS", "Common"]

SAMPLERS = ("euler", "euler_a", "heun", "dpmpp_2m", "dpmpp_sde", "dpmpp_2m_sde", "ddim", "unipc", "lcm")
TWO_CALLS = ("heun", "dpmpp_sde")
"""Samplers that look twice at every step but the last."""

SCHEDULES = ("automatic", "uniform", "karras", "exponential", "sgm_uniform", "simple", "normal", "beta")
NOISE_SOURCES = ("philox", "torch-cpu")

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
class Prompted:
    """What is to be painted, and by which model."""

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
class Sampled:
    """How the noise becomes a picture."""

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


@dataclass(frozen=True, kw_only=True)
class Common(Sampled, Prompted):
    """What every diffusion mode takes; the fields of `Prompted` come first."""
