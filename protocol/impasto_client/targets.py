"""What a job needs of the document, and what it sends: decided here for both editors."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from impasto_protocol.geometry import Box, Size
from impasto_protocol.images import Buffer

from .document import Part, Snapshot
from .editor import Host, Obstacle, Region, Target
from .enlarging import MODE as NEW_DOCUMENT
from .enlarging import aimed
from .intents import SELECTION, Aim
from .intents import WHOLE as WHOLE_PICTURE
from .recipes import context_in, mode_of, read_recipe, region_in

__all__ = [
    "ANNOTATE",
    "LAYER",
    "NEW_DOCUMENT",
    "NOWHERE_ELSE",
    "PLAINEST",
    "again",
    "aim",
    "context_box",
    "obstacle",
    "planned_area",
    "remade",
    "snapshot",
]

ANNOTATE = "annotate"
"""The mode that makes a hint for a control unit."""
LAYER = "layer:"
"""How the value of a parameter that takes a picture begins where it names a layer of the document."""
INPUT = "control_{}"
"""What the inputs are called that hold such pictures."""
WHOLE = ("references", "ip_adapters")
"""The lists whose pictures are looked at as a whole, not only where the job paints; their masks lie where it paints."""
MASK = "mask"
"""The field that names such a mask."""
WITHOUT_PICTURE = "txt2img"
"""The mode that is sent no pixels."""
PLAINEST = "img2img"
"""The mode that needs nothing but a document."""
NOWHERE_ELSE = Aim()
EMPTY_MASK = "The layer that is chosen as the mask is empty; paint on it what shall be repainted, or choose another."


def aim(host: Host, mode: str, document: Any, params: Mapping[str, Any], where: Aim = NOWHERE_ELSE) -> Target:
    """The target of a job for this document. Raises Obstacle."""
    sentence = obstacle(host, mode, document, where)
    if sentence:
        raise Obstacle(sentence)
    params, pictures = _with_layers(host, document, params)
    target = _aim(host, mode, document, params, where)
    hints = _hints(host, document, pictures)
    return dataclasses.replace(target, pictures=pictures, hints=hints, context=_context(host, target, where))


def obstacle(host: Host, mode: str, document: Optional[Any], where: Aim = NOWHERE_ELSE) -> str:
    """Why `mode` cannot be done with the document; empty where it can. Quick: it is polled."""
    if mode != "inpaint" or not where.mask or document is None:
        return host.obstacle(mode, document)
    sentence = host.obstacle(PLAINEST, document)  # a layer says where: nothing needs to be selected
    if sentence:
        return sentence
    layer = _named(host, document, where.mask)
    if layer is None:
        return "The layer that is chosen as the mask is gone; choose another one, or the selection."
    return "" if host.layer_box(document, layer) is not None else EMPTY_MASK


def planned_area(host: Host, mode: str, document: Any, where: Aim = NOWHERE_ELSE) -> Optional[Box]:
    """The part of the document that a job would be planned for; None for all of it. Quick: it is polled."""
    if mode == "inpaint" and where.mask:
        layer = _named(host, document, where.mask)
        return None if layer is None else host.layer_box(document, layer)
    return host.selected_box(document) if mode in ("inpaint", "sketch") else None


def context_box(target: Target, planned: Box, reach: int) -> Box:
    """What the job sends and the model sees, where the server planned `planned`."""
    if isinstance(target.context, Box):
        return target.context
    if target.context == SELECTION and target.area is not None:
        # As far as the result may fade out, or it would end in a hard edge.
        return target.area.grow(reach).intersect(target.canvas) or planned
    return planned


def _hints(host: Host, document: Any, pictures: Mapping[str, Any]) -> List[Any]:
    """Those of the layers that guide a job which are hints of Impasto's and are shown: no part of the picture."""
    return [
        layer
        for layer in pictures.values()
        if mode_of(host.recipe_of(document, layer)) == ANNOTATE and host.is_shown(document, layer)
    ]


def _named(host: Host, document: Any, value: str) -> Optional[Any]:
    return host.layer_named(document, value[len(LAYER) :])


def _context(host: Host, target: Target, where: Aim) -> Union[str, Box]:
    if target.mode != "inpaint" or target.params.get("invert") or not where.context:
        return ""  # around the selection lies the whole picture
    if where.context == WHOLE_PICTURE:
        return target.canvas
    if where.context == SELECTION:
        return SELECTION
    layer = _named(host, target.document, where.context)
    if layer is None:
        raise Obstacle("The layer that is chosen as the context is gone; choose another context.")
    box = host.layer_box(target.document, layer)
    if box is None or target.area is None or not box.contains(target.area):
        raise Obstacle("The layer that is chosen as the context does not cover the whole selection; choose another.")
    return box


def _with_layers(host: Host, document: Any, params: Mapping[str, Any]) -> Tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The parameters with the names of inputs where they name layers of the document, and those layers.

    What is switched off looks at none.
    """
    pictures: Dict[str, Any] = {}
    named: Dict[str, Any] = {}
    for name, value in params.items():
        if not isinstance(value, list):
            named[name] = value
            continue
        named[name] = entries = [dict(entry) for entry in value]
        for entry in entries:
            for key, chosen in entry.items():
                if isinstance(chosen, str) and chosen.startswith(LAYER):
                    if not entry.get("enabled", True):
                        entry[key] = ""
                        continue
                    layer = host.layer_named(document, chosen[len(LAYER) :])
                    if layer is None:
                        raise Obstacle("A layer that is chosen in the settings is gone; choose another one there.")
                    entry[key] = INPUT.format(len(pictures) + 1)
                    pictures[entry[key]] = layer
    return named, pictures


def _aim(host: Host, mode: str, document: Any, params: Mapping[str, Any], where: Aim) -> Target:
    canvas = host.canvas_of(document)
    if mode == "inpaint" and where.mask:
        layer = _named(host, document, where.mask)
        region = host.mask_of(document, layer)
        if region is None:
            raise Obstacle(EMPTY_MASK)
        # What is painted as a mask is no part of the picture; where the rest is painted anew it is what stays.
        painted = any(where.mask == f"{LAYER}{name}" for name, _ in host.layers_of(document))
        without = layer if painted and not params.get("invert") else None
        return Target(mode, document, canvas, params, region.box, region, without=without)
    if mode == "inpaint":
        region = host.region_of(document)
        if region is None:
            raise Obstacle("Select a region first.")
        return Target(mode, document, canvas, params, region.box, region)
    if mode == "sketch":
        layer, area = host.sketch_of(document), host.selected_box(document)
        if host.is_blank(document, layer, area or canvas):
            place = "in the selection" if area is not None else "on the canvas"
            raise Obstacle(f"The active layer is empty {place}; paint a sketch on it, or choose another layer.")
        return Target(mode, document, canvas, params, area, layer=layer, above=layer)
    if mode == NEW_DOCUMENT:
        return aimed(host, document, params)
    return Target(mode, document, canvas, params, resolution=host.resolution_of(document))


def again(host: Host, document: Optional[Any], layer: Any, changes: Mapping[str, Any]) -> Target:
    """The target that makes an Impasto layer again, with `changes` to its parameters. Raises Obstacle.

    What is below it is read as it is now; the layer itself is not seen.
    """
    if document is None or not host.is_open(document):
        raise Obstacle(f"Open {_article(host.word)} first.")
    if layer is None or not host.is_there(document, layer):
        raise Obstacle(f"Choose a layer of this {host.word} that Impasto made.")
    recipe = read_recipe(host.recipe_of(document, layer))
    mode, params = recipe["mode"], {**recipe["params"], **changes}
    canvas = host.canvas_of(document)
    area, region = region_in(recipe)
    if area is not None and not canvas.contains(area):
        if mode == "inpaint":
            raise Obstacle(f"The {host.word} was cropped and the place of this layer is gone; it cannot be made again.")
        area = None
    pictures = {name: host.layer_named(document, kept) for name, kept in _pictures_of(recipe).items()}
    if None in pictures.values():
        raise Obstacle("A layer that guided this one is gone; choose another in the settings and begin anew.")
    target = _again(
        host, document, layer, (mode, params, canvas), area, region, recipe.get("sketch"), context_in(recipe)
    )
    return dataclasses.replace(target, pictures=pictures, hints=_hints(host, document, pictures))


def _pictures_of(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    kept = recipe.get("pictures")
    return kept if isinstance(kept, dict) else {}


def _again(
    host: Host,
    document: Any,
    layer: Any,
    job: Tuple[str, Mapping[str, Any], Box],
    area: Optional[Box],
    region: Optional[Region],
    drawn_on: Any,
    context: Optional[Box],
) -> Target:
    mode, params, canvas = job
    if mode == "inpaint":
        if region is None:
            raise Obstacle("The recipe of this layer does not hold its selection; select the region and inpaint it.")
        seen: Union[str, Box] = context if context is not None and canvas.contains(context) else ""
        return Target(mode, document, canvas, params, area, region, without=layer, above=layer, context=seen)
    if mode == "sketch":
        sketch = host.layer_named(document, drawn_on)
        if sketch is None:
            raise Obstacle("The sketch of this layer is gone; choose a sketch and make a picture of it.")
        return Target(mode, document, canvas, params, area, layer=sketch, without=layer, above=layer)
    if mode in ("txt2img", "img2img", "refine", "faceswap"):
        return Target(mode, document, canvas, params, without=layer, above=layer)
    raise Obstacle(f"A layer made by {mode} cannot be made again here.")


def remade(host: Host, target: Target, params: Mapping[str, Any]) -> Target:
    """The same as an earlier job, with other parameters, on the document as it is now. Raises Obstacle."""
    if not host.is_open(target.document):
        raise Obstacle(f"The {host.word} of this picture was closed; choose a layer that Impasto made, or begin anew.")
    canvas = host.canvas_of(target.document)
    if target.area is not None and not canvas.contains(target.area):
        raise Obstacle(f"The {host.word} was cropped and the place of this picture is gone; begin anew.")
    return dataclasses.replace(target, canvas=canvas, params=dict(params), without=None)


def snapshot(host: Host, target: Target, box: Box) -> Snapshot:
    """The pixels that the job sends: the only pixel reads of a job but the look whether a sketch is empty.

    Raises Obstacle where what was there when it was asked for has gone since.
    """
    document, mask, backdrop = target.document, None, None
    if not host.is_open(document):
        raise Obstacle(f"The {host.word} was closed before it could be read; nothing was done.")
    if host.canvas_of(document) != target.canvas:
        raise Obstacle(f"The {host.word} changed its size just now; try once more.")
    without = [target.without] if target.without is not None and host.is_there(document, target.without) else []
    # Hints lie over the picture so that they can be corrected; they are no part of it.
    without += [layer for layer in target.hints if host.is_there(document, layer)]
    data: Buffer = b""
    if target.mode == "sketch":
        if not host.is_there(document, target.layer):
            raise Obstacle("The layer with the sketch was removed before it could be read; nothing was done.")
        data = host.read_layer(document, target.layer, box)
        if target.params.get("background") == "document":
            backdrop = host.read_visible(document, box, without)
    elif target.mode in (NEW_DOCUMENT, ANNOTATE) and target.layer is not None:
        if not host.is_there(document, target.layer):
            raise Obstacle("The layer was removed before it could be read; nothing was done.")
        data = host.read_layer(document, target.layer, box)
    elif target.mode != WITHOUT_PICTURE:
        data = host.read_visible(document, box, without)
        if target.region is not None:
            mask = target.region.within(box)
    if not all(host.is_there(document, layer) for layer in target.pictures.values()):
        raise Obstacle("A layer that is chosen in the settings was removed before it could be read; nothing was done.")
    whole = {
        value
        for name in WHOLE
        for entry in target.params.get(name, ())
        for key, value in entry.items()
        if key != MASK and isinstance(value, str)
    }
    pictures: Dict[str, Part] = {}
    for name, layer in target.pictures.items():
        part = target.canvas if name in whole else box
        pictures[name] = Part(part, host.read_layer(document, layer, part))
    canvas = Size(target.canvas.width, target.canvas.height)
    return Snapshot(canvas, box, data, host.format, mask, backdrop, pictures)


def _article(word: str) -> str:
    return ("an " if word[0] in "aeiou" else "a ") + word
