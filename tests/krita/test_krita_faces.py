"""A face of the picture is exchanged: a real Krita, the real server with a profile of the astronaut."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from tests.e2e.test_e2e_faces import build, portrait
from tests.krita.conftest import Painter

pytestmark = pytest.mark.krita


@pytest.fixture(scope="module")
def launch() -> list[str]:
    return [sys.executable, "-m", "impasto_server.cli.main", "serve"]


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("profile")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return sorted((folder / "models" / "faces").glob("*.safetensors"))


def test_a_face_is_exchanged_as_a_layer_and_one_undo_takes_it_back(painter: Painter) -> None:
    picture = np.asarray(portrait().convert("RGBA"))[..., [2, 1, 0, 3]]
    shown, made, recipe, before, after, undone, empty = painter.run(
        f"data = bytes.fromhex({np.ascontiguousarray(picture).tobytes().hex()!r})"
        """
def gen():
    yield (connected, 60)
    doc = yield from new_document(300, 300)
    node = doc.createNode("portrait", "paintlayer")
    doc.rootNode().addChildNode(node, None)
    node.setPixelData(QByteArray(data), 0, 0, 300, 300)
    doc.refreshProjection()
    doc.waitForDone()
    press("mode_faceswap")
    yield 0.4
    docker().panel.advanced.set_open(True)
    yield 0.3
    shown = [widget("prompt").isVisible(), widget("strength").isVisible(), widget("seed").isVisible(),
             widget("profile").isVisible(), widget("inpaint").text(), widget("profile").itemText(1)]
    docker().grab().save(shot)
    before = layers(doc)
    yield (lambda: widget("inpaint").isEnabled(), 10)
    yield from begin(lambda: press("inpaint"))
    yield (idle, 120)
    yield 0.3
    assert controller().notice is None or not controller().notice.is_error, controller().notice.text
    new = doc.rootNode().childNodes()[-1]
    box = new.bounds()
    place = [box.x(), box.y(), box.width(), box.height()]
    made = [place, bytes(new.pixelData(*place)).hex()]
    recipe = bytes(doc.annotation("impasto/recipe/" + new.uniqueId().toString().strip("{}"))).decode()
    after = layers(doc)
    Krita.instance().action("edit_undo").trigger()
    doc.waitForDone()
    yield 0.3
    undone = layers(doc)
    node.remove()
    doc.waitForDone()
    yield 0.3
    yield from begin(lambda: press("inpaint"))
    yield (idle, 60)
    yield (lambda: controller().notice is not None and controller().notice.is_error, 30)
    empty = [controller().notice.text, layers(doc)]
    docker().panel.advanced.set_open(False)
    press("mode_paint")
    return [shown, made, recipe, before, after, undone, empty]
""".replace("shot", repr(str(painter.home / "faces.png"))),
        timeout=300,
    )
    assert shown == [False, False, False, True, "Swap faces", "astro"]
    assert len(after) == len(before) + 1 and undone == before
    (x, y, w, h), pixels = made
    layer = np.frombuffer(bytes.fromhex(pixels), np.uint8).reshape(h, w, 4)
    assert x >= 60 and y >= 60 and x + w <= 240 and y + h <= 240, "where the face is"
    assert layer[h // 2, w // 2, 3] == 255 and (layer[0, 0, 3], layer[-1, -1, 3]) == (0, 0)
    under = np.asarray(portrait())[y : y + h, x : x + w]
    assert abs(layer[..., [2, 1, 0]].astype(int) - under)[layer[..., 3] == 255].mean() > 5
    assert json.loads(recipe)["mode"] == "faceswap"
    assert "no face" in empty[0] and len(empty[1]) == len(before) - 1
    assert isinstance(Image.fromarray(data.astronaut()), Image.Image)
