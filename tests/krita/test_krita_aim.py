"""What inpainting is for, and where it paints and looks: chosen in the docker of a real Krita, with a stub engine."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.krita import stub
from tests.krita.conftest import Painter

pytestmark = pytest.mark.krita

WIDTH, HEIGHT = 256, 192

HELPERS = """
def paint(words=None):
    if words is not None:
        prompt(words)
    yield (lambda: widget("inpaint").isEnabled(), 10)
    yield from begin(lambda: press("inpaint"))
    yield (idle, 30)
    yield 0.3

def own(doc):
    return [n for n in layers(doc) if n not in ("Background", "Selection Mask")]

def choose(name, value):
    # As the painter does it: open the list, which looks up the layers, and take a row.
    box = widget(name)
    if hasattr(box, "look"):
        box.look()
    at = next(i for i in range(box.count()) if value in (box.itemData(i), box.itemText(i)))
    box.setCurrentIndex(at)
    box.activated.emit(at)

def fresh():
    press("mode_paint")
    docker().set_way("auto")
    for name, value in (("intent", "auto"), ("mask", ""), ("context", "")):
        choose(name, value)
    widget("reset").click()
    docker().panel.strength.set_value(1.0)
    return (yield from new_document())

def add_layer(doc, name, box, color):
    node = doc.createNode(name, "paintlayer")
    x, y, w, h = box
    node.setPixelData(QByteArray(bytes(color) * (w * h)), x, y, w, h)
    doc.rootNode().addChildNode(node, None)
    doc.refreshProjection()
    doc.waitForDone()
    return node
"""


@pytest.fixture(scope="module", autouse=True)
def ready(painter: Painter) -> None:
    painter.run(HELPERS)
    painter.run("def gen():\n    yield (connected, 30)")


def received(painter: Painter) -> tuple[dict[str, np.ndarray], Any]:
    with np.load(painter.home / "received.npz") as file:
        sent = dict(file)
    return sent, json.loads(str(sent["params"]))


def picture(data: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(data), np.uint8).reshape(HEIGHT, WIDTH, 4)


@pytest.mark.parametrize(
    ("intent", "strength", "content", "invert"),
    [
        ("auto", 1.0, "auto", False),
        ("fill", 1.0, "auto", False),
        ("expand", 1.0, "fill", False),
        ("add", 1.0, "latent_nothing", False),
        ("remove", 0.9, "fill", False),
        ("background", 1.0, "latent_noise", True),
        ("custom", 1.0, "auto", False),
    ],
)
def test_each_intent_sets_what_it_says(
    painter: Painter, intent: str, strength: float, content: str, invert: bool
) -> None:
    """And the settings show it; in one undo step the layer is gone."""
    shown, names, undone = painter.run(f"""
def gen():
    doc = yield from fresh()
    select(doc, 60, 50, 80, 60)
    yield 0.5
    choose("intent", {intent!r})
    yield 0.4
    form = docker().panel.form
    shown = [docker().panel.strength.value, form.model.value("masked_content"), form.model.value("invert")]
    yield from paint("a boat")
    names = own(doc)
    app.action("edit_undo").trigger()
    yield 0.3
    return [shown, names, own(doc)]
""")
    assert shown == [strength, content, invert]
    assert (names, undone) == (["painting", "Impasto: a boat"], ["painting"])
    sent, params = received(painter)
    assert str(sent["mode"]) == "inpaint"
    assert [params["strength"], params["masked_content"], params["invert"]] == shown
    if invert:
        assert tuple(sent["box"]) == (0, 0, WIDTH, HEIGHT)


def test_a_selection_from_border_to_border_expands_and_what_was_set_is_kept_for_each(painter: Painter) -> None:
    out = painter.run("""
def gen():
    doc = yield from fresh()
    out = []
    def look():
        yield 0.6
        out.append([docker().intent and docker().intent.name, round(docker().panel.strength.value, 2), docker().mode])
    select(doc, 0, 150, 256, 42)
    yield from look()                               # across the whole width
    select(doc, 20, 30, 60, 60)
    yield from look()
    choose("intent", "remove")
    yield from look()
    docker().panel.strength.set_value(0.8)
    choose("intent", "fill")
    yield from look()
    choose("intent", "remove")
    yield from look()
    doc.setSelection(None)                          # painting has kept its own strength
    yield from look()
    return out
""")
    assert out == [
        ["expand", 1.0, "inpaint"],
        ["fill", 1.0, "inpaint"],
        ["remove", 0.9, "inpaint"],
        ["fill", 1.0, "inpaint"],
        ["remove", 0.8, "inpaint"],
        [None, 1.0, "txt2img"],
    ]


def test_settings_of_a_picture_choose_its_intent(painter: Painter) -> None:
    chosen = painter.run("""
def gen():
    doc = yield from fresh()
    select(doc, 20, 30, 60, 60)
    yield 0.5
    out = []
    for params in (
        {"strength": 0.7, "masked_content": "fill", "grow": 12, "steps": 9},
        {"strength": 0.6, "masked_content": "original"},
        {"strength": 1.0},
    ):
        docker().use_settings("inpaint", {"prompt": "x", "seed": 4, **params})
        yield 0.4
        got = docker().params()
        out.append([widget("intent").currentData(), {name: got.get(name) for name in params}])
    return out
""")
    assert chosen[0] == ["remove", {"strength": 0.7, "masked_content": "fill", "grow": 12, "steps": 9}]
    assert chosen[1] == ["custom", {"strength": 0.6, "masked_content": "original"}]
    assert chosen[2] == ["auto", {"strength": 1.0}]


def test_the_context_is_what_was_chosen(painter: Painter) -> None:
    """The selection with its reach, the whole picture, the bounds of a layer; the layer that comes back lies there."""
    boxes = []
    for context in ("", "selection", "whole", "frame"):
        bounds = painter.run(f"""
def gen():
    doc = yield from fresh()
    add_layer(doc, "frame", (40, 30, 160, 120), (9, 9, 9, 255))
    select(doc, 100, 80, 24, 16)
    widget("experts").setChecked(True)
    docker().panel.form.model.edited("grow", 2)
    docker().panel.form.model.edited("feather", 4)
    docker().panel.form.model.edited("blend", 2)
    choose("context", {context!r})
    yield 0.4
    yield from paint("here")
    return own(doc)
""")
        assert bounds[-1] == "Impasto: here"
        sent, params = received(painter)
        assert params["area"] == "masked"
        boxes.append(tuple(int(v) for v in sent["box"]))
    automatic, alone, whole, frame = boxes
    assert alone == (92, 72, 40, 32) and whole == (0, 0, WIDTH, HEIGHT) and frame == (40, 30, 160, 120)
    assert automatic not in (alone, frame)


def test_a_context_that_does_not_cover_the_selection_is_a_sentence(painter: Painter) -> None:
    message, names = painter.run("""
def gen():
    doc = yield from fresh()
    add_layer(doc, "frame", (0, 0, 50, 50), (9, 9, 9, 255))
    select(doc, 100, 80, 24, 16)
    choose("context", "frame")
    yield (lambda: widget("inpaint").isEnabled(), 10)
    press("inpaint")
    yield 0.4
    assert app.activeWindow() and QApplication.activeModalWidget() is None
    return [widget("message").text(), own(doc)]
""")
    assert "does not cover the whole selection" in message and names == ["painting", "frame"]


def test_exact_selection_is_the_alpha(painter: Painter) -> None:
    """The switch is there without all settings being shown, and the server is told."""
    painter.run("""
def gen():
    doc = yield from fresh()
    s = Selection()
    s.select(60, 50, 80, 60, 255)
    s.feather(8)
    doc.setSelection(s)
    widget("experts").setChecked(False)
    yield 0.5
    docker().panel.form._fields["exact"]
    docker().panel.form.model.edited("exact", True)
    yield from paint("exact")
    yield from [0.1]
""")
    _, params = received(painter)
    assert params["exact"] is True


def test_a_layer_says_where(painter: Painter) -> None:
    """What is painted on it is the mask, its own colours are not seen, and nothing needs to be selected."""
    old, new, names = painter.run("""
def gen():
    doc = yield from fresh()
    before = projection(doc).hex()
    add_layer(doc, "where", (70, 40, 50, 30), (0, 0, 255, 255))
    choose("mask", "where")
    yield (lambda: docker().mode == "inpaint", 5)
    yield from paint("masked")
    return [before, projection(doc).hex(), own(doc)]
""")
    assert names == ["painting", "where", "Impasto: masked"]
    sent, _ = received(painter)
    x, y, w, h = (int(v) for v in sent["box"])
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + h, x : x + w] = sent["mask"]
    wanted = np.zeros((HEIGHT, WIDTH), np.uint8)
    wanted[40:70, 70:120] = 255
    assert (mask == wanted).all()
    assert (sent["image"][..., [2, 1, 0]] == picture(old)[y : y + h, x : x + w, :3]).all()
    assert (picture(new)[wanted > 0] == (*stub.COLOR[::-1], 255)).all()
    assert (picture(new)[wanted == 0] == picture(old)[wanted == 0]).all()


def test_a_transparency_mask_says_where(painter: Painter) -> None:
    names = painter.run("""
def gen():
    doc = yield from fresh()
    select(doc, 30, 40, 64, 32)
    doc.setActiveNode(doc.nodeByName("painting"))
    yield 0.3
    app.action("add_new_transparency_mask").trigger()
    yield 0.5
    mask = doc.nodeByName("painting").childNodes()[0]
    doc.setSelection(None)
    choose("mask", mask.name())
    yield (lambda: docker().mode == "inpaint", 5)
    yield from paint("by mask")
    return own(doc)
""")
    assert names == ["painting", "Impasto: by mask"]
    sent, _ = received(painter)
    x, y, w, h = (int(v) for v in sent["box"])
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + h, x : x + w] = sent["mask"]
    assert mask[40:72, 30:94].min() == 255 and int((mask > 0).sum()) == 64 * 32


@pytest.mark.parametrize("case", ["empty", "gone"])
def test_a_mask_that_selects_nothing_is_a_sentence(painter: Painter, case: str) -> None:
    hint, enabled, before, after = painter.run(f"""
def gen():
    doc = yield from fresh()
    node = doc.createNode("where", "paintlayer")
    doc.rootNode().addChildNode(node, None)
    yield 0.3
    choose("mask", "where")
    if {case!r} == "gone":
        node.remove()
        yield 0.5
    before = state(doc)
    yield 0.6
    return [widget("hint").text(), widget("inpaint").isEnabled(), before, state(doc)]
""")
    assert ("is empty" if case == "empty" else "is gone") in hint and not enabled
    assert before == after


def test_a_locked_layer_is_left_alone_and_the_result_lies_above(painter: Painter) -> None:
    names, locked, same = painter.run("""
def gen():
    doc = yield from fresh()
    node = doc.nodeByName("painting")
    node.setLocked(True)
    doc.setActiveNode(node)
    select(doc, 30, 40, 64, 32)
    before = bytes(node.pixelData(0, 0, 256, 192))
    yield from paint("over a lock")
    assert QApplication.activeModalWidget() is None
    return [own(doc), node.locked(), bytes(node.pixelData(0, 0, 256, 192)) == before]
""")
    assert names == ["painting", "Impasto: over a lock"] and locked and same


@pytest.mark.parametrize("way", ["mirrorImageHorizontal", "mirrorImageVertical"])
def test_a_document_flipped_while_its_job_runs_is_told(painter: Painter, way: str) -> None:
    """The layer lies where the region was; one undo takes it away, and the document is as it was flipped."""
    painter.hold.touch()
    flipped = painter.run(f"""
def gen():
    global doc
    doc = yield from fresh()
    select(doc, 30, 40, 64, 32)
    prompt("mirror")
    yield (lambda: widget("inpaint").isEnabled(), 10)
    yield from begin(lambda: press("inpaint"))
    yield (lambda: controller().running() is not None and controller().running().step == 3, 20)
    before = projection(doc)
    app.action({way!r}).trigger()
    doc.waitForDone()
    yield 0.5
    assert projection(doc) != before
    return projection(doc).hex()
""")
    painter.hold.unlink()
    names, message, undone = painter.run("""
def gen():
    yield (idle, 20)
    yield 0.3
    names, message = own(doc), widget("message").text()
    assert QApplication.activeModalWidget() is None
    app.action("edit_undo").trigger()
    yield 0.4
    return [names, message, projection(doc).hex()]
""")
    assert names == ["painting", "Impasto: mirror"]
    assert "flipped" in message and undone == flipped
