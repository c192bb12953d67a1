"""An editor of plain data and a runner that only notes: what the controller does with them can be looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from impasto_client.document import ResultLayer
from impasto_client.editor import Host, Region
from impasto_client.events import Planned, PlanResult, ResultReady
from impasto_protocol.geometry import Box, Size
from impasto_protocol.parts import HistoryEntry


@dataclass
class Layer:
    name: str
    blank: bool = False
    shown: bool = True
    recipe: bytes = b""
    box: Box | None = None


@dataclass
class Document:
    width: int = 100
    height: int = 80
    selection: Region | None = None
    layers: list[Layer] = field(default_factory=lambda: [Layer("painting")])
    active: int = 0
    open: bool = True
    identity: str = ""


class DoubleHost(Host):
    """Pixels are one byte for each call, so that it can be seen which call they came from."""

    def __init__(self) -> None:
        self.opened: list[tuple[ResultLayer, bytes, Any]] = []
        self.read: list[tuple[str, Any]] = []
        self.groups: list[str] = []
        self.enlarged: list[tuple[Any, ResultLayer, bytes, Size, bool]] = []

    def is_open(self, document: Any) -> bool:
        return bool(document.open)

    def canvas_of(self, document: Any) -> Box:
        return Box(0, 0, document.width, document.height)

    def resolution_of(self, document: Any) -> Any:
        return 300.0

    def selected_box(self, document: Any) -> Box | None:
        return None if document.selection is None else document.selection.box

    def obstacle(self, mode: str, document: Any) -> str:
        if document is None:
            return "Open a document first."
        return "Select a region first." if mode == "inpaint" and document.selection is None else ""

    def active_layer(self, document: Any) -> Any:
        return document.layers[document.active]

    def key_of(self, document: Any) -> Any:
        return id(document)

    def identity_of(self, document: Any) -> str:
        return str(document.identity)

    def keep_identity(self, document: Any, identity: str) -> None:
        document.identity = identity

    def region_of(self, document: Any) -> Region | None:
        return document.selection  # type: ignore[no-any-return]

    def sketch_of(self, document: Any) -> Any:
        return document.layers[document.active]

    def is_blank(self, document: Any, layer: Any, box: Box) -> bool:
        return bool(layer.blank)

    def is_shown(self, document: Any, layer: Any) -> bool:
        return bool(layer.shown)

    def is_there(self, document: Any, layer: Any) -> bool:
        return any(layer is other for other in document.layers)

    def read_visible(self, document: Any, box: Box, without: Any = ()) -> bytes:
        self.read.append(("visible", tuple(without)))
        return b"v" * (box.width * box.height * 4)

    def read_layer(self, document: Any, layer: Any, box: Box) -> bytes:
        self.read.append(("layer", layer))
        return b"l" * (box.width * box.height * 4)

    def thumbnail(self, pixels: Any, width: int, height: int, longest: int) -> Any:
        return bytes(pixels[:4])

    def name_of(self, layer: Any) -> str:
        return str(layer.name)

    def layer_named(self, document: Any, name: Any) -> Any:
        return next((layer for layer in document.layers if layer.name == name), None)

    def layers_of(self, document: Any) -> list[tuple[Any, str]]:
        return [(layer.name, layer.name.capitalize()) for layer in reversed(document.layers)]

    def layer_box(self, document: Any, layer: Any) -> Box | None:
        return None if layer.blank else layer.box or self.canvas_of(document)

    def recipe_of(self, document: Any, layer: Any) -> bytes:
        return bytes(layer.recipe)

    def paste(self, document: Any, results: Any, recipes: Any, above: Any = None, group: str = "") -> str:
        self.groups.append(group)
        for result, recipe in zip(results, recipes, strict=True):
            at = document.layers.index(above) + 1 if above in document.layers else len(document.layers)
            document.layers.insert(at, Layer(result.name, recipe=recipe))
        return ""

    def open_new(self, result: ResultLayer, recipe: bytes, resolution: Any) -> None:
        self.opened.append((result, recipe, resolution))

    def enlarge(self, document: Any, result: ResultLayer, recipe: bytes, size: Size, copy: bool) -> str:
        self.enlarged.append((document, result, recipe, size, copy))
        return ""


class DoubleKept:
    """As `DoubleRunner`; what `do` is given is done at once."""

    def __init__(self, asked: list[Any]) -> None:
        self.asked = asked

    def do(self, key: Any, work: Any) -> None:
        self.asked.append(("do", (key,), {}))
        work()

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: self.asked.append((name, args, more))


class DoubleRunner:
    """Notes what it is asked: (name of the method, arguments)."""

    def __init__(self, host_name: str, on_event: Any, **rest: Any) -> None:
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.kept = DoubleKept(self.asked)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: self.asked.append((name, args, more))

    def last(self, name: str) -> tuple[Any, ...]:
        return next(args for asked, args, _ in reversed(self.asked) if asked == name)


def rectangle(x: int, y: int, width: int, height: int) -> Region:
    return Region(
        Box(x, y, width, height), bytes(range(1, 256)) * (width * height // 255) + bytes(width * height % 255)
    )


def planned(ticket: str, box: Box, warnings: tuple[str, ...] = (), seconds: float | None = None) -> Planned:
    return Planned(ticket, PlanResult(box, Size(box.width, box.height), warnings=warnings, seconds=seconds))


def layer(job: str, box: Box, stage: str = "inpaint", index: int = 0, **recipe: Any) -> ResultLayer:
    pixels = b"r" * (box.width * box.height * 4)
    return ResultLayer(job, index, box, pixels, "rgba8", "made", stage, "soft", 5, recipe)


def result(job: str, box: Box, stage: str = "inpaint", index: int = 0, **recipe: Any) -> ResultReady:
    return ResultReady(job, layer(job, box, stage, index, **recipe))


def entry(made: ResultLayer, starred: bool = False) -> HistoryEntry:
    """The same as the server's history tells it."""
    return HistoryEntry(
        made.job_id,
        made.index,
        1.0,
        "0" * 32,
        made.box.width,
        made.box.height,
        made.format,
        made.box,
        made.name,
        str(made.recipe.get("mode", "")),
        made.stage,
        made.alpha,
        made.seed,
        starred,
        dict(made.recipe),
    )
