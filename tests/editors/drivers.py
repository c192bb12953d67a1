"""One way to act in both editors and to look at what came of it. The plug-ins' own panels do the work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tests.gimp.conftest import PANEL, Painter, panel_of
from tests.gimp.gdrive import Line, until
from tests.krita.conftest import Painter as KritaPainter

__all__ = ["HEIGHT", "WIDTH", "Editor", "GimpEditor", "KritaEditor"]

WIDTH, HEIGHT = 200, 150


class Editor(ABC):
    """A painter at an editor. A document is `new`, has one layer "painting" and perhaps a sketch over it."""

    name: str
    home: Path
    """The server's folder."""

    def received(self) -> dict[str, np.ndarray]:
        """What the stub's engine was sent last."""
        with np.load(self.home / "received.npz") as file:
            return dict(file)

    @abstractmethod
    def new(self, kind: str = "u8") -> None:
        """A new document: u8, u16, float or grey."""

    @abstractmethod
    def select(self, mask: np.ndarray) -> None:
        """Select by a mask of the document's size, one byte a pixel."""

    @abstractmethod
    def sketch(self, x: int, y: int, width: int, height: int) -> None:
        """A new active layer "sketch" with a block of colour, and a layer "varnish" above it."""

    @abstractmethod
    def start(self, mode: str, prompt: str = "") -> None:
        """Press the panel's button for a mode."""

    @abstractmethod
    def hint(self, mode: str) -> str:
        """Why a mode cannot be started; empty where it can."""

    @abstractmethod
    def finish(self) -> str:
        """Wait until no job is running; the panel's message."""

    @abstractmethod
    def at_step(self, step: int) -> None:
        """Wait until the job has come to this step."""

    @abstractmethod
    def cancel(self) -> None:
        """Press the panel's cancel."""

    @abstractmethod
    def add_lora(self, model: str, strength: float) -> None:
        """Press "Add LoRA", choose it, and set its strength."""

    @abstractmethod
    def remove_lora(self) -> None:
        """Press the button that removes the first one."""

    @abstractmethod
    def queue(self) -> list[str]:
        """The lines of the list of jobs."""

    @abstractmethod
    def cancel_all(self) -> None:
        """Press "Cancel all"."""

    @abstractmethod
    def strip(self, search: str = "") -> list[str]:
        """What the strip lists for this document, once it has been searched for these words."""

    @abstractmethod
    def look_at(self, *names: str) -> None:
        """Choose results of the strip."""

    @abstractmethod
    def press(self, name: str) -> None:
        """Press one of the buttons of results: add, again, use, star."""

    @abstractmethod
    def activate(self, layer: str) -> None:
        """Make a layer the active one."""

    @abstractmethod
    def group(self, name: str) -> list[str]:
        """The layers in a group, from top to bottom."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the panel would send now."""

    @abstractmethod
    def set_prompt(self, text: str) -> None: ...

    @abstractmethod
    def save(self, path: str) -> None:
        """Have the chosen result saved as this file."""

    @abstractmethod
    def weigh(self, text: str, caret: int, steps: int) -> str:
        """Put the caret into a prompt and press Ctrl+Up or Ctrl+Down; the prompt then."""

    @abstractmethod
    def reset(self) -> None:
        """Put the settings back."""

    @abstractmethod
    def layers(self) -> list[str]:
        """The layers from top to bottom."""

    @abstractmethod
    def seen(self) -> np.ndarray:
        """What is seen of the document: RGBA."""

    @abstractmethod
    def alpha(self, layer: str) -> np.ndarray:
        """The alpha of a layer, over the whole document."""

    @abstractmethod
    def undo(self) -> None: ...

    @abstractmethod
    def redo(self) -> None: ...

    @abstractmethod
    def recipe(self, layer: str) -> str:
        """The recipe kept with a layer, as JSON."""

    @abstractmethod
    def sizes(self) -> list[list[int]]:
        """The sizes of all open documents."""

    @abstractmethod
    def close(self) -> None:
        """Close all documents."""

    @abstractmethod
    def apply_from_history(self, name: str) -> None:
        """Open the panel anew, find a result of that name in its strip, and add it as a layer."""


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
    press("inpaint")
    yield (lambda: controller().running() is not None, 5)
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

    def reset(self) -> None:
        self.run(
            "docker().panel.form.reset()\ndocker().panel.seed.set_seed(-1)\n"
            "docker().panel.strength.set_value(1.0)\nwidget('search').clear()\nscope('document')"
        )

    def layers(self) -> list[str]:
        found = [str(name) for name in self.run("result = layers(doc)")]
        return [name for name in reversed(found) if name not in ("Background", "Selection Mask")]

    def seen(self) -> np.ndarray:
        data = bytes.fromhex(
            self.run(
                "doc.waitForDone()\nimage = doc.projection(0, 0, doc.width(), doc.height())\n"
                "image = image.convertToFormat(QImage.Format.Format_RGBA8888)\nbits = image.constBits()\n"
                "bits.setsize(image.width() * image.height() * 4)\nresult = bytes(bits).hex()"
            )
        )
        return np.frombuffer(data, np.uint8).reshape(HEIGHT, WIDTH, 4)

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


class GimpEditor(Editor):
    name = "GIMP"
    KINDS: ClassVar = {
        "u8": ("rgb", "U8_NON_LINEAR"),
        "u16": ("rgb", "U16_NON_LINEAR"),
        "float": ("rgb", "FLOAT_LINEAR"),
        "grey": ("grey", "U8_NON_LINEAR"),
    }

    def __init__(self, painter: Painter) -> None:
        self.painter, self.home = painter, painter.home
        find = ("search", "--onlyvisible", "--name", "^GNU Image Man|GIMP$")
        self.window = until(lambda: painter.gimp.xdotool(*find).split("\n")[0], 60)
        painter.gimp.xdotool("windowsize", "--sync", self.window, "1200", "900")
        self.panel = self._open()

    def _open(self) -> Line:
        for _ in range(3):
            self.key("ctrl+alt+i")
            try:
                panel = panel_of(self.painter, 10)
            except AssertionError:
                continue
            panel.run("def gen():\n    yield (connected, 30)")
            return panel
        raise AssertionError("the panel did not open")

    def key(self, keys: str) -> None:
        self.painter.gimp.xdotool("windowactivate", "--sync", self.window, "key", "--clearmodifiers", keys)

    def run(self, code: str, timeout: float = 60) -> Any:
        return self.painter.run(code, timeout)

    def new(self, kind: str = "u8") -> None:
        base, precision = self.KINDS[kind]
        self.run(f"close_all()\nimage = new_image({WIDTH}, {HEIGHT}, {base!r}, {precision!r})")

    def select(self, mask: np.ndarray) -> None:
        path = self.painter.save("mask", mask)
        self.run(f"select_softly(image, open({path!r}, 'rb').read())\nGimp.displays_flush()")

    def sketch(self, x: int, y: int, width: int, height: int) -> None:
        self.run(
            f"sketch = new_layer(image, 'sketch', {width}, {height}, {x}, {y})\n"
            "new_layer(image, 'varnish', 1, 1, color=(0, 0, 0, 0))\nimage.set_selected_layers([sketch])\n"
            "Gimp.displays_flush()"
        )

    def start(self, mode: str, prompt: str = "") -> None:
        self.panel.run(
            f"mode, text = {mode!r}, {prompt!r}"
            + """
def gen():
    panel().poll()
    panel().modes[mode].set_active(True)
    panel().wishes.prompt.text = text
    yield (lambda: widget("go").get_sensitive(), 10)
    widget("go").clicked()
    yield (lambda: controller().running() is not None, 5)
"""
        )

    def hint(self, mode: str) -> str:
        code = "\ndef gen():\n    panel().poll()\n    panel().modes[mode].set_active(True)\n    yield 0.6\n"
        return str(self.panel.run(f"mode = {mode!r}{code}    return widget('hint').get_text()"))

    def finish(self) -> str:
        text = "widget('message').get_text() if shown('message') else ''"
        return str(self.panel.run(f"def gen():\n    yield (idle, 60)\n    yield 0.3\n    return {text}", 80))

    def at_step(self, step: int) -> None:
        job = "controller().running()"
        self.panel.run(f"def gen():\n    yield (lambda: {job} is not None and {job}.step == {step}, 20)")

    def cancel(self) -> None:
        self.panel.run("widget('cancel').clicked()")

    def add_lora(self, model: str, strength: float) -> None:
        self.panel.run(
            f"model, strength = {model!r}, {strength}"
            + """
def gen():
    panel().poll()
    panel().modes["inpaint"].set_active(True)
    panel().wishes.fold.set_expanded(True)
    yield 0.3
    at_ = len(panel().wishes.form.overrides().get("loras", []))
    widget("loras_add").clicked()
    yield 0.2
    widget(f"loras_{at_}_model").set_active_id(model)
    widget(f"loras_{at_}_strength").write(strength)
    yield 0.1
"""
        )

    def remove_lora(self) -> None:
        self.panel.run(
            "def gen():\n    widget('loras_0_remove').clicked()\n    yield 0.2\n"
            "    panel().wishes.fold.set_expanded(False)"
        )

    def queue(self) -> list[str]:
        found: list[str] = self.panel.run(
            "q = panel().queue\nresult = [l.get_text() for l in q._labels.values()] if q.get_visible() else []"
        )
        return found

    def cancel_all(self) -> None:
        self.panel.run("widget('cancel_all').clicked()")

    def strip(self, search: str = "") -> list[str]:
        found: list[str] = self.panel.run(
            f"words = {search!r}"
            + """
def gen():
    panel().poll()
    widget("search").set_text(words)
    yield (lambda: controller().gallery.query.search == words, 10)
    yield (lambda: all(s.small is not None for s in panel().strip.items), 10)
    yield 0.7
    return [s.name for s in panel().strip.items]
"""
        )
        return found

    def look_at(self, *names: str) -> None:
        self.panel.run(
            f"names = {names!r}"
            + """
strip = panel().strip
for more, name in enumerate(reversed(names)):
    strip._look_at(next(s.key for s in strip.items if s.name == name), more=bool(more))
"""
        )

    def press(self, name: str) -> None:
        real = {"add": "apply", "again": "make_again"}.get(name, name)
        self.panel.run(f"def gen():\n    panel().poll()\n    widget({real!r}).clicked()\n    yield 0.5")

    def activate(self, layer: str) -> None:
        self.run(f"image.set_selected_layers([next(l for l in image.get_layers() if l.get_name() == {layer!r})])")

    def group(self, name: str) -> list[str]:
        found: list[str] = self.run(
            f"found = next(l for l in image.get_layers() if l.get_name() == {name!r})\n"
            "result = [l.get_name() for l in found.get_children()]"
        )
        return found

    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = self.panel.run("result = panel().wishes.params()")
        return found

    def set_prompt(self, text: str) -> None:
        self.panel.run(f"panel().wishes.prompt.text = {text!r}")

    def save(self, path: str) -> None:
        self.panel.run(
            f"from pathlib import Path\npath = Path({path!r})"
            + """
def gen():
    controller().results.save(panel().strip.current().key, path)
    yield (lambda: "Saved as" in widget("message").get_text(), 20)
"""
        )

    def weigh(self, text: str, caret: int, steps: int) -> str:
        self.panel.run(
            f"text, caret = {text!r}, {caret}"
            + """
def gen():
    panel().wishes.prompt.text = text
    buffer = panel().wishes.prompt.view.get_buffer()
    buffer.place_cursor(buffer.get_iter_at_offset(caret))
    panel().wishes.prompt.view.grab_focus()
    panel().present()
    yield 0.3
"""
        )
        window = self.painter.gimp.xdotool("search", "--name", "^Impasto$").split("\n")[-1]
        keys = ["ctrl+Up" if steps > 0 else "ctrl+Down"] * abs(steps)
        self.painter.gimp.xdotool("windowactivate", "--sync", window, "key", "--clearmodifiers", *keys)
        return str(self.panel.run("def gen():\n    yield 0.4\n    return panel().wishes.prompt.text"))

    def reset(self) -> None:
        self.panel.run(
            "panel().wishes.form.reset()\npanel().wishes.seed.set_seed(-1)\n"
            "panel().wishes.strength.write(1.0)\nwidget('search').set_text('')\nwidget('scope').set_active_id('document')"
        )

    def layers(self) -> list[str]:
        return [str(name) for name in self.run("result = tree(image)")]

    def seen(self) -> np.ndarray:
        self.run("dump('seen', seen(image))")
        return self.painter.picture("seen", HEIGHT, WIDTH).copy()

    def alpha(self, layer: str) -> np.ndarray:
        x, y, w, h = self.run(
            f"found = next(l for l in image.get_layers() if l.get_name() == {layer!r})\n"
            "dump('layer', read(found))\nresult = place(found)"
        )
        whole = np.zeros((HEIGHT, WIDTH), np.uint8)
        whole[y : y + h, x : x + w] = self.painter.picture("layer", h, w)[..., 3]
        return whole

    def undo(self) -> None:
        self._history("ctrl+z")

    def redo(self) -> None:
        self._history("ctrl+y")

    def _history(self, keys: str) -> None:
        before = self.layers()
        self.key(keys)
        until(lambda: self.layers() != before, 10)

    def recipe(self, layer: str) -> str:
        return str(
            self.run(
                f"found = next(l for l in image.get_layers() if l.get_name() == {layer!r})\n"
                "result = bytes(found.get_parasite('impasto-recipe').get_data()).decode()"
            )
        )

    def sizes(self) -> list[list[int]]:
        found: list[list[int]] = self.run("result = sorted([i.get_width(), i.get_height()] for i in Gimp.get_images())")
        return found

    def close(self) -> None:
        self.run("close_all()")

    def apply_from_history(self, name: str) -> None:
        self.panel.run("from gi.repository import GLib\nGLib.idle_add(panel().destroy)")
        self.panel.close()
        asks = "Gimp.get_pdb().procedure_exists('plug-in-impasto-panel-ask')"
        until(lambda: not self.run(f"result = {asks}"), 10)
        self.panel = self._open()
        self.panel.run(PANEL)
        self.panel.run(
            f"wanted = {name!r}"
            + """
def gen():
    panel().poll()
    widget("scope").set_active_id("all")
    yield (lambda: any(item.name == wanted and item.small is not None for item in panel().strip.items), 20)
    index = next(i for i, item in enumerate(panel().strip.items) if item.name == wanted)
    panel().strip.choose(index)
    widget("apply").clicked()
    yield 0.6
    widget("scope").set_active_id("document")
"""
        )
