"""The three things that a painter can ask for: what each needs of the document, and what it sends. Main thread only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Tuple

from impasto_client.document import Snapshot
from impasto_protocol.geometry import Box, Size

from . import document as pixels

__all__ = ["ACTIONS", "Action", "Obstacle", "Target", "aim", "obstacle", "snapshot"]

KINDS = {
    "grouplayer": "a group",
    "vectorlayer": "a vector layer",
    "filelayer": "a file layer",
    "filterlayer": "a filter layer",
    "filllayer": "a fill layer",
    "clonelayer": "a clone layer",
}
"""Krita's types of nodes as a painter calls them; what is not here is a mask."""


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


class Obstacle(Exception):
    """Why something cannot be done now: a sentence that says what to do."""


@dataclass(frozen=True)
class Target:
    """What a job is about: the document that was in front when it was asked for, and its size and resolution then.

    `area` is what the plan is told of: the selection, or None for the whole canvas. `region` is the selection itself,
    `layer` the sketch; both are kept from that moment on.
    """

    mode: str
    document: Any
    canvas: Box
    params: Mapping[str, Any]
    area: Optional[Box] = None
    region: Optional[pixels.Region] = None
    layer: Optional[Any] = None
    resolution: float = 72.0


def obstacle(mode: str, document: Optional[Any]) -> str:
    """Why `mode` cannot be done with the document in front; empty where it can. Quick: it is polled."""
    if document is None:
        return "Open a document first."
    if mode == "inpaint" and pixels.selected_box(document) is None:
        return "Select a region first."
    if mode == "sketch":
        layer = document.activeNode()
        if layer is None:
            return "Choose the paint layer with the sketch first."
        if layer.type() != "paintlayer":
            kind = KINDS.get(layer.type(), "a mask")
            return f"The active layer is {kind}; choose the paint layer with the sketch."
        if not pixels.is_shown(layer):
            return "The layer with the sketch is hidden; show it first."
    return ""


def aim(mode: str, document: Any, params: Mapping[str, Any]) -> Target:
    """The target of a job for this document. Raises Obstacle."""
    sentence = obstacle(mode, document)
    if sentence:
        raise Obstacle(sentence)
    canvas = pixels.canvas_of(document)
    if mode == "inpaint":
        region = pixels.region_of(document)
        if region is None:
            raise Obstacle("Select a region first.")
        return Target(mode, document, canvas, params, region.box, region)
    if mode == "sketch":
        layer, area = document.activeNode(), pixels.selected_box(document)
        if pixels.is_blank(document, layer, area or canvas):
            where = "in the selection" if area is not None else "on the canvas"
            raise Obstacle(f"The active layer is empty {where}; paint a sketch on it, or choose another layer.")
        return Target(mode, document, canvas, params, area, layer=layer)
    return Target(mode, document, canvas, params, resolution=document.xRes())


def snapshot(target: Target, box: Box) -> Snapshot:
    """The pixels that the job sends: the only pixel reads of a job but the look whether a sketch is empty.

    Raises Obstacle where what was there when it was asked for has gone since.
    """
    document, mask, backdrop = target.document, None, None
    if target.mode == "sketch":
        assert target.layer is not None
        if target.layer.parentNode() is None:
            raise Obstacle("The layer with the sketch was removed before it could be read; nothing was done.")
        data = pixels.read_layer(document, target.layer, box)
        if target.params.get("background") == "document":
            backdrop = pixels.read_box(document, box)
    else:
        data = pixels.read_box(document, box)
        if target.region is not None:
            mask = pixels.read_mask(target.region, box)
    canvas = Size(target.canvas.width, target.canvas.height)
    return Snapshot(canvas=canvas, box=box, pixels=data, format="bgra8", mask=mask, backdrop=backdrop)
