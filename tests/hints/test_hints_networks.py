"""Annotators of torch: equal to controlnet_aux's networks on the same weights, whose answers were recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from impasto_protocol.errors import ModelError
from impasto_protocol.geometry import Size
from impasto_server.engine.annotators.hed import Hed, load_hed, scribbled, soft_edges
from impasto_server.engine.annotators.running import MOST_PIXELS, looked_at
from impasto_server.engine.hints import Hints
from impasto_server.engine.identify import identify_file
from impasto_server.engine.jobs import ControlUnit
from impasto_server.engine.kit.runtime import Kit, installed
from PIL import Image
from skimage import data

from tests.hints.networks import random_state
from tests.hints.recorded import VECTORS

CPU = torch.device("cpu")
PICTURE = data.astronaut()[:192, 128:320]


def vector(name):
    with np.load(VECTORS) as held:
        return held[name]


def unit(image, **more):
    return ControlUnit("control unit 1", "params.control[0]", "", image, **more)


def rgba(picture):
    return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])


@pytest.fixture(scope="module")
def hed_file(tmp_path_factory):
    """ControlNetHED.pth with random numbers."""
    path = tmp_path_factory.mktemp("annotators") / "ControlNetHED.pth"
    torch.save(random_state(Hed()), path)
    return path


def same_edges(network, name):
    edges = soft_edges(network, PICTURE)
    # Off by one where a value lies on the edge between two.
    assert abs(edges.astype(int) - vector(f"hed {name} soft")).max() <= 1
    assert (edges != vector(f"hed {name} soft")).mean() < 0.001
    safe = soft_edges(network, PICTURE, safe=True)
    assert (safe != vector(f"hed {name} safe")).mean() < 0.005
    assert (scribbled(edges) != vector(f"hed {name} scribble")).mean() < 0.02


def test_hed_is_the_network_of_controlnet_aux(hed_file):
    same_edges(load_hed(hed_file, CPU), "random")


def test_hed_with_the_pulled_weights_is_too():
    try:
        path = installed("hed", Kit().folder)
    except ModelError as error:
        pytest.skip(error.message)
    same_edges(load_hed(path, CPU), "pulled")


def test_the_recorded_edges_are_those_of_the_face():
    edges = vector("hed pulled soft")
    assert set(np.unique(vector("hed pulled scribble"))) == {0, 255}
    assert set(np.unique(vector("hed pulled safe"))) <= {0, 127, 255}
    assert edges[:, 5].mean() < edges[90, 60:120].mean()


def test_every_preprocessor_of_it_makes_a_hint(hed_file):
    hints = Hints()
    for name in ("softedge", "softedge_safe", "scribble_hed"):
        hint = hints.of(unit(rgba(PICTURE), preprocessor=name, annotators=(str(hed_file),)), Size(96, 80))
        assert hint.pixels.shape == (80, 96, 3) and (hint.pixels[..., 0] == hint.pixels[..., 2]).all()


def test_a_large_picture_is_looked_at_smaller():
    seen = []

    def see(shown):
        seen.append(shown.shape)
        return shown[..., 0].astype(np.float32)

    picture = np.asarray(Image.fromarray(PICTURE).resize((1800, 1100)))
    found = looked_at(picture, 64, see)
    assert found.shape == (1100, 1800) and seen[0][0] % 64 == 0 and seen[0][1] % 64 == 0
    assert seen[0][0] * seen[0][1] < 1.1 * MOST_PIXELS
    assert abs(found - picture[..., 0]).mean() < 6
    found = looked_at(PICTURE[:100, :70], 64, see)
    np.testing.assert_array_equal(found, PICTURE[:100, :70, 0])


def test_a_file_is_known_by_its_names(hed_file):
    info = identify_file(hed_file)
    assert (info.kind, info.variant) == ("annotator", "hed")


def test_a_file_with_a_tensor_missing_names_the_unit(tmp_path):
    state = random_state(Hed())
    del state["block3.projection.bias"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(ModelError, match="not a complete HED edge detector") as caught:
        Hints().of(unit(rgba(PICTURE), preprocessor="softedge", annotators=(str(tmp_path / "part.pth"),)), Size(64, 64))
    assert caught.value.path == "params.control[0].preprocessor" and "control unit 1" in caught.value.message
