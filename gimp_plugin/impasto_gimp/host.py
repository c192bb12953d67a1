"""GIMP's images as the client asks for them: `document.py` behind the client's `Host`. Main thread only."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from impasto_client.document import ResultLayer
from impasto_client.editor import Host, Region
from impasto_protocol.geometry import Box, Size
from impasto_protocol.images import Buffer

from . import document as pixels

__all__ = ["GimpHost"]


class GimpHost(Host):
    """See `Host`. A script may name its `drawables`; else those that are selected in the image count."""

    word = "image"
    format = pixels.FORMAT

    def __init__(self, drawables: Optional[Sequence[Any]] = None) -> None:
        self._drawables = drawables
        self.pasted: List[Any] = []
        """The layers of the last `paste`."""
        self.opened: Optional[Any] = None
        """The image of the last `open_new` or `enlarge`."""
        self.show_new = True
        self.thumbnailer: Callable[[bytes, int, int, int], Any] = lambda data, width, height, longest: None
        """Needs the toolkit, which a process without a display does not load."""

    def is_open(self, document: Any) -> bool:
        return pixels.is_open(document)

    def canvas_of(self, document: Any) -> Box:
        return pixels.canvas_of(document)

    def resolution_of(self, document: Any) -> Any:
        resolution = document.get_resolution()
        return (resolution.xresolution, resolution.yresolution)

    def selected_box(self, document: Any) -> Optional[Box]:
        return pixels.selected_box(document)

    def obstacle(self, mode: str, document: Optional[Any]) -> str:
        if document is None or not pixels.is_open(document):
            return "Open an image first."
        if document.get_floating_sel() is not None:
            return "There is a floating selection; anchor it, or make it a layer, first."
        for drawable in self._drawables or ():
            if not drawable.is_valid() or drawable.get_image().get_id() != document.get_id():
                return "That layer belongs to another image; name a layer of this image."
        if mode == "inpaint" and pixels.selected_box(document) is None:
            return "Select a region first."
        if mode == "sketch":
            return _no_sketch(self._named(document))
        return ""

    def _named(self, image: Any) -> Sequence[Any]:
        return list(image.get_selected_drawables()) if self._drawables is None else self._drawables

    def active_layer(self, document: Any) -> Optional[Any]:
        layers = document.get_selected_layers() if self._drawables is None else self._drawables
        return layers[0] if len(layers) == 1 else None

    def key_of(self, document: Any) -> int:
        return int(document.get_id())

    def identity_of(self, document: Any) -> str:
        return pixels.read_identity(document)

    def keep_identity(self, document: Any, identity: str) -> None:
        pixels.keep_identity(document, identity)

    def region_of(self, document: Any) -> Optional[Region]:
        return pixels.region_of(document)

    def sketch_of(self, document: Any) -> Any:
        return self._named(document)[0]

    def is_blank(self, document: Any, layer: Any, box: Box) -> bool:
        return pixels.is_empty(pixels.read_layer(document, layer, box))

    def is_shown(self, document: Any, layer: Any) -> bool:
        return pixels.is_shown(layer)

    def is_there(self, document: Any, layer: Any) -> bool:
        return bool(layer.is_valid() and layer.is_layer() and layer.get_image().get_id() == document.get_id())

    def read_visible(self, document: Any, box: Box, without: Sequence[Any] = ()) -> Buffer:
        return pixels.read_visible(document, box, without)

    def read_layer(self, document: Any, layer: Any, box: Box) -> Buffer:
        return pixels.read_layer(document, layer, box)

    def thumbnail(self, data: Buffer, width: int, height: int, longest: int) -> Any:
        return self.thumbnailer(bytes(data), width, height, longest)

    def name_of(self, layer: Any) -> int:
        return int(layer.get_tattoo())

    def layer_named(self, document: Any, name: Any) -> Optional[Any]:
        return pixels.layer_of(document, int(name)) if str(name or "").isdigit() else None

    def layers_of(self, document: Any) -> List[Tuple[Any, str]]:
        return [(layer.get_tattoo(), layer.get_name()) for layer in pixels.all_layers(document)]

    def layer_box(self, document: Any, layer: Any) -> Optional[Box]:
        _, x, y = layer.get_offsets()
        return Box(x, y, layer.get_width(), layer.get_height()).intersect(pixels.canvas_of(document))

    def recipe_of(self, document: Any, layer: Any) -> bytes:
        return pixels.read_recipe(layer)

    def paste(
        self,
        document: Any,
        results: Sequence[ResultLayer],
        recipes: Sequence[bytes],
        above: Optional[Any] = None,
        group: str = "",
    ) -> str:
        self.pasted = pixels.paste(document, results, recipes, above, group)
        if self.pasted and pixels.is_indexed(document):
            return "This image has a palette: the layer took its colours. Convert the image to RGB for all."
        return ""

    def open_new(self, result: ResultLayer, recipe: bytes, resolution: Any) -> None:
        self.opened = pixels.open_new(result, recipe, resolution or (72.0, 72.0), self.show_new)

    def enlarge(self, document: Any, result: ResultLayer, recipe: bytes, size: Size, copy: bool) -> str:
        if document.get_floating_sel() is not None:
            # GIMP scales no image with one.
            self.open_new(result, recipe, self.resolution_of(document))
            return (
                "There is a floating selection, with which nothing can be scaled; the picture is an image of its own."
            )
        self.opened, self.pasted = pixels.enlarge(document, result, recipe, size, copy, self.show_new)
        if pixels.is_indexed(self.opened):
            return "This image has a palette: the layer took its colours. Convert the image to RGB for all."
        return ""


_NO_SKETCHES: Dict[str, str] = {
    "is_group_layer": "a group",
    "is_text_layer": "a text layer",
    "is_vector_layer": "a vector layer",  # since GIMP 3.2
    "is_link_layer": "a link layer",
}
"""Which test tells a kind of layer that is no sketch, and what a painter calls it."""


def _no_sketch(drawables: Sequence[Any]) -> str:
    if not drawables:
        return "Choose the layer with the sketch first."
    if len(drawables) > 1:
        return f"{len(drawables)} layers are chosen; choose the one with the sketch."
    layer = drawables[0]
    if not layer.is_layer():
        kind = "a layer mask" if layer.is_layer_mask() else "a channel"
        return f"The active drawable is {kind}; choose the layer with the sketch."
    for test, kind in _NO_SKETCHES.items():
        if getattr(layer, test, bool)():
            return f"The active layer is {kind}; choose the layer with the sketch."
    if not pixels.is_shown(layer):
        return "The layer with the sketch is hidden; show it first."
    return ""
