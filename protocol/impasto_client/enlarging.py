"""Upscaling in an editor: what of the document is enlarged, and what becomes of it. The server knows neither."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from impasto_protocol.geometry import Box, Size
from impasto_protocol.schema import Mode, Param

from .editor import Host, Obstacle, Target

__all__ = [
    "COPY",
    "INTO",
    "MODE",
    "NEW",
    "OWN_PARAMS",
    "RESIZE",
    "SOURCE",
    "aimed",
    "area_of",
    "enlarged",
    "sent",
    "with_own",
    "with_own_params",
]

MODE = "upscale"
NEW, COPY, RESIZE = "new", "copy", "resize"
PICTURE, LAYER, SELECTION = "picture", "layer", "selection"
MAX_PIXELS, MAX_SIDE = 16384 * 16384, 100_000
"""What a document may become, as the server has it for a picture."""
SCALE = 2.0
"""The server's scale where none is sent."""
SOURCE = Param(
    "source",
    "string",
    PICTURE,
    "What",
    "The whole picture as it is seen, the active layer alone, or the rectangle around the selection.",
    enum=(PICTURE, LAYER, SELECTION),
    ui={"titles": {PICTURE: "The whole picture", LAYER: "The active layer", SELECTION: "The selection"}},
)
INTO = Param(
    "into",
    "string",
    NEW,
    "Into",
    "A new document with the picture alone; a copy of this one, with all layers, masks and the selection scaled and "
    "the picture on top; or this one itself, scaled like that in one undo step. Nothing is scaled before the picture "
    "is there.",
    enum=(NEW, COPY, RESIZE),
    ui={"titles": {NEW: "A new document", COPY: "A copy with all layers", RESIZE: "This document, resized"}},
)
OWN_PARAMS = (SOURCE, INTO)


def with_own_params(mode: str, params: Sequence[Param]) -> List[Param]:
    """The parameters of a mode as the server has them, and before them those that only the editor knows."""
    if mode != MODE:
        return list(params)
    return [*OWN_PARAMS, *(p for p in params if p.name not in (SOURCE.name, INTO.name))]


def with_own(mode: Mode) -> Mode:
    """The same for a whole mode."""
    return dataclasses.replace(mode, params=tuple(with_own_params(mode.name, mode.params)))


def sent(mode: str, params: Mapping[str, Any]) -> Dict[str, Any]:
    """What of the parameters the server is told."""
    own = (SOURCE.name, INTO.name) if mode == MODE else ()
    return {name: value for name, value in params.items() if name not in own}


def area_of(host: Host, document: Any, params: Mapping[str, Any]) -> Any:
    """The Box that would be enlarged where that is the selection, else None: the whole canvas."""
    return host.selected_box(document) if params.get(SOURCE.name) == SELECTION else None


def aimed(host: Host, document: Any, params: Mapping[str, Any]) -> Target:
    """The target of an upscale. Raises Obstacle."""
    source, into = params.get(SOURCE.name, PICTURE), params.get(INTO.name, NEW)
    for p, value in ((SOURCE, source), (INTO, into)):
        if value not in p.enum:
            raise Obstacle(f"{p.name} cannot be {value!r}; choose one of {', '.join(p.enum)}.")
    rest, canvas = sent(MODE, params), host.canvas_of(document)
    target = Target(MODE, document, canvas, rest, resolution=host.resolution_of(document), into=into)
    if source == SELECTION:
        area = host.selected_box(document)
        if area is None:
            raise Obstacle("Select a region first, or upscale the whole picture.")
        target = dataclasses.replace(target, area=area)
    elif source == LAYER:
        layer = host.active_layer(document)
        if layer is None or host.name_of(layer) not in [name for name, _ in host.layers_of(document)]:
            raise Obstacle("Choose the one layer that shall be upscaled, or upscale the whole picture.")
        if host.is_blank(document, layer, canvas):
            raise Obstacle("The active layer is empty on the canvas; choose another one, or upscale the whole picture.")
        target = dataclasses.replace(target, layer=layer)
    if into != NEW:
        _check_size(target)
    return target


def _check_size(target: Target) -> None:
    if target.params.get("width") and target.params.get("height"):
        raise Obstacle("With a width and a height the layers would lose their aspect; leave one of them 0.")
    area = target.area or target.canvas
    factor = _factor(target, area.size)
    size = Size(*(math.floor(side * factor + 0.5) for side in target.canvas.size))
    if size.area > MAX_PIXELS or max(size) > MAX_SIDE:
        raise Obstacle(
            f"All of it would have {size.width} x {size.height} pixels, above the limit of {MAX_PIXELS} pixels and "
            f"{MAX_SIDE} a side; choose a smaller scale, or a new document."
        )


def _factor(target: Target, of: Size) -> float:
    if target.params.get("width"):
        return float(target.params["width"]) / of.width
    if target.params.get("height"):
        return float(target.params["height"]) / of.height
    return float(target.params.get("scale", SCALE))


def enlarged(target: Target, result: Size) -> Tuple[Size, Box]:
    """The size that the document of `target` gets with a picture of the size `result`, and where that lies in it."""
    if target.area is None or target.area == target.canvas:
        return result, Box.of_size(result)
    factor, area = _factor(target, target.area.size), target.area
    # The picture was rounded to whole pixels by itself: it stays within the canvas.
    canvas = Size(*(math.floor(side * factor + 0.5) for side in target.canvas.size))
    width, height = max(canvas.width, result.width), max(canvas.height, result.height)
    x = min(math.floor(area.x * factor + 0.5), width - result.width)
    y = min(math.floor(area.y * factor + 0.5), height - result.height)
    return Size(width, height), Box(x, y, result.width, result.height)
