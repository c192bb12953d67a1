"""The parameters of inpainting. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from impasto_protocol.schema import AUTO

from .fields import STRENGTH, Number, param
from .params_common import Common
from .params_refine import Panorama
from .params_sampling import Started
from .params_soft import Soft
from .params_vary import Varied

__all__ = ["FULL_STRENGTH", "Inpaint"]

MASKED_CONTENTS = ("auto", "original", "fill", "latent_noise", "latent_nothing")

FULL_STRENGTH = 0.999
"""From here on nothing of what is masked is kept."""


@dataclass(frozen=True, kw_only=True)
class Inpaint(Varied, Soft, Started, Panorama, Common):
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
        ui={"group": "mask"},
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
