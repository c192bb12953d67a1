"""Going on from a result, and presets: a real Krita, the real server, a stub engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.krita.conftest import Painter

pytestmark = pytest.mark.krita

HELPERS = """
def paint(words):
    prompt(words)
    yield (lambda: widget("inpaint").isEnabled(), 10)
    count = len(controller().jobs.active)
    press("inpaint")
    yield (lambda: len(controller().jobs.active) > count, 5)
    yield (idle, 30)
    yield 0.3

def further(text):
    # Choose an entry of the menu.
    menu = widget("further").menu()
    menu.aboutToShow.emit()
    entry = next(a for a in menu.actions() if a.text() == text)
    if entry.isEnabled():
        entry.trigger()
    return entry.isEnabled()

def own(doc):
    return [n for n in layers(doc) if n not in ("Background", "Selection Mask")]
"""


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A LoRA for a few steps, as its name says."""
    path: Path = tmp_path_factory.mktemp("models") / "lcm.safetensors"
    path.write_bytes(b"lcm")
    return [path]


@pytest.fixture(scope="module", autouse=True)
def ready(painter: Painter) -> None:
    painter.run(HELPERS)
    painter.run("def gen():\n    yield (connected, 30)")


def test_a_result_is_taken_further_from_its_menu(painter: Painter) -> None:
    """A second pass begins at once, above the result; refining takes its settings over, whatever is selected."""
    made, refined, selected, whole = painter.run("""
def gen():
    doc = yield from new_document()
    yield from paint("a fox")
    further("Finer, in a second pass (hires)")
    yield (lambda: len(own(doc)) == 3, 20)
    yield (idle, 10)
    made = own(doc)
    strip().setCurrentRow(1)
    prompt("something else")
    select(doc, 32, 20, 80, 60)
    yield 0.4
    before = widget("inpaint").text()
    further("Refine (image to image)")
    yield (lambda: widget("inpaint").text() == "Refine picture", 10)
    refined = [before, docker().params()["prompt"], docker().params()["strength"], widget("message").text()]
    strip().setCurrentRow(0)  # the second pass itself
    again = further("Finer, in a second pass (hires)")
    further("Inpaint in it")
    yield (lambda: widget("inpaint").text() == "Inpaint selection", 10)
    selected = [again, widget("message").text()]
    further("Upscale")
    yield (lambda: widget("inpaint").text() == "Upscale document", 10)
    docker().set_mode("txt2img")
    docker().set_way("auto")
    doc2 = yield from new_document()
    scope("all")
    yield (lambda: len(strip().items) == 2, 10)
    further("Refine (image to image)")
    yield (lambda: "no layer" in widget("message").text(), 10)
    scope("document")
    docker().set_way("auto")
    return [made, refined, selected, widget("message").text()]
""")
    assert made == ["painting", "Impasto: a fox", "Impasto: a fox"]
    assert refined[:3] == ["Inpaint selection", "a fox", 0.75]
    assert refined[3].startswith("The settings are ready. Choose the strength and press “Refine picture”")
    assert not selected[0] and "“Inpaint selection”" in selected[1]
    assert whole.startswith("This picture is no layer of the document: add it as one first.")


def test_a_preset_sets_what_belongs_together_and_shows_it(painter: Painter) -> None:
    offered, chosen, own_value, back = painter.run("""
def gen():
    doc = yield from new_document()
    docker().panel.advanced.set_open(True)
    yield (lambda: shown("preset"), 10)
    picker = widget("preset")
    offered = [picker.itemText(i) for i in range(picker.count())] + [shown("sampler"), picker.currentText()]
    picker.setCurrentIndex(1)
    picker.activated.emit(1)
    yield 0.3
    chosen = [widget("message").text(), shown("sampler"), widget("loras_0_model").currentText(), picker.currentText()]
    yield from paint("quickly")
    docker().panel.form.model.edited("steps", 9)
    own_value = picker.currentText()
    docker().panel.form.model.edited("steps", 6)
    chosen.append(picker.currentText())
    press("reset")
    yield 0.3
    back = [picker.currentText(), shown("sampler"), docker().panel.form.overrides()]
    docker().panel.advanced.set_open(False)
    return [offered, chosen, own_value, back]
""")
    fast = "Fast: LCM, 6 steps"
    assert offered == ["None", fast, False, "None"]
    assert chosen[0].startswith(f"“{fast}” has set: LoRAs") and chosen[1:] == [True, "Lcm", fast, fast]
    assert own_value == "None" and back == ["None", False, {}]
    with np.load(painter.home / "received.npz") as sent:
        params = json.loads(str(sent["params"]))
    assert (params["sampler"], params["steps"], params["cfg"]) == ("lcm", 6, 1.5)
    assert [entry["model"] for entry in params["loras"]] == ["lcm"]
