"""The real GIMP behind `Editor`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tests.editors.drivers import HEIGHT, WIDTH, Editor
from tests.gimp.conftest import PANEL, Painter, panel_of
from tests.gimp.gdrive import Line, until

__all__ = ["GimpEditor"]


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
    yield from begin(lambda: widget("go").clicked())
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
        self.painter.gimp.xdotool("windowactivate", "--sync", window)
        if keys:
            self.painter.gimp.xdotool("key", "--clearmodifiers", *keys)
        return str(self.panel.run("def gen():\n    yield 0.4\n    return panel().wishes.prompt.text"))

    def complete(self, text: str) -> str:
        self.weigh("", 0, 0)
        self.painter.gimp.xdotool("type", "--delay", "80", text)
        self.panel.run("def gen():\n    yield (lambda: panel().wishes.prompt.completions.offered, 10)")
        self.painter.gimp.xdotool("key", "Return")
        return str(self.panel.run("def gen():\n    yield 0.5\n    return panel().wishes.prompt.text"))

    def reset(self) -> None:
        self.panel.run(
            "panel().modes['inpaint'].set_active(True)\npanel().wishes.form.reset()\npanel().wishes.seed.set_seed(-1)\n"
            "panel().wishes.strength.write(1.0)\nwidget('search').set_text('')\nwidget('scope').set_active_id('document')"
        )

    def layers(self) -> list[str]:
        # A group is [name, [children]].
        return [str(name[0] if isinstance(name, list) else name) for name in self.run("result = tree(image)")]

    def seen(self, times: int = 1) -> np.ndarray:
        self.run("dump('seen', seen(image))")
        return self.painter.picture("seen", HEIGHT * times, WIDTH * times).copy()

    def furnish(self) -> None:
        self.run(
            """
group = Gimp.GroupLayer.new(image, "group")
image.insert_layer(group, None, 0)
inside = new_layer(image, "inside", 60, 40, 20, 30, group)
mask = inside.create_mask(Gimp.AddMaskType.BLACK)
inside.add_mask(mask)
buffer = mask.get_buffer()
buffer.set(Gegl.Rectangle.new(0, 0, 30, 40), "Y' u8", bytes([255]) * 1200)
buffer.flush()
mask.update(0, 0, 60, 40)
image.set_resolution(144, 144)
image.set_selected_layers([painting(image)])
Gimp.displays_flush()
"""
        )

    def set_more(self, mode: str, **values: Any) -> None:
        self.panel.run(
            f"mode, values = {mode!r}, {values!r}"
            + """
def gen():
    panel().poll()
    panel().modes[mode].set_active(True)
    panel().wishes.form.set_overrides(values)
    yield 0.3
"""
        )

    def to_front(self, size: tuple[int, int]) -> None:
        self.run(f"image = next(i for i in Gimp.get_images() if [i.get_width(), i.get_height()] == {list(size)})")

    def inventory(self) -> dict[str, Any]:
        found: dict[str, Any] = self.run(
            """
def listed(layers):
    found = []
    for layer in layers:
        kind = "group" if layer.is_group() else "layer"
        found.append([layer.get_name(), kind, *place(layer)])
        mask = layer.get_mask()
        if mask is not None:
            found.append([mask.get_name(), "mask", *place(mask)])
        found += listed(layer.get_children()) if layer.is_group() else []
    return found

bounds, resolution = Gimp.Selection.bounds(image), image.get_resolution()
result = {"size": [image.get_width(), image.get_height()], "resolution": resolution.xresolution,
          "profile": image.get_effective_color_profile().get_description(),
          "selection": [bounds.x1, bounds.y1, bounds.x2 - bounds.x1, bounds.y2 - bounds.y1],
          "layers": listed(image.get_layers())}
"""
        )
        return found

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
