"""Pixel calls on Krita's documents, and nothing else. Everything here runs on Krita's main thread.

A document is read through its projection (what the painter sees) and written by adding one new layer: pixels first,
then one `addChildNode`, which is exactly one undo step. Existing layers are never written to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from impasto_protocol.geometry import Box
from krita import Krita

from .qt import QByteArray, QImage, QTimer

__all__ = [
    "Region",
    "active_document",
    "canvas_of",
    "is_open",
    "keep_recipe",
    "paste",
    "read_box",
    "read_mask",
    "read_recipe",
    "region_of",
    "selected_box",
]

SRGB = "sRGB-elle-V2-srgbtrc.icc"
RESTORE_AFTER = 50
"""Milliseconds after which the active layer is put back: Krita selects an added layer by itself one turn later."""
RESTORE_TRIES = 10
"""How often that is tried once the layer is in the image."""
RESTORE_WAITS = 200
"""How often it is looked whether it is: an added layer waits for the end of the stroke under the painter's pen."""


@dataclass(frozen=True)
class Region:
    """A selection as it was at one moment: a private copy, and its bounds clipped to the canvas."""

    selection: Any
    box: Box


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
    return None if box is None else Region(document.selection().duplicate(), box)


def read_mask(region: Region, box: Box) -> memoryview:
    """The selection within `box`: one byte a pixel, 255 = selected, rows top to bottom."""
    pixels = memoryview(region.selection.pixelData(box.x, box.y, box.width, box.height))
    assert pixels.nbytes == box.width * box.height
    return pixels


def read_box(document: Any, box: Box) -> memoryview:
    """What is seen within `box` (inside the canvas): sRGB, 8 bit, BGRA with straight alpha, rows top to bottom."""
    document.waitForDone()
    if _is_srgb8(document):
        pixels = memoryview(document.pixelData(box.x, box.y, box.width, box.height))
    else:
        # Krita converts through the document's profile, whatever its depth and colour model.
        image = document.projection(box.x, box.y, box.width, box.height)
        image = image.convertToFormat(QImage.Format.Format_ARGB32)
        bits = image.constBits()
        bits.setsize(box.width * box.height * 4)
        pixels = memoryview(bytes(bits))
    assert pixels.nbytes == box.width * box.height * 4
    return pixels


def paste(document: Any, name: str, box: Box, pixels: bytes) -> str:
    """Add one layer on top with `pixels` (sRGB, BGRA, straight alpha) at `box`: one undo step. Returns its unique id.

    The layer that was active becomes active again a moment later.
    """
    # setPixelData does not check the length and would read past the end.
    assert len(pixels) == box.width * box.height * 4
    before = document.activeNode()
    data = QByteArray(pixels)
    if _is_srgb8(document):
        node = document.createNode(name, "paintlayer")
        node.setPixelData(data, box.x, box.y, box.width, box.height)
    else:
        node = _foreign_node(name, box, data)
    # The pixels were set before, so the projection is right without being computed anew.
    document.rootNode().addChildNode(node, None)
    if before is not None:
        # The nodes themselves are kept: nodeByUniqueID gives Krita 5.1's Python an object that is no Node.
        _restore_active(document, before, node, RESTORE_WAITS, RESTORE_TRIES)
    return str(node.uniqueId().toString())


def keep_recipe(document: Any, node_id: str, recipe: bytes) -> None:
    """Store `recipe` (JSON) for a layer in the document itself; it is saved with the .kra file."""
    document.setAnnotation(recipe_key(node_id), "Recipe of an Impasto layer", QByteArray(recipe))


def read_recipe(document: Any, node_id: str) -> bytes:
    """The recipe kept for a layer, or no bytes."""
    return bytes(document.annotation(recipe_key(node_id)))


def recipe_key(node_id: str) -> str:
    return "impasto/recipe/" + node_id.strip("{}")


def _is_srgb8(document: Any) -> bool:
    return bool(document.colorModel() == "RGBA" and document.colorDepth() == "U8" and document.colorProfile() == SRGB)


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
