"""Poses: found by the pulled networks as they were recorded, as JSON and back, drawn in ControlNet's colours."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from impasto_protocol.errors import ModelError, RequestError
from impasto_protocol.geometry import Size
from impasto_server.engine.hints import Hints
from impasto_server.engine.jobs import ControlUnit
from impasto_server.engine.kit.hands import detect_hands
from impasto_server.engine.kit.poses import find_pose
from impasto_server.engine.kit.runtime import Kit
from impasto_server.engine.openpose import BODY_JOINTS, FACE_POINTS, HAND_JOINTS, Person, Pose, draw_pose, read_pose
from impasto_server.engine.params_control import POSES, RESIZE_MODES
from skimage import data

from tests.hints.recorded import VECTORS, ReplayedKit

NOSE, NECK, RIGHT_SHOULDER, RIGHT_WRIST, LEFT_SHOULDER, RIGHT_EYE, LEFT_EYE = 0, 1, 2, 4, 5, 14, 15


def vector(name):
    with np.load(VECTORS) as held:
        return held[name]


# ---- found


def test_the_astronaut_has_a_body_and_a_face():
    (person,) = find_pose(ReplayedKit("astronaut"), data.astronaut(), hands=True, face=True).people
    body = person.body
    np.testing.assert_allclose(body, vector("astronaut body"), atol=0.01)
    # By eye, in the picture's pixels.
    for joint, (x, y) in {NOSE: (222, 132), RIGHT_EYE: (202, 105), LEFT_EYE: (246, 105)}.items():
        assert np.hypot(body[joint, 0] - x, body[joint, 1] - y) < 15, joint
    assert body[RIGHT_SHOULDER, 0] < body[NECK, 0] < body[LEFT_SHOULDER, 0], "her right is at our left"
    assert 100 < body[RIGHT_WRIST, 0] < 180 and 440 < body[RIGHT_WRIST, 1] < 512
    assert (body[[9, 10, 12, 13], 2] == 0).all(), "knees and ankles are not in the picture"
    face = person.face
    assert face.shape == (FACE_POINTS, 3) and person.left_hand is None and person.right_hand is None
    assert face[0, 0] < face[8, 0] < face[16, 0] and face[8, 1] > face[27, 1], "the jaw goes from her right to her left"
    for pupil, (x, y) in zip(face[68:, :2], ((202, 103), (247, 102)), strict=True):
        assert np.hypot(pupil[0] - x, pupil[1] - y) < 6


def test_what_is_not_asked_for_is_not_looked_for():
    (person,) = find_pose(ReplayedKit("astronaut"), data.astronaut()).people
    assert person.face is None and person.body is not None
    (person,) = find_pose(ReplayedKit("astronaut"), data.astronaut(), body=False, face=True).people
    assert person.body is None and person.face.shape == (FACE_POINTS, 3)


def test_a_raised_hand_has_five_fingers_that_point_up():
    grey = np.full((400, 400, 3), 200, np.uint8)  # what it shows was recorded
    (hand,) = detect_hands(ReplayedKit("hand"), grey)
    np.testing.assert_allclose(hand.joints, vector("hand joints"), atol=0.01)
    assert hand.score > 0.8 and hand.right > 0.5
    wrist, tips, knuckles = hand.joints[0], hand.joints[[8, 12, 16, 20]], hand.joints[[5, 9, 13, 17]]
    assert (tips[:, 1] < knuckles[:, 1]).all() and (knuckles[:, 1] < wrist[1]).all()
    # MediaPipe's own program, asked once, had every joint within 2.2 pixels.


def test_nobody_in_an_empty_picture(tmp_path):
    class Nothing(Kit):
        def network(self, name):
            if name == "body-detector":
                return lambda values: {"boxes": np.zeros((1, 2254, 12)), "scores": np.full((1, 2254, 1), -100.0)}
            return super().network(name)

    pose = find_pose(Nothing(), np.full((64, 96, 3), 200, np.uint8), face=True)
    assert pose.people == () and pose.size == (96, 64) and not draw_pose(pose).any()


# ---- as JSON


def rows(count, low=-10, high=300):
    number = st.floats(low, high, width=32)
    return st.lists(st.tuples(number, number, st.floats(0, 1, width=32)), min_size=count, max_size=count).map(
        lambda values: np.array(values, np.float32)
    )


people = st.builds(
    Person,
    body=st.none() | rows(BODY_JOINTS),
    left_hand=st.none() | rows(HAND_JOINTS),
    right_hand=st.none() | rows(HAND_JOINTS),
    face=st.none() | rows(FACE_POINTS),
)


@given(st.lists(people, max_size=3), st.integers(1, 300), st.integers(1, 300))
def test_a_pose_told_and_read_is_the_same(found, width, height):
    pose = Pose(Size(width, height), tuple(found))
    shown = [p[p[:, 2] > 0, :2] for one in found for p in (one.body, one.left_hand, one.right_hand, one.face)
             if p is not None]  # fmt: skip
    again = read_pose(json.dumps(pose.to_json()))
    assert again.size == pose.size and len(again.people) == len(found)
    if any(p.size and p.max() > 1.01 for p in shown):
        for one, other in zip(found, again.people, strict=True):
            for part in ("body", "left_hand", "right_hand", "face"):
                a, b = getattr(one, part), getattr(other, part)
                assert (a is None) == (b is None)
                if a is not None:
                    np.testing.assert_allclose(a, b, atol=6e-4)


def body(**joints):
    found = np.zeros((BODY_JOINTS, 3), np.float32)
    for joint, place in joints.items():
        found[int(joint[1:])] = (*place, 1)
    return found


def test_parts_of_the_canvas_and_lists_of_poses_are_read():
    told = {"people": [{"pose_keypoints_2d": [0.5, 0.25, 1] * 18}], "canvas_width": 200, "canvas_height": 100}
    for text in (json.dumps(told), json.dumps([told])):
        (person,) = read_pose(text).people
        assert person.body[0].tolist() == [100, 25, 1] and person.face is None
    told["people"][0]["face_keypoints_2d"] = [0.1, 0.2, 1] * 68
    assert read_pose(told).people[0].face.shape == (68, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "it is not JSON"),
        ("[]", "no list `people`"),
        ('{"people": {}}', "no list `people`"),
        ('{"people": []}', "`canvas_width` is 'None'"),
        ('{"people": [], "canvas_width": 0, "canvas_height": 9}', "`canvas_width` is '0'"),
        ('{"people": [], "canvas_width": true, "canvas_height": 9}', "`canvas_width` is 'True'"),
        ('{"people": [3], "canvas_width": 9, "canvas_height": 9}', "person 1 is no object"),
        ('{"people": [{"pose_keypoints_2d": [1, 2]}], "canvas_width": 9, "canvas_height": 9}', "has 2 numbers instead"),
        (
            '{"people": [{"hand_left_keypoints_2d": [' + ", ".join(["NaN"] * 63) + "]}]"
            ', "canvas_width": 9, "canvas_height": 9}',
            "holds something that is no number",
        ),
        (
            '{"people": [{"hand_right_keypoints_2d": [' + ", ".join(["1e30"] * 63) + "]}]"
            ', "canvas_width": 9, "canvas_height": 9}',
            "far beyond",
        ),
        ('{"people": [' + ", ".join(["{}"] * 101) + '], "canvas_width": 9, "canvas_height": 9}', "101 people"),
        ("[" * 100_000, "it is not JSON"),
    ],
)
def test_what_is_no_pose_is_told(text, said):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        read_pose(text)
    assert said in str(caught.value)


# ---- drawn


def test_a_body_is_drawn_as_controlnet_draws_it():
    """Beside controlnet_aux's own drawing of the same joints, which draws without soft rims, as we do."""
    (person,) = find_pose(ReplayedKit("astronaut"), data.astronaut()).people
    ours = draw_pose(Pose(Size(512, 512), (person,)))
    theirs = np.unpackbits(vector("drawn body")).reshape(512, 512) > 0
    drawn = ours.any(2)
    assert (drawn & theirs).sum() / (drawn | theirs).sum() > 0.9
    colors = vector("drawn colors")
    both = drawn[::8, ::8] & theirs[::8, ::8]
    assert both.sum() > 20 and (ours[::8, ::8][both] == colors[both]).all(1).mean() > 0.9


def test_joints_that_are_not_seen_draw_nothing():
    picture = draw_pose(Pose(Size(100, 100), (Person(body=body(j1=(50, 20), j2=(20, 20))),)))
    assert picture[20, 35].tolist() == [153, 0, 0] and picture[20, 20].tolist() == [255, 170, 0]
    assert not picture[60:].any()


@pytest.mark.parametrize("resize", RESIZE_MODES)
def test_joints_go_where_the_picture_goes(resize):
    """A pose fitted to another canvas is the pose of the fitted picture."""
    from impasto_server.engine.fitting import fitted

    image = np.zeros((200, 400, 3), np.uint8)
    places = [(180, 60), (240, 150), (205, 100)]
    for x, y in places:
        image[y - 4 : y + 4, x - 4 : x + 4] = 255
    led = fitted(image, Size(256, 192), resize)
    pose = Pose(Size(400, 200), (Person(body=body(j0=places[0], j2=places[1], j5=places[2])),)).fitted(
        Size(256, 192), resize
    )
    for x, y, there in pose.people[0].body:
        if there and 0 <= x < 256 and 0 <= y < 192:
            assert led[int(y), int(x)].min() > 127, resize


# ---- as hints


def unit(**more):
    return ControlUnit("control unit 2", "params.control[1]", "", **more)


JOINTS = json.dumps(Pose(Size(64, 64), (Person(body=body(j1=(32, 10), j2=(12, 10))),)).to_json())


@pytest.mark.parametrize("preprocessor", POSES)
def test_joints_that_are_given_are_drawn_without_networks_or_a_picture(preprocessor, tmp_path):
    hint = Hints(Kit(tmp_path)).of(unit(preprocessor=preprocessor, pose=JOINTS), Size(128, 128))
    assert hint.pixels[20, 44].tolist() == [153, 0, 0]
    assert hint.pose["canvas_width"] == 128 and hint.pose["people"][0]["pose_keypoints_2d"][3:5] == [64, 20]


def test_what_is_wrong_names_the_unit(tmp_path):
    hints = Hints(Kit(tmp_path))
    with pytest.raises(RequestError) as caught:
        hints.of(unit(preprocessor="openpose", pose="{}"), Size(8, 8))
    assert caught.value.path == "params.control[1].pose" and "control unit 2" in caught.value.message
    image = np.full((8, 8, 4), 255, np.uint8)
    for preprocessor, command in (("openpose", "body-detector"), ("softedge", "hed")):
        with pytest.raises(ModelError) as failed:
            hints.of(unit(image=image, preprocessor=preprocessor), Size(8, 8))
        assert failed.value.code == "model.unknown" and failed.value.path == "params.control[1].preprocessor"
        assert "control unit 2" in failed.value.message and f"impasto models pull {command}" in failed.value.message


def test_a_pose_is_kept_with_its_picture():
    rgb = data.astronaut()
    image = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    hint = Hints(ReplayedKit("astronaut")).of(unit(image=image, preprocessor="openpose"), Size(512, 512))
    assert len(hint.pose["people"]) == 1
    again = Hints(Kit()).of(unit(preprocessor="openpose", pose=json.dumps(hint.pose)), Size(512, 512))
    assert (again.pixels != hint.pixels).any(2).mean() < 0.001
