"""What the kit sees in photographs: scikit-image's astronaut, its cameraman, its 100 faces and 100 non-faces of LFW."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_server.engine.kit.blazeface import FULL_RANGE, SHORT_RANGE, Face, anchors, overlap, same_place
from impasto_server.engine.kit.crops import similarity, square, upright
from impasto_server.engine.kit.embedding import SAME_PERSON, face_chip, face_distance, face_embedding
from impasto_server.engine.kit.faces import SMALLEST_IN_TILE, detect_faces, tiles
from impasto_server.engine.kit.landmarks import FACE_OVAL, LEFT_EYE, LIPS, RIGHT_EYE, face_mesh
from impasto_server.engine.kit.lines import draw_lines, straight_lines
from impasto_server.engine.kit.people import segment_person
from impasto_server.engine.kit.runtime import Kit
from PIL import Image, ImageDraw, ImageFilter
from skimage import data

ASTRONAUT = data.astronaut()
EYES, NOSE, MOUTH = np.array([[202, 103], [247, 102]]), np.array([222, 132]), np.array([223, 151])
"""Where they are in it, by eye, in its pixels."""


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return Kit(tmp_path_factory.mktemp("kit"))


def the_face(kit: Kit, image: np.ndarray) -> Face:
    (face,) = detect_faces(kit, image, smallest=1)
    return face


def portrait(face: np.ndarray) -> np.ndarray:
    """One of LFW's 25 x 25 grey faces (0..1), enlarged, on grey."""
    grey = Image.fromarray((face * 255).clip(0, 255).astype(np.uint8)).resize((150, 150), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (300, 300), (128, 128, 128))
    canvas.paste(grey.convert("RGB"), (75, 75))
    return np.asarray(canvas)


# ---- detector


def test_one_face_with_its_points(kit: Kit) -> None:
    (face,) = detect_faces(kit, ASTRONAUT)
    assert face.score > 0.9 and abs(face.angle) < 0.05
    x, y, width, height = face.box
    assert 160 < x < 180 and 50 < y < 75 and 100 < width < 130 and width == pytest.approx(height, rel=0.01)
    assert abs(face.points[:2] - EYES).max() < 5
    assert abs(face.points[2] - NOSE).max() < 5 and abs(face.points[3] - MOUTH).max() < 5
    assert face.points[4][0] < face.points[0][0] < face.points[1][0] < face.points[5][0]


def test_a_mirrored_and_a_turned_picture(kit: Kit) -> None:
    plain, mirrored = the_face(kit, ASTRONAUT), the_face(kit, ASTRONAUT[:, ::-1])
    assert abs(mirrored.points[:2][::-1, 0] - (512 - plain.points[:2, 0])).max() < 6
    turned = the_face(kit, np.asarray(Image.fromarray(ASTRONAUT).rotate(-25, Image.Resampling.BICUBIC)))
    assert np.degrees(turned.angle) == pytest.approx(25, abs=5)


@pytest.mark.parametrize(
    ("width", "height", "side", "at"), [(2400, 1200, 512, (1500, 400)), (900, 2000, 256, (30, 1500))]
)
def test_a_small_face_of_a_large_picture_is_found_in_tiles(
    kit: Kit, width: int, height: int, side: int, at: tuple[int, int]
) -> None:
    room = Image.fromarray(data.stereo_motorcycle()[0]).resize((width, height))
    room.paste(Image.fromarray(ASTRONAUT).resize((side, side), Image.Resampling.LANCZOS), at)
    assert detect_faces(kit, np.asarray(room), smallest=1) == []
    (face,) = detect_faces(kit, np.asarray(room), smallest=0.02)
    wanted = np.array(at) + EYES * side / 512
    assert abs(face.points[:2] - wanted).max() < 6 * side / 512


def test_several_faces_best_first_and_at_most(kit: Kit) -> None:
    faces = data.lfw_subset()[[3, 10, 25, 40]]
    row = np.concatenate([portrait(face)[60:240, 60:240] for face in faces], axis=1)
    found = detect_faces(kit, row, smallest=0.1)
    assert len(found) == 4
    assert sorted(int((f.box[0] + f.box[2] / 2) // 180) for f in found) == [0, 1, 2, 3]
    assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
    assert len(detect_faces(kit, row, smallest=0.1, most=2)) == 2


def test_lfw_faces_are_found_and_non_faces_are_not(kit: Kit) -> None:
    pictures = data.lfw_subset()
    assert sum(len(detect_faces(kit, portrait(p), smallest=1)) == 1 for p in pictures[:100:4]) == 25
    # One of them is a third of a face.
    assert sum(len(detect_faces(kit, portrait(p), smallest=1)) for p in pictures[100::4]) <= 1


@pytest.mark.parametrize("name", ["brick", "gravel", "hubble_deep_field", "rocket", "chelsea", "coffee"])
def test_no_face_where_there_is_none(kit: Kit, name: str) -> None:
    image = np.asarray(Image.fromarray(getattr(data, name)()).convert("RGB"))
    assert detect_faces(kit, image) == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 700, 3), (500, 2, 3)])
def test_odd_sizes_have_no_face(kit: Kit, shape: tuple[int, ...]) -> None:
    assert detect_faces(kit, np.full(shape, 200, np.uint8)) == []
    assert segment_person(kit, np.full(shape, 200, np.uint8)).shape == shape[:2]
    assert straight_lines(kit, np.full(shape, 200, np.uint8))[0].shape == (0, 4)


@pytest.mark.parametrize("wrong", [np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8)])
def test_other_arrays_are_refused(kit: Kit, wrong: np.ndarray) -> None:
    for call in (detect_faces, segment_person, straight_lines):
        with pytest.raises(ValueError, match="RGB uint8"):
            call(kit, wrong)


def test_anchors_are_those_of_the_reference() -> None:
    near, far = anchors(SHORT_RANGE), anchors(FULL_RANGE)
    assert len(near) == 896 and len(far) == 2304
    assert near[0].tolist() == near[1].tolist() == [4, 4] and near[512].tolist() == near[517].tolist() == [8, 8]
    assert far[0].tolist() == [2, 2] and far[-1].tolist() == [190, 190]


@settings(max_examples=60, deadline=None)
@given(st.integers(100, 3000), st.integers(100, 3000), st.floats(0.02, 1), st.data())
def test_every_wanted_face_is_whole_and_large_enough_in_some_view(
    width: int, height: int, smallest: float, draw: st.DataObject
) -> None:
    longer = max(width, height)
    size = draw.draw(st.floats(max(smallest * longer, 0.2 * FULL_RANGE.side), longer))
    if size > min(width, height):
        return
    x, y = draw.draw(st.floats(0, width - size)), draw.draw(st.floats(0, height - size))
    views = [(min(0, (width - longer) / 2), min(0, (height - longer) / 2), longer), *tiles(width, height, smallest)]
    good = [
        side
        for left, top, side in views
        if left <= x + 1e-6
        and top <= y + 1e-6
        and x + size <= left + side + 1e-6
        and y + size <= top + side + 1e-6
        and size >= SMALLEST_IN_TILE * side * 0.999
    ]
    assert good, (x, y, size)


def test_overlap_and_same_place() -> None:
    a, inner, away = (np.array(v, np.float32) for v in ([0, 0, 10, 10], [1, 1, 4, 4], [20, 0, 5, 5]))
    assert overlap(a, a) == 1 and overlap(a, away) == 0 and overlap(a, inner) == pytest.approx(0.16)
    assert same_place(a, inner) and not same_place(a, away)


# ---- mesh


def test_the_mesh_lies_on_the_face(kit: Kit) -> None:
    mesh = face_mesh(kit, ASTRONAUT, the_face(kit, ASTRONAUT))
    assert mesh.points.shape == (468, 3) and mesh.score > 0.99
    flat = mesh.points[:, :2]
    assert np.linalg.norm(flat[list(RIGHT_EYE)].mean(0) - EYES[0]) < 5
    assert np.linalg.norm(flat[list(LEFT_EYE)].mean(0) - EYES[1]) < 5
    assert np.linalg.norm(flat[1] - NOSE) < 5
    assert np.linalg.norm(flat[list(LIPS)].mean(0) - MOUTH) < 8
    assert mesh.points[1, 2] < mesh.points[list(FACE_OVAL), 2].min(), "the nose is nearest to us"
    outline = Image.new("1", (512, 512))
    ImageDraw.Draw(outline).polygon([tuple(map(float, p)) for p in flat[list(FACE_OVAL)]], fill=1)
    inside = [p for p in flat if outline.getpixel((int(p[0]), int(p[1])))]
    assert len(inside) > 420, "the outline goes round the others"


def test_the_mesh_follows_the_size_and_the_turn_of_the_face(kit: Kit) -> None:
    plain = face_mesh(kit, ASTRONAUT, the_face(kit, ASTRONAUT)).points
    large = np.asarray(Image.fromarray(ASTRONAUT).resize((1536, 1536), Image.Resampling.BICUBIC))
    found = face_mesh(kit, large, the_face(kit, large)).points
    assert np.abs(found / 3 - plain).max() < 4
    turned = np.asarray(Image.fromarray(ASTRONAUT).rotate(-25, Image.Resampling.BICUBIC))
    points = face_mesh(kit, turned, the_face(kit, turned)).points[:, :2] - 256
    c, s = np.cos(np.radians(-25)), np.sin(np.radians(-25))
    back = points @ np.array([[c, s], [-s, c]]) + 256
    assert np.abs(back - plain[:, :2]).max() < 5


def test_where_there_is_no_face_the_mesh_says_so(kit: Kit) -> None:
    nowhere = Face(np.array([20, 330, 100, 100], np.float32), 0.5, np.array([[50, 360], [90, 360]] * 3, np.float32))
    assert face_mesh(kit, ASTRONAUT, nowhere).score < 0.5


# ---- embedding


def embedding(kit: Kit, image: np.ndarray) -> np.ndarray:
    return face_embedding(kit, image, face_mesh(kit, image, the_face(kit, image)).points)


def variants() -> dict[str, np.ndarray]:
    image = Image.fromarray(ASTRONAUT)
    grey = image.convert("L").convert("RGB")
    made = {
        "mirrored": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "blurred": image.filter(ImageFilter.GaussianBlur(2)),
        "small": image.resize((200, 200)),
        "dark": image.point(lambda v: v // 2),
        "grey": grey,
        "turned": image.rotate(20, Image.Resampling.BILINEAR),
        "as LFW has them": grey.resize((110, 110)).resize((512, 512), Image.Resampling.BICUBIC),
    }
    return {name: np.asarray(value) for name, value in made.items()}


def test_the_same_person_is_nearer_than_all_others(kit: Kit) -> None:
    base = embedding(kit, ASTRONAUT)
    same = {name: face_distance(base, embedding(kit, image)) for name, image in variants().items()}
    others = [face_distance(base, embedding(kit, portrait(face))) for face in data.lfw_subset()[:100:3]]
    assert base.shape == (128,) and len(others) == 34
    assert max(same.values()) < SAME_PERSON - 0.05, same
    assert min(others) > max(same.values()) + 0.05, (min(others), same)
    assert np.median(others) > 0.7


def test_lfw_faces_are_nearer_to_their_mirror_pictures_than_to_each_other(kit: Kit) -> None:
    faces = data.lfw_subset()[2:100:14]
    plain = [embedding(kit, portrait(face)) for face in faces]
    mirrored = [embedding(kit, portrait(face[:, ::-1])) for face in faces]
    for i, own in enumerate(mirrored):
        distances = [face_distance(own, other) for other in plain]
        assert int(np.argmin(distances)) == i, distances


def test_six_points_place_the_face_nearly_as_well_as_the_mesh(kit: Kit) -> None:
    face = the_face(kit, ASTRONAUT)
    mesh = face_mesh(kit, ASTRONAUT, face).points
    by_mesh, by_six = (face_embedding(kit, ASTRONAUT, points) for points in (mesh, face.points))
    assert face_distance(by_mesh, by_six) < 0.3
    assert face_chip(ASTRONAUT, mesh).shape == (150, 150, 3)
    with pytest.raises(ValueError, match="these are"):
        face_chip(ASTRONAUT, mesh[:5])


# ---- person


def test_a_person_is_told_from_the_background(kit: Kit) -> None:
    mask = segment_person(kit, ASTRONAUT)
    assert mask.shape == (512, 512) and mask.dtype == np.float32 and mask.min() >= 0 and mask.max() <= 1
    assert mask[100, 224] > 0.95 and mask[350, 150] > 0.95, "face and suit"
    assert mask[60, 400] < 0.05 and mask[40, 100] < 0.05, "rocket and wall"
    assert 0.35 < (mask > 0.5).mean() < 0.65
    wide = segment_person(kit, ASTRONAUT[:300])
    assert wide.shape == (300, 512) and wide[100, 224] > 0.9


# ---- lines


def test_lines_of_a_drawing_are_found_where_they_are(kit: Kit) -> None:
    drawn = Image.new("RGB", (640, 480), (240, 240, 235))
    draw = ImageDraw.Draw(drawn)
    draw.rectangle((120, 90, 520, 380), outline=(20, 20, 30), width=4, fill=(180, 190, 200))
    ends, scores = straight_lines(kit, np.asarray(drawn))
    assert len(ends) == len(scores) and (np.diff(scores) <= 0).all() and scores[0] > 0.5
    sides = [(120, 90, 520, 90), (120, 380, 520, 380), (120, 90, 120, 380), (520, 90, 520, 380)]
    assert 4 <= len(ends) < 12
    for x0, y0, x1, y1 in sides:
        across = 1 if y0 == y1 else 0
        near = [e for e in ends if np.abs(e[[across, across + 2]] - (y0 if across else x0)).max() < 8]
        spans = [abs(e[3 - across] - e[1 - across]) for e in near]
        assert any(span > 0.8 * max(x1 - x0, y1 - y0) for span in spans), (x0, y0, x1, y1, ends)


def test_the_hint_is_white_lines_on_black(kit: Kit) -> None:
    camera = np.repeat(data.camera()[:, :, None], 3, axis=2)
    ends, _ = straight_lines(kit, camera)
    assert 30 < len(ends) < 120
    hint = draw_lines(ends, 512, 512)
    assert hint.shape == (512, 512, 3) and set(np.unique(hint)) == {0, 255}
    assert 0.005 < (hint > 0).mean() < 0.1
    assert len(straight_lines(kit, camera, threshold=0.5)[0]) < len(ends)
    long, _ = straight_lines(kit, camera, shortest=0.3)
    assert len(long) < len(ends) and np.hypot(*(long[:, 2:] - long[:, :2]).T).min() > 0.3 * 512


# ---- crops


def test_a_part_and_the_way_back() -> None:
    image = np.zeros((400, 600, 3), np.uint8)
    image[118:123, 298:303] = 255
    for part in (square(image, 200, 50, 200, 140, 100), upright(image, (310, 130), 160, 0.4, 100)):
        y, x = np.argwhere(part.pixels[:, :, 0] > 100).mean(0) + 0.5
        assert np.abs(part.back(np.array([[x, y]]))[0] - [300.5, 120.5]).max() < 0.7


@settings(max_examples=40, deadline=None)
@given(st.floats(-3, 3), st.floats(0.2, 5), st.floats(-50, 50), st.floats(-50, 50))
def test_similarity_finds_turn_scale_and_shift(angle: float, scale: float, x: float, y: float) -> None:
    points = np.array([[0.0, 0.0], [10.0, 1.0], [3.0, 8.0], [7.0, 7.0]])
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    wanted = np.array([[c, -s, x], [s, c, y]])
    moved = points @ wanted[:, :2].T + wanted[:, 2]
    assert np.abs(similarity(points, moved) - wanted).max() < 1e-6
