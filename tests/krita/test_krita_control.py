"""A scribble on a layer guides a picture: a real Krita, the real server, the real engine with tiny networks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.control import write_tiny_controlnet
from tests.krita.conftest import Painter
from tests.tiny import write_tiny_checkpoint

pytestmark = pytest.mark.krita


@pytest.fixture(scope="module")
def launch() -> list[str]:
    return [sys.executable, "-m", "impasto_server.cli.main", "serve"]


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [
        write_tiny_checkpoint(folder / "tiny.safetensors"),
        write_tiny_controlnet(folder / "scribble.safetensors"),
    ]


def test_a_scribble_guides_a_picture(painter: Painter) -> None:
    made, recipe, notice, gone, missing = painter.run(
        """
def drawn(doc, node):
    return bytes(node.pixelData(0, 0, doc.width(), doc.height())).hex()

def painted(doc, words):
    prompt(words)
    yield (lambda: widget("inpaint").isEnabled(), 10)
    before = [node.uniqueId() for node in doc.rootNode().childNodes()]
    yield from begin(lambda: press("inpaint"))
    yield (idle, 120)
    yield 0.3
    assert controller().notice is None or not controller().notice.is_error, controller().notice.text
    new = [node for node in doc.rootNode().childNodes() if node.uniqueId() not in before]
    assert len(new) == 1, layers(doc)
    return new[0]

def gen():
    yield (connected, 60)
    doc = yield from new_document(64, 64)
    lines = doc.createNode("my scribble", "paintlayer")
    doc.rootNode().addChildNode(lines, None)
    lines.setPixelData(QByteArray(bytes((255, 255, 255, 255)) * 160), 12, 30, 40, 4)
    lines.setPixelData(QByteArray(bytes((255, 255, 255, 255)) * 160), 30, 12, 4, 40)
    doc.refreshProjection()
    doc.waitForDone()
    docker().set_way("txt2img")
    docker().panel.form.set_overrides({"steps": 3})
    docker().panel.seed.set_seed(5)
    yield 0.4
    docker().panel.advanced.set_open(True)
    yield 0.3
    plain = yield from painted(doc, "a cat")
    press("control_add")
    yield 0.2
    net, picture = widget("control_0_model"), widget("control_0_image")
    assert net.currentData() == "scribble", net.currentData()
    how = widget("control_0_preprocessor")
    row = how.findData("openpose")
    missing = [how.itemText(row), how.itemData(row, Qt.ItemDataRole.ToolTipRole)]
    picture.fill("")
    picture.setCurrentIndex(picture.findText("my scribble"))
    yield 0.2
    guided = yield from painted(doc, "a cat")
    recipe = bytes(doc.annotation("impasto/recipe/" + guided.uniqueId().toString().strip("{}"))).decode()
    again = yield from painted(doc, "a cat")
    made = [drawn(doc, node) for node in (plain, guided, again)]
    lines.remove()
    doc.waitForDone()
    yield 0.3
    before = layers(doc)
    press("inpaint")
    yield (lambda: controller().notice is not None and controller().notice.is_error, 10)
    notice = controller().notice.text
    gone = layers(doc) == before
    press("control_0_remove")
    docker().panel.advanced.set_open(False)
    docker().panel.seed.set_seed(-1)
    docker().set_way("auto")
    return [made, recipe, notice, gone, missing]
""",
        timeout=300,
    )
    plain, guided, again = (np.frombuffer(bytes.fromhex(pixels), np.uint8).reshape(64, 64, 4) for pixels in made)
    assert (guided == again).all(), "the same scribble, the same seed: the same picture"
    assert abs(guided.astype(int) - plain).mean() > 0.5, "the scribble guides it"
    assert missing[0] == "Openpose (missing)" and "impasto models pull pose" in missing[1]
    kept = json.loads(recipe)
    assert list(kept["pictures"]) == ["control_1"] and kept["params"]["control"][0]["model"] == "scribble"
    assert gone and "layer that is chosen in the settings is gone" in notice


def test_a_hint_is_looked_at_made_a_layer_and_guides(painter: Painter) -> None:
    looked, tip, bound, before, after, guided, strength, off = painter.run(
        """
def gen():
    yield (connected, 60)
    doc = yield from new_document(64, 64)
    node = doc.createNode("square", "paintlayer")
    doc.rootNode().addChildNode(node, None)
    node.setPixelData(QByteArray(bytes((0, 0, 255, 255)) * 900), 16, 16, 30, 30)
    doc.refreshProjection()
    doc.waitForDone()
    docker().set_way("txt2img")
    docker().panel.form.set_overrides({"steps": 3})
    docker().panel.advanced.set_open(True)
    yield 0.4
    press("control_add")
    yield 0.2
    tip = [widget("control_0_layer").isEnabled(), widget("control_0_layer").toolTip()]
    how = widget("control_0_preprocessor")
    how.setCurrentIndex(how.findData("canny"))
    yield 0.2
    press("control_0_preview")
    yield (lambda: not widget("control_0_hint").isHidden(), 60)
    yield (idle, 60)
    picture = widget("control_0_hint")
    yield 0.3
    assert widget("control_0_pose").isHidden() and not widget("control_0_weight").isHidden(), "for experts"
    docker().panel.form.set_advanced(True)
    assert not widget("control_0_pose").isHidden()
    docker().panel.form.set_advanced(False)
    looked = [picture.pixmap().width(), picture.pixmap().toImage().pixelColor(32, 16).red() > 100 or
              picture.pixmap().toImage().pixelColor(32, 15).red() > 100, layers(doc)]
    yield 0.5
    docker().panel.form.grab().save(shot)
    before = layers(doc)
    press("control_0_layer")
    yield (lambda: len(layers(doc)) > len(before), 60)
    yield (idle, 60)
    yield 0.3
    bound = [widget("control_0_image").currentText(), widget("control_0_preprocessor").currentData()]
    after = layers(doc)
    choice = widget("control_0_strength")
    at = choice.findText("Followed")
    choice.setCurrentIndex(at)
    choice.activated.emit(at)
    yield 0.2
    unit = docker().panel.form.overrides()["control"][0]
    strength = [unit["weight"], unit["end"]]
    prompt("a cat")
    yield (lambda: widget("inpaint").isEnabled(), 10)
    yield from begin(lambda: press("inpaint"))
    yield (idle, 120)
    yield 0.3
    assert controller().notice is None or not controller().notice.is_error, controller().notice.text
    made = doc.rootNode().childNodes()[-1]
    guided = bytes(doc.annotation("impasto/recipe/" + made.uniqueId().toString().strip("{}"))).decode()
    widget("control_0_enabled").setChecked(False)
    yield 0.2
    yield from begin(lambda: press("inpaint"))
    yield (idle, 120)
    yield 0.3
    made = doc.rootNode().childNodes()[-1]
    off = bytes(doc.annotation("impasto/recipe/" + made.uniqueId().toString().strip("{}"))).decode()
    press("control_0_remove")
    docker().panel.advanced.set_open(False)
    docker().set_way("auto")
    return [looked, tip, bound, before, after, guided, strength, off]
""".replace("shot", repr(str(painter.home / "hint.png"))),
        timeout=300,
    )
    assert tip == [False, "Choose a preprocessor first: it makes the hint of a picture."]
    assert looked[0] == 64 and looked[1] and looked[2] == before, "the edges of the square, and no layer"
    assert len(after) == len(before) + 1 and bound == ["canny hint", "none"]
    assert strength == [0.8, 0.8]
    kept = json.loads(guided)
    assert list(kept["pictures"]) == ["control_1"] and kept["params"]["control"][0]["weight"] == 0.8
    assert "pictures" not in json.loads(off) and json.loads(off)["params"]["control"][0]["enabled"] is False
