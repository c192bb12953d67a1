"""Going on from a result, and presets, in GIMP's panel: the real server, a stub engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gimp.conftest import Painter, painting, serving
from tests.gimp.gdrive import Line
from tests.gimp.test_gimp_desktop import close, key, opened, window
from tests.krita import stub

pytestmark = pytest.mark.gimp

__all__ = ["key", "window"]

HELPERS = """
def entry(text):
    menu = widget("further").get_popup()
    menu.show()  # tells which there are
    menu.hide()
    return next(item for item in menu.get_children() if item.get_label() == text)

def paint(words):
    panel().wishes.prompt.text = words
    yield (lambda: widget("go").get_sensitive(), 10)
    count = len(panel().strip.items)
    widget("go").clicked()
    yield (lambda: len(panel().strip.items) > count and idle(), 30)
"""


@pytest.fixture(scope="module")
def desktop(warm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Painter]:
    """A GIMP of its own: its server has a LoRA for a few steps, as its name says."""
    folder = tmp_path_factory.mktemp("further")
    (folder / "lcm.safetensors").write_bytes(b"lcm")
    with (
        serving(stub.launch_command(), folder / "impasto", [folder / "lcm.safetensors"]) as home,
        painting(warm_home, folder, home, ui=True) as started,
    ):
        yield started


@pytest.fixture
def panel(desktop: Painter, key: Any) -> Iterator[Line]:
    desktop.run("image = new_image(256, 192)\nselect(image, 20, 20, 100, 100)")
    line = opened(desktop, key)
    line.run(HELPERS)
    yield line
    close(line)


def test_further_and_presets(desktop: Painter, panel: Line) -> None:
    said, offered, chosen, back = panel.run(
        """
def gen():
    yield from paint("a barn")
    entry("Upscale").activate()
    yield (lambda: panel().mode == "upscale", 10)
    said = [widget("message").get_text(), entry("Finer, in a second pass (hires)").get_sensitive()]
    panel().wishes.prompt.text = "something else"
    entry("Inpaint in it").activate()
    yield (lambda: panel().mode == "inpaint", 10)
    said += [panel().wishes.prompt.text, widget("message").get_text()]
    panel().wishes.fold.set_expanded(True)
    yield 0.3
    picker = widget("preset")
    offered = [row[0] for row in picker.get_model()] + [shown("preset"), picker.get_active_text()]
    picker.set_active(1)
    yield 0.2
    chosen = [widget("message").get_text(), shown("sampler"), picker.get_active_text()]
    yield from paint("quickly")
    widget("reset").clicked()
    yield 0.2
    return [said, offered, chosen, [picker.get_active_text(), panel().wishes.form.overrides()]]
"""
    )
    assert said[0] == "The settings are ready. Press “Upscale image”: it begins with what the image shows."
    assert said[1:3] == [False, "a barn"] and "“Inpaint selection”" in said[3]
    fast = "Fast: LCM, 6 steps"
    assert offered == ["None", fast, True, "None"]
    assert chosen[0].startswith(f"“{fast}” has set: LoRAs") and chosen[1:] == [True, fast] and back == ["None", {}]
    params = json.loads(str(desktop.received()["params"]))
    assert (params["sampler"], params["steps"], params["cfg"]) == ("lcm", 6, 1.5)
