"""The VAEs and the text encoder of one job: what is named, what lies beside the checkpoint, and whether it fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from impasto_protocol.errors import ModelError

from ..engine.families import FAMILIES
from ..engine.jobs import VaeFiles
from ..engine.modes import ModeParams
from ..engine.params_common import Common
from .catalogue import Catalogue, Model

__all__ = ["OWN", "Vaes", "choose_vaes"]

OWN = "none"
"""The value of `vae` that takes the checkpoint's own, as AUTOMATIC1111's None does."""

_VAES = ("vae", "checkpoint")
_TEXTS = ("text-encoder", "checkpoint")


@dataclass(frozen=True)
class Vaes:
    """`vae` in place of the checkpoint's own, None for that one; `hires_vae` the same for a hires checkpoint. `parts`
    are the files that are loaded with the model as one (`engine.jobs.VaeFiles`), `preview` decodes previews."""

    vae: Model | None = None
    hires_vae: Model | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    preview: Model | None = None

    @property
    def files(self) -> VaeFiles:
        """What the engine's job has of it."""
        vae, hires_vae, preview = (
            str(m.path) if m is not None else "" for m in (self.vae, self.hires_vae, self.preview)
        )
        return VaeFiles(vae, hires_vae, self.parts, preview)


def choose_vaes(catalogue: Catalogue, params: ModeParams, model: Model | None, hires: Model | None = None) -> Vaes:
    """Everything that `params.vae` and `params.text_encoder` mean for the model that runs.

    Raises ModelError: `model.unknown` with the nearest name, `model.unsupported` with `need` and `got` for a VAE of
    other latents or a text encoder of another family, and for a UNet by itself without what it needs.
    """
    if not isinstance(params, Common) or model is None:
        return Vaes()
    text = catalogue.part(params.text_encoder, _TEXTS, "params.text_encoder") if params.text_encoder else None
    if text is not None and text.facts.family != model.facts.family:
        raise ModelError(
            "model.unsupported",
            f"The text encoder of {text.id!r} is for {text.facts.family}, the model {model.id!r} is "
            f"{model.facts.family}; choose one for {model.facts.family}.",
            path="params.text_encoder",
            data={"model": text.id, "need": model.facts.family, "got": text.facts.family},
        )
    vae = _chosen(catalogue, params.vae, model)
    parts: dict[str, str] = {}
    if model.facts.kind == "unet":
        vae, parts = _for_unet(model, text, vae)
    elif text is not None:
        parts["text"] = str(text.path)
    preview = catalogue.preview_decoder(model)
    return Vaes(vae, _chosen(catalogue, params.vae, hires) if hires is not None else None, parts, preview)


def _for_unet(model: Model, text: Model | None, vae: Model | None) -> tuple[Model | None, dict[str, str]]:
    """What is loaded with a UNet by itself, and the VAE that takes the place of that one again."""
    if text is None:
        raise ModelError(
            "model.unsupported",
            f"{model.id!r} is a UNet without text encoder or VAE; name by text_encoder a checkpoint that lends both, "
            "or name a text encoder and a VAE.",
            path="params.text_encoder",
            data={"model": model.id, "need": "text encoder", "got": ""},
        )
    lends = text.facts.kind == "checkpoint"
    if vae is not None and vae.facts.variant != "taesd":
        return None, {"text": str(text.path), "vae": str(vae.path)}
    if not lends:
        raise ModelError(
            "model.unsupported",
            f"{model.id!r} is a UNet without a VAE, and {text.id!r} has none either; name a whole one by vae.",
            path="params.vae",
            data={"model": model.id, "need": "vae", "got": vae.id if vae is not None else ""},
        )
    return vae, {"text": str(text.path), "vae": str(text.path)}


def _chosen(catalogue: Catalogue, name: str, model: Model) -> Model | None:
    if name == OWN and catalogue.named(OWN) is None:
        return None
    vae = catalogue.part(name, _VAES, "params.vae") if name else catalogue.vae_beside(model)
    if vae is None or vae.id == model.id:
        return None
    _check_latents(vae, model, "" if name else " (it lies beside it; vae none takes the checkpoint's own)")
    return vae


def _check_latents(vae: Model, model: Model, hint: str) -> None:
    need, got = model.facts.latents, vae.facts.latents
    if not need[0]:  # a UNet says nothing of it: the family does
        family = FAMILIES.get(model.facts.family)
        need = (4, 2 ** (len(family.vae_widths) - 1), family.vae_scaling_factor) if family is not None else got
    scales = bool(need[2] and got[2]) and abs(need[2] - got[2]) > 1e-6
    if need[:2] == got[:2] and not scales:
        return
    wanted, there = _latents(*need), _latents(*got)
    raise ModelError(
        "model.unsupported",
        f"The VAE {vae.id!r} is for {there}, the model {model.id!r} has {wanted}; choose another VAE{hint}.",
        path="params.vae",
        data={"model": vae.id, "need": wanted, "got": there},
    )


def _latents(channels: int, pixels: int, scale: float) -> str:
    return f"latents of {channels} channels for {pixels} x {pixels} pixels" + (
        f", scaled by {scale:g}" if scale else ""
    )
