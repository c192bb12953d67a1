"""Pixel calls on GIMP's images, and nothing else. Everything here runs on the process's main thread.

An image is read through what is seen of it or one layer, and written by adding new layers in one undo group. Existing
layers are never written to. Pixels go through GEGL's buffers, which convert to and from the image's precision, colour
model and profile.
"""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

from gi.repository import Gegl, Gimp
from impasto_client.document import ResultLayer
from impasto_client.editor import Region
from impasto_protocol.geometry import Box, Size

__all__ = [
    "FORMAT",
    "all_layers",
    "canvas_of",
    "enlarge",
    "is_empty",
    "is_indexed",
    "is_open",
    "is_shown",
    "keep_identity",
    "layer_of",
    "open_new",
    "paste",
    "read_identity",
    "read_layer",
    "read_recipe",
    "read_visible",
    "region_of",
    "selected_box",
]

FORMAT = "rgba8"
RECIPE = "impasto-recipe"
"""The parasite of a layer that Impasto made."""
IDENTITY = "impasto-document"
"""The parasite of an image with its name."""
_RGBA = "R'G'B'A u8"
_SELECTION = "Y u8"
"""The selection's own format: with "Y' u8" a gamma curve would bend the soft edge."""
_LAYER_TYPES = {
    Gimp.ImageBaseType.RGB: Gimp.ImageType.RGBA_IMAGE,
    Gimp.ImageBaseType.GRAY: Gimp.ImageType.GRAYA_IMAGE,
    Gimp.ImageBaseType.INDEXED: Gimp.ImageType.INDEXEDA_IMAGE,
}

_SPACES = {
    "non-linear": Gimp.LayerColorSpace.RGB_NON_LINEAR,
    "perceptual": Gimp.LayerColorSpace.RGB_PERCEPTUAL,
    "linear": Gimp.LayerColorSpace.RGB_LINEAR,
}
"""How the name of an image's precision ends -> the space in which its layers are blended; in this order."""


def is_open(image: Any) -> bool:
    """Is this image still there?"""
    return bool(image.is_valid())


def canvas_of(image: Any) -> Box:
    """The whole canvas."""
    return Box(0, 0, image.get_width(), image.get_height())


def selected_box(image: Any) -> Optional[Box]:
    """The bounds of the selection, or None where nothing is selected. Quick: it may be polled."""
    bounds = Gimp.Selection.bounds(image)
    if not bounds.non_empty:
        return None
    return Box(bounds.x1, bounds.y1, bounds.x2 - bounds.x1, bounds.y2 - bounds.y1).intersect(canvas_of(image))


def region_of(image: Any) -> Optional[Region]:
    """A copy of the selection that later changes do not reach, or None where nothing is selected."""
    box = selected_box(image)
    return None if box is None else Region(box, _read(image.get_selection(), box, _SELECTION))


def read_visible(image: Any, box: Box, without: Sequence[Any] = ()) -> bytes:
    """What is seen within `box`: sRGB, 8 bit, RGBA with straight alpha, rows top to bottom.

    As it would be seen if the layers `without` were not there.
    """
    if not without:
        seen = Gimp.Layer.new_from_visible(image, image, "Impasto")
        try:
            return _read(seen, box, _RGBA)
        finally:
            seen.delete()
    # In a copy: nothing blinks, and no undo step is left.
    copy = image.duplicate()
    try:
        twins = [_twin(image, copy, layer) for layer in without]
        for twin in twins:
            if twin is not None:
                copy.remove_layer(twin)
        return read_visible(copy, box)
    finally:
        copy.delete()


def read_layer(image: Any, layer: Any, box: Box) -> bytes:
    """One layer with its mask and filters within `box`, transparent where nothing is painted: as `read_visible`."""
    masked = layer.get_mask() is not None and layer.get_apply_mask()
    if not masked and not layer.get_filters():
        return _read_item(layer, box)
    scratch = Gimp.Image.new_with_precision(
        image.get_width(), image.get_height(), image.get_base_type(), image.get_precision()
    )
    try:
        if image.get_base_type() == Gimp.ImageBaseType.INDEXED:
            scratch.set_palette(image.get_palette())
        profile = image.get_color_profile()
        if profile is not None:
            scratch.set_color_profile(profile)
        copy = Gimp.Layer.new_from_drawable(layer, scratch)
        scratch.insert_layer(copy, None, 0)
        copy.merge_filters()
        if copy.get_mask() is not None:
            copy.remove_mask(Gimp.MaskApplyMode.APPLY)
        return _read_item(copy, box)
    finally:
        scratch.delete()


def is_empty(pixels: bytes) -> bool:
    """Is every pixel (RGBA) fully transparent?"""
    alpha = pixels[3::4]
    return alpha.count(0) == len(alpha)


def is_indexed(image: Any) -> bool:
    """Has the image a palette, from which every pixel takes its colour?"""
    return bool(image.get_base_type() == Gimp.ImageBaseType.INDEXED)


def is_shown(item: Any) -> bool:
    """Is the layer visible, and every group that it lies in?"""
    while item is not None:
        if not item.get_visible():
            return False
        item = item.get_parent()
    return True


def all_layers(image: Any) -> List[Any]:
    """The layers and groups from top to bottom, those within groups too."""

    def below(layers: Sequence[Any]) -> List[Any]:
        found: List[Any] = []
        for layer in layers:
            found.append(layer)
            if layer.is_group():
                found += below(layer.get_children())
        return found

    return below(image.get_layers())


def layer_of(image: Any, tattoo: int) -> Optional[Any]:
    """The layer with this tattoo, which it keeps in the file, or None."""
    return image.get_layer_by_tattoo(tattoo) if tattoo else None


def paste(
    image: Any,
    results: Sequence[ResultLayer],
    recipes: Sequence[bytes],
    above: Optional[Any] = None,
    group: str = "",
) -> List[Any]:
    """Add a layer for each result at its place, all in one undo step; the layers, in the order of the results.

    They lie just above the layer `above` while that is there, else on top; with `group` in a new group of that name.
    The layers that were selected stay so.
    """
    selected = image.get_selected_layers()
    layers: List[Any] = []
    image.undo_group_start()
    try:
        folder = Gimp.GroupLayer.new(image, group) if group else None
        if folder is not None:
            image.insert_layer(folder, None, 0)
        for result, recipe in zip(results, recipes):
            layer = _new_layer(image, result)
            parent, position = folder, 0
            if (
                folder is None
                and above is not None
                and above.is_valid()
                and above.get_image().get_id() == image.get_id()
            ):
                parent, position = above.get_parent(), image.get_item_position(above)
            # Whole before it is in the image: nobody sees a layer without its pixels.
            _fill(layer, result, recipe)
            layer.set_offsets(result.box.x, result.box.y)
            image.insert_layer(layer, parent, position)
            layers.append(layer)
        kept = [layer for layer in selected if layer.is_valid()]
        if kept:
            image.set_selected_layers(kept)
    finally:
        image.undo_group_end()
    Gimp.displays_flush()
    return layers


def open_new(result: ResultLayer, recipe: bytes, resolution: Tuple[float, float], show: bool) -> Any:
    """A new sRGB image of the result's size with it as its one layer, in a window of its own if `show`."""
    image = Gimp.Image.new(result.box.width, result.box.height, Gimp.ImageBaseType.RGB)
    image.undo_disable()
    image.set_resolution(*resolution)
    layer = _new_layer(image, result)
    _fill(layer, result, recipe)
    image.insert_layer(layer, None, 0)
    image.undo_enable()
    if show:
        Gimp.Display.new(image)
        Gimp.displays_flush()
    return image


def enlarge(
    image: Any, result: ResultLayer, recipe: bytes, size: Size, copy: bool, show: bool
) -> Tuple[Any, List[Any]]:
    """Scale an image, or with `copy` a copy of it, to `size` and add a result on top, all in one undo step.

    Gives that image and its new layer. GIMP scales layers, masks, channels, paths, guides and the selection, and keeps
    the resolution.
    """
    changed = image.duplicate() if copy else image
    if copy:
        changed.undo_disable()
        changed.detach_parasite(IDENTITY)  # a copy is another image
    else:
        changed.undo_group_start()
    Gimp.context_push()
    try:
        Gimp.context_set_interpolation(Gimp.InterpolationType.CUBIC)
        changed.scale(size.width, size.height)
        layers = paste(changed, [result], [recipe])
    finally:
        Gimp.context_pop()
        if copy:
            changed.undo_enable()
        else:
            changed.undo_group_end()
    if copy and show:
        Gimp.Display.new(changed)
    Gimp.displays_flush()
    return changed, layers


def keep_identity(image: Any, identity: str) -> None:
    """Store a name for the image in itself: it is saved with the XCF file. No undo step."""
    image.attach_parasite(Gimp.Parasite.new(IDENTITY, Gimp.PARASITE_PERSISTENT, identity.encode()))


def read_identity(image: Any) -> str:
    """The name that was stored, or ""."""
    parasite = image.get_parasite(IDENTITY)
    return "" if parasite is None else bytes(parasite.get_data()).decode("ascii", "replace")


def read_recipe(layer: Any) -> bytes:
    """The recipe kept with a layer, or no bytes."""
    parasite = layer.get_parasite(RECIPE)
    return b"" if parasite is None else bytes(parasite.get_data())


def _place(image: Any, folder: Optional[Any], above: Optional[Any]) -> Tuple[Optional[Any], int]:
    """The parent of a new layer and its place: in the folder, else just above a layer of this image, or on top."""
    if folder is None and above is not None and above.is_valid() and above.get_image().get_id() == image.get_id():
        return above.get_parent(), image.get_item_position(above)
    return folder, 0


def _new_layer(image: Any, result: ResultLayer) -> Any:
    kind = _LAYER_TYPES[image.get_base_type()]
    mode = Gimp.LayerMode.NORMAL
    layer = Gimp.Layer.new(image, result.name, result.box.width, result.box.height, kind, 100.0, mode)
    # Laid over the others in the image's own encoding, as the server blends: where the layer is transparent no
    # conversion to another one rounds what is below it.
    nick = image.get_precision().value_nick
    space = next((space for ending, space in _SPACES.items() if nick.endswith(ending)), Gimp.LayerColorSpace.AUTO)
    layer.set_blend_space(space)
    layer.set_composite_space(space)
    return layer


def _fill(layer: Any, result: ResultLayer, recipe: bytes) -> None:
    pixels = result.in_format(FORMAT).pixels
    # GEGL does not check the length and would read past the end.
    assert len(pixels) == result.box.width * result.box.height * 4
    buffer = layer.get_buffer()
    buffer.set(Gegl.Rectangle.new(0, 0, result.box.width, result.box.height), _RGBA, pixels)
    buffer.flush()
    layer.update(0, 0, result.box.width, result.box.height)
    layer.attach_parasite(Gimp.Parasite.new(RECIPE, Gimp.PARASITE_PERSISTENT, recipe))


def _read(drawable: Any, box: Box, format: str) -> bytes:
    """Pixels of a drawable that lies at the canvas's corner; beyond it everything is transparent."""
    rectangle = Gegl.Rectangle.new(*box)
    return bytes(drawable.get_buffer().get(rectangle, 1.0, format, Gegl.AbyssPolicy.NONE))


def _read_item(layer: Any, box: Box) -> bytes:
    offsets = layer.get_offsets()
    moved = Box(box.x - offsets.offset_x, box.y - offsets.offset_y, box.width, box.height)
    return _read(layer, moved, _RGBA)


def _twin(image: Any, copy: Any, layer: Any) -> Optional[Any]:
    """The layer of a duplicated image that stands where `layer` stands in the original."""
    path: List[int] = []
    item = layer
    while item is not None:
        path.insert(0, image.get_item_position(item))
        item = item.get_parent()
    level = copy.get_layers()
    found = None
    for position in path:
        if position >= len(level):
            return None
        found = level[position]
        level = found.get_children() if found.is_group() else []
    return found
