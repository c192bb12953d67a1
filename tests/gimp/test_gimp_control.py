"""A scribble on a layer guides a picture: a real GIMP with the panel, the real server and engine with tiny networks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.control import write_tiny_controlnet
from tests.editors.drivers import HEIGHT, WIDTH
from tests.editors.gimp_driver import GimpEditor
from tests.gimp.conftest import painting, serving
from tests.tiny import write_tiny_checkpoint

pytestmark = pytest.mark.gimp

SCALED = "The result is made at 72 x 56 pixels and scaled up to 192 x 150; a smaller selection keeps more detail."
"""What a tiny checkpoint is warned of."""


@pytest.fixture(scope="module")
def gimp(warm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GimpEditor]:
    folder = tmp_path_factory.mktemp("control")
    files = [write_tiny_checkpoint(folder / "tiny.safetensors"), write_tiny_controlnet(folder / "scribble.safetensors")]
    serve = [sys.executable, "-m", "impasto_server.cli.main", "serve"]
    with (
        serving(serve, folder / "impasto", files) as home,
        painting(warm_home, folder / "gimp", home, ui=True) as painter,
    ):
        yield GimpEditor(painter)


def test_a_scribble_guides_a_picture(gimp: GimpEditor) -> None:
    gimp.new()
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:100, 40:140] = 255
    gimp.run(
        """
scribble = new_layer(image, "my scribble", 60, 6, 60, 50, color=(255, 255, 255, 255))
image.set_selected_layers([scribble])
Gimp.displays_flush()
"""
    )
    gimp.select(mask)
    gimp.panel.run("panel().wishes.form.set_overrides({'steps': 3})\npanel().wishes.seed.set_seed(5)")
    pictures = []
    for guided in (False, True, True):
        if guided and len(pictures) == 1:
            chosen = gimp.panel.run(
                """
def gen():
    panel().poll()
    panel().wishes.fold.set_expanded(True)
    yield 0.3
    widget("control_add").clicked()
    yield 0.3
    net, picture = widget("control_0_model"), widget("control_0_image")
    picture.emit("enter-notify-event", None)
    row = next(i for i, line in enumerate(picture.get_model()) if line[0] == "my scribble")
    picture.set_active(row)
    how = widget("control_0_preprocessor")
    how.set_active_id("openpose")
    missing = [how.get_active_text(), how.get_tooltip_text()]
    how.set_active_id("none")
    yield 0.2
    return [net.get_active_id(), picture.get_active_id(), *missing]
"""
            )
            assert chosen[0] == "scribble" and chosen[1].startswith("layer:")
            assert chosen[2] == "Openpose (missing)" and "impasto models pull pose" in chosen[3]
        gimp.start("inpaint", "a cat")
        assert gimp.finish() in ("", SCALED)
        name = gimp.layers()[0]
        size = gimp.run("made = image.get_layers()[0]\ndump('made', read(made))\nresult = place(made)")
        pictures.append(gimp.painter.picture("made", size[3], size[2]))
        if len(pictures) == 2:
            recipe = json.loads(gimp.recipe(name))
            assert list(recipe["pictures"]) == ["control_1"] and recipe["params"]["control"][0]["model"] == "scribble"
        gimp.run("image.remove_layer(image.get_layers()[0])\nimage.set_selected_layers([scribble])")
    plain, first, second = pictures
    assert (first == second).all(), "the same scribble, the same seed: the same picture"
    assert abs(first.astype(int) - plain).mean() > 0.2, "the scribble guides it"

    gimp.run("image.remove_layer(scribble)\nGimp.displays_flush()")
    before = gimp.layers()
    told = gimp.panel.run(
        """
def gen():
    panel().poll()
    yield (lambda: widget("go").get_sensitive(), 10)
    widget("go").clicked()
    yield (lambda: controller().notice is not None and controller().notice.is_error, 10)
    return controller().notice.text
"""
    )
    assert "layer that is chosen in the settings is gone" in told and gimp.layers() == before


def test_a_hint_is_looked_at_made_a_layer_and_guides(gimp: GimpEditor) -> None:
    gimp.new()
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:100, 40:140] = 255
    gimp.select(mask)
    before = gimp.layers()
    gimp.panel.run("panel().wishes.form.set_overrides({'steps': 3})\npanel().wishes.seed.set_seed(5)")
    tip, looked, strength = gimp.panel.run(
        """
def gen():
    panel().poll()
    panel().wishes.fold.set_expanded(True)
    yield 0.3
    widget("control_add").clicked()
    yield 0.3
    tip = [widget("control_0_layer").get_sensitive(), widget("control_0_layer").get_tooltip_text()]
    widget("control_0_preprocessor").set_active_id("canny")
    choice = widget("control_0_strength")
    choice.set_active(2)
    yield 0.2
    unit = panel().wishes.form.overrides()["control"][0]
    widget("control_0_preview").clicked()
    picture = widget("control_0_hint")
    yield (lambda: picture.get_visible(), 60)
    yield (lambda: not controller().jobs.active, 60)
    return [tip, picture.get_pixbuf().get_width(), [unit["weight"], unit["end"]]]
"""
    )
    assert tip == [False, "Choose a preprocessor first: it makes the hint of a picture."]
    assert looked == WIDTH and gimp.layers() == before and strength == [0.8, 0.8]
    bound = gimp.panel.run(
        """
def gen():
    widget("control_0_layer").clicked()
    yield (lambda: panel().wishes.form.overrides()["control"][0]["preprocessor"] == "none", 60)
    yield (lambda: not controller().jobs.active, 60)
    return panel().wishes.form.overrides()["control"][0]["image"]
"""
    )
    assert bound.startswith("layer:") and gimp.layers() == ["canny hint", *before]
    gimp.start("inpaint", "a cat")
    assert gimp.finish() in ("", SCALED)
    recipe = json.loads(gimp.recipe(gimp.layers()[0]))
    assert list(recipe["pictures"]) == ["control_1"] and recipe["params"]["control"][0]["weight"] == 0.8
    gimp.panel.run("widget('control_0_enabled').set_active(False)")
    gimp.start("inpaint", "a cat")
    assert gimp.finish() in ("", SCALED)
    recipe = json.loads(gimp.recipe(gimp.layers()[0]))
    assert "pictures" not in recipe and recipe["params"]["control"][0]["enabled"] is False
    gimp.panel.run("widget('control_0_remove').clicked()")
