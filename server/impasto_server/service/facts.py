"""What the catalogue knows of a file, from the engine's identification of its header."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from impasto_protocol.errors import ImpastoError

from .. import __version__
from ..engine.families import FAMILIES
from ..engine.identify import Identifier, ModelInfo, Unknown
from ..engine.modelnotes import Notes, read_notes

__all__ = ["Facts", "Identify", "identify", "index_version"]

log = logging.getLogger("impasto.catalogue")


@dataclass(frozen=True)
class Facts:
    """`kind` is "checkpoint", another kind of model file, or "unknown"; `native_size` in pixels, 0 where it has none.

    Where it is not `usable`, `reason` says why and what to do, and `code` is that of the ModelError. `hints` are
    values of parameters that suit the checkpoint. `says_partner` is the name of its inpainting partner where the model
    itself says it, "" where it says that it has none, None where it says nothing. `alias` is the name that a LoRA was
    trained under: prompts may use it where it means one file. `words`, `strength` and `notes` are what lies beside it
    (`modelnotes.Notes`). `latents` of a checkpoint or a VAE are their channels, the pixels of one on each side, and
    their scale; 0 where that is not said. `text_width` is how many numbers the text encoder of a checkpoint has for a
    token, and how many an embedding has; 0 for others.
    """

    kind: str
    family: str = ""
    variant: str = ""
    title: str = ""
    native_size: int = 0
    hints: Mapping[str, Any] = field(default_factory=dict)
    usable: bool = True
    reason: str = ""
    code: str = ""
    says_partner: str | None = None
    alias: str = ""
    words: tuple[str, ...] = ()
    strength: float = 0.0
    notes: str = ""
    latents: tuple[int, int, float] = (0, 0, 0.0)
    text_width: int = 0


def index_version() -> str:
    """What the facts depend on beside the files; with another one they are looked for anew."""
    return f"{__version__} 13 {'upscalers' if _has_spandrel() else ''}".strip()


def _has_spandrel() -> bool:
    """Whether upscaler models can be loaded; without importing anything."""
    return find_spec("spandrel") is not None


def identify(path: Path) -> Facts:
    """The facts of a file; whatever is wrong with it is told in them."""
    return Identify()(path)


class Identify:
    """`identify` for many files; see `engine.identify.Identifier`."""

    def __init__(self) -> None:
        self._identifier = Identifier()

    def __call__(self, path: Path) -> Facts:
        """The facts of a file; whatever is wrong with it is told in them."""
        try:
            found = self._identifier(path)
        except ImpastoError as e:
            return Facts("unknown", usable=False, reason=e.message, code=e.code)
        except OSError as e:
            return Facts("unknown", usable=False, reason=f"It cannot be read ({e.strerror}).", code="model.corrupt")
        if isinstance(found, Unknown):
            return Facts("unknown", usable=False, reason=found.reason, code=found.code)
        return _judged(found, read_notes(path))


def _judged(found: ModelInfo, notes: Notes) -> Facts:
    """What it is, and whether it can be used."""
    told_by_notes = found.kind in ("lora", "embedding") and not found.family
    found = replace(found, family=notes.family) if told_by_notes else found
    facts = Facts(
        found.kind,
        found.family,
        found.variant,
        found.title,
        found.native_size,
        dict(found.hints),
        says_partner=found.inpaint_partner,
        alias=found.alias,
        words=notes.words,
        strength=notes.strength,
        notes=notes.text,
        latents=_latents(found),
        text_width=_text_width(found),
    )
    if found.kind in ("lora", "embedding", "controlnet") and found.family in ("", *FAMILIES):
        return facts
    if found.kind == "taesd" and found.variant == "decoder" and found.family == "sd1":
        return replace(facts, kind="vae", variant="taesd")
    if found.kind in ("annotator", "clip-vision"):
        return facts
    if found.kind == "face" and found.variant == "photographs":
        return facts
    if found.kind == "face":
        reason = (
            "It is a face checkpoint of FaceSwapLab, which holds an embedding and no photographs, and Impasto cannot "
            "paint from that yet; make a profile from photographs with `impasto faces build`."
        )
        return replace(facts, usable=False, reason=reason, code="model.unsupported")
    if found.kind == "ip-adapter" and found.family in ("", *FAMILIES):
        return facts
    if found.kind == "vae" and found.config is not None:
        return facts
    if found.kind == "text-encoder" and found.family in FAMILIES:
        return facts
    if found.kind == "unet" and found.config is not None and found.variant in _VARIANTS:
        return facts
    if found.kind == "upscaler":
        if _has_spandrel():
            return facts
        reason = "It is an upscaler; to use it, install spandrel: pip install --no-deps spandrel einops"
        return replace(facts, usable=False, reason=reason, code="model.unsupported")
    if found.kind != "checkpoint" or found.config is None:
        reason = f"It is {found.described}, which Impasto cannot use yet."
        return replace(facts, usable=False, reason=reason, code="model.unsupported")
    if found.variant not in _VARIANTS:
        reason = f"It is {found.described} of the kind {found.variant}, which Impasto cannot use yet."
        return replace(facts, usable=False, reason=reason, code="model.unsupported")
    return facts


_VARIANTS = ("normal", "inpaint", "instruct-pix2pix")
"""Kinds of checkpoints that can run."""


def _latents(found: ModelInfo) -> tuple[int, int, float]:
    if found.kind == "taesd":
        return 4, 8, 0.0
    config = (found.config or {}).get("vae")
    if config is None:
        return 0, 0, 0.0
    return config["latent_channels"], 2 ** (len(config["block_out_channels"]) - 1), found.vae_scaling_factor


def _text_width(found: ModelInfo) -> int:
    """Of both text encoders together where there are two."""
    config = found.config or {}
    return sum(int(config.get(part, {}).get("hidden_size", 0)) for part in ("text", "text_2"))
