"""A group says where a prompt of its own holds: a real GIMP with the panel, the real server, a tiny network."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.editors.drivers import HEIGHT, WIDTH
from tests.editors.gimp_driver import GimpEditor
from tests.gimp.conftest import painting, serving
from tests.gimp.test_gimp_control import SCALED
from tests.tiny import write_tiny_checkpoint

pytestmark = pytest.mark.gimp


@pytest.fixture(scope="module")
def gimp(warm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GimpEditor]:
    folder = tmp_path_factory.mktemp("regions")
    serve = [sys.executable, "-m", "impasto_server.cli.main", "serve"]
    with (
        serving(serve, folder / "impasto", [write_tiny_checkpoint(folder / "tiny.safetensors")]) as home,
        painting(warm_home, folder / "gimp", home, ui=True) as painter,
    ):
        yield GimpEditor(painter)


def test_a_group_is_a_region(gimp: GimpEditor) -> None:
    gimp.new()
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:100, 40:140] = 255
    gimp.run(
        """
group = Gimp.GroupLayer.new(image, "left side")
image.insert_layer(group, None, 0)
inside = new_layer(image, "paint", 40, 20, 40, 80, color=(200, 90, 40, 255))
image.reorder_item(inside, group, 0)
image.set_selected_layers([inside])
Gimp.displays_flush()
"""
    )
    gimp.select(mask)
    gimp.panel.run("panel().wishes.form.set_overrides({'steps': 3})\npanel().wishes.seed.set_seed(5)")
    pictures = []
    for regional in (False, True):
        if regional:
            chosen = gimp.panel.run(
                """
def gen():
    panel().poll()
    panel().wishes.fold.set_expanded(True)
    yield 0.3
    widget("regions_add").clicked()
    yield 0.3
    words, where = widget("regions_0_prompt"), widget("regions_0_mask")
    where.emit("enter-notify-event", None)
    row = next(i for i, line in enumerate(where.get_model()) if line[0] == "left side")
    where.set_active(row)
    words.set_text("a red house on the hill")
    yield 0.2
    return [where.get_active_id(), where.get_model()[0][0]]
"""
            )
            assert chosen[0].startswith("layer:") and chosen[1] == "Choose a layer or group"
        gimp.start("inpaint", "a forest")
        assert gimp.finish() in ("", SCALED)
        name = gimp.layers()[0]
        size = gimp.run("made = image.get_layers()[0]\ndump('made', read(made))\nresult = place(made)")
        pictures.append(gimp.painter.picture("made", size[3], size[2]))
        if regional:
            recipe = json.loads(gimp.recipe(name))
            assert list(recipe["pictures"]) == ["control_1"]
            assert recipe["params"]["regions"][0]["prompt"] == "a red house on the hill"
        gimp.run("image.remove_layer(image.get_layers()[0])\nimage.set_selected_layers([inside])")
    plain, other = pictures
    assert (plain != other).any(), "the region has another prompt"
