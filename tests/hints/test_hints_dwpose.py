"""DWPose with the user's own ONNX files, and files that are not what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from impasto_protocol.errors import ModelError
from impasto_protocol.geometry import Size
from impasto_server.engine.annotators.dwpose import find_whole_bodies, load_people_detector, load_whole_body
from impasto_server.engine.hints import Hints
from impasto_server.engine.identify import Unknown, identify_file
from impasto_server.engine.jobs import ControlUnit
from impasto_server.engine.onnxfiles import read_onnx
from skimage import data

from starter.kit.onnxfile import Graph

CPU = torch.device("cpu")
PICTURE = data.astronaut()[:192, 128:320]


def unit(**more):
    picture = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 255, np.uint8)])
    return ControlUnit("control unit 1", "params.control[0]", "", picture, **more)


def kind_of(path):
    info = identify_file(path)
    return info.kind, info.variant


def write_detector(path, boxes, side=64):
    """A YOLOX whose answer does not depend on the picture: `boxes` of (x, y, w, h, score) in its pixels."""
    rows = np.zeros((sum((side // s) ** 2 for s in (8, 16, 32)), 85), np.float32)
    for number, (x, y, w, h, score) in enumerate(boxes):
        cell = number  # of the first level: stride 8, cell (number, 0)
        rows[cell, :4] = (x + w / 2) / 8 - number, (y + h / 2) / 8, np.log(w / 8), np.log(h / 8)
        rows[cell, 4:6] = 1, score
    graph = Graph("yolox")
    graph.input("images", (1, 3, side, side))
    graph.output(graph.constant(rows[None]), "output", rows[None].shape)
    path.write_bytes(graph.encoded())
    return path


def write_pose(path, places, scores, size=(48, 64)):
    """Joints at `places` [133, 2] of a picture of that size, whatever it shows."""
    lines = [np.zeros((1, 133, side * 2), np.float32) for side in size]
    for joint, ((x, y), score) in enumerate(zip(places, scores, strict=True)):
        lines[0][0, joint, int(x * 2)] = lines[1][0, joint, int(y * 2)] = score
    graph = Graph("dwpose")
    graph.input("input", (1, 3, size[1], size[0]))
    for name, line in zip(("simcc_x", "simcc_y"), lines, strict=True):
        graph.output(graph.constant(line), name, line.shape)
    path.write_bytes(graph.encoded())
    return path


@pytest.fixture
def whole(tmp_path):
    random = np.random.default_rng(0)
    places = random.integers(4, 44, (133, 2)).astype(float)
    places[5], places[6] = (30, 20), (18, 20)  # shoulders
    scores = np.full(133, 0.9)
    scores[112:] = 0.1  # no right hand
    scores[16] = 0.2  # nor an ankle
    detector = write_detector(
        tmp_path / "yolox_l.onnx", [(8, 4, 24, 32, 0.9), (9, 5, 24, 32, 0.8), (40, 2, 12, 16, 0.1)]
    )
    return detector, write_pose(tmp_path / "dw-ll_ucoco_384.onnx", places, scores), places


def test_whole_bodies_of_onnx_files(whole):
    detector, network, places = whole
    assert kind_of(detector) == ("annotator", "people-detector") and kind_of(network) == ("annotator", "whole-body")
    picture = np.zeros((128, 128, 3), np.uint8)
    pose = find_whole_bodies(load_people_detector(detector, CPU), load_whole_body(network, CPU), picture)
    (person,) = pose.people  # the second box is the first one once more, the third is unlikely
    # The box in the picture's pixels, with a quarter more, in the shape 3 : 4.
    middle, longer = np.array([8 + 12, 4 + 16]) * 2, max(48 / 48, 64 / 64) * 1.25
    wanted = middle + (places - (24, 32)) * longer
    np.testing.assert_allclose(person.body[0, :2], wanted[0], atol=0.6)
    np.testing.assert_allclose(person.body[2, :2], wanted[6], atol=0.6)  # right shoulder
    np.testing.assert_allclose(person.body[7, :2], wanted[9], atol=0.6)  # left wrist
    np.testing.assert_allclose(person.body[1, :2], (wanted[5] + wanted[6]) / 2, atol=0.6)  # neck
    assert person.body[10, 2] == 0 and person.right_hand is None
    assert person.face.shape == (68, 3) and person.left_hand.shape == (21, 3)
    np.testing.assert_allclose(person.face[:, :2], wanted[23:91], atol=0.6)


def test_where_nobody_is_found_the_whole_picture_is_one(whole, tmp_path):
    detector = write_detector(tmp_path / "none.onnx", [])
    pose = find_whole_bodies(load_people_detector(detector, CPU), load_whole_body(whole[1], CPU), PICTURE)
    assert len(pose.people) == 1


def test_the_joints_of_a_dwpose_come_back(whole):
    hint = Hints().of(unit(preprocessor="dwpose", annotators=(str(whole[0]), str(whole[1]))), Size(64, 64))
    assert hint.pixels.any() and hint.pose["people"][0]["hand_right_keypoints_2d"] is None
    again = Hints().of(unit(preprocessor="dwpose", pose=json.dumps(hint.pose)), Size(64, 64))
    assert (again.pixels != hint.pixels).any(2).mean() < 0.02


def test_an_onnx_that_is_not_one_names_the_unit(whole, tmp_path):
    good = whole[1].read_bytes()
    for name, content, code in (
        ("page.onnx", b"<!DOCTYPE html><html>", "model.corrupt"),
        ("empty.onnx", b"", "model.corrupt"),
        ("cut.onnx", good[: len(good) // 2], "model.corrupt"),
        ("noise.onnx", np.random.default_rng(1).bytes(5000), "model.corrupt"),
        ("other.onnx", whole[0].read_bytes(), "model.unsupported"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        if code == "model.corrupt":
            told = identify_file(path)
            assert isinstance(told, Unknown) and told.code == code, name
        with pytest.raises(ModelError) as caught:
            Hints().of(unit(preprocessor="dwpose", annotators=(str(whole[0]), str(path))), Size(64, 64))
        assert caught.value.code == code and "control unit 1" in caught.value.message, name
        assert caught.value.path == "params.control[0].preprocessor" and name in caught.value.message


@pytest.mark.parametrize("seed", range(30))
def test_damaged_onnx_files_are_told_and_nothing_else(whole, tmp_path, seed):
    random, content = np.random.default_rng(seed), bytearray(whole[1].read_bytes())
    for place in random.integers(0, min(len(content), 400), 4):
        content[place] = random.integers(0, 256)
    (tmp_path / "damaged.onnx").write_bytes(content)
    try:
        facts = read_onnx(tmp_path / "damaged.onnx")
    except ModelError as error:
        assert error.code == "model.corrupt"
    else:
        assert facts.inputs and facts.outputs


def test_what_onnx_wants_and_gives(whole):
    facts = read_onnx(whole[1])
    assert facts.inputs == {"input": (1, 3, 64, 48)}
    assert facts.outputs == {"simcc_x": (1, 133, 96), "simcc_y": (1, 133, 128)}
