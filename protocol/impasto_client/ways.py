"""What a painter chooses, and the mode of the server that this means now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

__all__ = [
    "AUTOMATIC",
    "CHOICES",
    "PROMPTED",
    "WAYS",
    "Action",
    "actions",
    "choice_of",
    "family_of",
    "is_full",
    "mode_for",
]

CHOICES: Tuple[Tuple[str, str, str], ...] = (
    ("paint", "Paint", "Paint a new picture, refine the one that is there, or repaint what is selected."),
    ("sketch", "Sketch", "Make a picture from the active paint layer, as a new layer."),
    ("upscale", "Upscale", "Make the picture, a layer or the selection larger: a new one, or this one resized."),
    (
        "faceswap",
        "Faces",
        "Put the face of a person, of whom there is a profile, in the place of others.",
    ),
)
"""(choice, its name, what it is for)."""

AUTOMATIC = "auto"
WAYS: Tuple[Tuple[str, str], ...] = (
    (AUTOMATIC, "Automatic: by selection and strength"),
    ("txt2img", "Generate a new picture"),
    ("img2img", "Refine the whole picture"),
    ("inpaint", "Inpaint the selection"),
    ("refine", "Refine in tiles, at any size"),
)
"""What "paint" can mean: (mode, in words)."""

TILED = "refine"

PROMPTED = ("txt2img", "img2img", "inpaint", "sketch", "refine")
"""Modes that paint from words with a checkpoint; the others have neither."""

_FULL = 0.999
"""From this strength on nothing of what is there is kept."""


@dataclass(frozen=True)
class Action:
    """A mode as a button starts it."""

    mode: str
    button: str
    tip: str


def actions(word: str) -> Dict[str, Action]:
    """The actions by mode; `word` is what the editor calls a document."""
    every = (
        Action("txt2img", "Generate picture", f"Paint a new picture over the {word}, as a new layer."),
        Action("img2img", "Refine picture", f"Repaint what the {word} shows by the strength, as a new layer."),
        Action("refine", "Refine in tiles", f"Repaint the whole {word} a little at its full size, as a new layer."),
        Action("inpaint", "Inpaint selection", "Repaint the selected region as a new layer."),
        Action("sketch", "Sketch layer to image", "Make a picture from the active paint layer, as a new layer."),
        Action("faceswap", "Swap faces", f"Exchange faces that the {word} shows, as a new layer."),
        Action("upscale", f"Upscale {word}", f"Open a larger picture as a new {word}, or resize this one with it."),
    )
    return {action.mode: action for action in every}


def mode_for(choice: str, way: str, selected: bool, strength: float) -> str:
    """The mode that is meant: painting follows what is there, unless the painter has said what it shall be.

    A selection is inpainted; without one a strength of 100 % paints anew, and less refines what the canvas shows.
    """
    if choice != "paint":
        return choice
    if way != AUTOMATIC:
        return way
    return "inpaint" if selected else "txt2img" if is_full(strength) else "img2img"


def is_full(strength: float) -> bool:
    """Does this strength keep nothing of what is there?"""
    return strength >= _FULL


def family_of(mode: str) -> str:
    """Whose settings a mode has: those of a choice are shared, but for refining in tiles, which has its own."""
    return "paint" if mode in [way for way, _ in WAYS if way != TILED] else mode


def choice_of(mode: str) -> Tuple[str, str]:
    """The choice and the way that lead to a mode whatever is there."""
    paints = mode in [way for way, _ in WAYS]
    return ("paint", mode) if paints else (mode, AUTOMATIC)
