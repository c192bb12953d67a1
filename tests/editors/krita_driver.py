"""The real Krita behind `Editor`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tests.editors.drivers import HEIGHT, WIDTH, Editor
from tests.krita.conftest import Painter as KritaPainter

__all__ = ["KritaEditor"]


class KritaEditor(Editor):
    name = "Krita"
    SPACES: ClassVar = {"u8": ("U8", "RGBA"), "u16": ("U16", "RGBA"), "float": ("F32", "RGBA"), "grey": ("U8", "GRAYA")}

    def __init__(self, painter: KritaPainter) -> None:
        self.painter, self.home = painter, painter.home
        painter.run("docker().setFloating(False)")

    def run(self, code: str, timeout: float = 60) -> Any:
        return self.painter.run(code, timeout)

    def new(self, kind: str = "u8") -> None:
        depth, model = self.SPACES[kind]
        self.run(
            f"size, space = ({WIDTH}, {HEIGHT}), ({depth!r}, {model!r})"
            + """
def gen():
    global doc
    doc = yield from new_document(*size, *space)
    doc.setBatchmode(True)
    if space != ("U8", "RGBA"):
        node = doc.createNode("painting", "paintlayer")
        doc.rootNode().addChildNode(node, None)
    yield 0.3
"""
        )

    def select(self, mask: np.ndarray) -> None:
        path = self.home / "mask.raw"
        path.write_bytes(mask.tobytes())
        self.run(
            f"data = open({str(path)!r}, 'rb').read()\ns = Selection()\n"
            f"s.setPixelData(QByteArray(data), 0, 0, {WIDTH}, {HEIGHT})\ndoc.setSelection(s)"
        )

    def sketch(self, x: int, y: int, width: int, height: int) -> None:
        self.run(
            f"x, y, w, h = {x}, {y}, {width}, {height}"
            + """
def gen():
    node, top = doc.createNode("sketch", "paintlayer"), doc.createNode("varnish", "paintlayer")
    doc.rootNode().addChildNode(node, None)
    node.setPixelData(QByteArray(bytes((30, 20, 220, 255)) * (w * h)), x, y, w, h)
    doc.rootNode().addChildNode(top, None)
    doc.refreshProjection()
    doc.waitForDone()
    yield (lambda: doc.activeNode().name() == "varnish", 5)
    yield 0.1
    doc.setActiveNode(node)
    yield 0.3
"""
        )

    def start(self, mode: str, prompt: str = "") -> None:
        self.run(
            f"mode, text = {mode!r}, {prompt!r}"
            + """
def gen():
    docker().set_mode(mode)
    prompt(text)
    yield (lambda: widget("inpaint").isEnabled(), 10)
    yield from begin(lambda: press("inpaint"))
"""
        )

    def hint(self, mode: str) -> str:
        code = "\ndef gen():\n    docker().set_mode(mode)\n    yield 0.5\n    return widget('hint').text()"
        return str(self.run(f"mode = {mode!r}{code}"))

    def finish(self) -> str:
        code = "def gen():\n    yield (idle, 60)\n    yield 0.4\n    return widget('message').text()"
        return str(self.run(code, 80))

    def at_step(self, step: int) -> None:
        job = "controller().running()"
        self.run(f"def gen():\n    yield (lambda: {job} is not None and {job}.step == {step}, 20)")

    def cancel(self) -> None:
        self.run("press('cancel')")

    def add_lora(self, model: str, strength: float) -> None:
        self.run(
            f"model, strength = {model!r}, {strength}"
            + """
def gen():
    docker().set_mode("inpaint")
    docker().panel.advanced.set_open(True)
    yield 0.3
    at_ = len(docker().panel.form.overrides().get("loras", []))
    press("loras_add")
    yield 0.2
    picker = widget(f"loras_{at_}_model")
    picker.setCurrentIndex(picker.findData(model))
    widget(f"loras_{at_}_strength").set_value(strength)
    yield 0.1
"""
        )

    def remove_lora(self) -> None:
        self.run("def gen():\n    press('loras_0_remove')\n    yield 0.2\n    docker().panel.advanced.set_open(False)")

    def queue(self) -> list[str]:
        found: list[str] = self.run(
            "q = docker().panel.queue\nresult = [l.text() for l in q._labels.values()] if q.isVisible() else []"
        )
        return found

    def cancel_all(self) -> None:
        self.run("press('cancel_all')")

    def strip(self, search: str = "") -> list[str]:
        found: list[str] = self.run(
            f"words = {search!r}"
            + """
def gen():
    widget("search").setText(words)
    docker().results.look()
    yield (lambda: controller().gallery.query.search == words, 10)
    yield (lambda: all(s.small is not None for s in strip().items), 10)
    yield 0.7
    return [s.name for s in strip().items]
"""
        )
        return found

    def look_at(self, *names: str) -> None:
        self.run(
            f"names = {names!r}"
            + """
strip().clearSelection()
for name in reversed(names):
    row = next(i for i, s in enumerate(strip().items) if s.name == name)
    strip().setCurrentRow(row, QItemSelectionModel.SelectionFlag.Select)
"""
        )

    def press(self, name: str) -> None:
        real = {"add": "add_again", "again": "make_again"}.get(name, name)
        self.run(f"def gen():\n    press({real!r})\n    yield 0.5")

    def activate(self, layer: str) -> None:
        self.run(f"def gen():\n    doc.setActiveNode({self._node(layer)})\n    yield 0.3")

    def group(self, name: str) -> list[str]:
        found: list[str] = self.run(f"result = [n.name() for n in {self._node(name)}.childNodes()]")
        return found[::-1]

    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = self.run("result = docker().params()")
        return found

    def set_prompt(self, text: str) -> None:
        self.run(f"prompt({text!r})")

    def save(self, path: str) -> None:
        self.run(
            f"from pathlib import Path\npath = Path({path!r})"
            + """
def gen():
    controller().results.save(strip().current().key, path)
    yield (lambda: "Saved as" in widget("message").text(), 20)
"""
        )

    def weigh(self, text: str, caret: int, steps: int) -> str:
        self.run(
            f"text, caret = {text!r}, {caret}"
            + """
def gen():
    window.activateWindow()
    prompt(text)
    field = widget("prompt")
    cursor = field.textCursor()
    cursor.setPosition(caret)
    field.setTextCursor(cursor)
    field.setFocus()
    yield 0.3
"""
        )
        key = "Key_Up" if steps > 0 else "Key_Down"
        press = f"QTest.keyClick(widget('prompt'), Qt.Key.{key}, Qt.KeyboardModifier.ControlModifier)"
        self.run(f"for _ in range({abs(steps)}): {press}")
        return str(self.run("result = widget('prompt').toPlainText()"))

    def complete(self, text: str) -> str:
        self.run(
            f"text = {text!r}"
            + """
def gen():
    window.activateWindow()
    docker().set_mode("inpaint")
    prompt("")
    field = widget("prompt")
    field.setFocus()
    yield 0.3
    QTest.keyClicks(field, text)
    yield (lambda: field.completer.popup().isVisible(), 10)
    QTest.keyClick(field.completer.popup(), Qt.Key.Key_Return)
    yield 0.3
"""
        )
        return str(self.run("result = widget('prompt').toPlainText()"))

    def reset(self) -> None:
        self.run(
            "docker().set_mode('inpaint')\ndocker().panel.form.reset()\ndocker().panel.seed.set_seed(-1)\n"
            "docker().panel.strength.set_value(1.0)\nwidget('search').clear()\nscope('document')"
        )

    def layers(self) -> list[str]:
        found = [str(name) for name in self.run("result = layers(doc)")]
        return [name for name in reversed(found) if name not in ("Background", "Selection Mask")]

    def furnish(self) -> None:
        self.run(
            """
def gen():
    group, inside = doc.createGroupLayer("group"), doc.createNode("inside", "paintlayer")
    doc.rootNode().addChildNode(group, None)
    group.addChildNode(inside, None)
    inside.setPixelData(QByteArray(bytes((30, 20, 220, 255)) * 2400), 20, 30, 60, 40)
    doc.refreshProjection()
    yield 0.4
    doc.setActiveNode(inside)
    select(doc, 20, 30, 30, 40)
    yield 0.3
    app.action("add_new_transparency_mask").trigger()  # of the selection; a plug-in cannot fill a mask
    yield (lambda: inside.childNodes(), 5)
    doc.setSelection(None)
    doc.setResolution(144)
    doc.refreshProjection()
    doc.waitForDone()
    yield 0.4
    doc.setActiveNode(next(n for n in doc.rootNode().childNodes() if n.name() == "painting"))
    yield 0.3
"""
        )

    def set_more(self, mode: str, **values: Any) -> None:
        self.run(
            f"mode, values = {mode!r}, {values!r}"
            "\ndef gen():\n    docker().set_mode(mode)\n    docker().panel.form.set_overrides(values)\n    yield 0.3"
        )

    def to_front(self, size: tuple[int, int]) -> None:
        self.run(f"doc = next(d for d in app.documents() if [d.width(), d.height()] == {list(size)})")

    def inventory(self) -> dict[str, Any]:
        found: dict[str, Any] = self.run(
            """
def listed(parent):
    found = []
    for node in reversed(parent.childNodes()):
        if node.type() == "selectionmask" or node.name() == "Background":
            continue
        kind = {"paintlayer": "layer", "grouplayer": "group", "transparencymask": "mask"}[node.type()]
        b = node.bounds()
        found.append([node.name(), kind, b.x(), b.y(), b.width(), b.height()])
        found += listed(node)
    return found

doc.waitForDone()
s = doc.selection()
result = {"size": [doc.width(), doc.height()], "resolution": doc.xRes(), "profile": doc.colorProfile(),
          "selection": [s.x(), s.y(), s.width(), s.height()], "layers": listed(doc.rootNode())}
"""
        )
        return found

    def seen(self, times: int = 1) -> np.ndarray:
        data = bytes.fromhex(
            self.run(
                "doc.waitForDone()\nimage = doc.projection(0, 0, doc.width(), doc.height())\n"
                "image = image.convertToFormat(QImage.Format.Format_RGBA8888)\nbits = image.constBits()\n"
                "bits.setsize(image.width() * image.height() * 4)\nresult = bytes(bits).hex()"
            )
        )
        return np.frombuffer(data, np.uint8).reshape(HEIGHT * times, WIDTH * times, 4)

    def _node(self, layer: str) -> str:
        return f"next(n for n in doc.rootNode().childNodes() if n.name() == {layer!r})"

    def alpha(self, layer: str) -> np.ndarray:
        data = self.run(f"result = bytes({self._node(layer)}.pixelData(0, 0, {WIDTH}, {HEIGHT})).hex()")
        return np.frombuffer(bytes.fromhex(data), np.uint8).reshape(HEIGHT, WIDTH, 4)[..., 3]

    def undo(self) -> None:
        self.run("def gen():\n    app.action('edit_undo').trigger()\n    yield 0.3\n    doc.waitForDone()")

    def redo(self) -> None:
        self.run("def gen():\n    app.action('edit_redo').trigger()\n    yield 0.3\n    doc.waitForDone()")

    def recipe(self, layer: str) -> str:
        key = f"'impasto/recipe/' + {self._node(layer)}.uniqueId().toString().strip('{{}}')"
        return str(self.run(f"result = bytes(doc.annotation({key})).decode()"))

    def sizes(self) -> list[list[int]]:
        found: list[list[int]] = self.run("result = sorted([d.width(), d.height()] for d in app.documents())")
        return found

    def close(self) -> None:
        self.run("def gen():\n    yield from close_all()")

    def apply_from_history(self, name: str) -> None:
        self.run(
            f"wanted = {name!r}"
            + """
def gen():
    scope("all")
    controller().gallery.refresh()
    yield (lambda: any(s.name == wanted and s.small is not None for s in strip().items), 20)
    index = next(i for i, s in enumerate(strip().items) if s.name == wanted)
    strip().setCurrentRow(index)
    yield 0.1
    press("add_again")
    yield (lambda: wanted in layers(doc), 20)
    yield 0.3
    scope("document")
"""
        )
