"""What a painter sets and starts: ways to paint, the queue, LoRAs, the prompt; in a real Krita, with a stub engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.krita import stub
from tests.krita.conftest import Painter

pytestmark = pytest.mark.krita

WIDTH, HEIGHT = 256, 192

HELPERS = """
def start(words=None):
    if words is not None:
        prompt(words)
    yield (lambda: widget("inpaint").isEnabled(), 10)
    count = len(controller().jobs.active)
    press("inpaint")
    yield (lambda: len(controller().jobs.active) > count, 5)

def paint(words):
    yield from start(words)
    yield (idle, 30)
    yield 0.3

def undo():
    app.action("edit_undo").trigger()
    yield 0.3

def listed():
    return [shown.name for shown in strip().items]

def menu(name, text):
    # Choose an entry of the menu behind a button's arrow.
    next(a for a in widget(name).menu().actions() if a.text() == text).trigger()

def own(doc):
    return [n for n in layers(doc) if n not in ("Background", "Selection Mask")]
"""


@pytest.fixture(scope="module", autouse=True)
def ready(painter: Painter) -> None:
    painter.run(HELPERS)
    painter.run("def gen():\n    yield (connected, 30)")


def received(painter: Painter) -> dict[str, np.ndarray]:
    with np.load(painter.home / "received.npz") as file:
        return dict(file)


def test_painting_follows_what_is_there(painter: Painter) -> None:
    """Nothing selected: a new picture, or by less strength the one that is there; a selection: inpainting."""
    texts = painter.run("""
def gen():
    global doc
    doc = yield from new_document()
    press("mode_paint")
    docker().panel.strength.set_value(1.0)
    out = []
    def look():
        yield 0.5
        out.append([docker().mode, widget("inpaint").text(), shown("way"), "exact" in docker().panel.form._fields])
    yield from look()
    docker().panel.strength.set_value(0.4)
    yield from look()
    select(doc, 32, 20, 80, 60)
    yield from look()
    docker().set_way("img2img")                 # the painter says otherwise
    yield from look()
    docker().set_way("auto")
    doc.setSelection(None)
    yield 0.5
    yield from paint("calm sea")
    return out
""")
    assert texts == [
        ["txt2img", "Generate picture", True, False],
        ["img2img", "Refine picture", True, False],
        ["inpaint", "Inpaint selection", True, True],
        ["img2img", "Refine picture", True, False],
    ]
    sent = received(painter)
    assert str(sent["mode"]) == "img2img" and json.loads(str(sent["params"]))["strength"] == 0.4
    assert sent["image"].shape == (HEIGHT, WIDTH, 4)
    names, data = painter.run("""
def gen():
    docker().panel.strength.set_value(1.0)
    yield 0.4
    yield from paint("storm")
    return [own(doc), projection(doc)[:4].hex()]
""")
    assert names == ["painting", "Impasto: calm sea", "Impasto: storm"]
    assert bytes.fromhex(data)[:3] == bytes(stub.COLOR[::-1])
    assert str(received(painter)["mode"]) == "txt2img" and received(painter)["image"].size == 0


def test_what_to_expect_is_said_before_the_start(painter: Painter) -> None:
    hints = painter.run("""
def gen():
    doc = yield from new_document()
    select(doc, 32, 20, 80, 60)
    yield from paint("first")
    yield (lambda: "About" in widget("hint").text(), 10)
    out = [widget("hint").text()]
    press("mode_upscale")
    docker().panel.scale.set_value(8.0)
    doc.setSelection(None)
    doc.resizeImage(0, 0, 2100, 2100)
    yield (lambda: "smaller scale" in widget("hint").text(), 10)
    out.append(widget("hint").text())
    docker().panel.scale.set_value(2.0)
    press("mode_paint")
    return out
""")
    assert hints[0].startswith("About a second, at ") and hints[0].endswith("pixels.")


def test_the_queue_is_seen_and_each_job_can_be_cancelled(painter: Painter) -> None:
    """Two documents, four jobs: one is cancelled, one comes first, one replaces those that wait, all are cancelled."""
    painter.hold.touch()
    rows, after_one, front, replaced = painter.run("""
def gen():
    global doc
    doc = yield from new_document()
    select(doc, 32, 20, 80, 60)
    def rows():
        q = docker().panel.queue
        return [label.text() for label in q._labels.values()] if q.isVisible() else []
    def settled(words):
        return any(j.title == words and j.state in ("queued", "running") for j in controller().jobs.active)
    for words in ("one", "two", "three"):
        yield from start(words)
        yield (lambda: settled(words), 20)
    other = app.createDocument(64, 48, "other", "RGBA", "U8", "", 72.0)
    app.activeWindow().addView(other)
    yield 0.3
    yield from start("elsewhere")
    yield (lambda: settled("elsewhere"), 20)
    yield (lambda: controller().running().step == 3, 20)
    yield 0.3
    out = [rows()]
    # The second row's button.
    row = list(docker().panel.queue._rows.values())[1]
    QTest.mouseClick(row.findChild(QToolButton, "impasto_cancel_one"), Qt.MouseButton.LeftButton)
    yield (lambda: len(controller().jobs.active) == 3, 10)
    yield 0.3
    out.append(rows())
    prompt("first of all")
    menu("places", "Start before the jobs that wait")
    yield (lambda: settled("first of all"), 20)
    yield 0.5
    out.append([[j.title, j.position] for j in controller().jobs.active])
    prompt("alone")
    menu("places", "Start instead of the jobs that wait")
    yield (lambda: settled("alone") and len(controller().jobs.active) == 2, 20)
    out.append([j.title for j in controller().jobs.active])
    press("cancel_all")
    yield (idle, 20)
    yield 0.3
    other.setModified(False)
    other.close()
    yield 0.3
    return out
""")
    assert [row.split(":")[0] for row in rows] == ["one", "two", "three", "elsewhere"]
    assert rows[0] == "one: Painting: step 3 of 8" and rows[3].startswith("elsewhere: Waiting")
    assert [row.split(":")[0] for row in after_one] == ["one", "three", "elsewhere"]
    positions = dict(map(tuple, front))
    assert positions["first of all"] < positions["three"] < positions["elsewhere"]
    assert replaced == ["one", "alone"]


def test_loras_are_added_and_removed_by_their_buttons(painter: Painter) -> None:
    added = painter.run("""
def gen():
    doc = yield from new_document()
    select(doc, 32, 20, 80, 60)
    yield 0.4
    docker().panel.advanced.set_open(True)
    yield 0.3
    press("loras_add")
    press("loras_add")
    yield 0.2
    picker = widget("loras_1_model")
    offered = [picker.itemText(i) for i in range(picker.count())]
    picker.setCurrentIndex(1)
    widget("loras_1_strength").set_value(-0.5)
    press("loras_0_remove")
    yield 0.3
    left = [shown("loras_0_model"), widget("loras_0_model").currentText(), docker().params()["loras"]]
    yield from paint("with ink")
    return [offered, left]
""")
    loras = [{"model": "ink", "strength": -0.5, "text_strength": "auto"}]
    assert added == [["Grain", "Ink"], [True, "Ink", loras]]
    assert json.loads(str(received(painter)["params"]))["loras"] == loras
    gone = painter.run("""
def gen():
    press("loras_0_remove")
    yield 0.2
    params = docker().params()
    docker().panel.advanced.set_open(False)
    return "loras" in params
""")
    assert not gone


def test_ctrl_up_and_down_weigh_the_words_under_the_caret(painter: Painter) -> None:
    where = painter.run("""
def gen():
    prompt("a red barn")
    docker().raise_()
    docker().setFloating(True)
    docker().move(1150, 60)
    docker().resize(360, 900)
    yield 0.4
    field = widget("prompt")
    return at(field)
""")
    painter.krita.click(*where)
    painter.run("def gen():\n    yield (lambda: widget('prompt').hasFocus(), 10)")
    painter.krita.xdotool("key", "ctrl+End", "key", "ctrl+Up", "key", "ctrl+Up")
    text = painter.run("def gen():\n    yield 0.3\n    return widget('prompt').toPlainText()")
    assert text == "a red (barn:1.2)"
    painter.krita.xdotool("key", "ctrl+Down", "key", "ctrl+Down")
    text = painter.run(
        "def gen():\n    yield 0.3\n    docker().setFloating(False)\n    return widget('prompt').toPlainText()"
    )
    assert text == "a red barn"


def test_names_are_completed_while_the_prompt_is_typed(painter: Painter) -> None:
    where = painter.run("""
def gen():
    prompt("")
    docker().setFloating(True)
    docker().move(1150, 60)
    docker().resize(360, 900)
    yield 0.4
    return at(widget("prompt"))
""")
    painter.krita.click(*where)
    painter.run("def gen():\n    yield (lambda: widget('prompt').hasFocus(), 10)")
    painter.krita.xdotool("type", "--delay", "60", "a cat, <in")
    offered = painter.run("""
def gen():
    popup = widget("prompt").completer.popup()
    yield (lambda: popup.isVisible(), 10)
    model = popup.model()
    return [model.index(row, 0).data() for row in range(model.rowCount())]
""")
    painter.krita.xdotool("key", "Return", "type", "--delay", "60", ", easyn")
    painter.run("def gen():\n    yield (lambda: widget('prompt').completer.popup().isVisible(), 10)")
    painter.krita.xdotool("key", "Return")
    text = painter.run(
        "def gen():\n    yield 0.3\n    docker().setFloating(False)\n    return widget('prompt').toPlainText()"
    )
    assert offered == ["ink  (LoRA)", "grain  (LoRA)"] and text == "a cat, <lora:ink:1>, easyneg"


def test_an_old_picture_that_is_dropped_gives_its_settings(painter: Painter) -> None:
    path = Path(painter.run("result = QDir.homePath()")) / "old.png"
    info = PngInfo()
    text = "a lighthouse\nNegative prompt: fog\nSteps: 7, Sampler: Euler a, CFG scale: 5, Seed: 33, Size: 128x128"
    info.add_text("parameters", text)
    Image.new("RGB", (128, 128)).save(path, pnginfo=info)
    drop = """
def gen():
    doc = yield from new_document()
    docker().set_way("auto")
    docker().panel.strength.set_value(1.0)
    prompt("something else")
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(path)])
    rest = (Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
    enter, drop = QDragEnterEvent(QPoint(20, 20), *rest), QDropEvent(QPointF(20, 20), *rest)
    QApplication.sendEvent(docker().panel, enter)
    assert enter.isAccepted()
    QApplication.sendEvent(docker().panel, drop)
    yield (lambda: widget("prompt").toPlainText() != "something else" or widget("message").text(), 10)
    yield 0.4
    params = docker().params()
    message = widget("message").text()
    docker().panel.seed.set_seed(-1)
    docker().panel.form.reset()
    widget("negative_prompt").setPlainText("")
    return [docker().mode, message, params]
"""
    mode, message, params = painter.run(f"path = {str(path)!r}{drop}")
    assert mode == "txt2img" and message.startswith("Took the settings of a picture")
    taken = {key: params[key] for key in ("prompt", "negative_prompt", "steps", "sampler", "cfg", "seed")}
    assert taken == {
        "prompt": "a lighthouse",
        "negative_prompt": "fog",
        "steps": 7,
        "sampler": "euler_a",
        "cfg": 5.0,
        "seed": 33,
    }
    Image.new("RGB", (8, 8)).save(path)
    mode, message, params = painter.run(f"path = {str(path)!r}{drop}")
    assert params["prompt"] == "something else" and message  # a sentence says that it tells nothing


def test_the_log_is_found(painter: Painter) -> None:
    place = painter.run("""
def gen():
    menu("help", "Copy the log's place")
    yield 0.2
    return QApplication.clipboard().text()
""")
    assert place == str(painter.home / "server.log")


def test_a_layer_guides_a_job(painter: Painter) -> None:
    """A control unit appears by the server's description; its picture is a layer that is chosen by name."""
    offered, chosen, kept = painter.run("""
def gen():
    doc = yield from new_document()
    lines = doc.createNode("lines", "paintlayer")
    doc.rootNode().addChildNode(lines, None)
    lines.setPixelData(QByteArray(bytes((9, 8, 7, 255)) * 100), 40, 30, 10, 10)
    doc.refreshProjection()
    doc.waitForDone()
    select(doc, 32, 20, 80, 60)
    docker().set_mode("inpaint")
    yield 0.4
    docker().panel.advanced.set_open(True)
    yield 0.3
    press("control_add")
    yield 0.2
    picture = widget("control_0_image")
    picture.fill("")
    offered = [picture.itemText(row) for row in range(picture.count())]
    picture.setCurrentIndex(1)
    yield 0.2
    chosen = docker().params()["control"][0]["image"].split(":")[0]
    yield from paint("guided")
    made = doc.nodeByName("Impasto: guided")
    kept = bytes(doc.annotation("impasto/recipe/" + made.uniqueId().toString().strip("{}"))).decode()
    press("control_0_remove")
    docker().panel.advanced.set_open(False)
    docker().set_way("auto")
    return [offered, chosen, kept]
""")
    assert offered[:2] == ["What is painted over", "lines"] and "painting" in offered and chosen == "layer"
    assert list(json.loads(kept)["pictures"]) == ["control_1"]
    sent = received(painter)
    x, y = (int(v) for v in sent["box"][:2])
    guide = sent["control_1"]
    assert (guide[30 - y : 40 - y, 40 - x : 50 - x] == (7, 8, 9, 255)).all() and guide[..., 3].sum() == 255 * 100
