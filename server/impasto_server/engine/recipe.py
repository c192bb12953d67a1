"""What a result carries: how it was made, for people and for programs (`infotext` has A1111's text). No torch here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from impasto_protocol.geometry import Size

from .infotext_write import extras_text, infotext
from .modelpath import model_name
from .modes import DiffusionParams, Upscale
from .params_hires import Hires

if TYPE_CHECKING:
    from .addons import UsedLora, UsedVae

__all__ = ["DIGITAL_SOURCE_TYPE", "RanPass", "addons_told", "layer_name", "recipe", "upscale_recipe", "vae_told"]

DIGITAL_SOURCE_TYPE = "trainedAlgorithmicMedia"
"""IPTC's word for a picture that a trained model made."""

ENHANCED_SOURCE_TYPE = "algorithmicallyEnhanced"
"""IPTC's word for a picture that an algorithm changed a little."""


@dataclass(frozen=True)
class RanPass:
    """What one pass through the network really was. `calls` is the number that the steps of its prompts refer to."""

    title: str
    checkpoint: str
    working: Size
    steps: int
    sampler: str
    sampler_title: str
    schedule: str
    calls: int
    loras: Sequence[UsedLora] = ()
    embeddings: Mapping[str, str] = field(default_factory=dict)
    vae: UsedVae | None = None

    @property
    def model(self) -> dict[str, str]:
        """The checkpoint, as a recipe names it."""
        stem = model_name(self.checkpoint)
        return {"title": self.title or stem, "file": stem}

    @property
    def told(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "working": [self.working.width, self.working.height],
            "sampler": self.sampler,
            "schedule": self.schedule,
            "steps": self.steps,
        }


def recipe(
    mode: str,
    params: DiffusionParams,
    first: RanPass,
    hires: RanPass | None = None,
    *,
    seed: int,
    partner_of: str = "",
    asked: DiffusionParams | None = None,
) -> dict[str, Any]:
    """Everything that is needed to make the picture again, as plain values.

    `params` are those of the job with this picture's own seed, and without the rest of its batch; what `first` and
    `hires` say of the passes is what really ran; so does `model`, which names the checkpoint whose inpainting partner
    it is, if it is one. `parameters` is A1111's text. The prompts in them are resolved: no comment, style or choice is
    left. Where that changed them, `asked` holds prompts and styles as they were written.
    """
    loras = [*first.loras, *(lora for lora in (hires.loras if hires else ()) if lora not in first.loras)]
    last = hires or first
    embeddings = {**first.embeddings, **(hires.embeddings if hires else {})}
    return {
        "mode": mode,
        "params": {**dataclasses.asdict(params), "seed": seed, "batch": 1},
        "model": {**first.model, **({"partner_of": partner_of} if partner_of else {})},
        **first.told,
        **({"hires": {"model": hires.model, **hires.told}} if hires else {}),
        "parameters": infotext(
            mode,
            params,
            seed=seed,
            model=first.model["file"],
            working=first.working,
            sampler_title=first.sampler_title,
            schedule=first.schedule,
            hires_sampler=hires.sampler_title if hires else "",
            loras=loras,
            embeddings=embeddings,
            vae=last.vae,
        ),
        **addons_told(loras, embeddings),
        **vae_told(last.vae),
        "digital_source_type": DIGITAL_SOURCE_TYPE,
        **_as_written(params, asked),
    }


def _as_written(params: DiffusionParams, asked: DiffusionParams | None) -> dict[str, Any]:
    names = ["prompt", "negative_prompt", "styles"]
    if isinstance(params, Hires):
        names += ["hires_prompt", "hires_negative_prompt"]
    if asked is None or all(getattr(asked, name) == getattr(params, name) for name in names):
        return {}
    return {"asked": {name: getattr(asked, name) for name in names if getattr(asked, name)}}


def upscale_recipe(params: Upscale, size: Size) -> dict[str, Any]:
    """What an upscaled picture of `size` carries. Lanczos invents nothing; a model adds detail, and that is said."""
    made: dict[str, Any] = {
        "mode": "upscale",
        "params": dataclasses.asdict(params),
        "working": [size.width, size.height],
        "postprocessing": extras_text(params),
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


def vae_told(vae: UsedVae | None) -> dict[str, Any]:
    """The VAE in place of the checkpoint's own, as plain values; nothing where that one ran."""
    return {"vae": {"file": vae.file, "hash": vae.hash}} if vae is not None else {}


def layer_name(mode_title: str, params: DiffusionParams, seed: int) -> str:
    """What the layer is called in the editor: what was asked for, and the seed."""
    words = " ".join(params.prompt.split())
    if len(words) > 40:
        words = words[:39].rstrip() + "…"
    return f"{words or mode_title} ({seed})"
