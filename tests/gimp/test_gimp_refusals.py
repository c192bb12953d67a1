"""What cannot be done from a script: an error status with a sentence, nothing changed, and never a hang."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.gimp.conftest import Painter, states
from tests.gimp.gdrive import until

pytestmark = pytest.mark.gimp

REFUSALS = {
    "no image": ("answer = call('inpaint', None, prompt='x')", "calling-error", ""),
    "nothing selected": ("answer = call('inpaint', image, prompt='x')", "calling-error", "Select a region first."),
    "no drawable": ("answer = call('sketch', image, [])", "calling-error", "Choose the layer with the sketch first."),
    "two drawables": (
        "other = new_layer(image, 'other', 9, 9)\nanswer = call('sketch', image, [painting(image), other])",
        "calling-error",
        "2 layers are chosen; choose the one with the sketch.",
    ),
    "a drawable of another image": (
        "other = new_image(16, 16)\nanswer = call('sketch', image, [painting(other)])",
        "calling-error",
        "That layer belongs to another image",
    ),
    "the selection with a drawable of another image": (
        "other = new_image(16, 16)\nselect(image, 1, 1, 9, 9)\nanswer = call('inpaint', image, [painting(other)])",
        "calling-error",
        "That layer belongs to another image",
    ),
    "a group": (
        "group = Gimp.GroupLayer.new(image, 'group')\nimage.insert_layer(group, None, 0)\n"
        "answer = call('sketch', image, [group])",
        "calling-error",
        "The active layer is a group; choose the layer with the sketch.",
    ),
    "a text layer": (
        "text = Gimp.TextLayer.new(image, 'hello', Gimp.context_get_font(), 12, Gimp.Unit.pixel())\n"
        "image.insert_layer(text, None, 0)\nanswer = call('sketch', image, [text])",
        "calling-error",
        "The active layer is a text layer; choose the layer with the sketch.",
    ),
    "a layer mask": (
        "layer = painting(image)\nmask = layer.create_mask(Gimp.AddMaskType.WHITE)\nlayer.add_mask(mask)\n"
        "answer = call('sketch', image, [mask])",
        "calling-error",
        "The active drawable is a layer mask; choose the layer with the sketch.",
    ),
    "a hidden layer": (
        "painting(image).set_visible(False)\nanswer = call('sketch', image)",
        "calling-error",
        "The layer with the sketch is hidden; show it first.",
    ),
    "an empty sketch": (
        "empty = new_layer(image, 'empty', 9, 9, color=(0, 0, 0, 0))\nanswer = call('sketch', image, [empty])",
        "calling-error",
        "The active layer is empty on the canvas",
    ),
    "a selection outside the layer": (
        "layer = new_layer(image, 'small', 9, 9)\nselect(image, 50, 50, 20, 20)\n"
        "answer = call('sketch', image, [layer])",
        "calling-error",
        "The active layer is empty in the selection",
    ),
    "a floating selection": (
        "select(image, 1, 1, 9, 9)\nGimp.Selection.float(image, [painting(image)], 0, 0)\n"
        "answer = call('inpaint', image, prompt='x')",
        "calling-error",
        "There is a floating selection; anchor it, or make it a layer, first.",
    ),
    "too many steps": (
        "select(image, 1, 1, 9, 9)\nanswer = call('inpaint', image, steps=151.0)",
        "calling-error",
        "Steps (steps) must be a whole number from 1 to 150, not 151.",
    ),
    "half a step": (
        "select(image, 1, 1, 9, 9)\nanswer = call('inpaint', image, steps=2.5)",
        "calling-error",
        "Steps (steps) must be a whole number from 1 to 150, not 2.5.",
    ),
    "not a number": (
        "select(image, 1, 1, 9, 9)\nanswer = call('inpaint', image, settings='{\"cfg\": NaN}')",
        "calling-error",
        "Guidance scale (cfg) must be a number from 1 to 30, not nan.",
    ),
    "a mistyped sampler": (
        "select(image, 1, 1, 9, 9)\nanswer = call('inpaint', image, sampler='eulr')",
        "calling-error",
        "did you mean 'euler'?",
    ),
    "settings that are no JSON": (
        "select(image, 1, 1, 9, 9)\nanswer = call('inpaint', image, settings='{steps')",
        "calling-error",
        "The settings are not JSON",
    ),
    "a setting that the server does not know": (
        "select(image, 1, 1, 9, 9)\nanswer = call('inpaint', image, settings='{\"stepz\": 3}')",
        "calling-error",
        "Did you mean 'steps'?",
    ),
    "an unknown model": (
        "select(image, 1, 1, 9, 9)\nanswer = call('inpaint', image, model='nowhere')",
        "execution-error",
        "nowhere",
    ),
    "a scale beyond the limit": (
        "answer = call('upscale', image, scale=9.0)",
        "calling-error",
        "Scale (scale) must be a number from 1 to 8, not 9.",
    ),
    "a job that fails": (
        "select(image, 1, 1, 40, 40)\nanswer = call('inpaint', image, prompt='no memory')",
        "execution-error",
        "There is not enough memory; choose a smaller region.",
    ),
    "again without a recipe": (
        "answer = call('again', image, [painting(image)])",
        "calling-error",
        "The active layer was not made by Impasto",
    ),
    "again with a damaged recipe": (
        "layer = new_layer(image, 'x', 9, 9)\n"
        "layer.attach_parasite(Gimp.Parasite.new('impasto-recipe', 1, b'{\"mode\": 3'))\n"
        "answer = call('again', image, [layer])",
        "calling-error",
        "The recipe of this layer is damaged",
    ),
    "the panel from a script": (
        "answer = call('panel', image)",
        "calling-error",
        "The panel is for people; call the actions from scripts.",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_an_error_status_and_a_sentence(painter: Painter, case: str) -> None:
    act, status, sentence = REFUSALS[case]
    answer, error, before, after = painter.run(
        "image = new_image(128, 96)\n"
        + act
        + """
names = tree(image)
result = [answer[0], answer[2], [n for n in names if "Impasto" in str(n)], len(Gimp.get_images())]
"""
    )
    assert answer == status
    assert sentence in error and "Traceback" not in error
    assert before == [] and after == (2 if "another image" in case else 1)


def test_a_selection_of_one_pixel_works(painter: Painter) -> None:
    names = painter.run(
        "image = new_image(128, 96)\nselect(image, 127, 95, 1, 1)\n"
        "layers_of(call('inpaint', image, prompt='dot'))\nresult = tree(image)"
    )
    assert names == ["Impasto: dot", "painting"]


def test_no_server_is_an_error_and_no_hang(painter: Painter, tmp_path: Path) -> None:
    """The plug-in finds no running server and cannot start one: another folder, in which nothing is set up."""
    began = time.monotonic()
    endpoint = painter.home / "endpoint.json"
    kept = endpoint.rename(tmp_path / "endpoint.json")
    try:
        status, message = painter.run(
            "image = new_image(64, 64)\nselect(image, 1, 1, 9, 9)\nanswer = call('inpaint', image)\n"
            "result = [answer[0], answer[2]]"
        )
    finally:
        kept.rename(endpoint)
    assert status == "execution-error" and "server is not set up" in message
    assert time.monotonic() - began < 30


def test_the_status_bars_cancel_ends_the_job(painter: Painter) -> None:
    """GIMP's Cancel kills the plug-in's process, and the server takes that as the end of the job."""
    painter.hold.touch()
    before = running(painter)
    started = painter.run(
        """
image = new_image(64, 64)
select(image, 1, 1, 30, 30)
answers = []
from gi.repository import GLib
GLib.timeout_add(50, lambda: answers.append(call("inpaint", image, prompt="killed")) and False)
result = True
"""
    )
    assert started
    process = until(lambda: running(painter) - before, 30)
    until(lambda: states(painter)[-1:] == ["running"], 30)
    os.kill(process.pop(), signal.SIGKILL)
    until(lambda: states(painter)[-1] == "cancelled", 20)
    status, names = painter.run("def gen():\n    yield (lambda: answers, 20)\n    return [answers[0][0], tree(image)]")
    assert status != "success" and names == ["painting"]


def running(painter: Painter) -> set[int]:
    """The plug-in's processes of this GIMP, by number."""
    return {int(path.stem.rsplit("-", 1)[1]) for path in painter.gimp.home.glob("plug-in-*.run") if _alive(path)}


def _alive(path: Path) -> bool:
    return Path(f"/proc/{path.stem.rsplit('-', 1)[1]}").exists()
