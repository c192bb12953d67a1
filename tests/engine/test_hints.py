"""Hints without weights: fitting, edges, strokes. Photographs are scikit-image's idea of one: made here, no file."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.annotators.loaded import WITH_NETWORKS
from impasto_server.engine.canny import canny
from impasto_server.engine.fitting import fitted
from impasto_server.engine.hints import OF_THE_KIT, PERSON, Hints, annotate, with_hole
from impasto_server.engine.jobs import ControlUnit, Job, Layer
from impasto_server.engine.kit.runtime import Kit
from impasto_server.engine.modes import Annotate
from impasto_server.engine.params_control import INPAINTS, POSES, PREPROCESSORS, RESIZE_MODES
from impasto_server.engine.preprocess import PREPROCESS
from impasto_server.engine.report import Report


def unit(image, **more):
    return ControlUnit("control unit 2", "params.control[1]", "", image, **more)


@functools.cache
def hints():
    return Hints(Kit())


def square(side=96, inner=40, dark=30, light=220):
    """A light square on dark ground, RGBA."""
    image = np.full((side, side, 4), dark, np.uint8)
    start = (side - inner) // 2
    image[start : start + inner, start : start + inner, :3] = light
    image[..., 3] = 255
    return image


def test_the_tables_name_the_same():
    tables = (PREPROCESS, OF_THE_KIT, WITH_NETWORKS, POSES, INPAINTS)
    names = [name for table in tables for name in table]
    assert sorted(names) == sorted(PREPROCESSORS)


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
    hint = hints().of(unit(square(), preprocessor=preprocessor), Size(64, 48)).tensor
    assert hint.shape == (1, 3, 48, 64) and float(hint.min()) >= 0 and float(hint.max()) <= 1
    if preprocessor != "color_grid":
        assert float(hint.max()) > float(hint.min())


def test_dark_strokes_become_light_ones():
    image = np.full((96, 96, 4), 255, np.uint8)
    image[46:50, 10:86, :3] = 0
    for preprocessor in ("scribble", "lineart", "invert"):
        hint = hints().of(unit(image, preprocessor=preprocessor), Size(96, 96)).pixels
        assert hint[48, 48].min() > 120 and hint[10, 10].max() == 0, preprocessor


def test_what_is_transparent_is_nothing_in_a_hint_and_paper_in_a_picture():
    image = np.zeros((32, 32, 4), np.uint8)
    image[10:20, 10:20] = (255, 255, 255, 255)
    assert hints().of(unit(image), Size(32, 32)).pixels[0, 0].max() == 0
    assert hints().of(unit(image, preprocessor="tile"), Size(32, 32)).pixels[0, 0].min() == 255
    with pytest.raises(RequestError) as caught:
        hints().of(unit(np.zeros((8, 8, 4), np.uint8)), Size(8, 8))
    assert "control unit 2" in caught.value.message and caught.value.path == "params.control[1]"


def photograph():
    from skimage import data

    rgb = data.astronaut()
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def test_the_kit_finds_the_person_and_the_lines():
    person = hints().of(unit(photograph(), preprocessor="person"), Size(256, 256)).pixels
    assert set(map(tuple, person.reshape(-1, 3))) == {(0, 0, 0), PERSON}
    assert person[200, 110].any() and not person[10, 250].any()
    lines = hints().of(unit(square(256, 120), preprocessor="mlsd"), Size(256, 256)).pixels
    assert lines.max() == 255 and 0 < (lines > 0).mean() < 0.1


def test_a_hint_is_a_layer_where_the_picture_lies():
    events = []
    image = square(48)
    job = Job("j", "annotate", Annotate(preprocessor="canny"), Size(200, 100), Box(20, 30, 48, 48), "", image=image)
    result = annotate(job, job.params, Report(events.append, lambda: False), hints())
    (layer,) = [event for event in events if isinstance(event, Layer)]
    assert layer.box == job.box and layer.name == "canny hint" and layer.stage == "annotate"
    assert layer.pixels[..., 3].min() == 255 and layer.info["params"]["preprocessor"] == "canny"
    np.testing.assert_array_equal(layer.pixels[..., 0], canny(image[..., :3], 100, 200))
    assert result.ran["preprocessor"] == "canny"


# ---- kept for the next job


def test_a_hint_is_made_once(monkeypatch):
    from impasto_server.engine import hints as module

    made = []

    def counted(picture, unit):
        made.append(unit.preprocessor)
        return 255 - picture

    monkeypatch.setitem(module.PREPROCESS, "invert", counted)
    held = Hints(Kit())
    first = held.of(unit(square(), preprocessor="invert"), Size(64, 64))
    again = held.of(unit(square(), preprocessor="invert"), Size(64, 64))
    assert len(made) == 1 and again is first
    # Whatever it depends on makes another one.
    held.of(unit(square(inner=30), preprocessor="invert"), Size(64, 64))
    held.of(unit(square(), preprocessor="invert"), Size(64, 48))
    held.of(unit(square(), preprocessor="invert", resize="stretch"), Size(64, 64))
    held.of(unit(square(), preprocessor="invert", threshold_low=3.0), Size(64, 64))
    assert len(made) == 5
    # Weight, steps and mode change nothing about it.
    held.of(unit(square(), preprocessor="invert", weight=0.2, start=0.5, mode="control"), Size(64, 64))
    assert len(made) == 5


def test_what_is_kept_has_a_limit():
    held = Hints(Kit(), budget_bytes=3 * 64 * 64 * 3)
    for inner in range(10, 30):
        held.of(unit(square(inner=inner), preprocessor="canny"), Size(64, 64))
    assert len(held._held) == 3


# ---- colours, disorder, holes


def test_shuffled_colours_are_those_of_the_picture():
    picture = photograph()
    hint = hints().of(unit(picture, preprocessor="shuffle"), Size(256, 256)).pixels
    again = hints().of(unit(picture, preprocessor="shuffle", threshold_low=1.0), Size(256, 256)).pixels
    assert (hint != again).any(), "the seed is the lower threshold"
    whole = fitted(picture[..., :3], Size(256, 256), "crop")
    assert abs(hint.astype(int) - whole).mean() > 30, "another composition"
    assert abs(hint.mean((0, 1)) - whole.mean((0, 1))).max() < 40


def test_recolouring_keeps_the_light():
    from impasto_server.engine.recolor import INTENSITY, LUMINANCE, recolored, value_of

    picture, other = photograph()[::4, ::4, :3], np.full((128, 128, 3), (120, 130, 150), np.uint8)
    for kind in (LUMINANCE, INTENSITY):
        value = value_of(picture, kind)
        assert abs(recolored(picture, value, kind).astype(int) - picture).max() <= 2
        made = recolored(other, value, kind)
        # Colours beyond sRGB are cut, which moves their light.
        assert np.percentile(abs(value_of(made, kind).astype(int) - value), 90) <= 6
        assert (value_of(picture, kind, 2.0) <= value).all()
    gray = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    np.testing.assert_array_equal(value_of(gray, INTENSITY)[0], np.arange(256))
    # L of CIELAB for the greys, by its definition: linear light, then 116 * cube root - 16.
    linear = ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4
    wanted = 255 * (116 * np.cbrt(linear) - 16) / 100
    np.testing.assert_allclose(value_of(gray, LUMINANCE)[0, 40:], wanted[40:], atol=0.6)


def test_a_hole_is_minus_one():
    image = square()
    image[30:60, 30:60, 3] = 0
    hint = hints().of(unit(image, preprocessor="inpaint"), Size(96, 96))
    assert hint.hole.sum() == 900 and hint.tensor[0, :, 45, 45].tolist() == [-1, -1, -1]
    assert hint.tensor[0, 0, 5, 5] == pytest.approx(30 / 255)
    with pytest.raises(RequestError, match="control unit 2 has no transparent place") as caught:
        hints().of(unit(square(), preprocessor="inpaint"), Size(96, 96))
    assert caught.value.code == "request.empty_selection"
    with_mask = np.zeros((96, 96), np.uint8)
    with_mask[:10] = 255
    whole = hints().of(with_hole(unit(square(), preprocessor="inpaint"), with_mask), Size(96, 96))
    assert whole.hole[:10].all() and not whole.hole[10:].any()
