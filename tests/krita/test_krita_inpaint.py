"""A selection becomes a layer, as a painter does it: a real Krita, the real server, an engine that pretends."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.krita import stub
from tests.krita.conftest import Painter

pytestmark = pytest.mark.krita

WIDTH, HEIGHT = 256, 192

PAINT = """
def paint(timeout=30):
    # Press the docker's button and wait for the end of the job; gives the state of that job.
    yield (lambda: widget("inpaint").isEnabled(), 5)
    yield from begin(lambda: press("inpaint"))
    yield (idle, timeout)
    yield 0.1           # the active layer is put back
"""


@pytest.fixture(scope="module", autouse=True)
def ready(painter: Painter) -> None:
    painter.run(PAINT)
    painter.run("def gen():\n    yield (connected, 30)\n    docker().set_mode('inpaint')")


def picture(data: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(data), np.uint8).reshape(HEIGHT, WIDTH, 4)


def received(painter: Painter) -> dict[str, np.ndarray]:
    with np.load(painter.home / "received.npz") as file:
        return dict(file)


def test_a_new_docker_gets_room(painter: Painter) -> None:
    """Krita would squeeze it into a strip; once for each user it gets half of its column."""
    placed, shown, height, window = painter.run(
        """
def gen():
    yield (lambda: app.readSetting("impasto", "placed", "") == "1", 15)
    yield 0.3
    return ["1", docker().isVisible(), docker().height(), window.height()]
"""
    )
    assert placed == "1" and shown
    assert height >= 0.35 * window, (height, window)


def test_without_a_document_and_without_a_selection_the_docker_says_what_to_do(painter: Painter) -> None:
    closed, unselected, ready = painter.run("""
def gen():
    yield from close_all()
    yield 0.4
    out = [[widget("inpaint").isEnabled(), widget("hint").text()]]
    doc = yield from new_document()
    yield 0.4
    out.append([widget("inpaint").isEnabled(), widget("hint").text()])
    select(doc, 10, 10, 20, 20)
    yield (lambda: "pixels" in widget("hint").text(), 10)
    out.append([widget("inpaint").isEnabled(), widget("hint").text()])
    return out
""")
    assert closed == [False, "Open a document first."]
    assert unselected == [False, "Select a region first."]
    assert ready[0] and ready[1].endswith(" pixels.")  # what to expect instead


def test_a_real_selection_and_real_clicks_give_one_layer_and_one_undo_step(painter: Painter) -> None:
    """The rectangular selection tool is dragged, the prompt typed and the button clicked; Ctrl+Z and redo are keys."""
    start, end, prompt = painter.run("""
def gen():
    global doc
    doc = yield from new_document()
    prompt("")
    yield 0.3
    app.action("KisToolSelectRectangular").trigger()
    docker().setFloating(True)
    docker().move(1150, 100)
    docker().resize(360, 800)
    canvas = max((w for w in window.findChildren(QWidget) if "Canvas" in w.metaObject().className()
                  and w.isVisible()), key=lambda w: w.width() * w.height())
    yield 0.3
    middle = at(canvas)
    return [[middle[0] - 90, middle[1] - 70], [middle[0] + 90, middle[1] + 70], at(widget("prompt"))]
""")
    painter.krita.drag(start, end)
    selected = painter.run("""
def gen():
    yield (lambda: doc.selection() is not None, 5)
    yield 0.3
    global before
    before = [projection(doc).hex(), layers(doc), doc.activeNode().name()]
    s = doc.selection()
    return [s.x(), s.y(), s.width(), s.height()]
""")
    painter.krita.click(*prompt)
    painter.run("def gen():\n    yield (lambda: widget('prompt').hasFocus(), 10)")
    painter.krita.xdotool("type", "--delay", "30", "a red barn")
    button = painter.run("def gen():\n    yield 0.2\n    return at(widget('inpaint'))")
    painter.krita.click(*button)
    data, names, active, before, typed = painter.run("""
def gen():
    yield (lambda: len(layers(doc)) > len(before[1]), 30)
    yield (idle, 10)
    yield 0.3
    return [projection(doc).hex(), layers(doc), doc.activeNode().name(), before, widget("prompt").toPlainText()]
""")
    assert typed == "a red barn"
    # On top of the painting; Krita shows the selection itself as a node, too.
    assert [name for name in names if name != "Selection Mask"] == ["Background", "painting", "Impasto: a red barn"]
    assert active == before[2] == "painting"
    old, new = picture(before[0]), picture(data)
    x, y, w, h = selected
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[y : y + h, x : x + w] = True
    assert (new[inside] == (*stub.COLOR[::-1], 255)).all()
    assert (new[~inside] == old[~inside]).all()
    sent = received(painter)
    bx, by, bw, bh = sent["box"]
    assert (sent["image"][..., [2, 1, 0, 3]] == old[by : by + bh, bx : bx + bw]).all()
    assert sent["mask"].sum() == 255 * w * h
    assert json.loads(str(sent["params"]))["prompt"] == "a red barn"

    painter.focus()
    painter.krita.xdotool("key", "ctrl+z")
    gone = painter.run("""
def gen():
    yield (lambda: "Impasto: a red barn" not in layers(doc), 5)
    return [projection(doc).hex(), layers(doc)]
""")
    assert gone == before[:2]
    painter.krita.xdotool("key", "ctrl+shift+z")
    back = painter.run("""
def gen():
    yield (lambda: "Impasto: a red barn" in layers(doc), 5)
    docker().setFloating(False)
    return [projection(doc).hex(), layers(doc)]
""")
    assert back == [data, names]


def test_a_soft_selection_gives_a_soft_layer(painter: Painter) -> None:
    before, after, mask = painter.run("""
def gen():
    doc = yield from new_document()
    s = Selection()
    s.setPixelData(QByteArray(bytes(range(200)) * 40), 20, 30, 200, 40)
    doc.setSelection(s)
    yield 0.2
    before = projection(doc).hex()
    prompt("fog")
    yield from paint()
    node = next(n for n in doc.rootNode().childNodes() if n.name() == "Impasto: fog")
    alpha = bytes(node.pixelData(20, 30, 200, 1))[3::4]
    return [before, projection(doc).hex(), list(alpha)]
""")
    assert mask == list(range(200))
    old, new = picture(before).astype(int), picture(after).astype(int)
    untouched = np.ones((HEIGHT, WIDTH), bool)
    untouched[30:70, 21:220] = False
    assert (old[untouched] == new[untouched]).all()
    share = np.arange(200)[None, :, None] / 255
    expected = old[30:70, 20:220, :3] * (1 - share) + np.array(stub.COLOR[::-1]) * share
    assert abs(new[30:70, 20:220, :3] - expected).max() <= 1.5


def test_a_selection_across_the_border_of_the_canvas(painter: Painter) -> None:
    before, after = painter.run("""
def gen():
    doc = yield from new_document()
    s = Selection()
    s.select(200, 150, 300, 300, 255)
    doc.setSelection(s)
    yield 0.2
    before = projection(doc).hex()
    prompt("corner")
    yield from paint()
    doc.waitForDone()       # the plug-in leaves the projection right: nothing is refreshed here
    return [before, bytes(doc.pixelData(0, 0, doc.width(), doc.height())).hex()]
""")
    old, new = picture(before), picture(after)
    assert (new[150:, 200:] == (*stub.COLOR[::-1], 255)).all()
    assert (new[:150] == old[:150]).all() and (new[:, :200] == old[:, :200]).all()


@pytest.mark.parametrize(
    ("model", "depth"),
    [("RGBA", "U16"), ("RGBA", "F32"), ("GRAYA", "U8"), ("CMYKA", "U8")],
    ids=["U16", "F32", "grey", "CMYK"],
)
def test_other_colour_spaces_get_a_layer_and_one_undo_step(painter: Painter, model: str, depth: str) -> None:
    before, after, undone, names, kept, color = painter.run(
        f"model, depth = {model!r}, {depth!r}"
        + """
def gen():
    doc = yield from new_document(64, 48, depth, model)
    yield 0.2
    select(doc, 8, 8, 16, 16)
    yield 0.2
    before = [projection(doc).hex(), layers(doc)]
    prompt("deep")
    yield from paint()
    after = [projection(doc).hex(), layers(doc)]
    node = next(n for n in doc.rootNode().childNodes() if n.name() == "Impasto: deep")
    kept = [node.colorModel(), node.colorDepth()]
    image = doc.projection(10, 10, 1, 1)
    color = QColor(image.pixel(0, 0)).getRgb()
    app.action("edit_undo").trigger()
    yield (lambda: len(layers(doc)) == len(before[1]), 5)
    undone = [projection(doc).hex(), layers(doc)]
    app.action("edit_redo").trigger()
    yield (lambda: len(layers(doc)) == len(after[1]), 5)
    assert [projection(doc).hex(), layers(doc)] == after
    return [before, after, undone, len(app.documents()), kept, color]
"""
    )
    assert undone == before != after
    assert names == 1  # no scratch document is left
    assert kept == ["RGBA", "U8"]
    if model == "RGBA":
        assert max(abs(a - b) for a, b in zip(color[:3], stub.COLOR, strict=True)) <= 2
    assert received(painter)["image"][0, 0].tolist() == [255, 255, 255, 255]


def test_the_recipe_is_kept_with_the_layer(painter: Painter) -> None:
    recipe = painter.run("""
def gen():
    doc = yield from new_document()
    select(doc, 10, 10, 30, 30)
    prompt("a cat")
    widget("seed").setText("99")
    yield from paint()
    widget("seed").clear()
    node = next(n for n in doc.rootNode().childNodes() if n.name() == "Impasto: a cat")
    path = QDir.homePath() + "/kept.kra"
    doc.setBatchmode(True)
    doc.saveAs(path)
    doc.waitForDone()
    yield 0.3
    doc.setModified(False)
    doc.close()
    doc = app.openDocument(path)
    app.activeWindow().addView(doc)
    yield 0.3
    node = next(n for n in doc.rootNode().childNodes() if n.name() == "Impasto: a cat")
    return bytes(doc.annotation("impasto/recipe/" + node.uniqueId().toString().strip("{}"))).decode()
""")
    kept = json.loads(recipe)
    assert kept["mode"] == "inpaint" and kept["seed"] == 99 and kept["params"]["prompt"] == "a cat"


def test_a_cancelled_job_leaves_no_trace(painter: Painter) -> None:
    painter.hold.touch()
    before, after, shown = painter.run("""
def gen():
    doc = yield from new_document()
    select(doc, 10, 10, 100, 100)
    yield 0.3
    before = state(doc)
    prompt("never")
    yield (lambda: widget("inpaint").isEnabled(), 5)
    press("inpaint")
    yield (lambda: controller().running() is not None and controller().running().step == 3, 20)
    yield 0.2
    shown_ = [shown("progress"), widget("progress").text(), shown("picture"), shown("cancel")]
    press("cancel")
    yield (idle, 10)
    yield 0.3
    return [before, state(doc), shown_]
""")
    assert shown == [True, "Painting: step 3 of 8", True, True]
    assert after == before


def test_a_refused_job_is_a_sentence_in_the_docker(painter: Painter) -> None:
    before, after, message, box = painter.run("""
def gen():
    doc = yield from new_document()
    select(doc, 10, 10, 100, 100)
    yield 0.3
    before = state(doc)
    prompt("no memory")
    yield from paint()
    return [before, state(doc), widget("message").text(), QApplication.activeModalWidget() is not None]
""")
    assert message == "There is not enough memory; choose a smaller region."
    assert after == before and not box


def test_a_closed_document_keeps_the_result_in_the_strip(painter: Painter) -> None:
    painter.hold.touch()
    painter.run("""
def gen():
    doc = yield from new_document()
    select(doc, 10, 10, 100, 100)
    prompt("orphan")
    yield (lambda: widget("inpaint").isEnabled(), 5)
    press("inpaint")
    yield (lambda: controller().running() is not None and controller().running().step == 3, 20)
    doc.setModified(False)
    yield 0.3
    app.action("file_close").trigger()
    yield (lambda: app.activeDocument() is None, 5)
""")
    painter.hold.unlink()
    added, message, names = painter.run("""
def gen():
    yield (idle, 10)
    message = widget("message").text()
    doc = yield from new_document()
    scope("all")
    yield (lambda: strip().items and strip().items[0].name == "Impasto: orphan", 10)
    strip().setCurrentRow(0)
    added = [shown.name for shown in strip().items].count("Impasto: orphan")
    yield 0.2
    press("add_again")
    yield (lambda: "Impasto: orphan" in layers(doc), 5)
    scope("document")
    return [added, message, layers(doc)]
""")
    assert added == 1
    assert "closed" in message
    assert names.count("Impasto: orphan") == 1


def test_a_document_that_was_resized_gets_its_layer_with_a_notice(painter: Painter) -> None:
    painter.hold.touch()
    painter.run("""
def gen():
    global doc
    doc = yield from new_document()
    select(doc, 10, 10, 100, 100)
    prompt("moved")
    yield (lambda: widget("inpaint").isEnabled(), 5)
    press("inpaint")
    yield (lambda: controller().running() is not None and controller().running().step == 3, 20)
    doc.resizeImage(0, 0, 300, 250)
    doc.waitForDone()
""")
    painter.hold.unlink()
    names, message = painter.run("""
def gen():
    yield (idle, 10)
    yield 0.2
    return [layers(doc), widget("message").text()]
""")
    assert "Impasto: moved" in names
    assert "size" in message


def test_the_shortcut_is_nobody_elses_and_works(painter: Painter) -> None:
    shortcut, others, focus = painter.run("""
def gen():
    global doc
    doc = yield from new_document()
    select(doc, 10, 10, 100, 100)
    prompt("by key")
    yield (lambda: widget("inpaint").isEnabled(), 5)
    mine = app.action("impasto_inpaint_selection")
    wanted = mine.shortcut().toString()
    others = [a.objectName() for a in app.actions() if wanted in [s.toString() for s in a.shortcuts()]]
    canvas = max((w for w in window.findChildren(QWidget) if "Canvas" in w.metaObject().className()
                  and w.isVisible()), key=lambda w: w.width() * w.height())
    canvas.setFocus()
    yield 0.2
    return [wanted, others, at(canvas)]
""")
    assert shortcut == "Ctrl+Alt+Return"
    assert others == ["impasto_inpaint_selection"]
    painter.focus()
    painter.krita.xdotool("mousemove", *map(str, focus), "key", "ctrl+alt+Return")
    painter.run("""
def gen():
    yield (lambda: "Impasto: by key" in layers(doc), 20)
    yield (idle, 10)
""")
