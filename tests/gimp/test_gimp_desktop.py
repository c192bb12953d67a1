"""GIMP's full interface as a painter uses it: mouse and keyboard on a display, the real server, a stub engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.gimp.conftest import OPEN, PANEL, Painter, panel_of, states
from tests.gimp.gdrive import GimpError, Line, until
from tests.krita import stub

pytestmark = pytest.mark.gimp

WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def window(desktop: Painter) -> str:
    """GIMP's main window, by its X number, placed and sized."""
    found: str = until(
        lambda: desktop.gimp.xdotool("search", "--onlyvisible", "--name", "^GNU Image Man|GIMP$").split("\n")[0], 60
    )
    desktop.gimp.xdotool("windowsize", "--sync", found, "1200", "900")
    desktop.gimp.xdotool("windowmove", found, "0", "0")
    return found


@pytest.fixture
def key(desktop: Painter, window: str) -> Any:
    """Press keys in GIMP's main window."""

    def press(*keys: str) -> None:
        desktop.gimp.xdotool("windowactivate", "--sync", window)
        desktop.gimp.xdotool("key", "--clearmodifiers", *keys)

    return press


@pytest.fixture
def panel(desktop: Painter, key: Any) -> Iterator[Line]:
    """The panel, opened by its shortcut, connected to the server; closed at the end."""
    desktop.run(f"image = new_image({WIDTH}, {HEIGHT})")
    line = opened(desktop, key)
    yield line
    close(line)


def strike(key: Any, keys: str, done: Callable[[], Any]) -> Any:
    """Press keys until something comes of it: one pressed while GIMP is busy with its window is lost."""
    for _ in range(3):
        key(keys)
        try:
            return until(done, 8)
        except AssertionError:
            continue
    raise AssertionError(f"nothing came of {keys}")


def opened(desktop: Painter, key: Any) -> Line:
    def found() -> Line | None:
        try:
            return panel_of(desktop, 0.5)
        except AssertionError:
            return None

    line: Line = strike(key, "ctrl+alt+i", found)
    line.run("def gen():\n    yield (connected, 30)\n    panel().move(1210, 20)\n    yield 0.3")
    return line


def close(line: Line) -> None:
    try:
        line.run("from gi.repository import GLib\nGLib.idle_add(panel().destroy)")
    except (GimpError, OSError):
        return
    finally:
        line.close()


def names(desktop: Painter) -> list[Any]:
    found: list[Any] = desktop.run("result = tree(image)")
    return found


def click(desktop: Painter, line: Line, name: str) -> None:
    x, y = line.run(f"result = at(widget({name!r}))")
    desktop.gimp.click(x, y)


def undo_and_redo(desktop: Painter, key: Any, added: list[Any]) -> None:
    """One Ctrl+Z takes the layer back and nothing else, Ctrl+Y brings it again."""
    desktop.run("after = seen_exactly(image)")
    key("ctrl+z")
    until(lambda: names(desktop) == added[1:], 10)
    assert desktop.run("result = seen_exactly(image) == before")
    key("ctrl+y")
    until(lambda: names(desktop) == added, 10)
    assert desktop.run("result = seen_exactly(image) == after")


def test_select_type_inpaint_compare_undo_apply(desktop: Painter, panel: Line, key: Any) -> None:
    """The whole way by mouse and keyboard."""
    hint = panel.run("def gen():\n    yield 0.5\n    return [widget('hint').get_text(), widget('go').get_sensitive()]")
    assert hint == ["Select a region first.", False]

    def drag(tool: str) -> None:
        key(tool)
        desktop.gimp.drag((480, 300), (620, 420))

    # r is the rectangle tool.
    strike(drag, "r", lambda: desktop.run("result = Gimp.Selection.bounds(image).non_empty"))
    x, y, w, h = desktop.run(
        "before = seen_exactly(image)\nb = Gimp.Selection.bounds(image)\n"
        "result = [b.x1, b.y1, b.x2 - b.x1, b.y2 - b.y1]"
    )
    click(desktop, panel, "prompt")
    desktop.gimp.xdotool("type", "--delay", "20", "a red barn")
    until(lambda: panel.run("result = widget('go').get_sensitive()"), 10)
    click(desktop, panel, "go")
    until(lambda: names(desktop) == ["Impasto: a red barn", "painting"], 30)
    panel.run("def gen():\n    yield (idle, 20)\n    yield 0.3")
    desktop.run("dump('after', seen(image))\ndump('before', seen(image.get_layers()[1].get_image()))")
    after = desktop.picture("after", HEIGHT, WIDTH)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[y : y + h, x : x + w] = True
    assert (after[inside] == (*stub.COLOR, 255)).all()
    yy, xx = np.mgrid[:HEIGHT, :WIDTH]
    assert (after[~inside][:, 0] == (xx % 256)[~inside]).all() and (after[~inside][:, 1] == yy[~inside]).all()

    compared = panel.run("result = [shown('picture'), panel().picture.comparing, at(widget('compare'))]")
    assert compared[:2] == [True, False]
    desktop.gimp.xdotool("mousemove", *map(str, compared[2]), "sleep", "0.1", "mousedown", "1")
    until(lambda: panel.run("result = panel().picture.comparing"), 5)
    desktop.gimp.xdotool("mouseup", "1")
    until(lambda: not panel.run("result = panel().picture.comparing"), 5)
    assert names(desktop) == ["Impasto: a red barn", "painting"]  # comparing touches nothing

    undo_and_redo(desktop, key, ["Impasto: a red barn", "painting"])
    key("ctrl+z")
    until(lambda: names(desktop) == ["painting"], 10)
    click(desktop, panel, "apply")
    until(lambda: names(desktop) == ["Impasto: a red barn", "painting"], 10)
    undo_and_redo(desktop, key, ["Impasto: a red barn", "painting"])


def test_progress_and_cancel_leave_no_trace(desktop: Painter, panel: Line, key: Any) -> None:
    desktop.run("select(image, 20, 20, 100, 100)\nbefore = seen_exactly(image)")
    desktop.hold.touch()
    panel.run(
        """
def gen():
    panel().wishes.prompt.text = "never"
    yield (lambda: widget("go").get_sensitive(), 10)
    widget("go").clicked()
    yield (lambda: controller().running() is not None and controller().running().step == 3, 20)
    yield (lambda: shown("picture"), 5)
"""
    )
    text, fraction, cancel = panel.run(
        "bar = widget('progress')\nresult = [bar.get_text(), bar.get_fraction(), shown('cancel')]"
    )
    assert text == "Painting: step 3 of 8" and 0.3 < fraction < 0.5 and cancel
    click(desktop, panel, "cancel")
    panel.run("def gen():\n    yield (idle, 10)\n    yield 0.2")
    assert names(desktop) == ["painting"] and desktop.run("result = seen_exactly(image) == before")
    assert states(desktop)[-1] == "cancelled"


def test_a_panel_closed_in_the_middle_of_a_job_finds_the_result_again(desktop: Painter, panel: Line, key: Any) -> None:
    """The job goes on at the server; the image is left alone; the next panel lists the result and can add it."""
    desktop.run("select(image, 20, 20, 100, 100)")
    desktop.hold.touch()
    panel.run(
        """
def gen():
    panel().wishes.prompt.text = "left alone"
    yield (lambda: widget("go").get_sensitive(), 10)
    widget("go").clicked()
    yield (lambda: controller().running() is not None and controller().running().step == 3, 20)
"""
    )
    found = desktop.gimp.xdotool("search", "--name", "^Impasto$").split("\n")[-1]
    desktop.gimp.xdotool("windowactivate", "--sync", found, "key", "--clearmodifiers", "alt+F4")
    until(lambda: not desktop.run("result = Gimp.get_pdb().procedure_exists('plug-in-impasto-panel-ask')"), 20)
    desktop.hold.unlink()
    until(lambda: states(desktop)[-1] == "finished", 20)
    assert names(desktop) == ["painting"]
    again = opened(desktop, key)
    try:
        again.run(
            """
def gen():
    widget("scope").set_active_id("all")
    yield (lambda: any("left alone" in item.name for item in panel().strip.items), 20)
    index = next(i for i, item in enumerate(panel().strip.items) if "left alone" in item.name)
    panel().strip.choose(index)
    widget("apply").clicked()
"""
        )
        until(lambda: names(desktop) == ["Impasto: left alone", "painting"], 10)
    finally:
        close(again)


def test_an_image_closed_in_the_middle_keeps_the_result_in_the_strip(desktop: Painter, panel: Line) -> None:
    desktop.run("select(image, 20, 20, 100, 100)")
    desktop.hold.touch()
    panel.run(
        """
def gen():
    panel().wishes.prompt.text = "orphan"
    yield (lambda: widget("go").get_sensitive(), 10)
    widget("go").clicked()
    yield (lambda: controller().running() is not None and controller().running().step == 3, 20)
"""
    )
    desktop.run("close_all()")
    desktop.hold.unlink()
    message = panel.run("def gen():\n    yield (idle, 20)\n    yield 0.2\n    return widget('message').get_text()")
    assert "closed meanwhile" in message
    desktop.run(f"image = new_image({WIDTH}, {HEIGHT})")
    panel.run(
        """
def gen():
    yield (lambda: panel().current_image() is not None, 10)
    widget("scope").set_active_id("all")
    yield (lambda: panel().strip.items and "orphan" in panel().strip.items[0].name, 10)
    panel().strip.choose(0)
    widget("apply").clicked()
"""
    )
    until(lambda: names(desktop) == ["Impasto: orphan", "painting"], 10)


def test_a_panel_that_outlives_its_image_ends_without_a_word(desktop: Painter, panel: Line) -> None:
    desktop.run("close_all()")
    close(panel)
    until(lambda: not desktop.run("result = Gimp.get_pdb().procedure_exists('plug-in-impasto-panel-ask')"), 20)
    time.sleep(1)  # GIMP shows its message boxes a moment later
    assert desktop.gimp.xdotool("search", "--onlyvisible", "--name", "^GIMP Message$") == ""


def test_the_shortcuts_hand_the_image_to_the_open_panel(desktop: Painter, panel: Line, key: Any) -> None:
    desktop.run("select(image, 40, 40, 60, 60)")
    panel.run("panel().wishes.prompt.text = 'by key'")
    count = len(states(desktop))
    strike(key, "ctrl+alt+Return", lambda: states(desktop)[count:])
    until(lambda: names(desktop) == ["Impasto: by key", "painting"], 30)
    desktop.run(
        "sketch = new_layer(image, 'sketch', 50, 40, 10, 10)\nGimp.Selection.none(image)\nGimp.displays_flush()"
    )
    strike(key, "ctrl+shift+alt+Return", lambda: states(desktop)[count + 1 :])
    until(lambda: names(desktop) == ["Impasto: by key #1", "sketch", "Impasto: by key", "painting"], 30)
    assert panel.run("result = panel().mode") == "sketch"


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("rgb", "U8_NON_LINEAR"), ("rgb", "FLOAT_LINEAR"), ("grey", "U16_NON_LINEAR"), ("indexed", "U8_NON_LINEAR")],
    ids=["u8", "float", "grey16", "indexed"],
)
def test_one_undo_step_on_every_type_of_image(desktop: Painter, key: Any, kind: str, precision: str) -> None:
    desktop.run(
        f"image = new_image(128, 96, {kind!r}, {precision!r})"
        + """
select(image, 30, 20, 50, 40)
before = seen_exactly(image)
layers_of(call("inpaint", image, prompt="step"))
Gimp.displays_flush()
"""
    )
    undo_and_redo(desktop, key, ["Impasto: step", "painting"])


def test_the_dialog_of_the_menu_entry(desktop: Painter, key: Any) -> None:
    """Without a panel the shortcut opens a dialog; Ctrl+Return in it starts; upscaling opens a window of its own."""
    desktop.run(f"image = new_image({WIDTH}, {HEIGHT})\nselect(image, 40, 40, 60, 60)")
    dialog = strike(key, "ctrl+alt+Return", lambda: dialog_of(desktop))
    title, model = dialog.run(
        """
def gen():
    yield (lambda: widget("model").get_active_id() is not None, 20)
    combo = widget("model")
    return [top("impasto_dialog").get_title(), combo.get_model()[combo.get_active()][1]]
"""
    )
    assert (title, model) == ("Impasto: Inpaint", "Painterly")
    desktop.gimp.xdotool("type", "--delay", "20", "from a dialog")
    desktop.gimp.xdotool("key", "ctrl+Return")
    until(lambda: names(desktop) == ["Impasto: from a dialog", "painting"], 30)
    dialog.close()
    dialog = strike(key, "ctrl+alt+u", lambda: dialog_of(desktop))
    offered = dialog.run("combo = widget('upscaler')\nresult = [row[0] for row in combo.get_model()]")
    assert offered == ["Lanczos", "Sharp 4x"]  # and what the catalogue has
    dialog.run("top('impasto_dialog').response(Gtk.ResponseType.OK)")
    dialog.close()
    size = desktop.run(
        """
def gen():
    yield (lambda: len(Gimp.get_images()) == 2, 30)
    larger = next(i for i in Gimp.get_images() if i.get_id() != image.get_id())
    return [larger.get_width(), larger.get_height()]
"""
    )
    assert size == [2 * WIDTH, 2 * HEIGHT]


def dialog_of(desktop: Painter) -> Line | None:
    try:
        line = desktop.gimp.plug_in(OPEN.format("impasto_dialog"), 0.5)
    except AssertionError:
        return None
    line.run(PANEL)
    time.sleep(0.3)  # the window manager gives it the keyboard
    return line


def test_a_diagnosis_goes_to_the_clipboard(desktop: Painter, panel: Line) -> None:
    text, message = panel.run(
        """
from gi.repository import Gdk
clipboard = Gtk.Clipboard.get(Gdk.SELECTION_CLIPBOARD)
clipboard.set_text("", -1)

def gen():
    entries = widget("help").get_popup().get_children()
    next(entry for entry in entries if entry.get_label() == "Copy a diagnosis").activate()
    yield (lambda: "clipboard:" in (widget("message").get_text() or ""), 240)
    return [clipboard.wait_for_text(), widget("message").get_text()]
""",
        timeout=300,
    )
    assert "impasto   Impasto" in text and "torch" in text and "modes" in text
    assert "in the clipboard" in message
