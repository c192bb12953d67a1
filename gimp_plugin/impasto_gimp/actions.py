"""The three things that a painter can ask for: what each needs of the image, and what it sends. Main thread only."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from impasto_client.document import ResultLayer, Snapshot
from impasto_protocol.geometry import Box, Size

from . import document as pixels

__all__ = ["NEW_IMAGE", "Obstacle", "Target", "again", "aim", "obstacle", "recipe_for", "recipe_of", "snapshot"]

NEW_IMAGE = "upscale"
"""The stage of results that are no layers but new images."""


class Obstacle(Exception):
    """Why something cannot be done now: a sentence that says what to do."""


@dataclass(frozen=True)
class Target:
    """What a job is about: the image that was in front when it was asked for, and its size and resolution then.

    `area` is what the plan is told of: the selection, or None for the whole canvas. `region` is the selection itself,
    `layer` the sketch; both are kept from that moment on. `without` is a layer that the job must not see: its own
    earlier result.
    """

    mode: str
    image: Any
    canvas: Box
    params: Mapping[str, Any]
    area: Optional[Box] = None
    region: Optional[pixels.Region] = field(default=None, repr=False)
    layer: Optional[Any] = None
    without: Optional[Any] = None
    resolution: Tuple[float, float] = (72.0, 72.0)


def obstacle(mode: str, image: Optional[Any], drawables: Optional[Sequence[Any]] = None) -> str:
    """Why `mode` cannot be done with the image; empty where it can. Quick: it is polled.

    `drawables` are those that a script named; by default those that are selected in the image.
    """
    if image is None or not pixels.is_open(image):
        return "Open an image first."
    if image.get_floating_sel() is not None:
        return "There is a floating selection; anchor it, or make it a layer, first."
    if drawables is not None:
        for drawable in drawables:
            if not drawable.is_valid() or drawable.get_image().get_id() != image.get_id():
                return "That layer belongs to another image; name a layer of this image."
    if mode == "inpaint" and pixels.selected_box(image) is None:
        return "Select a region first."
    if mode == "sketch":
        return _no_sketch(image.get_selected_drawables() if drawables is None else drawables)
    return ""


def _no_sketch(drawables: Sequence[Any]) -> str:
    if not drawables:
        return "Choose the layer with the sketch first."
    if len(drawables) > 1:
        return f"{len(drawables)} layers are chosen; choose the one with the sketch."
    layer = drawables[0]
    if not layer.is_layer():
        kind = "a layer mask" if layer.is_layer_mask() else "a channel"
        return f"The active drawable is {kind}; choose the layer with the sketch."
    for test, kind in (
        ("is_group_layer", "a group"),
        ("is_text_layer", "a text layer"),
        ("is_vector_layer", "a vector layer"),  # since GIMP 3.2
        ("is_link_layer", "a link layer"),
    ):
        if getattr(layer, test, bool)():
            return f"The active layer is {kind}; choose the layer with the sketch."
    if not pixels.is_shown(layer):
        return "The layer with the sketch is hidden; show it first."
    return ""


def aim(mode: str, image: Any, params: Mapping[str, Any], drawables: Optional[Sequence[Any]] = None) -> Target:
    """The target of a job for this image. Raises Obstacle."""
    sentence = obstacle(mode, image, drawables)
    if sentence:
        raise Obstacle(sentence)
    canvas = pixels.canvas_of(image)
    if mode == "inpaint":
        region = pixels.region_of(image)
        if region is None:
            raise Obstacle("Select a region first.")
        return Target(mode, image, canvas, params, region.box, region)
    if mode == "sketch":
        layer, area = (drawables or image.get_selected_drawables())[0], pixels.selected_box(image)
        if pixels.is_empty(pixels.read_layer(image, layer, area or canvas)):
            where = "in the selection" if area is not None else "on the canvas"
            raise Obstacle(f"The active layer is empty {where}; paint a sketch on it, or choose another layer.")
        return Target(mode, image, canvas, params, area, layer=layer)
    resolution = image.get_resolution()
    return Target(mode, image, canvas, params, resolution=(resolution.xresolution, resolution.yresolution))


def snapshot(target: Target, box: Box) -> Snapshot:
    """The pixels that the job sends: the only pixel reads of a job but the look whether a sketch is empty.

    Raises Obstacle where what was there when it was asked for has gone since.
    """
    image, mask, backdrop = target.image, None, None
    if not pixels.is_open(image):
        raise Obstacle("The image was closed before it could be read; nothing was done.")
    if pixels.canvas_of(image) != target.canvas:
        raise Obstacle("The image changed its size just now; try once more.")
    without = target.without if target.without is not None and target.without.is_valid() else None
    if target.mode == "sketch":
        assert target.layer is not None
        if not target.layer.is_valid():
            raise Obstacle("The layer with the sketch was removed before it could be read; nothing was done.")
        data = pixels.read_layer(image, target.layer, box)
        if target.params.get("background") == "document":
            backdrop = pixels.read_visible(image, box, without)
    else:
        data = pixels.read_visible(image, box, without)
        if target.region is not None:
            mask = pixels.read_mask(target.region, box)
    canvas = Size(target.canvas.width, target.canvas.height)
    return Snapshot(canvas=canvas, box=box, pixels=data, format=pixels.FORMAT, mask=mask, backdrop=backdrop)


# ---- making a layer again


def recipe_for(result: ResultLayer, target: Optional[Target]) -> bytes:
    """What is kept with a result's layer: its recipe, and of the image what is needed to make it again."""
    recipe: Dict[str, Any] = {"seed": result.seed, "box": list(result.box), **result.recipe}
    if target is not None and target.area is not None:
        recipe["selection"] = list(target.area)
    if target is not None and target.region is not None:
        recipe["mask"] = base64.b64encode(zlib.compress(target.region.mask, 6)).decode()
    if target is not None and target.layer is not None and target.layer.is_valid():
        recipe["sketch"] = target.layer.get_tattoo()
    return json.dumps(recipe, default=str).encode()


def recipe_of(layer: Any) -> Dict[str, Any]:
    """The recipe kept with a layer. Raises Obstacle where there is none, or it is damaged."""
    kept = pixels.read_recipe(layer)
    if not kept:
        raise Obstacle("The active layer was not made by Impasto; choose one that was.")
    try:
        recipe = json.loads(kept)
        if not isinstance(recipe["mode"], str) or not isinstance(recipe["params"], dict):
            raise ValueError("not a recipe")
    except (ValueError, KeyError, TypeError) as error:
        raise Obstacle("The recipe of this layer is damaged; it cannot be made again.") from error
    return dict(recipe)


def again(image: Any, layer: Any, changes: Mapping[str, Any]) -> Target:
    """The target that makes an Impasto layer again, with `changes` to its parameters. Raises Obstacle.

    What is below it is read as it is now; the layer itself is not seen.
    """
    if image is None or not pixels.is_open(image):
        raise Obstacle("Open an image first.")
    if layer is None or not layer.is_valid() or layer.get_image().get_id() != image.get_id() or not layer.is_layer():
        raise Obstacle("Choose a layer of this image that Impasto made.")
    recipe = recipe_of(layer)
    params = {**recipe["params"], **changes}
    canvas = pixels.canvas_of(image)
    try:
        area = Box(*(int(v) for v in recipe["selection"])) if "selection" in recipe else None
        mask = zlib.decompress(base64.b64decode(recipe["mask"])) if "mask" in recipe else None
        sketch = pixels.layer_of(image, int(recipe.get("sketch", 0)))
    except (ValueError, TypeError, zlib.error) as error:
        raise Obstacle("The recipe of this layer is damaged; it cannot be made again.") from error
    if recipe["mode"] == "inpaint":
        if area is None or mask is None or len(mask) != area.width * area.height:
            raise Obstacle("The recipe of this layer does not hold its selection; select the region and inpaint it.")
        if not canvas.contains(area):
            raise Obstacle("The image was cropped and the place of this layer is gone; it cannot be made again.")
        return Target("inpaint", image, canvas, params, area, pixels.Region(area, mask), without=layer)
    if recipe["mode"] == "sketch":
        if sketch is None:
            raise Obstacle("The sketch of this layer is gone; choose a sketch and make a picture of it.")
        if area is not None and not canvas.contains(area):
            area = None
        return Target("sketch", image, canvas, params, area, layer=sketch, without=layer)
    raise Obstacle(f"A layer made by {recipe['mode']} cannot be made again here.")
