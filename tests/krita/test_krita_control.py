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
