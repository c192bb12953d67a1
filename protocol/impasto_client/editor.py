"""What an editor lends to the client: its documents, by a few calls that both editors can answer.

Documents and layers are the editor's own objects; nothing here looks into them. Everything runs on its main thread.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import Any, ClassVar, List, Mapping, Optional, Sequence, Tuple, Union

from impasto_protocol.geometry import Box, Size
from impasto_protocol.images import Buffer

from .document import ResultLayer

__all__ = ["Host", "Obstacle", "Region", "Target"]


class Obstacle(Exception):
    """Why something cannot be done now: a sentence that says what to do."""


@dataclass(frozen=True)
class Region:
    """A selection as it was at one moment: `mask` holds `box`, one byte a pixel, 255 = selected."""

    box: Box
    mask: Buffer = field(repr=False)

    def within(self, box: Box) -> Buffer:
        """The selection within `box`, rows top to bottom; 0 outside of the region's own box."""
        common = self.box.intersect(box)
        if common == box == self.box:
            return self.mask
        mask = bytearray(box.width * box.height)
        if common is not None:
            for y in range(common.y, common.bottom):
                source = (y - self.box.y) * self.box.width + common.x - self.box.x
                target = (y - box.y) * box.width + common.x - box.x
                mask[target : target + common.width] = self.mask[source : source + common.width]
        return bytes(mask)


@dataclass(frozen=True)
class Target:
    """What a job is about: the document that was in front when it was asked for, and its size then.

    `area` is what the plan is told of: the selection, or None for the whole canvas. `region` is the selection itself,
    `layer` the sketch, both as they were at that moment. The result goes above `above` while that is there, else on
    top. `without` is a layer that the job must not see: its own earlier result. `into` says what becomes of an upscale:
    "new", "copy" or "resize" (`enlarging.INTO`), of which `layer` may be the source.
    """

    mode: str
    document: Any
    canvas: Box
    params: Mapping[str, Any]
    area: Optional[Box] = None
    region: Optional[Region] = field(default=None, repr=False)
    layer: Optional[Any] = None
    without: Optional[Any] = None
    above: Optional[Any] = None
    resolution: Any = None
    context: Union[str, Box] = ""
    """What the model sees: "" as the server plans it, "selection" for the mask and its reach alone, or a box."""
    pictures: Mapping[str, Any] = field(default_factory=dict)
    """Layers that are sent as further pictures, by the names of the inputs."""
    into: str = "new"
    hints: Sequence[Any] = ()
    """Layers with hints for control units, which are not part of what is seen."""


class Host(abc.ABC):
    """An editor. `word` is what it calls a document, `format` the order of its pixels: "bgra8" or "rgba8".

    Pixels are those of a box: sRGB, 8 bit, straight alpha, rows top to bottom, no padding.
    """

    word: ClassVar[str] = "document"
    format: ClassVar[str] = "rgba8"

    # ---- what is there: quick, polled

    @abc.abstractmethod
    def is_open(self, document: Any) -> bool:
        """Is this document still open?"""

    @abc.abstractmethod
    def canvas_of(self, document: Any) -> Box:
        """The whole canvas."""

    @abc.abstractmethod
    def resolution_of(self, document: Any) -> Any:
        """Pixels per inch, as `open_new` takes it."""

    @abc.abstractmethod
    def selected_box(self, document: Any) -> Optional[Box]:
        """The bounds of the selection within the canvas, or None."""

    @abc.abstractmethod
    def obstacle(self, mode: str, document: Optional[Any]) -> str:
        """Why `mode` cannot be done with the document; empty where it can."""

    @abc.abstractmethod
    def active_layer(self, document: Any) -> Optional[Any]:
        """The layer that is active, where it is one alone."""

    @abc.abstractmethod
    def key_of(self, document: Any) -> Any:
        """What tells an open document from all others: a value for a dict."""

    @abc.abstractmethod
    def identity_of(self, document: Any) -> str:
        """What `keep_identity` wrote into the document's file, or ""."""

    # ---- reading

    @abc.abstractmethod
    def region_of(self, document: Any) -> Optional[Region]:
        """The selection, or None where nothing of the canvas is selected."""

    @abc.abstractmethod
    def sketch_of(self, document: Any) -> Any:
        """The layer with the sketch, where `obstacle` has none against it."""

    @abc.abstractmethod
    def is_blank(self, document: Any, layer: Any, box: Box) -> bool:
        """Is the layer fully transparent within `box`?"""

    @abc.abstractmethod
    def is_shown(self, document: Any, layer: Any) -> bool:
        """Is the layer visible, and every group that it lies in?"""

    @abc.abstractmethod
    def is_there(self, document: Any, layer: Any) -> bool:
        """Is the layer still in the document?"""

    @abc.abstractmethod
    def read_visible(self, document: Any, box: Box, without: Sequence[Any] = ()) -> Buffer:
        """What is seen within `box`, as if the layers `without` were not there."""

    @abc.abstractmethod
    def read_layer(self, document: Any, layer: Any, box: Box) -> Buffer:
        """One layer with its masks within `box`, transparent where nothing is painted."""

    @abc.abstractmethod
    def thumbnail(self, pixels: Buffer, width: int, height: int, longest: int) -> Any:
        """A picture of the toolkit's own kind with at most `longest` pixels a side."""

    # ---- layers and their recipes

    @abc.abstractmethod
    def name_of(self, layer: Any) -> Any:
        """What finds the layer again in the saved document: a plain value."""

    @abc.abstractmethod
    def layer_named(self, document: Any, name: Any) -> Optional[Any]:
        """The layer that `name_of` gave this for, or None."""

    @abc.abstractmethod
    def recipe_of(self, document: Any, layer: Any) -> bytes:
        """The recipe kept for a layer, or no bytes."""

    @abc.abstractmethod
    def layers_of(self, document: Any) -> List[Tuple[Any, str]]:
        """The layers that can be read, from top to bottom: what `name_of` gives, and what the painter calls them."""

    @abc.abstractmethod
    def layer_box(self, document: Any, layer: Any) -> Optional[Box]:
        """The bounds of a layer within the canvas, or None where it has nothing there. Quick: it is polled."""

    def masks_of(self, document: Any) -> List[Tuple[Any, str]]:
        """What can say where to inpaint in place of the selection: as `layers_of`, with masks."""
        return self.layers_of(document)

    def mask_of(self, document: Any, layer: Any) -> Optional[Region]:
        """A layer as a mask, by its alpha; None where it is empty."""
        box = self.layer_box(document, layer)
        if box is None:
            return None
        alpha = bytes(memoryview(self.read_layer(document, layer, box))[3::4])
        return Region(box, alpha) if alpha.count(0) < len(alpha) else None

    # ---- writing: new layers and new documents; `enlarge` alone scales the layers that are there

    @abc.abstractmethod
    def keep_identity(self, document: Any, identity: str) -> None:
        """Write a name into the document's file that it keeps; no undo step."""

    @abc.abstractmethod
    def paste(
        self,
        document: Any,
        results: Sequence[ResultLayer],
        recipes: Sequence[bytes],
        above: Optional[Any] = None,
        group: str = "",
    ) -> str:
        """Add a layer for each result at its place, the last one on top, all in one undo step.

        They lie just above the layer `above`, else on top; with `group` in a new group of that name. Gives what the
        painter should know, or "".
        """

    @abc.abstractmethod
    def open_new(self, result: ResultLayer, recipe: bytes, resolution: Any) -> None:
        """Open a result as a new document, in front."""

    @abc.abstractmethod
    def enlarge(self, document: Any, result: ResultLayer, recipe: bytes, size: Size, copy: bool) -> str:
        """Scale a document with all its layers, masks and its selection to `size`, and add a result on top at its box,
        which lies in the larger one: all in one undo step. With `copy` a copy of it, opened in front.

        Gives what the painter should know, or "".
        """
