"""What a mode is for, and where it looks: what a painter chooses beside the mode's parameters, for both editors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from impasto_protocol.geometry import Box
from impasto_protocol.schema import Intent

from .ways import AUTOMATIC, is_full

__all__ = [
    "CONTEXTS",
    "SELECTION",
    "WHOLE",
    "Aim",
    "intent_choices",
    "intent_for",
    "intent_of",
    "named_by",
    "split",
    "strength_key",
]

SELECTION = "selection"
WHOLE = "whole"
CONTEXTS: Tuple[Tuple[str, str], ...] = (
    ("", "Automatic"),
    (SELECTION, "The selection alone"),
    (WHOLE, "The whole picture"),
)
"""What the model sees when it inpaints: (value, in words). A layer's value stands for the bounds of that layer."""


@dataclass(frozen=True)
class Aim:
    """Where inpainting paints and looks: `mask` is "" for the selection, or the value of a layer in its place;
    `context` is one of CONTEXTS, or the value of a layer whose bounds the model sees.
    """

    mask: str = ""
    context: str = ""


def intent_choices(intents: Sequence[Intent]) -> List[Tuple[str, str, str]]:
    """What a list offers: (value, title, tip)."""
    spanning = " or ".join(i.title.lower() for i in intents if i.spanning)
    tip = f"Goes by the selection: {spanning} where it reaches from border to border." if spanning else ""
    automatic = (AUTOMATIC, f"Automatic: {intents[0].title.lower()}" + (f" or {spanning}" if spanning else ""), tip)
    return [automatic, *((i.name, i.title, i.description) for i in intents)]


def intent_for(
    intents: Sequence[Intent], chosen: str, area: Optional[Box], canvas: Optional[Box], strength: float
) -> Optional[Intent]:
    """The intent that is meant: the chosen one; automatically the one for spanning masks where `area` reaches from
    border to border and nothing is to be kept, else the plain one. None where the mode has none.
    """
    if not intents:
        return None
    for intent in intents:
        if intent.name == chosen:
            return intent
    spans = area is not None and canvas is not None and (area.width >= canvas.width or area.height >= canvas.height)
    if spans and is_full(strength):
        return next((intent for intent in intents if intent.spanning), intents[0])
    return intents[0]


def named_by(intents: Sequence[Intent]) -> Set[str]:
    """The parameters that some intent sets, without the strength: each intent keeps its own changes to them."""
    return {name for intent in intents for name in intent.params} - {"strength"}


def strength_key(family: str, intent: Optional[Intent]) -> str:
    """Under which name the strength is kept: an intent that begins with one has its own."""
    return f"{family}/{intent.name}" if intent is not None and "strength" in intent.params else family


def split(values: Mapping[str, Any], intents: Sequence[Intent]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Changed settings: those that all intents share, and those of one alone."""
    own = named_by(intents)
    return {k: v for k, v in values.items() if k not in own}, {k: v for k, v in values.items() if k in own}


def intent_of(intents: Sequence[Intent], params: Mapping[str, Any]) -> Optional[Intent]:
    """The intent of a recipe: the first that sets something and whose values it has all; else the last, which sets
    nothing.
    """
    for intent in intents:
        settings = {k: v for k, v in intent.params.items() if k != "strength"}
        if settings and all(params.get(k) == v for k, v in settings.items()):
            return intent
    return intents[-1] if intents else None
