"""Hints without weights: fitting, edges, strokes. Photographs are scikit-image's idea of one: made here, no file."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.hints import (
    OF_THE_KIT,
    PERSON,
    PREPROCESS,
    annotate,
    canny,
    fitted,
    hint_picture,
    hint_tensor,
)
from impasto_server.engine.jobs import ControlUnit, Job, Layer
from impasto_server.engine.kit.runtime import Kit
from impasto_server.engine.modes import Annotate
from impasto_server.engine.params_control import PREPROCESSORS, RESIZE_MODES
from impasto_server.engine.report import Report


def unit(image, **more):
    return ControlUnit("control unit 2", "params.control[1]", "", image, **more)


@functools.cache
def kit():
    return Kit()


def square(side=96, inner=40, dark=30, light=220):
    """A light square on dark ground, RGBA."""
    image = np.full((side, side, 4), dark, np.uint8)
    start = (side - inner) // 2
    image[start : start + inner, start : start + inner, :3] = light
    image[..., 3] = 255
    return image


def test_the_tables_name_the_same():
    assert {*PREPROCESS, *OF_THE_KIT} == set(PREPROCESSORS)


def test_canny_draws_the_outline_one_pixel_wide_and_closed():
    edges = canny(square()[..., :3], 100, 200)
    assert set(np.unique(edges)) == {0, 255}
    rows, columns = np.nonzero(edges)
    assert 27 <= rows.min() <= 28 and 67 <= rows.max() <= 68 and 27 <= columns.min() <= 28
    # A line across it meets two edges of a pixel each.
    assert (edges[48] > 0).sum() == 2 and (edges[:, 48] > 0).sum() == 2
    assert not edges[40:56, 40:56].any()


def test_canny_keeps_faint_edges_only_where_they_join_clear_ones():
    image = np.full((60, 120, 3), 100, np.uint8)
    image[30:, :60] = 135  # 35 * 4 = 140: faint
    image[30:, 60:] = 200
    joined = canny(image, 100, 200)
    assert joined[28:32, 5:115].any(axis=0).all()
    image[30:, 60:] = 135
    assert not canny(image, 100, 200).any()


@pytest.mark.parametrize("seed", range(3))
def test_canny_agrees_with_the_definition(seed):
    """Against a plain implementation: loops, no tricks."""
    image = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), np.uint8)
    image = np.repeat(np.repeat(image[::4, ::4], 4, 0), 4, 1)[:24, :20]
    np.testing.assert_array_equal(canny(image, 100, 200), plain_canny(image, 100, 200))


def plain_canny(image, low, high):
    height, width, _ = image.shape
    padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)), mode="edge")
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    gx, gy = np.zeros((height, width)), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            part = padded[y : y + 3, x : x + 3]
            each = [((part[..., c] * kernel).sum(), (part[..., c] * kernel.T).sum()) for c in range(3)]
            gx[y, x], gy[y, x] = max(each, key=lambda g: abs(g[0]) + abs(g[1]))
    size = abs(gx) + abs(gy)

    def at(y, x):
        return size[y, x] if 0 <= y < height and 0 <= x < width else 0.0

    kept = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            ax, ay = abs(gx[y, x]), abs(gy[y, x])
            if ay < np.tan(np.pi / 8) * ax:
                dy, dx = 0, 1
            elif ay > np.tan(3 * np.pi / 8) * ax:
                dy, dx = 1, 0
            else:
                dy, dx = (-1, 1) if gx[y, x] * gy[y, x] < 0 else (1, 1)
            kept[y, x] = size[y, x] > at(y - dy, x - dx) and size[y, x] >= at(y + dy, x + dx)
    out = np.zeros((height, width), np.uint8)
    todo = [(y, x) for y in range(height) for x in range(width) if kept[y, x] and size[y, x] > high]
    while todo:
        y, x = todo.pop()
        if not (0 <= y < height and 0 <= x < width) or out[y, x] or not kept[y, x] or size[y, x] <= low:
            continue
        out[y, x] = 255
        todo += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return out


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from(RESIZE_MODES),
)
def test_any_picture_fits_any_size(before, after, resize):
    image = np.random.default_rng(0).integers(0, 256, (*before, 3), np.uint8)
    assert fitted(image, Size(*after), resize).shape == (after[1], after[0], 3)


def test_ways_to_fit():
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, :20], image[:, 60:] = 255, 255
    assert not fitted(image, Size(40, 40), "crop").any()  # the middle
    assert fitted(image, Size(40, 40), "stretch")[:, 0].all()
    filled = fitted(np.full((40, 80, 3), 90, np.uint8), Size(80, 80), "fill")
    assert (filled == 90).all()


@pytest.mark.parametrize("preprocessor", list(PREPROCESS))
def test_every_preprocessor_gives_a_hint(preprocessor):
    hint = hint_tensor(unit(square(), preprocessor=preprocessor), Size(64, 48), kit())
    assert hint.shape == (1, 3, 48, 64) and float(hint.min()) >= 0 and float(hint.max()) <= 1
    if preprocessor != "color_grid":
        assert float(hint.max()) > float(hint.min())


def test_dark_strokes_become_light_ones():
    image = np.full((96, 96, 4), 255, np.uint8)
    image[46:50, 10:86, :3] = 0
    for preprocessor in ("scribble", "lineart", "invert"):
        hint = hint_picture(unit(image, preprocessor=preprocessor), Size(96, 96), kit())
        assert hint[48, 48].min() > 120 and hint[10, 10].max() == 0, preprocessor


def test_what_is_transparent_is_nothing_in_a_hint_and_paper_in_a_picture():
    image = np.zeros((32, 32, 4), np.uint8)
    image[10:20, 10:20] = (255, 255, 255, 255)
    assert hint_picture(unit(image), Size(32, 32), kit())[0, 0].max() == 0
    assert hint_picture(unit(image, preprocessor="tile"), Size(32, 32), kit())[0, 0].min() == 255
    with pytest.raises(RequestError) as caught:
        hint_picture(unit(np.zeros((8, 8, 4), np.uint8)), Size(8, 8), kit())
    assert "control unit 2" in caught.value.message and caught.value.path == "params.control[1]"


def photograph():
    from skimage import data

    rgb = data.astronaut()
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def test_the_kit_finds_the_person_and_the_lines():
    person = hint_picture(unit(photograph(), preprocessor="person"), Size(256, 256), kit())
    assert set(map(tuple, person.reshape(-1, 3))) == {(0, 0, 0), PERSON}
    assert person[200, 110].any() and not person[10, 250].any()
    lines = hint_picture(unit(square(256, 120), preprocessor="mlsd"), Size(256, 256), kit())
    assert lines.max() == 255 and 0 < (lines > 0).mean() < 0.1


def test_a_hint_is_a_layer_where_the_picture_lies():
    events = []
    image = square(48)
    job = Job("j", "annotate", Annotate(preprocessor="canny"), Size(200, 100), Box(20, 30, 48, 48), "", image=image)
    result = annotate(job, job.params, Report(events.append, lambda: False), kit())
    (layer,) = [event for event in events if isinstance(event, Layer)]
    assert layer.box == job.box and layer.name == "canny hint" and layer.stage == "annotate"
    assert layer.pixels[..., 3].min() == 255 and layer.info["params"]["preprocessor"] == "canny"
    np.testing.assert_array_equal(layer.pixels[..., 0], canny(image[..., :3], 100, 200))
    assert result.ran["preprocessor"] == "canny"
