"""Sketch layer to image and upscale document, as a painter does it: a real Krita, the real server, a stub engine."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from impasto_server.engine.modes import Upscale

from tests.krita import stub
from tests.krita.conftest import Painter

pytestmark = pytest.mark.krita

WIDTH, HEIGHT = 256, 192

HELPERS = """
def choose(mode):
    # Click the choice in the docker, and say what "paint" shall mean; the button follows.
    paints = mode in ("txt2img", "img2img", "inpaint", "auto")
    press("mode_" + ("paint" if paints else mode))
    if paints:
        way = widget("way")
        way.setCurrentIndex(way.findData(mode))
        way.activated.emit(way.currentIndex())
    assert mode == "auto" or docker().mode == mode

def start():
    yield (lambda: widget("inpaint").isEnabled(), 5)
    yield from begin(lambda: press("inpaint"))

def sketched(doc, x=40, y=30, w=50, h=40, **space):
    # A new paint layer with one block of colour, below another layer; it is active.
    node = doc.createNode("my sketch", "paintlayer")
    doc.rootNode().addChildNode(node, None)
    node.setPixelData(QByteArray(bytes((30, 20, 220, 255)) * (w * h)), x, y, w, h)
    top = doc.createNode("varnish", "paintlayer")
    doc.rootNode().addChildNode(top, None)
    doc.refreshProjection()
    doc.waitForDone()
    # Krita makes an added layer active by itself, some turns later.
    yield (lambda: doc.activeNode().name() == "varnish", 5)
    yield 0.1
    doc.setActiveNode(node)
    yield 0.2
    return node

def pixels_of(node):
    return bytes(node.pixelData(0, 0, 256, 192)).hex()

def canvas_widget():
    return max((w for w in window.findChildren(QWidget) if "Canvas" in w.metaObject().className()
                and w.isVisible()), key=lambda w: w.width() * w.height())
"""


@pytest.fixture(scope="module", autouse=True)
def ready(painter: Painter) -> None:
    painter.run(HELPERS)
    painter.run("def gen():\n    yield (connected, 30)")


@pytest.fixture(autouse=True)
def no_refusal(painter: Painter) -> None:
    (painter.home / "no memory").unlink(missing_ok=True)


def picture(data: str, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(data), np.uint8).reshape(height, width, 4)


def received(painter: Painter) -> dict[str, np.ndarray]:
    with np.load(painter.home / "received.npz") as file:
        return dict(file)


def test_the_choice_shows_what_each_action_needs(painter: Painter) -> None:
    first, sketch, upscale, again = painter.run("""
def gen():
    yield from new_document()
    def look():
        return [docker().mode, widget("inpaint").text(), [shown(n) for n in ("prompt", "strength", "scale")],
                docker().panel.strength.value, [b.isChecked() for b in docker().panel.choices.values()]]
    choose("inpaint")
    out = [look()]
    for mode in ("sketch", "upscale", "inpaint"):
        choose(mode)
        yield 0.1
        out.append(look())
    return out
""")
    assert first == ["inpaint", "Inpaint selection", [True, True, False], 1.0, [True, False, False, False]]
    assert sketch == ["sketch", "Sketch layer to image", [True, True, False], 0.75, [False, True, False, False]]
    assert upscale[:3] == ["upscale", "Upscale document", [False, False, True]]
    assert again == first


def test_settings_are_kept_for_each_action(painter: Painter) -> None:
    inpaint, sketch, names, sent, saved = painter.run("""
def gen():
    form = docker().panel.form
    choose("inpaint")
    form.set_overrides({"steps": 7, "exact": True})
    docker().panel.strength.set_value(0.9)
    choose("sketch")
    form.set_overrides({"steps": 9, "background": "document"})
    names = [shown_ for shown_ in form._fields if shown_ in ("background", "exact", "upscaler", "scale")]
    choose("upscale")
    docker().panel.scale.set_value(3)
    sent = docker().params()
    choose("inpaint")
    inpaint = [form.overrides(), docker().panel.strength.value]
    choose("sketch")
    sketch = [form.overrides(), docker().panel.strength.value]
    yield 0.8
    saved = app.readSetting("impasto", "panel", "")
    docker().panel.scale.set_value(2)
    for mode in ("sketch", "inpaint"):
        choose(mode)
        form.reset()
    docker().panel.strength.set_value(1.0)
    return [inpaint, sketch, names, sent, saved]
""")
    assert inpaint == [{"steps": 7, "exact": True}, 0.9] and sketch == [{"steps": 9, "background": "document"}, 0.75]
    assert names == ["background"] and sent == {"scale": 3.0}
    kept = json.loads(saved)
    assert kept["choice"] == "sketch" and kept["more"]["paint"] == {"steps": 7, "exact": True}
    assert kept["strengths"] == {"paint": 0.9, "sketch": 0.75, "refine": 0.3} and kept["scale"] == 3


def test_a_sketch_becomes_a_layer_above_it(painter: Painter) -> None:
    """By the button, on the whole canvas; undo and redo are one step; the sketch is left alone."""
    before, after, undone, redone, sketch, box, recipe = painter.run("""
def gen():
    doc = yield from new_document()
    node = yield from sketched(doc)
    choose("sketch")
    prompt("an apple")
    yield 0.3
    before = [projection(doc).hex(), layers(doc), doc.activeNode().name()]
    sketch = [pixels_of(node)]
    yield from start()
    yield (idle, 30)
    yield 0.3
    after = [projection(doc).hex(), layers(doc), doc.activeNode().name()]
    made = next(n for n in doc.rootNode().childNodes() if n.name() == "Impasto: an apple")
    box = [made.bounds().x(), made.bounds().y(), made.bounds().width(), made.bounds().height()]
    recipe = bytes(doc.annotation("impasto/recipe/" + made.uniqueId().toString().strip("{}"))).decode()
    app.action("edit_undo").trigger()
    yield (lambda: layers(doc) == before[1], 5)
    undone = [projection(doc).hex(), layers(doc)]
    app.action("edit_redo").trigger()
    yield (lambda: layers(doc) == after[1], 5)
    redone = [projection(doc).hex(), layers(doc)]
    sketch.append(pixels_of(node))
    return [before, after, undone, redone, sketch, box, recipe]
""")
    assert before[1] == ["Background", "painting", "my sketch", "varnish"]
    assert after[1] == ["Background", "painting", "my sketch", "Impasto: an apple", "varnish"]
    assert after[2] == before[2] == "my sketch" and sketch[0] == sketch[1]
    assert undone == before[:2] and redone == after[:2]
    assert box == [0, 0, WIDTH, HEIGHT]
    assert (picture(after[0]) == (*stub.COLOR[::-1], 255)).all()
    assert json.loads(recipe)["mode"] == "sketch"
    sent = received(painter)
    assert str(sent["mode"]) == "sketch" and json.loads(str(sent["params"]))["strength"] == 0.75
    assert sent["mask"].size == sent["backdrop"].size == 0
    drawn = np.zeros((HEIGHT, WIDTH), bool)
    drawn[30:70, 40:90] = True
    assert (sent["image"][drawn] == (220, 20, 30, 255)).all() and not sent["image"][~drawn][:, 3].any()


def test_a_sketch_by_the_shortcut_within_a_selection_and_over_the_document(painter: Painter) -> None:
    shortcuts, before, at_ = painter.run("""
def gen():
    global doc, node
    doc = yield from new_document()
    node = yield from sketched(doc)
    select(doc, 32, 20, 80, 60)
    docker().set_mode("sketch")
    docker().panel.form.set_overrides({"background": "document"})
    docker().set_mode("inpaint")
    prompt("by key")
    yield 0.3
    out = []
    for name in ("impasto_sketch", "impasto_upscale"):
        wanted = app.action(name).shortcut().toString()
        out.append([wanted, [a.objectName() for a in app.actions() if wanted in [s.toString() for s in a.shortcuts()]]])
    canvas_widget().setFocus()
    return [out, projection(doc).hex(), at(canvas_widget())]
""")
    assert shortcuts == [
        ["Ctrl+Alt+Shift+Return", ["impasto_sketch"]],
        ["Ctrl+Alt+U", ["impasto_upscale"]],
    ]
    painter.focus()
    painter.krita.xdotool("mousemove", *map(str, at_), "key", "ctrl+alt+shift+Return")
    after, mode = painter.run("""
def gen():
    yield (lambda: "Impasto: by key" in layers(doc), 20)
    yield (idle, 10)
    yield 0.3
    mode = docker().mode
    docker().panel.form.reset()
    return [projection(doc).hex(), mode]
""")
    old, new = picture(before), picture(after)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[20:80, 32:112] = True
    assert mode == "sketch"
    assert (new[inside] == (*stub.COLOR[::-1], 255)).all() and (new[~inside] == old[~inside]).all()
    sent = received(painter)
    assert sent["box"].tolist() == [32, 20, 80, 60]
    assert (sent["backdrop"][..., [2, 1, 0, 3]] == old[20:80, 32:112]).all()
    assert (sent["image"][10:50, 8:58] == (220, 20, 30, 255)).all() and sent["image"][..., 3].sum() == 255 * 50 * 40


def test_what_is_no_sketch_is_told_and_nothing_happens(painter: Painter) -> None:
    told, before, after = painter.run("""
def gen():
    doc = yield from new_document()
    node = yield from sketched(doc)
    empty = doc.createNode("empty", "paintlayer")
    group, vector = doc.createGroupLayer("group"), doc.createVectorLayer("vector")
    inner = doc.createNode("inner", "paintlayer")
    for n in (empty, group, vector):
        doc.rootNode().addChildNode(n, None)
    group.addChildNode(inner, None)
    inner.setPixelData(QByteArray(bytes((1, 2, 3, 255)) * 100), 0, 0, 10, 10)
    group.setVisible(False)
    doc.refreshProjection()
    doc.waitForDone()
    choose("sketch")
    yield (lambda: doc.activeNode().name() == "inner", 5)
    yield 0.3
    before = state(doc)
    told = {}
    for n in (group, vector, inner):
        doc.setActiveNode(n)
        yield (lambda: not widget("inpaint").isEnabled(), 5)
        yield 0.3
        told[n.name()] = widget("hint").text()
    node.setVisible(False)
    doc.setActiveNode(node)
    yield 0.5
    told["hidden"] = [widget("hint").text(), widget("inpaint").isEnabled()]
    node.setVisible(True)
    doc.setActiveNode(empty)
    yield (lambda: widget("inpaint").isEnabled(), 5)
    press("inpaint")
    yield 0.3
    told["empty"] = [widget("message").text(), controller().running() is None]
    docker().ask_for("sketch")
    return [told, before, state(doc)]
""")
    assert told == {
        "group": "The active layer is a group; choose the paint layer with the sketch.",
        "vector": "The active layer is a vector layer; choose the paint layer with the sketch.",
        "inner": "The layer with the sketch is hidden; show it first.",
        "hidden": ["The layer with the sketch is hidden; show it first.", False],
        "empty": ["The active layer is empty on the canvas; paint a sketch on it, or choose another layer.", True],
    }
    assert before == after


def test_where_a_sketch_is_empty(painter: Painter) -> None:
    """In a hole within its bounds, and not where the selection holds a little of it or all."""
    told = painter.run("""
def gen():
    doc = yield from new_document()
    node = yield from sketched(doc, 0, 0, 256, 192)
    node.setPixelData(QByteArray(bytes(4 * 100 * 80)), 60, 50, 100, 80)     # a hole
    doc.refreshProjection()
    doc.waitForDone()
    choose("sketch")
    prompt("slow ring")
    told = []
    for box, runs in (((70, 60, 50, 40), False), ((159, 60, 20, 20), True), (None, True)):
        if box is None:
            doc.setSelection(None)
        else:
            select(doc, *box)
        yield (lambda: widget("inpaint").isEnabled(), 5)
        yield 0.2
        press("inpaint")
        yield (lambda: bool(controller().running()) if runs else "empty" in widget("message").text(), 20)
        told.append("runs" if controller().running() is not None else widget("message").text())
        yield (idle, 30)
        yield 0.3
        doc.setActiveNode(node)
    return told
""")
    empty = "The active layer is empty in the selection; paint a sketch on it, or choose another layer."
    assert told == [empty, "runs", "runs"]


@pytest.mark.parametrize(("model", "depth"), [("RGBA", "U16"), ("GRAYA", "U8")], ids=["U16", "grey"])
def test_a_sketch_of_another_colour_space(painter: Painter, model: str, depth: str) -> None:
    pixel = "bytes((0, 0, 255, 255, 0, 0, 255, 255))" if depth == "U16" else "bytes((128, 255))"
    names, count = painter.run(
        f"model, depth, pixel = {model!r}, {depth!r}, {pixel}"
        + """
def gen():
    doc = yield from new_document(64, 48, depth, model)
    node = doc.createNode("deep sketch", "paintlayer")
    doc.rootNode().addChildNode(node, None)
    node.setPixelData(QByteArray(pixel * 100), 10, 5, 10, 10)
    doc.refreshProjection()
    doc.waitForDone()
    yield 0.3
    doc.setActiveNode(node)
    choose("sketch")
    prompt("deep")
    yield 0.3
    yield from start()
    yield (idle, 30)
    yield 0.3
    return [layers(doc), len(app.documents())]
"""
    )
    assert names[-1] == "Impasto: deep" and count == 1
    image = received(painter)["image"]
    color = image[10, 15].tolist()
    assert color[3] == 255 and image[..., 3].sum() == 255 * 100
    if model == "RGBA":
        assert color[1] == 255 and color[0] < 5 and color[2] < 5
    else:
        assert color[0] == color[1] == color[2] and 120 < color[0] < 136


@pytest.mark.parametrize("way", ["cancel", "refused", "removed"])
def test_a_sketch_that_ends_early_leaves_no_trace(painter: Painter, way: str) -> None:
    painter.hold.touch()
    if way == "refused":
        (painter.home / "no memory").touch()
    before, after, message = painter.run(
        f"way = {way!r}"
        + """
def gen():
    doc = yield from new_document()
    node = yield from sketched(doc)
    choose("sketch")
    prompt("never")
    yield 0.3
    before = state(doc)
    yield (lambda: widget("inpaint").isEnabled(), 5)
    if way == "removed":
        # The plan is asked for only when the layer has gone.
        runner, held = controller()._runner, []
        ask, runner.plan = runner.plan, lambda *args: held.append(args)
    press("inpaint")
    if way == "removed":
        yield (lambda: held, 5)
        node.remove()
        yield (lambda: node.parentNode() is None and "my sketch" not in layers(doc), 5)
        yield 0.2
        before = state(doc)
        del runner.plan
        ask(*held[0])
    elif way == "cancel":
        yield (lambda: controller().running() is not None and controller().running().step == 3, 20)
        press("cancel")
    yield (idle, 20)
    yield 0.3
    return [before, state(doc), widget("message").text()]
"""
    )
    if way == "removed":
        assert "removed" in message
    assert after == before
    if way == "refused":
        assert message == "There is not enough memory; choose a smaller region."


@pytest.mark.parametrize("way", ["button", "shortcut"])
def test_upscale_opens_one_new_document(painter: Painter, way: str) -> None:
    before, where = painter.run(
        """
def gen():
    global doc
    doc = yield from new_document()
    select(doc, 10, 10, 30, 20)         # it is the whole document that is scaled
    doc.setResolution(144)
    docker().set_mode("upscale" if way == "button" else "inpaint")
    docker().panel.scale.set_value(3)
    yield 0.3
    before = state(doc)
    doc.setModified(False)
    yield 0.2
    before.append(doc.modified())
    canvas_widget().setFocus()
    yield (lambda: widget("inpaint").isEnabled(), 5)
    return [before, at(canvas_widget())]
""".replace("way ==", f"{way!r} ==")
    )
    if way == "button":
        painter.run("press('inpaint')")
    else:
        painter.focus()
        painter.krita.xdotool("mousemove", *map(str, where), "key", "ctrl+alt+u")
    after, new, data, fronts, recipe = painter.run("""
def gen():
    yield (lambda: len(app.documents()) == 2, 30)
    yield (idle, 10)
    yield 0.5
    assert len(app.documents()) == 2
    new = app.activeDocument()
    fronts = new != doc
    info = [new.width(), new.height(), new.colorModel(), new.colorDepth(), new.colorProfile(), new.xRes(),
            layers(new), new.modified()]
    data = projection(new).hex()
    node = new.rootNode().childNodes()[0]
    recipe = bytes(new.annotation("impasto/recipe/" + node.uniqueId().toString().strip("{}"))).decode()
    unchanged = doc.modified()
    new.setModified(False)
    yield 0.2
    new.close()
    yield (lambda: app.activeDocument() == doc, 5)
    yield 0.3
    after = state(doc) + [unchanged or doc.modified()]
    docker().panel.scale.set_value(2)
    return [after, info, data, fronts, recipe]
""")
    assert after[1:] == before[1:] and not before[-1], (after[1:], before[1:])
    assert after[0] == before[0]
    assert fronts and json.loads(recipe)["mode"] == "upscale"
    assert new == [3 * WIDTH, 3 * HEIGHT, "RGBA", "U8", "sRGB-elle-V2-srgbtrc.icc", 144.0, ["Upscaled"], True]
    small = picture(before[0])
    assert (picture(data, 3 * WIDTH, 3 * HEIGHT) == small.repeat(3, 0).repeat(3, 1)).all()
    sent = received(painter)
    assert str(sent["mode"]) == "upscale" and json.loads(str(sent["params"])) == asdict(Upscale(scale=3.0))


@pytest.mark.parametrize("way", ["cancel", "refused", "too large"])
def test_an_upscale_that_does_not_finish_opens_nothing(painter: Painter, way: str) -> None:
    painter.hold.touch()
    if way == "refused":
        (painter.home / "no memory").touch()
    before, after, count, message = painter.run(
        f"way = {way!r}"
        + """
def gen():
    doc = yield from new_document()
    choose("upscale")
    if way == "too large":
        doc.resizeImage(0, 0, 2100, 2100)
        doc.waitForDone()
        docker().panel.scale.set_value(8)
        yield 0.3
    doc.setModified(False)
    yield (lambda: widget("inpaint").isEnabled(), 5)
    before = [hash(projection(doc)), layers(doc), app.action("edit_undo").text(), doc.modified()]
    press("inpaint")
    if way == "cancel":
        yield (lambda: controller().running() is not None and controller().running().step == 3, 20)
        press("cancel")
    yield (idle, 20)
    yield 0.4
    after = [hash(projection(doc)), layers(doc), app.action("edit_undo").text(), doc.modified()]
    docker().panel.scale.set_value(2)
    message = widget("message").text()
    choose("inpaint")
    return [before, after, len(app.documents()), message]
"""
    )
    assert after == before and count == 1
    if way == "refused":
        assert message == "There is not enough memory; choose a smaller region."
    if way == "too large":
        assert "choose a smaller scale" in message


def test_an_upscale_goes_on_when_the_document_is_closed(painter: Painter) -> None:
    painter.hold.touch()
    painter.run("""
def gen():
    doc = yield from new_document(64, 48)
    choose("upscale")
    yield from start()
    yield (lambda: controller().running() is not None and controller().running().step == 3, 20)
    yield from close_all()
""")
    painter.hold.unlink()
    size = painter.run("""
def gen():
    yield (lambda: len(app.documents()) == 1, 20)
    yield (idle, 10)
    yield 0.3
    new = app.documents()[0]
    choose("inpaint")
    return [new.width(), new.height()]
""")
    assert size == [128, 96]
