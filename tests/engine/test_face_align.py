"""Faces in the places that networks expect, and back: templates, crops, pasting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_server.engine.face_align import (
    aligned,
    arcface_template,
    ffhq_template,
    five_points,
    paste_part,
    soft_square,
)
from impasto_server.engine.kit.faces import detect_faces
from impasto_server.engine.kit.landmarks import face_mesh
from impasto_server.engine.kit.runtime import Kit
from PIL import Image, ImageFilter
from skimage import data

ASTRONAUT = data.astronaut()
PLACES = np.array([[202, 103], [247, 102], [222, 132], [203, 141], [245, 142]], float)
"""Eyes, nose and corners of the mouth in it, by eye."""


def test_the_templates_are_the_published_ones() -> None:
    # insightface: dst * ratio, and 8 * ratio more on x where the side is no multiple of 112; centres at 0.
    assert arcface_template(112)[0] == pytest.approx([38.2946 + 0.5, 51.6963 + 0.5])
    assert arcface_template(224)[4] - 0.5 == pytest.approx([2 * 70.7299, 2 * 92.2041])
    assert arcface_template(128)[2] - 0.5 == pytest.approx([56.0252 + 8, 71.7366])
    assert arcface_template(512)[2] - 0.5 == pytest.approx([4 * (56.0252 + 8), 4 * 71.7366])
    assert ffhq_template(512)[2] - 0.5 == pytest.approx([256.63416, 314.01935])
    assert ffhq_template(256) == pytest.approx(ffhq_template(512) / 2)


@settings(max_examples=40, deadline=None)
@given(st.floats(-3.1, 3.1), st.floats(0.3, 6), st.floats(100, 300), st.floats(100, 300))
def test_the_alignment_is_undone_by_its_matrix(angle: float, scale: float, x: float, y: float) -> None:
    """Points that are the template turned, scaled and shifted are found again exactly."""
    template = arcface_template(112)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (template - 56) @ turn.T + (x, y)
    part = aligned(ASTRONAUT, points, template, 112)
    assert part.pixels.shape == (112, 112, 3) and part.scale == pytest.approx(scale)
    assert part.back(template) == pytest.approx(points, abs=1e-2)


def test_points_of_a_real_face(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    (face,) = detect_faces(kit, ASTRONAUT, smallest=1)
    points = five_points(face_mesh(kit, ASTRONAUT, face).points)
    assert abs(points[:2] - PLACES[:2]).max() < 5 and abs(points[2] - PLACES[2]).max() < 7
    assert points[0, 0] < points[2, 0] < points[1, 0] and points[3, 0] < points[2, 0] < points[4, 0]
    part = aligned(ASTRONAUT, points, ffhq_template(512), 512)
    assert np.abs(points - part.back(ffhq_template(512))).mean() < 3


def test_what_is_taken_out_and_pasted_is_the_picture_again() -> None:
    # Without detail of single pixels, which no resampling keeps: what is left would be a shift.
    smooth = np.asarray(Image.fromarray(ASTRONAUT).filter(ImageFilter.GaussianBlur(2.5)))
    for side, template in ((512, ffhq_template(512)), (128, arcface_template(128)), (64, arcface_template(64))):
        part = aligned(smooth, PLACES, template, side)
        again = paste_part(smooth, part.pixels, part.matrix, soft_square(side))
        error = np.abs(again.astype(int) - smooth)
        mean = error[90:155, 190:260].mean()
        assert error.max() <= 6 and mean < 1.5, side
        for shift in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            moved = np.abs(np.roll(again, shift, (0, 1)).astype(int) - smooth)
            assert moved[90:155, 190:260].mean() > 2 * mean, (side, shift)


@pytest.mark.parametrize("side", [112, 512])
def test_only_what_the_mask_shows_is_changed_and_its_middle_is_the_part(side: int) -> None:
    template = arcface_template(side)
    part = aligned(ASTRONAUT, PLACES, template, side)
    red = np.zeros_like(part.pixels)
    red[..., 0] = 255
    pasted = paste_part(ASTRONAUT, red, part.matrix, soft_square(side))
    changed = (pasted != ASTRONAUT).any(-1)
    assert pasted[125, 222].tolist() == [255, 0, 0]
    back = np.linalg.inv(np.vstack([part.matrix, [0, 0, 1]]))
    ys, xs = np.nonzero(changed)
    inside = (np.stack([xs + 0.5, ys + 0.5, np.ones(len(xs))], 1) @ back.T)[:, :2] / side
    assert inside.min() > 0.09 and inside.max() < 0.91
    assert changed.sum() > 0.5 * (part.scale * side) ** 2


def test_a_face_at_the_border_and_one_beyond_it() -> None:
    part = aligned(ASTRONAUT, PLACES - (200, 90), arcface_template(128), 128)
    assert part.pixels[:, 0].max() == 0  # black outside
    red = np.full_like(part.pixels, 255)
    assert (paste_part(ASTRONAUT, red, part.matrix, soft_square(128)) != ASTRONAUT).any()
    far = aligned(ASTRONAUT, PLACES + 5000, arcface_template(128), 128)
    assert np.array_equal(paste_part(ASTRONAUT, red, far.matrix, soft_square(128)), ASTRONAUT)


def test_a_soft_square() -> None:
    mask = soft_square(100, 0.1, 0.2)
    assert mask.dtype == np.float32 and mask[50, 50] == 1 and mask[:10].max() == 0 and mask[50, 9] == 0
    assert (np.diff(mask[50, :50]) >= 0).all() and mask[12, 12] < mask[12, 50]
    assert soft_square(40, 0, 0)[0].max() == 0 and soft_square(40, 0, 0)[20, 20] == 1


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="468"):
        five_points(np.zeros((6, 2)))
    with pytest.raises(ValueError, match=r"\[n, 2\]"):
        aligned(ASTRONAUT, np.zeros((5, 3)), arcface_template(112), 112)
    with pytest.raises(ValueError, match="apart"):
        aligned(ASTRONAUT, np.ones((5, 2)), arcface_template(112), 112)
    with pytest.raises(ValueError, match="RGB"):
        aligned(ASTRONAUT[..., 0], PLACES, arcface_template(112), 112)
    with pytest.raises(ValueError, match="part's size"):
        paste_part(ASTRONAUT, ASTRONAUT, np.eye(2, 3), np.zeros((3, 3)))
