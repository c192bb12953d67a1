"""What both plug-ins can do, as one table: a line for the docs, and what proves it in whichever editor it is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

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


def twice(inventory: dict[str, Any]) -> dict[str, Any]:
    """What an inventory becomes in a document of twice the size."""
    return {
        **inventory,
        "size": [2 * v for v in inventory["size"]],
        "layers": [[name, kind, *(2 * v for v in place)] for name, kind, *place in inventory["layers"]],
    }


def assert_twice(after: dict[str, Any], before: dict[str, Any]) -> list[Any]:
    """All of `before` is there in twice the size, below one more layer: that layer."""
    made, *rest = after["layers"]
    # The selection has become soft by at most a pixel.
    apart = np.abs(np.subtract(after["selection"], np.multiply(before["selection"], 2)))
    assert apart.max() <= 2, (after, before)
    assert {**after, "layers": rest} == {**twice(before), "selection": after["selection"]}, (after, before)
    return list(made)


def furnished(editor: Editor, **values: Any) -> tuple[dict[str, Any], np.ndarray]:
    """A document with a group, a mask and a selection, and the settings of an upscale; what is there before it."""
    editor.new()
    editor.furnish()
    editor.select(rectangle())
    editor.set_more("upscale", **values)
    return editor.inventory(), editor.seen()


def resize(editor: Editor) -> None:
    before, seen = furnished(editor, into="resize")
    editor.start("upscale")
    editor.finish()
    after = editor.inventory()
    whole = [2 * WIDTH, 2 * HEIGHT]
    assert assert_twice(after, before) == ["Upscaled", "layer", 0, 0, *whole] and editor.sizes() == [whole]
    assert (editor.seen(2) == seen.repeat(2, 0).repeat(2, 1)).all()
    assert json.loads(editor.recipe("Upscaled"))["mode"] == "upscale"
    editor.start("refine", "finer")
    editor.finish()
    assert editor.layers()[0] == "Impasto: finer" and editor.received()["image"].shape == (2 * HEIGHT, 2 * WIDTH, 4)
    editor.undo()
    assert editor.inventory() == after
    editor.undo()
    assert editor.inventory() == before and (editor.seen() == seen).all()
    editor.redo()
    assert editor.inventory() == after
    editor.undo()
    assert editor.inventory() == before
    editor.reset()


def layered_copy(editor: Editor) -> None:
    before, seen = furnished(editor, into="copy")
    editor.start("upscale")
    editor.finish()
    assert editor.inventory() == before and (editor.seen() == seen).all()
    assert editor.sizes() == [[WIDTH, HEIGHT], [2 * WIDTH, 2 * HEIGHT]]
    editor.to_front((2 * WIDTH, 2 * HEIGHT))
    assert assert_twice(editor.inventory(), before) == ["Upscaled", "layer", 0, 0, 2 * WIDTH, 2 * HEIGHT]
    editor.set_more("upscale")
    editor.reset()


def upscale_parts(editor: Editor) -> None:
    before, seen = furnished(editor, source="selection", into="resize")
    editor.start("upscale")
    editor.finish()
    sent = editor.received()["image"]
    assert (sent == seen[Y : Y + H, X : X + W]).all()
    assert assert_twice(editor.inventory(), before) == ["Upscaled", "layer", 2 * X, 2 * Y, 2 * W, 2 * H]
    editor.undo()
    assert editor.inventory() == before
    editor.activate("group")
    editor.set_more("upscale", source="layer")
    editor.start("upscale")
    editor.finish()
    sent = editor.received()["image"]
    shown = np.zeros((HEIGHT, WIDTH), bool)
    shown[30:70, 20:50] = True
    assert sent.shape == (HEIGHT, WIDTH, 4) and ((sent[..., 3] == 255) == shown).all()
    assert not sent[~shown][:, 3].any()
    assert editor.sizes() == [[WIDTH, HEIGHT], [2 * WIDTH, 2 * HEIGHT]] and editor.inventory() == before
    editor.reset()


def resize_only_after(editor: Editor) -> None:
    before, seen = furnished(editor, into="resize")
    (editor.home / "hold").touch()
    editor.start("upscale")
    editor.at_step(3)
    assert editor.inventory() == before
    editor.cancel()
    editor.finish()
    (editor.home / "hold").unlink()
    assert editor.inventory() == before and (editor.seen() == seen).all()
    (editor.home / "no memory").touch()
    editor.start("upscale")
    assert editor.finish() == "There is not enough memory; choose a smaller region."
    (editor.home / "no memory").unlink()
    assert editor.inventory() == before and (editor.seen() == seen).all() and len(editor.sizes()) == 1
    editor.reset()


def whole(editor: Editor) -> None:
    """The same for a new picture, which nothing is sent for, and for the one that is there."""
    editor.new()
    before, layers = editor.seen(), editor.layers()
    for mode in ("txt2img", "img2img"):
        editor.start(mode, "a fjord")
        editor.finish()
        assert editor.layers() == ["Impasto: a fjord", *layers] and editor.sizes() == [[WIDTH, HEIGHT]]
        sent = editor.received()
        assert str(sent["mode"]) == mode
        if mode == "txt2img":
            assert sent["image"].size == 0
        else:
            assert (sent["image"][..., :3] == before[..., :3]).all()
        editor.undo()
        assert editor.layers() == layers and (editor.seen() == before).all()


def refine(editor: Editor) -> None:
    editor.new()
    before, layers = editor.seen(), editor.layers()
    editor.start("refine", "finer")
    editor.finish()
    assert editor.layers() == ["Impasto: finer", *layers] and editor.sizes() == [[WIDTH, HEIGHT]]
    sent = editor.received()
    assert str(sent["mode"]) == "refine" and (sent["image"][..., :3] == before[..., :3]).all()
    assert json.loads(str(sent["params"]))["strength"] == 0.3
    editor.undo()
    assert editor.layers() == layers and (editor.seen() == before).all()
    editor.redo()
    assert editor.layers() == ["Impasto: finer", *layers]


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


def paint(editor: Editor, words: str) -> None:
    editor.start("inpaint", words)
    editor.finish()


def loras(editor: Editor) -> None:
    editor.new()
    editor.select(rectangle())
    editor.add_lora("grain", 0.5)
    editor.add_lora("ink", -0.25)
    editor.remove_lora()
    paint(editor, "in ink")
    sent = json.loads(str(editor.received()["params"]))
    assert sent["loras"] == [{"model": "ink", "strength": -0.25, "text_strength": "auto"}]
    editor.reset()
    paint(editor, "plain")
    assert json.loads(str(editor.received()["params"]))["loras"] == []


def queue(editor: Editor) -> None:
    editor.new()
    editor.select(rectangle())
    layers = editor.layers()
    (editor.home / "hold").touch()
    editor.start("inpaint", "one")
    editor.at_step(3)
    assert editor.queue() == []  # one alone is in the bar
    editor.start("inpaint", "two")
    editor.start("inpaint", "three")
    assert [line.split(":")[0] for line in editor.queue()] == ["one", "two", "three"]
    editor.cancel_all()
    editor.finish()
    assert editor.queue() == [] and editor.layers() == layers


def own_results(editor: Editor) -> None:
    editor.new()
    editor.select(rectangle())
    for words in ("red cat", "blue dog"):
        paint(editor, words)
    assert editor.strip() == ["Impasto: blue dog", "Impasto: red cat"]
    assert editor.strip("cat") == ["Impasto: red cat"]
    editor.reset()
    editor.new()
    assert editor.strip() == []


def several(editor: Editor) -> None:
    editor.new()
    editor.select(rectangle())
    for words in ("first", "second"):
        paint(editor, words)
        editor.undo()
    assert editor.layers() == ["painting"] and editor.strip() == ["Impasto: second", "Impasto: first"]
    before = editor.seen()
    editor.look_at("Impasto: second", "Impasto: first")
    editor.press("add")
    assert editor.layers()[0] == "Impasto"
    assert editor.group("Impasto") == ["Impasto: second", "Impasto: first"]
    found = editor.seen()[rectangle() > 0]
    assert (found == (*stub.COLOR, 255)).all(), np.unique(found, axis=0)[:5]
    editor.undo()
    assert editor.layers() == ["painting"] and (editor.seen() == before).all()


def again(editor: Editor) -> None:
    editor.new()
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[30:70, :] = np.arange(WIDTH)
    editor.select(mask)
    paint(editor, "once more")
    first = editor.received()
    editor.select(rectangle())
    editor.set_prompt("something else")
    editor.activate("Impasto: once more")
    editor.press("again")
    editor.finish()
    second = editor.received()
    assert len(editor.layers()) == 3 and editor.layers()[2] == "painting"
    assert json.loads(str(second["params"]))["prompt"] == "once more"
    assert (second["mask"] == first["mask"]).all() and (second["image"] == first["image"]).all()


def use(editor: Editor) -> None:
    editor.new()
    editor.select(rectangle())
    paint(editor, "these settings")
    editor.set_prompt("something else")
    assert editor.strip() == ["Impasto: these settings"]
    editor.look_at("Impasto: these settings")
    editor.press("use")
    taken = editor.settings()
    editor.reset()
    assert taken["prompt"] == "these settings" and taken["seed"] == 4711


def saved(editor: Editor) -> None:
    editor.new()
    editor.select(rectangle())
    paint(editor, "to keep")
    assert editor.strip() == ["Impasto: to keep"]
    path = editor.home / f"{editor.name} kept.png"
    editor.look_at("Impasto: to keep")
    editor.save(str(path))
    with Image.open(path) as image:
        assert image.info["parameters"].startswith("to keep\n") and image.mode == "RGBA"
        pixels = np.asarray(image)
    x, y = (int(v) for v in editor.received()["box"][:2])
    assert (pixels[Y - y : Y - y + H, X - x : X - x + W] == (*stub.COLOR, 255)).all()


def completion(editor: Editor) -> None:
    assert editor.complete("a cat, <gra") == "a cat, <lora:grain:1>"
    assert editor.complete("a cat, impas") == "a cat, impasto brushwork", "a tag, which the server looks up"
    assert editor.complete("thick pa") == "impasto brushwork", "by its other name"


def weights(editor: Editor) -> None:
    assert editor.weigh("a red barn", 4, 2) == "a (red:1.2) barn"
    assert editor.weigh("a (red barn:1.2)", 6, -2) == "a red barn"


SCENARIOS: dict[str, Scenario] = {
    "inpaint": Scenario("Inpaint a selection as a new layer; beyond its alpha nothing changes, bit for bit", inpaint),
    "soft": Scenario("A soft selection of any shape gives a soft layer", soft),
    "border": Scenario("Selections at the border of the canvas", border),
    "sketch": Scenario("Sketch layer to image, as a layer just above the sketch", sketch),
    "upscale": Scenario("Upscale into a new document; the old one is left alone", upscale),
    "resize": Scenario(
        "Resize the document with the upscaled picture: layers, groups, masks, selection, profile and resolution kept, "
        "one undo step; then refine it",
        resize,
    ),
    "copy": Scenario("Upscale into a copy with all layers scaled", layered_copy),
    "parts": Scenario("Upscale the selection, or a layer with its mask", upscale_parts),
    "after": Scenario("Nothing is resized before the upscale has succeeded", resize_only_after),
    "whole": Scenario("Generate a new picture, or repaint the one that is there; undone in one step", whole),
    "refine": Scenario("Refine the whole picture in tiles, as a new layer; undone in one step", refine),
    "undo": Scenario("One result is one undo step", undo),
    "u16": Scenario("16-bit documents", other_kinds("u16")),
    "float": Scenario("32-bit float documents", other_kinds("float")),
    "grey": Scenario("Grey documents", other_kinds("grey")),
    "recipe": Scenario("The recipe is kept with the layer, in the file", recipe),
    "cancel": Scenario("A cancelled job leaves no trace", cancel),
    "refusal": Scenario("What the server refuses is a sentence; the document stays as it was", refusal),
    "hints": Scenario("What is missing is said before the button is pressed", hints),
    "closed": Scenario("A result outlives its closed document", closed),
    "loras": Scenario("LoRAs, and any list that the server describes, with buttons to add and to remove", loras),
    "weights": Scenario("Ctrl+Up and Ctrl+Down weigh the words under the caret", weights),
    "completion": Scenario("LoRAs, embeddings and tags are completed while the prompt is typed", completion),
    "queue": Scenario("Jobs wait in line; each of them, or all, can be cancelled", queue),
    "own": Scenario("A document finds its own results again, by words too", own_results),
    "several": Scenario("Several results are added at once, in a group and in one undo step", several),
    "again": Scenario("A layer is made again from its recipe, over what lies below it now", again),
    "use": Scenario("The settings of a result are taken over", use),
    "saved": Scenario("A result is saved as a PNG file with A1111's parameters", saved),
}
"""Name -> scenario, in the order of the docs."""

OTHER_EDITOR = "A result of the other editor is found in the history and added as a layer"
"""Takes both editors at once: test_scenarios.py."""
