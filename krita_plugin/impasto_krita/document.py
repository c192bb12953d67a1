"""Pixel calls on Krita's documents, and nothing else. Everything here runs on Krita's main thread.

A document is read through its projection (what the painter sees) or that of one layer, and written by adding one new
layer: pixels first, then one `addChildNode`, which is exactly one undo step. Existing layers are never written to.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Optional, Sequence, Tuple

from impasto_client.editor import Region
from impasto_protocol.geometry import Box
from krita import Krita

from .qt import QByteArray, QImage, QTimer

__all__ = [
    "MASKS",
    "active_document",
    "canvas_of",
    "forget_identity",
    "is_blank",
    "is_empty",
    "is_open",
    "is_shown",
    "keep_identity",
    "keep_recipe",
    "layer_box",
    "layer_named",
    "masks",
    "open_new",
    "paint_layers",
    "paste",
    "read_box",
    "read_identity",
    "read_layer",
    "read_mask",
    "read_recipe",
    "read_without",
    "region_of",
    "selected_box",
]

SRGB = "sRGB-elle-V2-srgbtrc.icc"
MASKS = ("transparencymask", "selectionmask")
"""Types of nodes that hold a selection."""
IDENTITY = "impasto/document"
"""The annotation with a document's name."""
RESTORE_AFTER = 50
"""Milliseconds after which the active layer is put back: Krita selects an added layer by itself one turn later."""
RESTORE_TRIES = 10
"""How often that is tried once the layer is in the image."""
RESTORE_WAITS = 200
"""How often it is looked whether it is: an added layer waits for the end of the stroke under the painter's pen."""


def active_document() -> Optional[Any]:
    """The document in front, or None."""
    return Krita.instance().activeDocument()


def is_open(document: Any) -> bool:
    """Is this document still open? Wrappers of a closed one answer with zeros, they do not raise."""
    return any(document == other for other in Krita.instance().documents())


def canvas_of(document: Any) -> Box:
    """The whole canvas in document pixels."""
    return Box(0, 0, document.width(), document.height())


def selected_box(document: Any) -> Optional[Box]:
    """The bounds of the selection within the canvas, or None. A few microseconds: it may be polled."""
    selection = document.selection()
    if selection is None:
        return None
    bounds = Box(selection.x(), selection.y(), selection.width(), selection.height())
    if bounds.width < 1 or bounds.height < 1:
        return None
    return bounds.intersect(canvas_of(document))


def region_of(document: Any) -> Optional[Region]:
    """A copy of the selection that later changes do not reach, or None where nothing of the canvas is selected."""
    box = selected_box(document)
    if box is None:
        return None
    mask = memoryview(document.selection().pixelData(box.x, box.y, box.width, box.height))
    assert mask.nbytes == box.width * box.height
    return Region(box, mask)


def read_box(document: Any, box: Box) -> memoryview:
    """What is seen within `box` (inside the canvas): sRGB, 8 bit, BGRA with straight alpha, rows top to bottom."""
    document.waitForDone()
    if _is_srgb8(document):
        pixels = memoryview(document.pixelData(box.x, box.y, box.width, box.height))
    else:
        # Krita converts through the document's profile, whatever its depth and colour model.
        pixels = _bgra(document.projection(box.x, box.y, box.width, box.height))
    assert pixels.nbytes == box.width * box.height * 4
    return pixels


def read_without(document: Any, box: Box, layers: Sequence[Any]) -> memoryview:
    """As `read_box`, as if `layers` were not there. From a copy: nothing blinks, and no undo step is left."""
    document.waitForDone()
    paths = [_path(document, layer) for layer in layers]
    copy = document.clone()
    try:
        twins = [twin for twin in (_at(copy, path) for path in paths) if twin is not None]
        for twin in twins:
            twin.remove()
        if twins:
            copy.refreshProjection()
        return read_box(copy, box)
    finally:
        # An unmodified document closes without asking.
        copy.setModified(False)
        copy.close()


def read_layer(document: Any, layer: Any, box: Box) -> memoryview:
    """One layer with its masks within `box`, transparent where nothing is painted: as `read_box`."""
    document.waitForDone()
    data = layer.projectionPixelData(box.x, box.y, box.width, box.height)
    if _is_srgb8(layer):
        pixels = memoryview(data)
    else:
        space = (layer.colorModel(), layer.colorDepth(), layer.colorProfile())
        pixels = _converted(data, box.width, box.height, space)
    assert pixels.nbytes == box.width * box.height * 4
    return pixels


def layer_box(document: Any, layer: Any) -> Optional[Box]:
    """The bounds of what is painted on a layer, or of a mask, within the canvas; None where there is nothing."""
    bounds = layer.bounds()
    if bounds.width() < 1 or bounds.height() < 1:
        return None
    return Box(bounds.x(), bounds.y(), bounds.width(), bounds.height()).intersect(canvas_of(document))


def masks(document: Any) -> List[Any]:
    """The masks of layers that hold a selection, but not the selection itself, which Krita shows as a node too."""
    return [node for node in _nodes(document.rootNode()) if node.type() in MASKS and node.parentNode().parentNode()]


def read_mask(document: Any, mask: Any) -> Optional[Region]:
    """A copy of such a mask, or None where it selects nothing of the canvas."""
    document.waitForDone()
    canvas = canvas_of(document)
    data = bytes(mask.pixelData(canvas.x, canvas.y, canvas.width, canvas.height))
    # A mask that was never painted has no pixels at all.
    if len(data) != canvas.width * canvas.height or data.count(0) == len(data):
        return None
    return Region(canvas, data)


def is_blank(document: Any, layer: Any, box: Box) -> bool:
    """Is a paint layer, with its masks, fully transparent within `box`?

    Krita knows the bounds of what is painted; only where `box` or a mask may hide all of it the pixels are looked at.
    """
    bounds = layer.bounds()
    painted = Box(bounds.x(), bounds.y(), bounds.width(), bounds.height())
    if painted.width < 1 or painted.height < 1:
        return True
    common = painted.intersect(box)
    if common is None:
        return True
    if common == painted and not layer.childNodes():
        return False
    return is_empty(read_layer(document, layer, common))


def is_empty(pixels: memoryview) -> bool:
    """Is every pixel (BGRA) fully transparent?"""
    # A sparse look first: it finds almost everything that is painted, and all the pixels of a large layer take long.
    for apart in (256, 1):
        alpha = bytes(pixels[3 :: 4 * apart])
        if alpha.count(0) != len(alpha):
            return False
    return True


def is_shown(layer: Any) -> bool:
    """Is the layer visible, and every group that it lies in?"""
    node = layer
    while node is not None:
        if not node.visible():
            return False
        node = node.parentNode()
    return True


def layer_named(document: Any, unique_id: str) -> Optional[Any]:
    """The layer with this unique id. nodeByUniqueID gives Krita 5.1's Python an object that is no Node."""
    return next((node for node in _nodes(document.rootNode()) if node.uniqueId().toString() == unique_id), None)


def paste(
    document: Any, pictures: Sequence[Tuple[str, Box, bytes]], above: Optional[Any] = None, group: str = ""
) -> List[str]:
    """Add a layer for each picture (name, box, pixels: sRGB, BGRA, straight alpha): one undo step. Their unique ids.

    They lie just above the layer `above` while that is there, else on top, the last one uppermost; several of them, or
    with a name for it one alone, in a new group. The layer that was active becomes active again a moment later.
    """
    # setPixelData does not check the length and would read past the end.
    assert all(len(pixels) == box.width * box.height * 4 for _, box, pixels in pictures)
    before = document.activeNode()
    if group or len(pictures) > 1:
        node = _group(group or "Impasto", pictures)
        made = node.childNodes()
    else:
        ((name, box, pixels),) = pictures
        data = _uncopied(pixels)
        if _is_srgb8(document):
            node = document.createNode(name, "paintlayer")
            node.setPixelData(data, box.x, box.y, box.width, box.height)
        else:
            node = _foreign_node(name, box, data)
        made = [node]
    # The pixels of a layer were set before, so the projection is right without being computed anew.
    parent = above.parentNode() if above is not None else None
    if parent is not None:
        parent.addChildNode(node, above)
    else:
        document.rootNode().addChildNode(node, None)
    if len(made) > 1 or group:
        document.refreshProjection()  # a group that comes as a whole is not drawn by itself
    if before is not None:
        # The nodes themselves are kept: nodeByUniqueID gives Krita 5.1's Python an object that is no Node.
        _restore_active(document, before, node, RESTORE_WAITS, RESTORE_TRIES)
    return [str(layer.uniqueId().toString()) for layer in made]


def open_new(name: str, box: Box, pixels: bytes, resolution: float) -> Tuple[Any, str]:
    """Open a new sRGB document of the size of `box` with `pixels` (BGRA) as its one layer, in front.

    Gives the document and the layer's unique id. It counts as modified: closing it asks whether to save.
    """
    assert len(pixels) == box.width * box.height * 4
    document = Krita.instance().createDocument(box.width, box.height, name, "RGBA", "U8", SRGB, resolution)
    # Krita begins a document with a background that is filled with white.
    layer = document.rootNode().childNodes()[0]
    layer.setName(name)
    layer.setPixelData(_uncopied(pixels), 0, 0, box.width, box.height)
    document.refreshProjection()
    windows = Krita.instance().windows()
    (Krita.instance().activeWindow() or windows[0]).addView(document)
    document.setModified(True)
    return document, str(layer.uniqueId().toString())


def keep_recipe(document: Any, node_id: str, recipe: bytes) -> None:
    """Store `recipe` (JSON) for a layer in the document itself; it is saved with the .kra file."""
    document.setAnnotation(recipe_key(node_id), "Recipe of an Impasto layer", QByteArray(recipe))


def read_recipe(document: Any, node_id: str) -> bytes:
    """The recipe kept for a layer, or no bytes."""
    return bytes(document.annotation(recipe_key(node_id)))


def keep_identity(document: Any, identity: str) -> None:
    """Store a name for the document in itself; it is saved with the .kra file, and with a copy of it."""
    document.setAnnotation(IDENTITY, "What Impasto calls this document", QByteArray(identity.encode()))


def read_identity(document: Any) -> str:
    """The name that was stored, or ""."""
    return bytes(document.annotation(IDENTITY)).decode("ascii", "replace")


def forget_identity(document: Any) -> None:
    """Take the name away: a copy is another document."""
    document.removeAnnotation(IDENTITY)


def recipe_key(node_id: str) -> str:
    return "impasto/recipe/" + node_id.strip("{}")


def _nodes(parent: Any) -> Iterator[Any]:
    for node in parent.childNodes():
        yield node
        yield from _nodes(node)


def _layers(parent: Any) -> List[Any]:
    """The children without the global selection, which a copy may not have."""
    return [node for node in parent.childNodes() if node.type() != "selectionmask"]


def _path(document: Any, layer: Any) -> Tuple[int, ...]:
    """Where `layer` stands: its place among its parent's children, from the root down."""
    path: Tuple[int, ...] = ()
    node = layer
    while node.parentNode() is not None:
        parent = node.parentNode()
        ids = [child.uniqueId() for child in _layers(parent)]
        path = (ids.index(node.uniqueId()), *path)
        node = parent
    return path


def _at(document: Any, path: Tuple[int, ...]) -> Optional[Any]:
    node = document.rootNode()
    for place in path:
        children = _layers(node)
        if place >= len(children):
            return None
        node = children[place]
    return node


def paint_layers(document: Any) -> List[Any]:
    """The layers and groups that can be read, from top to bottom."""
    kinds = ("paintlayer", "grouplayer", "vectorlayer", "filelayer", "filllayer", "clonelayer")
    return [node for node in _nodes(document.rootNode()) if node.type() in kinds][::-1]


def _is_srgb8(node: Any) -> bool:
    """Of a document or a layer."""
    return bool(node.colorModel() == "RGBA" and node.colorDepth() == "U8" and node.colorProfile() == SRGB)


def _uncopied(pixels: bytes) -> Any:
    """`pixels` as Krita takes them, without a copy (of a large picture it takes 50 ms): keep them until Krita has.

    PyQt6 can only copy.
    """
    return getattr(QByteArray, "fromRawData", QByteArray)(pixels)


def _bgra(image: Any) -> memoryview:
    image = image.convertToFormat(QImage.Format.Format_ARGB32)
    bits = image.constBits()
    bits.setsize(image.width() * image.height() * 4)
    return memoryview(bytes(bits))


def _converted(data: Any, width: int, height: int, space: Tuple[str, str, str]) -> memoryview:
    """Pixels of another colour space as sRGB, by way of a document of their own: the painter's is left alone."""
    scratch = Krita.instance().createDocument(width, height, "Impasto", *space, 72.0)
    try:
        background = scratch.rootNode().childNodes()[0]
        node = scratch.createNode("sketch", "paintlayer")
        node.setPixelData(data, 0, 0, width, height)
        scratch.rootNode().addChildNode(node, None)
        background.setVisible(False)
        scratch.refreshProjection()
        scratch.waitForDone()
        return _bgra(scratch.projection(0, 0, width, height))
    finally:
        scratch.setModified(False)
        scratch.close()


def _foreign_node(name: str, box: Box, data: Any) -> Any:
    """An 8-bit sRGB layer for a document of another colour space.

    Made in a document of its own and cloned: converting a layer inside the painter's document would leave a second
    undo step. The pixels may lie outside that document's single pixel.
    """
    scratch = Krita.instance().createDocument(1, 1, "Impasto", "RGBA", "U8", SRGB, 72.0)
    try:
        node = scratch.createNode(name, "paintlayer")
        node.setPixelData(data, box.x, box.y, box.width, box.height)
        return node.clone()
    finally:
        # An unmodified document closes without asking.
        scratch.setModified(False)
        scratch.close()


def _group(name: str, pictures: Sequence[Tuple[str, Box, bytes]]) -> Any:
    """A group with a layer for each picture, made in a document of its own and cloned: one undo step later on."""
    scratch = Krita.instance().createDocument(1, 1, "Impasto", "RGBA", "U8", SRGB, 72.0)
    try:
        group = scratch.createGroupLayer(name)
        for title, box, pixels in pictures:
            node = scratch.createNode(title, "paintlayer")
            node.setPixelData(_uncopied(pixels), box.x, box.y, box.width, box.height)
            group.addChildNode(node, None)
        scratch.rootNode().addChildNode(group, None)
        return group.clone()
    finally:
        scratch.setModified(False)
        scratch.close()


def _restore_active(document: Any, before: Any, added: Any, waits: int, tries: int) -> None:
    """Make `before` active again once Krita has made `added` active; leave another choice of the painter alone."""

    def restore() -> None:
        active = document.activeNode() if is_open(document) else None
        if active is None:
            return
        if active.uniqueId() == added.uniqueId():
            if before.parentNode() is not None:
                document.setActiveNode(before)
        elif active.uniqueId() == before.uniqueId():
            there = added.parentNode() is not None
            if (tries if there else waits) > 1:
                _restore_active(document, before, added, waits - (not there), tries - there)

    QTimer.singleShot(RESTORE_AFTER, restore)
