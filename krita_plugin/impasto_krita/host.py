"""Krita's documents as the client asks for them: `document.py` behind the client's `Host`. Main thread only."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

from impasto_client.document import ResultLayer
from impasto_client.editor import Host, Region
from impasto_protocol.geometry import Box, Size
from impasto_protocol.images import Buffer

from . import document as pixels
from .enlarge import Enlarger
from .results import scaled_image

__all__ = ["KritaHost"]

KINDS = {
    "grouplayer": "a group",
    "vectorlayer": "a vector layer",
    "filelayer": "a file layer",
    "filterlayer": "a filter layer",
    "filllayer": "a fill layer",
    "clonelayer": "a clone layer",
}
"""Krita's types of nodes as a painter calls them; what is not here is a mask."""


class KritaHost(Host):
    """See `Host`."""

    word = "document"
    format = "bgra8"

    def __init__(self) -> None:
        self._enlarger = Enlarger()

    def is_open(self, document: Any) -> bool:
        return pixels.is_open(document)

    def canvas_of(self, document: Any) -> Box:
        return pixels.canvas_of(document)

    def resolution_of(self, document: Any) -> float:
        return float(document.xRes())

    def selected_box(self, document: Any) -> Optional[Box]:
        return pixels.selected_box(document)

    def obstacle(self, mode: str, document: Optional[Any]) -> str:
        if document is None:
            return "Open a document first."
        if mode == "inpaint" and pixels.selected_box(document) is None:
            return "Select a region first."
        if mode == "sketch":
            return _no_sketch(document.activeNode())
        return ""

    def active_layer(self, document: Any) -> Optional[Any]:
        return document.activeNode()

    def key_of(self, document: Any) -> str:
        return str(document.rootNode().uniqueId().toString())

    def identity_of(self, document: Any) -> str:
        return pixels.read_identity(document)

    def keep_identity(self, document: Any, identity: str) -> None:
        pixels.keep_identity(document, identity)

    def region_of(self, document: Any) -> Optional[Region]:
        return pixels.region_of(document)

    def sketch_of(self, document: Any) -> Any:
        return document.activeNode()

    def is_blank(self, document: Any, layer: Any, box: Box) -> bool:
        return pixels.is_blank(document, layer, box)

    def is_shown(self, document: Any, layer: Any) -> bool:
        return pixels.is_shown(layer)

    def is_there(self, document: Any, layer: Any) -> bool:
        return layer.parentNode() is not None

    def read_visible(self, document: Any, box: Box, without: Sequence[Any] = ()) -> Buffer:
        return pixels.read_without(document, box, without) if without else pixels.read_box(document, box)

    def read_layer(self, document: Any, layer: Any, box: Box) -> Buffer:
        return pixels.read_layer(document, layer, box)

    def thumbnail(self, data: Buffer, width: int, height: int, longest: int) -> Any:
        return scaled_image(data, width, height, longest)

    def name_of(self, layer: Any) -> str:
        return str(layer.uniqueId().toString())

    def layer_named(self, document: Any, name: Any) -> Optional[Any]:
        return pixels.layer_named(document, str(name)) if name else None

    def layers_of(self, document: Any) -> List[Tuple[Any, str]]:
        return [(self.name_of(node), str(node.name())) for node in pixels.paint_layers(document)]

    def layer_box(self, document: Any, layer: Any) -> Optional[Box]:
        return pixels.layer_box(document, layer)

    def masks_of(self, document: Any) -> List[Tuple[Any, str]]:
        masks = [(self.name_of(node), str(node.name())) for node in pixels.masks(document)]
        return self.layers_of(document) + masks

    def mask_of(self, document: Any, layer: Any) -> Optional[Region]:
        if layer.type() in pixels.MASKS:
            return pixels.read_mask(document, layer)
        return super().mask_of(document, layer)

    def recipe_of(self, document: Any, layer: Any) -> bytes:
        return pixels.read_recipe(document, self.name_of(layer))

    def paste(
        self,
        document: Any,
        results: Sequence[ResultLayer],
        recipes: Sequence[bytes],
        above: Optional[Any] = None,
        group: str = "",
    ) -> str:
        pictures = [(result.name, result.box, result.pixels) for result in results]
        for node_id, recipe in zip(pixels.paste(document, pictures, above, group), recipes):
            pixels.keep_recipe(document, node_id, recipe)
        return ""

    def open_new(self, result: ResultLayer, recipe: bytes, resolution: Any) -> None:
        document, node_id = pixels.open_new(result.name, result.box, result.pixels, resolution or 72.0)
        pixels.keep_recipe(document, node_id, recipe)

    def enlarge(self, document: Any, result: ResultLayer, recipe: bytes, size: Size, copy: bool) -> str:
        picture = (result.name, result.box, result.pixels)
        told = self._enlarger.enlarge(document, size, picture, recipe, copy)
        if told:
            self.open_new(result, recipe, self.resolution_of(document))
        return told


def _no_sketch(layer: Optional[Any]) -> str:
    if layer is None:
        return "Choose the paint layer with the sketch first."
    if layer.type() != "paintlayer":
        kind = KINDS.get(layer.type(), "a mask")
        return f"The active layer is {kind}; choose the paint layer with the sketch."
    return "" if pixels.is_shown(layer) else "The layer with the sketch is hidden; show it first."
