"""Face profiles and the swap: what is kept, which face is meant, what is changed and what is not, and what is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_protocol.errors import ModelError, RequestError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.chain import picture_after
from impasto_server.engine.face_blend import joined, match_light, membrane, sharpened
from impasto_server.engine.face_profiles import (
    MARK,
    FaceProfile,
    SeenFace,
    build_profile,
    is_cut,
    likeness,
    read_profile,
    seen_faces,
    write_profile,
)
from impasto_server.engine.face_warp import best_photo, fitted_mesh, mesh_mask, own_shape, triangles, warp_face
from impasto_server.engine.faceswap import chosen_faces, faceswap
from impasto_server.engine.identify import Unknown, identify_file
from impasto_server.engine.jobs import Cancelled, Job, Layer, Result
from impasto_server.engine.kit.runtime import Kit
from impasto_server.engine.modes import FaceSwap
from impasto_server.engine.report import Report
from PIL import Image, ImageFilter
from safetensors.numpy import load_file, save_file
from skimage import data

ASTRONAUT = data.astronaut()
OURS = "a portrait by NASA, in the public domain"


def portrait(number: int) -> np.ndarray:
    """One of LFW's 25 x 25 grey faces, enlarged, on grey."""
    small = Image.fromarray((data.lfw_subset()[number] * 255).clip(0, 255).astype(np.uint8))
    canvas = Image.new("RGB", (300, 300), (128, 128, 128))
    canvas.paste(small.resize((150, 150), Image.Resampling.BICUBIC).convert("RGB"), (75, 75))
    return np.asarray(canvas)


def pair() -> np.ndarray:
    """Two faces, beside each other."""
    return np.concatenate([portrait(3), portrait(10)], axis=1)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return Kit(tmp_path_factory.mktemp("kit"))


@pytest.fixture(scope="module")
def profile(kit: Kit) -> FaceProfile:
    return build_profile(kit, [("a", ASTRONAUT)], "astronaut", OURS)[0]


@pytest.fixture(scope="module")
def faces(kit: Kit) -> list[SeenFace]:
    return seen_faces(kit, pair())


@pytest.fixture(scope="module")
def file(profile: FaceProfile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "astronaut.safetensors"
    write_profile(profile, path)
    return path


def swap(
    kit: Kit, file: Path, picture: np.ndarray, at: tuple[int, int] = (0, 0), **params: Any
) -> tuple[Layer, Result]:
    image = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    height, width = picture.shape[:2]
    job = Job("j", "faceswap", FaceSwap(**params), Size(2000, 2000), Box(*at, width, height), str(file), image=image)
    events: list[Any] = []
    result = faceswap(job, FaceSwap(**params), Report(events.append, lambda: False), kit)
    (layer,) = [event for event in events if isinstance(event, Layer)]
    return layer, result


def over(layer: Layer, picture: np.ndarray, at: tuple[int, int] = (0, 0)) -> np.ndarray:
    done = picture.astype(np.float32).copy()
    x, y = layer.box.x - at[0], layer.box.y - at[1]
    part = done[y : y + layer.box.height, x : x + layer.box.width]
    share = layer.pixels[..., 3:].astype(np.float32) / 255
    part += share * (layer.pixels[..., :3] - part)
    return np.rint(done).astype(np.uint8)


# ---- profiles


def test_a_profile_is_kept_as_it_is(profile: FaceProfile, file: Path) -> None:
    again = read_profile(file)
    assert (again.name, again.consent, len(again.photos)) == ("astronaut", OURS, 1)
    assert np.array_equal(again.photos[0].pixels, profile.photos[0].pixels)
    assert np.array_equal(again.photos[0].mesh, profile.photos[0].mesh)
    assert np.array_equal(again.embeddings["dlib"], profile.embeddings["dlib"])
    assert Image.open(file.with_suffix(".png")).size == (256, 256)
    found = identify_file(file)
    assert not isinstance(found, Unknown) and (found.kind, found.variant) == ("face", "photographs")


def test_its_likeness_to_other_pictures_of_that_person_and_of_others(kit: Kit, profile: FaceProfile) -> None:
    soft = np.asarray(Image.fromarray(ASTRONAUT[:, ::-1]).filter(ImageFilter.GaussianBlur(1)))
    (same,), (other,) = seen_faces(kit, soft), seen_faces(kit, portrait(10))
    own = profile.embeddings["dlib"]
    assert likeness(same.embedding, own) > 0.5 > 0.4 > likeness(other.embedding, own)


def test_an_outlier_is_left_out_and_two_people_are_told(kit: Kit) -> None:
    views = [ASTRONAUT, ASTRONAUT[:, ::-1], np.asarray(Image.fromarray(ASTRONAUT).resize((400, 400)))]
    photos = [(str(i), np.ascontiguousarray(view)) for i, view in enumerate(views)]
    profile, notes = build_profile(kit, [*photos, ("stranger", portrait(10))], "a", OURS)
    assert len(profile.photos) == 3
    assert [bool(note.left_out) for note in notes] == [False, False, False, True]
    assert all(note.similarity > 0.4 for note in notes[:3]) and notes[3].similarity < 0.4
    with pytest.raises(RequestError) as caught:
        build_profile(kit, [photos[0], ("stranger", portrait(10))], "a", OURS)
    assert caught.value.code == "request.two_people" and "stranger" in str(caught.value.data)


def test_photographs_that_do_not_do(kit: Kit) -> None:
    gravel = np.dstack([data.gravel()] * 3)
    profile, notes = build_profile(kit, [("stones", gravel), ("a", ASTRONAUT)], "a", OURS)
    assert len(profile.photos) == 1 and "There is no face above 0.5" in notes[0].left_out
    for photos, consent, code in (
        ([("a", ASTRONAUT)], " ", "request.no_consent"),
        ([("stones", gravel)], OURS, "request.no_face"),
        ([], OURS, "request.no_face"),
        ([("a", ASTRONAUT[:, 215:])], OURS, "request.face_cut"),
        ([("a", np.zeros((8000, 5001, 3), np.uint8))], OURS, "request.bad_geometry"),
    ):
        with pytest.raises(RequestError) as caught:
            build_profile(kit, photos, "a", consent)
        assert caught.value.code == code, code


def test_the_face_that_is_picked(kit: Kit) -> None:
    first, second = (build_profile(kit, [("p", pair())], "a", OURS, {0: n})[0].embeddings["dlib"] for n in (1, 2))
    (alone,) = seen_faces(kit, portrait(10))
    assert likeness(second, alone.embedding) > 0.7 > likeness(first, alone.embedding)
    with pytest.raises(RequestError, match="no number 3"):
        build_profile(kit, [("p", pair())], "a", OURS, {0: 3})
    _, (note,) = build_profile(kit, [("p", pair())], "a", OURS)
    assert note.notes == ("the largest of 2 faces",)


@pytest.mark.parametrize("damage", ["cut", "shape", "nan", "said", "lab"])
def test_damaged_and_foreign_files(file: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bad.safetensors"
    tensors = load_file(file)
    said = json.dumps({"name": "a", "consent": OURS, "quality": [1.0]})
    code = "model.corrupt"
    if damage == "cut":
        path.write_bytes(file.read_bytes()[:5000])
    elif damage == "lab":
        zero = np.zeros(1, np.float32)
        save_file({"embedding": np.ones(512, np.float32), "gender": zero, "age": zero}, path)
        found = identify_file(path)
        assert not isinstance(found, Unknown) and (found.kind, found.variant) == ("face", "faceswaplab")
        code = "model.unsupported"
    else:
        if damage == "shape":
            tensors["photo.0.mesh"] = tensors["photo.0.mesh"][:9].copy()
        elif damage == "nan":
            tensors["embedding.dlib"][3] = np.nan
        else:
            said = "[]"
        save_file(tensors, path, {MARK: said})
    with pytest.raises(ModelError) as caught:
        read_profile(path)
    assert caught.value.code == code


# ---- warp and blend


def test_the_triangles_cover_a_face_once(profile: FaceProfile) -> None:
    table, mesh = triangles(), profile.photos[0].mesh
    assert table.shape[1] == 3 and len(table) > 880 and set(table.ravel()) == set(range(468))
    a, b, c = (mesh[table[:, i], :2] for i in range(3))
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    turned = np.sign(np.median(area)) * area
    assert (turned < 0).sum() < 5 and -turned[turned < 0].sum() < 0.001 * turned.sum()


def test_a_face_warped_to_its_own_place_is_itself(profile: FaceProfile) -> None:
    photo = profile.photos[0]
    made, covered = warp_face(photo.pixels, photo.mesh, photo.mesh[:, :2], (0, 0, 512, 512))
    assert covered.sum() > 20000 and not covered[:5].any()
    assert np.abs(made[covered] - photo.pixels[covered]).max() < 1


def test_a_mesh_is_fitted_in_space(profile: FaceProfile) -> None:
    mesh = profile.photos[0].mesh
    angle = 0.4
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    moved = (2.5 * mesh @ turn.T + (9, -4, 2)).astype(np.float32)
    assert fitted_mesh(mesh, moved) == pytest.approx(moved, abs=0.05)
    assert best_photo([moved, mesh], mesh)[0] == 1
    assert np.array_equal(own_shape(mesh, moved, 0), moved[:, :2])


def test_the_membrane_is_linear_between_two_walls() -> None:
    values = np.zeros((40, 65, 1), np.float32)
    known = np.zeros((40, 65), bool)
    known[:, [0, -1]] = True
    values[:, -1] = 64
    surface = membrane(values, known)[..., 0]
    assert np.abs(surface - np.arange(65)).max() < 3
    assert np.array_equal(membrane(values, np.ones((40, 65), bool)), values)


def test_a_shifted_copy_is_joined_without_a_seam() -> None:
    """What differs from the picture by a constant alone becomes the picture."""
    under = ASTRONAUT[100:200, 300:420].astype(np.float32)
    inside = np.zeros(under.shape[:2], bool)
    inside[20:80, 30:90] = True
    covered = np.zeros_like(inside)
    covered[15:85, 25:95] = True
    under = under * 0.8
    again = joined(under + 30, covered, under, inside)
    assert np.array_equal(again[~inside], under[~inside])
    assert np.abs(again - under)[inside].max() < 0.1
    other = joined(under[::-1] * 0.5, covered, under, inside)
    # At the rim it begins with the picture's values, whatever it is.
    assert np.abs(other - under)[20, 30:90].mean() < np.abs(under[::-1] * 0.5 - under)[20, 30:90].mean() / 3


def test_light_is_matched_and_a_share_of_nothing_changes_nothing() -> None:
    under = ASTRONAUT[:100, :100].astype(np.float32)
    mask = np.ones((100, 100), np.float32)
    dark = under * 0.4
    assert np.array_equal(match_light(dark, under, mask, 0), dark)
    assert np.array_equal(sharpened(dark, 0), dark)
    assert abs(match_light(dark, under, mask, 1).mean() - under.mean()) < 3


def test_the_mask_ends_before_the_outline(profile: FaceProfile) -> None:
    mesh = profile.photos[0].mesh
    mask = mesh_mask(mesh, (0, 0, 512, 512), 12)
    _, covered = warp_face(profile.photos[0].pixels, mesh, mesh[:, :2], (0, 0, 512, 512))
    assert mask.max() == 1 and not (mask[~covered] > 0.05).any()


# ---- which face


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ({}, [0, 1]),
        ({"which": "number", "number": 2}, [1]),
        ({"which": "point", "x": 150 + 40, "y": 160 + 7}, [0]),
        ({"which": "point", "x": 450 + 40, "y": 160 + 7}, [1]),
        ({"which": "similar"}, [1]),
    ],
)
def test_the_faces_that_are_meant(faces: list[SeenFace], params: dict[str, Any], wanted: list[int]) -> None:
    assert [i for i, _ in chosen_faces(faces, FaceSwap(**params), [0.1, 0.3], (40, 7))] == wanted


def test_by_size_and_by_likeness(faces: list[SeenFace]) -> None:
    larger = replace(faces[1], face=replace(faces[1].face, box=faces[1].face.box * np.float32([1, 1, 1.5, 1.5])))
    two = [faces[0], larger]
    assert chosen_faces(two, FaceSwap(which="largest"), [0, 0], (0, 0)) == [(1, "")]
    assert chosen_faces(two, FaceSwap(which="number", order="size"), [0, 0], (0, 0)) == [(1, "")]
    told = chosen_faces(two, FaceSwap(min_similarity=0.2), [0.1, 0.3], (0, 0))
    assert told == [(0, "Its similarity 0.10 is below 0.2."), (1, "")]


@pytest.mark.parametrize("params", [{"which": "number", "number": 3}, {"which": "point", "x": 3, "y": 3}])
def test_no_such_face(faces: list[SeenFace], params: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        chosen_faces(faces, FaceSwap(**params), [0, 0], (0, 0))
    assert caught.value.code == "request.no_face"


# ---- the swap


def test_faces_become_like_the_profile_and_the_rest_stays(kit: Kit, file: Path, profile: FaceProfile) -> None:
    picture = pair()
    layer, result = swap(kit, file, picture, (40, 7))
    done = over(layer, picture, (40, 7))
    told = result.ran["faces"]
    assert [face["done"] for face in told] == [True, True] and result.ran["back_end"] == "mesh-warp"
    for before, after, face in zip(seen_faces(kit, picture), seen_faces(kit, done), told, strict=True):
        own = profile.embeddings["dlib"]
        assert likeness(after.embedding, own) > likeness(before.embedding, own) + 0.15
        assert face["similarity"] == pytest.approx(likeness(after.embedding, own), abs=0.15)
        assert np.abs(np.array(face["box"][:2]) - (40, 7) - before.face.box[:2]).max() <= 1
    assert layer.alpha == "soft" and layer.info["digital_source_type"] and layer.info["profile"]["consent"] == OURS
    changed = (done != picture).any(-1)
    assert 0.02 < changed.mean() < 0.4
    outside = np.ones(picture.shape[:2], bool)
    for face in told:
        x, y, w, h = face["box"]
        outside[y - 7 - h // 4 : y - 7 + h + h // 4, x - 40 - w // 4 : x - 40 + w + w // 4] = False
    assert not changed[outside].any()


def test_one_of_two_faces(kit: Kit, file: Path) -> None:
    layer, result = swap(kit, file, pair(), which="number", number=2)
    assert layer.box.x > 300 and [face["number"] for face in result.ran["faces"]] == [2]


def test_what_follows_gets_the_whole_picture(kit: Kit, file: Path) -> None:
    picture = pair()
    layer, _ = swap(kit, file, picture)
    image = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    job = Job("j", "faceswap", FaceSwap(), Size(600, 300), Box(0, 0, 600, 300), str(file), image=image)
    whole, at = picture_after(job, layer)
    assert at == (0, 0) and np.abs(whole[..., :3].astype(int) - over(layer, picture)).max() <= 1


def test_reasons(kit: Kit, file: Path) -> None:
    for picture, params, code, words in (
        (np.dstack([data.gravel()] * 3), {}, "request.no_face", "above 0.5"),
        (ASTRONAUT[:, 215:], {}, "request.face_cut", "border"),
        (pair(), {"min_similarity": 0.95}, "request.no_face", "below 0.95"),
    ):
        with pytest.raises(RequestError, match=words) as caught:
            swap(kit, file, np.ascontiguousarray(picture), **params)
        assert caught.value.code == code
    assert is_cut(np.full((468, 3), -5, np.float32), 10, 10)


def test_a_face_that_was_hardly_seen_is_told_with_its_score(kit: Kit) -> None:
    with pytest.raises(RequestError, match=r"above 0.99 in the picture; the best seen has 0\.\d\d") as caught:
        seen_faces(kit, ASTRONAUT, 0.99)
    assert 0.5 < caught.value.data["best"] < 0.99


def test_it_is_cancelled(kit: Kit, file: Path) -> None:
    image = np.dstack([pair(), np.full((300, 600), 255, np.uint8)])
    job = Job("j", "faceswap", FaceSwap(), Size(600, 300), Box(0, 0, 600, 300), str(file), image=image)
    with pytest.raises(Cancelled):
        faceswap(job, FaceSwap(), Report(lambda _: None, lambda: True), kit)
