"""What a painter can ask for, as the docker calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

__all__ = ["ACTIONS", "Action"]


@dataclass(frozen=True)
class Action:
    """A mode of the server as the docker offers it: the name in the choice, and the text of the button."""

    mode: str
    title: str
    button: str
    tip: str


ACTIONS: Tuple[Action, ...] = (
    Action("inpaint", "Inpaint", "Inpaint selection", "Repaint the selected region as a new layer."),
    Action("sketch", "Sketch", "Sketch layer to image", "Make a picture from the active paint layer, as a new layer."),
    Action("upscale", "Upscale", "Upscale document", "Open the whole picture as a new, larger document."),
)
