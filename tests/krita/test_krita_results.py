"""Results as a painter uses them: a real Krita, the real server, a stub engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.krita import stub
from tests.krita.conftest import Painter
from tests.krita.test_krita_panel import HELPERS

pytestmark = pytest.mark.krita

WIDTH, HEIGHT = 256, 192


@pytest.fixture(scope="module", autouse=True)
def ready(painter: Painter) -> None:
    painter.run(HELPERS)
    painter.run("def gen():\n    yield (connected, 30)")


def received(painter: Painter) -> dict[str, np.ndarray]:
    with np.load(painter.home / "received.npz") as file:
        return dict(file)


def test_the_strip_is_the_documents_own_and_is_found_again(painter: Painter) -> None:
    """By the document's name in its file, after it was saved, closed and opened; by words; by stars."""
    first, second, reopened, found, starred, everything = painter.run("""
def gen():
    global doc
    doc = yield from new_document()
    select(doc, 32, 20, 80, 60)
    for words in ("red cat", "blue cat", "green dog"):
        yield from paint(words)
    out = [listed()]
    path = QDir.homePath() + "/strip.kra"
    doc.setBatchmode(True)
    doc.saveAs(path)
    doc.waitForDone()
    doc2 = yield from new_document()
    yield 0.5
    out.append(listed())
    select(doc2, 32, 20, 80, 60)
    yield from paint("elsewhere")
    yield from close_all()
    doc = app.openDocument(path)
    app.activeWindow().addView(doc)
    yield (lambda: len(listed()) == 3 and all(s.small is not None for s in strip().items), 20)
    out.append(listed())
    widget("search").setText("cat")
    yield (lambda: len(listed()) == 2, 10)
    out.append(listed())
    strip().setCurrentRow(1)
    yield 0.2
    press("star")
    yield 0.5
    widget("search").clear()
    scope("starred")
    yield (lambda: listed() == ["Impasto: red cat"], 10)
    out.append([listed(), widget("star").text()])
    press("star")
    scope("all")
    yield (lambda: len(listed()) > 3, 10)
    out.append(listed())
    scope("document")
    yield (lambda: len(listed()) == 3, 10)
    return out
""")
    own = ["Impasto: green dog", "Impasto: blue cat", "Impasto: red cat"]
    assert first == reopened == own and second == [] and found == own[1:]
    assert starred == [["Impasto: red cat"], "★"] and everything == ["Impasto: elsewhere", *own]


def test_a_result_is_compared_without_touching_the_document(painter: Painter) -> None:
    before, looks, after = painter.run("""
def gen():
    doc = yield from new_document()
    select(doc, 32, 20, 80, 60)
    yield from paint("compare")
    yield 0.3
    before = state(doc)
    picture = docker().results.picture
    inside = lambda: QColor((picture._before if picture.comparing else picture.image).pixel(72, 50)).getRgb()[:3]
    looks = [list(inside())]
    QTest.mousePress(widget("compare"), Qt.MouseButton.LeftButton)
    looks.append([list(inside()), picture.comparing])
    QTest.mouseRelease(widget("compare"), Qt.MouseButton.LeftButton)
    looks.append(picture.comparing)
    return [before, looks, state(doc)]
""")
    assert before == after
    assert looks[0] == list(stub.COLOR) and looks[1][1] and looks[1][0] != list(stub.COLOR) and not looks[2]


def test_several_results_become_a_group_in_one_step(painter: Painter) -> None:
    names, group, undone, above, kept = painter.run("""
def gen():
    doc = yield from new_document()
    select(doc, 32, 20, 80, 60)
    for words in ("first", "second"):
        yield from paint(words)
    for _ in range(2):
        yield from undo()
    assert own(doc) == ["painting"]
    strip().setCurrentRow(0)
    strip().item(1).setSelected(True)
    menu("add_again", "Add in a new group")
    yield (lambda: "Impasto" in layers(doc), 10)
    yield 0.3
    group = doc.nodeByName("Impasto")
    out = [own(doc), [[n.name(), list(projection(doc)[4 * (256 * 50 + 72):][:3])] for n in group.childNodes()]]
    recipe = doc.annotation("impasto/recipe/" + group.childNodes()[0].uniqueId().toString().strip("{}"))
    yield from undo()
    out.append(own(doc))
    top = doc.createNode("varnish", "paintlayer")
    doc.rootNode().addChildNode(top, None)
    yield (lambda: doc.activeNode().name() == "varnish", 5)
    yield 0.2
    doc.setActiveNode(doc.nodeByName("painting"))
    yield 0.3
    strip().clearSelection()
    strip().setCurrentRow(0)
    menu("add_again", "Add above the active layer")
    yield (lambda: "Impasto: second" in layers(doc), 10)
    yield 0.3
    out.append(own(doc))
    return out + [bytes(recipe).decode()]
""")
    assert names == ["painting", "Impasto"]
    assert [name for name, _ in group] == ["Impasto: first", "Impasto: second"]  # the newest on top
    assert group[0][1] == list(stub.COLOR[::-1])
    assert undone == ["painting"] and above == ["painting", "Impasto: second", "varnish"]
    assert json.loads(kept)["params"]["prompt"] == "first"


def test_settings_and_picture_come_back_after_reopening(painter: Painter) -> None:
    """Use settings, and Make again with the layer's own selection, in a document that was saved, closed and opened."""
    painter.run("""
def gen():
    global doc
    doc = yield from new_document()
    s = Selection()
    s.setPixelData(QByteArray(bytes(range(200)) * 40), 20, 30, 200, 40)
    doc.setSelection(s)
    docker().set_way("inpaint")
    docker().panel.form.set_overrides({"steps": 9, "exact": True})
    docker().panel.seed.set_seed(42)
    yield from paint("fog")
    docker().panel.form.reset()
    docker().panel.seed.set_seed(-1)
    prompt("something else")
    doc.setBatchmode(True)
    path = QDir.homePath() + "/again.kra"
    doc.saveAs(path)
    doc.waitForDone()
    yield from close_all()
    doc = app.openDocument(path)
    app.activeWindow().addView(doc)
    doc.setSelection(None)
    yield (lambda: listed() == ["Impasto: fog"] and strip().items[0].small is not None, 20)
    strip().setCurrentRow(0)
    yield 0.3
""")
    used, before, names, after, undone = painter.run("""
def gen():
    press("use")
    yield 0.3
    used = docker().params()
    used = [docker().mode, used["prompt"], used["seed"], used["steps"], used["exact"]]
    before = [projection(doc).hex(), own(doc)]
    made = doc.nodeByName("Impasto: fog")
    doc.setActiveNode(made)
    yield 0.3
    yield from begin(lambda: press("make_again"))
    yield (idle, 30)
    yield 0.5
    names = own(doc)
    after = projection(doc).hex()
    yield from undo()
    undone = [projection(doc).hex(), own(doc)]
    docker().panel.form.reset()
    docker().panel.seed.set_seed(-1)
    docker().set_way("auto")
    return [used, before, names, len(app.documents()), undone]
""")
    assert used == ["inpaint", "fog", 42, 9, True]
    assert names == ["painting", "Impasto: fog", "Impasto: fog"] and undone == before and after == 1
    sent = received(painter)
    params = json.loads(str(sent["params"]))
    assert params["steps"] == 9 and params["seed"] == 42 and params["exact"]
    x, y, w, h = sent["box"]
    mask = sent["mask"].reshape(h, w)
    assert mask[40 - y, 20 - x : 220 - x].tolist() == list(range(200))
    yy, xx = np.mgrid[y : y + h, x : x + w]
    # What is sent is the painting below, without the layer that is made again.
    assert ((sent["image"][..., 2] == (xx + yy) % 256).all() and (sent["image"][..., 0] == xx % 256).all()) or (
        (sent["image"][..., 2] == xx % 256).all() and (sent["image"][..., 0] == (xx + yy) % 256).all()
    )


def test_a_result_is_saved_as_a_png_that_says_how_it_was_made(painter: Painter) -> None:
    """By the button and the file dialog, typed into with keys."""
    path = Path(painter.run("result = QDir.homePath()")) / "saved by hand.png"
    painter.run(
        f"path = {str(path)!r}"
        + """
def gen():
    doc = yield from new_document()
    select(doc, 32, 20, 80, 60)
    yield from paint("to keep")
    def answer():
        dialog = QApplication.activeModalWidget()
        if dialog is None:
            QTimer.singleShot(100, answer)
            return
        dialog.findChild(QLineEdit).setText(path)
        next(b for b in dialog.findChildren(QPushButton) if "Save" in b.text()).click()
    QTimer.singleShot(300, answer)
    QTimer.singleShot(0, lambda: press("save"))
    yield (lambda: "Saved as" in widget("message").text(), 20)
""",
        timeout=60,
    )
    with Image.open(path) as image:
        assert image.size[0] >= 80 and image.mode == "RGBA"
        assert image.info["parameters"].startswith("to keep\nSteps: ")
        assert image.getpixel((image.width // 2, image.height // 2))[:3] == stub.COLOR


def test_an_upscaled_picture_is_in_the_strip_too(painter: Painter) -> None:
    sizes = painter.run("""
def gen():
    doc = yield from new_document(64, 48)
    press("mode_upscale")
    yield from start()
    yield (lambda: len(app.documents()) == 2, 30)
    yield (idle, 20)
    yield 0.5
    new = next(d for d in app.documents() if d != doc)
    new.setModified(False)
    yield 0.3
    new.close()
    yield (lambda: app.activeDocument() == doc, 5)
    yield (lambda: listed() == ["Upscaled"] and strip().items[0].small is not None, 10)
    yield 0.3
    text = widget("add_again").text()
    press("add_again")
    yield (lambda: len(app.documents()) == 2, 20)
    yield 0.5
    new = next(d for d in app.documents() if d != doc)
    press("mode_paint")
    return [text, new.width(), new.height(), own(doc)]
""")
    assert sizes == ["Open again", 128, 96, ["painting"]]
