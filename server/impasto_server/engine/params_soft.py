"""The parameters of soft inpainting. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import param

__all__ = ["Soft"]


@dataclass(frozen=True, kw_only=True)
class Soft:
    """Soft inpainting: the selection's softness is kept through all steps, and what hardly changed stays as it was."""

    soft: bool = param(
        False,
        "Soft inpainting",
        "Repaint soft parts of the selection by halves, and show the original where it hardly changed.",
        ui={"group": "soft"},
    )
    soft_bias: float = param(
        1.0,
        "Schedule bias",
        "When the original is kept: above 1 more in the first steps, below 1 more in the last.",
        minimum=0.0,
        maximum=8.0,
        step=0.1,
        ui={"widget": "slider", "group": "soft", "advanced": True},
    )
    soft_preservation: float = param(
        0.5,
        "Preservation strength",
        "How much of the original soft parts keep.",
        minimum=0.0,
        maximum=8.0,
        step=0.05,
        ui={"widget": "slider", "group": "soft", "advanced": True},
    )
    soft_contrast: float = param(
        4.0,
        "Transition contrast boost",
        "Higher values keep detail where original and new are mixed; too high ones look harsh.",
        minimum=1.0,
        maximum=32.0,
        step=0.5,
        ui={"widget": "slider", "group": "soft", "advanced": True},
    )
    soft_mask_influence: float = param(
        0.0,
        "Mask influence",
        "How much the selection, beside the difference, says where the result shows.",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        ui={"widget": "slider", "group": "soft", "advanced": True},
    )
    soft_threshold: float = param(
        0.5,
        "Difference threshold",
        "How far a place must have changed for the result to show there by half.",
        minimum=0.0,
        maximum=8.0,
        step=0.25,
        ui={"widget": "slider", "group": "soft", "advanced": True},
    )
    soft_difference_contrast: float = param(
        2.0,
        "Difference contrast",
        "How sharply what has changed is parted from what has not.",
        minimum=0.0,
        maximum=8.0,
        step=0.25,
        ui={"widget": "slider", "group": "soft", "advanced": True},
    )
