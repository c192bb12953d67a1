"""What both plug-ins can do, as one table: a line for the docs, and what proves it in whichever editor it is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.editors.drivers import HEIGHT, WIDTH, Editor
from tests.krita import stub

__all__ = ["SCENARIOS", "Scenario"]

X, Y, W, H = 60, 40, 64, 48


@dataclass(frozen=True)
class Scenario:
    """`feature` is the line in the table of the docs."""

    feature: str
    run: Callable[[Editor], None]


def rectangle(x: int = X, y: int = Y, w: int = W, h: int = H) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + h, x : x + w] = 255
    return mask


def inpaint(editor: Editor) -> None:
    editor.new()
    mask = rectangle()
    editor.select(mask)
    before = editor.seen()
    editor.start("inpaint", "a boat")
    editor.finish()
    assert editor.layers() == ["Impasto: a boat", "painting"]
    after = editor.seen()
    assert (after[mask > 0] == (*stub.COLOR, 255)).all() and (after[mask == 0] == before[mask == 0]).all()


def soft(editor: Editor) -> None:
    editor.new()
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[30:70, :] = np.arange(WIDTH)
    editor.select(mask)
    editor.start("inpaint", "fog")
    editor.finish()
    assert (editor.alpha("Impasto: fog") == mask).all()


def border(editor: Editor) -> None:
    editor.new()
    mask = rectangle(150, 100, WIDTH - 150, HEIGHT - 100)
    editor.select(mask)
    editor.start("inpaint", "corner")
    editor.finish()
    assert ((editor.alpha("Impasto: corner") > 0) == (mask > 0)).all()


def undo(editor: Editor) -> None:
    editor.new()
    editor.select(rectangle())
    before, layers = editor.seen(), editor.layers()
    editor.start("inpaint", "one step")
    editor.finish()
    after, more = editor.seen(), editor.layers()
    editor.undo()
    assert editor.layers() == layers and (editor.seen() == before).all()
    editor.redo()
    assert editor.layers() == more and (editor.seen() == after).all()


def other_kinds(kind: str) -> Callable[[Editor], None]:
    def run(editor: Editor) -> None:
        editor.new(kind)
        mask = rectangle()
        editor.select(mask)
        before = editor.seen()
        editor.start("inpaint", "deep")
        editor.finish()
        after = editor.seen()
        assert editor.layers()[0] == "Impasto: deep"
        assert (after[mask == 0] == before[mask == 0]).all() and (after[mask > 0] != before[mask > 0]).any()
        if kind != "grey":
            assert abs(after[Y + 5, X + 5, :3].astype(int) - stub.COLOR).max() <= 2

    return run


def sketch(editor: Editor) -> None:
    editor.new()
    editor.sketch(40, 30, 50, 40)
    editor.start("sketch", "an apple")
    editor.finish()
    assert editor.layers() == ["varnish", "Impasto: an apple", "sketch", "painting"]
    sent = editor.received()
    red = sent["image"][50, 60].tolist()
    assert str(sent["mode"]) == "sketch" and red == [220, 20, 30, 255] and not sent["image"][5, 5, 3]


def upscale(editor: Editor) -> None:
    editor.new()
    before = editor.seen()
    editor.start("upscale")
    editor.finish()
    assert editor.sizes() == [[WIDTH, HEIGHT], [2 * WIDTH, 2 * HEIGHT]]
    assert editor.layers() == ["painting"] and (editor.seen() == before).all()


def recipe(editor: Editor) -> None:
    editor.new()
    editor.select(rectangle())
    editor.start("inpaint", "a cat")
    editor.finish()
    kept = json.loads(editor.recipe("Impasto: a cat"))
    assert kept["mode"] == "inpaint" and kept["seed"] == 4711 and kept["params"]["prompt"] == "a cat"


def cancel(editor: Editor) -> None:
    editor.new()
    editor.select(rectangle())
    before, layers = editor.seen(), editor.layers()
    (editor.home / "hold").touch()
    editor.start("inpaint", "never")
    editor.at_step(3)
    editor.cancel()
    editor.finish()
    assert editor.layers() == layers and (editor.seen() == before).all()


def refusal(editor: Editor) -> None:
    editor.new()
    editor.select(rectangle())
    before, layers = editor.seen(), editor.layers()
    editor.start("inpaint", "no memory")
    assert editor.finish() == "There is not enough memory; choose a smaller region."
    assert editor.layers() == layers and (editor.seen() == before).all()


def hints(editor: Editor) -> None:
    editor.close()
    assert editor.hint("inpaint").endswith(("Open a document first.", "Open an image first."))
    editor.new()
    assert editor.hint("inpaint") == "Select a region first."
    editor.select(rectangle())
    assert editor.hint("inpaint").endswith(" pixels.")  # nothing is missing: what to expect instead


def closed(editor: Editor) -> None:
    editor.new()
    editor.select(rectangle())
    (editor.home / "hold").touch()
    editor.start("inpaint", "orphan")
    editor.at_step(3)
    editor.close()
    (editor.home / "hold").unlink()
    assert "closed meanwhile" in editor.finish()


SCENARIOS: dict[str, Scenario] = {
    "inpaint": Scenario("Inpaint a selection as a new layer; beyond its alpha nothing changes, bit for bit", inpaint),
    "soft": Scenario("A soft selection of any shape gives a soft layer", soft),
    "border": Scenario("Selections at the border of the canvas", border),
    "sketch": Scenario("Sketch layer to image, as a layer just above the sketch", sketch),
    "upscale": Scenario("Upscale into a new document; the old one is left alone", upscale),
    "undo": Scenario("One result is one undo step", undo),
    "u16": Scenario("16-bit documents", other_kinds("u16")),
    "float": Scenario("32-bit float documents", other_kinds("float")),
    "grey": Scenario("Grey documents", other_kinds("grey")),
    "recipe": Scenario("The recipe is kept with the layer, in the file", recipe),
    "cancel": Scenario("A cancelled job leaves no trace", cancel),
    "refusal": Scenario("What the server refuses is a sentence; the document stays as it was", refusal),
    "hints": Scenario("What is missing is said before the button is pressed", hints),
    "closed": Scenario("A result outlives its closed document", closed),
}
"""Name -> scenario, in the order of the docs."""

OTHER_EDITOR = "A result of the other editor is found in the history and added as a layer"
"""Takes both editors at once: test_scenarios.py."""
