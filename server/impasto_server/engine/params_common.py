"""The parameters that all diffusion modes share. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from impasto_protocol.schema import AUTO, Param

from .extra_networks import LoraUse
from .fields import Maps, param
from .params_control import Controlled
from .params_guides import Guided
from .params_sampling import NOISE_SOURCES, Sampled
from .sampler_names import SAMPLERS, SCHEDULES, TWO_CALLS

__all__ = ["LORA", "NOISE_SOURCES", "SAMPLERS", "SCHEDULES", "TWO_CALLS", "Common"]

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
    vae: str = param(
        "",
        "VAE",
        "What turns latents into pictures and back: a VAE of the catalogue; empty takes the one that lies beside the "
        "checkpoint, else its own; none takes its own.",
        maximum=500,
        ui={"widget": "model", "group": "model", "advanced": True, "none": "Automatic"},
        choices={"from": "models", "kind": "vae", "also": ["none"]},
    )
    text_encoder: str = param(
        "",
        "Text encoder",
        "A checkpoint, or a text encoder by itself, that reads the prompts; a model that is a UNet alone needs one.",
        maximum=500,
        ui={"widget": "model", "group": "model", "advanced": True, "none": "The model's own"},
        choices={"from": "models", "kind": "text-encoder"},
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
class Common(Guided, Controlled, Sampled, Prompted):
    """What every diffusion mode takes; the fields of `Prompted` come first."""
