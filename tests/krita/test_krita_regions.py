"""A group says where a prompt of its own holds: a real Krita, the real server, the real engine with a tiny network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.krita.conftest import Painter
from tests.tiny import write_tiny_checkpoint

pytestmark = pytest.mark.krita


@pytest.fixture(scope="module")
def launch() -> list[str]:
    return [sys.executable, "-m", "impasto_server.cli.main", "serve"]


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors")]


def test_a_group_is_a_region(painter: Painter) -> None:
    made, recipe, offered = painter.run(
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
    group = doc.createGroupLayer("left side")
    inside = doc.createNode("paint", "paintlayer")
    doc.rootNode().addChildNode(group, None)
    group.addChildNode(inside, None)
    inside.setPixelData(QByteArray(bytes((40, 90, 200, 255)) * (24 * 64)), 0, 0, 24, 64)
    doc.refreshProjection()
    doc.waitForDone()
    docker().set_way("txt2img")
    docker().panel.form.set_overrides({"steps": 4})
    docker().panel.seed.set_seed(5)
    yield 0.4
    docker().panel.advanced.set_open(True)
    yield 0.3
    plain = yield from painted(doc, "a forest")
    press("regions_add")
    yield 0.2
    words, where = widget("regions_0_prompt"), widget("regions_0_mask")
    where.fill("")
    offered = [where.itemText(i) for i in range(where.count())]
    where.setCurrentIndex(where.findText("left side"))
    words.setText("a red house on the hill")
    words.editingFinished.emit()
    yield 0.2
    regional = yield from painted(doc, "a forest")
    recipe = bytes(doc.annotation("impasto/recipe/" + regional.uniqueId().toString().strip("{}"))).decode()
    made = [drawn(doc, node) for node in (plain, regional)]
    press("regions_0_remove")
    docker().panel.advanced.set_open(False)
    docker().panel.seed.set_seed(-1)
    docker().set_way("auto")
    return [made, recipe, offered]
""",
        timeout=300,
    )
    plain, regional = (np.frombuffer(bytes.fromhex(pixels), np.uint8).reshape(64, 64, 4) for pixels in made)
    moved = np.abs(regional.astype(int) - plain).mean((0, 2))
    assert moved[:24].mean() > moved[40:].mean(), "the region alone has another prompt"
    assert offered[0] == "Choose a layer or group" and "left side" in offered and "paint" in offered
    kept = json.loads(recipe)
    assert list(kept["pictures"]) == ["control_1"]
    assert kept["params"]["regions"][0]["prompt"] == "a red house on the hill"
