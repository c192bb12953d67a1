"""A face of the image is exchanged: a real GIMP with the panel, the real server with a profile of the astronaut."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.test_e2e_faces import build, portrait
from tests.editors.gimp_driver import GimpEditor
from tests.gimp.conftest import painting, serving

pytestmark = pytest.mark.gimp


@pytest.fixture(scope="module")
def gimp(warm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GimpEditor]:
    folder = tmp_path_factory.mktemp("faces")
    (folder / "profile").mkdir()
    done = build(folder / "profile")
    assert done.returncode == 0, done.stderr
    files = sorted((folder / "profile" / "models" / "faces").glob("*.safetensors"))
    serve = [sys.executable, "-m", "impasto_server.cli.main", "serve"]
    with (
        serving(serve, folder / "impasto", files) as home,
        painting(warm_home, folder / "gimp", home, ui=True) as painter,
    ):
        yield GimpEditor(painter)


def test_a_face_is_exchanged_as_a_layer_and_one_undo_takes_it_back(gimp: GimpEditor) -> None:
    path = gimp.painter.save("portrait", np.asarray(portrait().convert("RGBA")))
    gimp.run(
        f"close_all()\nimage = new_image(300, 300)\nwrite(painting(image), open({path!r}, 'rb').read())\n"
        "image.undo_disable()\nimage.undo_enable()\nGimp.displays_flush()"
    )
    before = gimp.layers()
    gimp.start("faceswap")
    assert gimp.finish() == ""
    shown = gimp.panel.run(
        "prompt, profile = panel().wishes.prompt, widget('profile')\n"
        "result = [prompt.get_visible(), shown('strength'), widget('go').get_label(), profile.get_model()[1][0]]"
    )
    assert shown == [False, False, "Swap faces", "astro"]
    assert len(gimp.layers()) == len(before) + 1
    name = gimp.layers()[0]
    assert json.loads(gimp.recipe(name))["mode"] == "faceswap"
    x, y, w, h = gimp.run("made = image.get_layers()[0]\ndump('made', read(made))\nresult = place(made)")
    layer = gimp.painter.picture("made", h, w)
    assert x >= 60 and y >= 60 and x + w <= 240 and y + h <= 240, "where the face is"
    assert layer[h // 2, w // 2, 3] == 255 and layer[0, 0, 3] == 0
    under = np.asarray(portrait())[y : y + h, x : x + w]
    assert abs(layer[..., :3].astype(int) - under)[layer[..., 3] == 255].mean() > 5
    gimp.undo()
    assert gimp.layers() == before
