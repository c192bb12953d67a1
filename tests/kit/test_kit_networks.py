"""The kit's networks give what they give in the programs that they were made for (vectors.npz, make_vectors.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from impasto_server.engine.identify import ModelInfo, identify_file
from impasto_server.engine.kit.runtime import Kit, installed
from impasto_server.engine.upscaler import load_upscaler

from tests.kit.make_vectors import VECTORS, close_picture, face_picture, small_picture


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(VECTORS) as file:
        return dict(file)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return Kit(tmp_path_factory.mktemp("kit"))


def test_real_esrgan_is_equal_to_ncnn(kit: Kit, recorded: dict[str, np.ndarray]) -> None:
    path = installed("realesr-animevideov3-x4", kit.folder)
    found = identify_file(path)
    assert isinstance(found, ModelInfo) and (found.kind, found.family) == ("upscaler", "esrgan")
    model = load_upscaler(path, device=torch.device("cpu"), dtype=torch.float32)
    assert (model.architecture, model.scale) == ("RealESRGAN Compact", 4)
    values = torch.from_numpy(small_picture().copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        ours = model.descriptor.model(values)[0].numpy()
    assert recorded["upscaled"].shape == (3, 96, 96) and recorded["upscaled"].std() > 0.1
    assert abs(ours - recorded["upscaled"]).max() < 1e-4


@pytest.mark.parametrize(("name", "side"), [("face-short-range", 128), ("face-full-range", 192)])
def test_the_detectors_are_equal_to_litert(kit: Kit, recorded: dict[str, np.ndarray], name: str, side: int) -> None:
    outputs = kit.network(name)(face_picture(side)[None] / 127.5 - 1)
    wanted = recorded[f"{name} scores"]
    assert wanted.max() > 2, "there is a face"
    assert abs(outputs["scores"][0, :, 0] - wanted).max() < 1e-3  # before the sigmoid, down to -100
    boxes = outputs["boxes"][0, recorded[f"{name} best"]]
    assert abs(boxes - recorded[f"{name} boxes"]).max() < 1e-3  # in the network's pixels


def test_the_mesh_is_equal_to_litert(kit: Kit, recorded: dict[str, np.ndarray]) -> None:
    outputs = kit.network("face-mesh")(close_picture(192)[None] / 255)
    assert abs(outputs["points"].reshape(-1) - recorded["face-mesh points"]).max() < 1e-3  # in the network's pixels
    assert recorded["face-mesh score"][0] > 10
    assert abs(outputs["score"].item() - recorded["face-mesh score"][0]) < 1e-3


def test_the_segmentation_is_equal_to_litert(kit: Kit, recorded: dict[str, np.ndarray]) -> None:
    mask = kit.network("person-segmentation")(face_picture(256)[None] / 255)["mask"][0, ::4, ::4, 0]
    wanted = recorded["person-segmentation mask"]
    assert wanted.min() < 0.01 and wanted.max() > 0.99
    assert abs(mask - wanted).max() < 1e-3


def test_the_embedding_is_equal_to_face_api(kit: Kit, recorded: dict[str, np.ndarray]) -> None:
    found = kit.network("face-embedding")(close_picture(150)[None])["embedding"][0]
    wanted = recorded["face-embedding"]
    assert wanted.shape == (128,) and np.linalg.norm(wanted) > 1
    assert abs(found - wanted).max() < 1e-3 and np.linalg.norm(found - wanted) < 0.005


def test_the_same_input_gives_the_same_output(kit: Kit, tmp_path: Path) -> None:
    values = face_picture(128)[None] / 127.5 - 1
    first, again = (k.network("face-short-range")(values) for k in (kit, Kit(tmp_path)))
    assert all(np.array_equal(first[name], again[name]) for name in first)
