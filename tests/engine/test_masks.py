"""The promises of the masks, for hard and soft selections of any shape."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from impasto_protocol.geometry import Box
from impasto_server.engine.masks import bounds_of, box_blur_sum, denoise_mask, dilate, layer_alpha, within_reach
from impasto_server.engine.planning import MaskNumbers

soft_masks = arrays(
    np.uint8,
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    elements=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1, 100, 254, 255]),
)
numbers_ = st.builds(MaskNumbers, st.integers(0, 6), st.integers(0, 9), st.integers(0, 12))


def naive(image, radius, reduce, fill):
    """Window reduction by definition, for comparison."""
    mode = dict(mode="edge") if fill == "edge" else dict(constant_values=fill)
    padded = np.pad(image.astype(np.int64), radius, **mode)
    out = np.empty(image.shape, np.int64)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            out[y, x] = reduce(padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1])
    return out


@settings(max_examples=25, deadline=None)
@given(soft_masks, st.integers(0, 7))
def test_filters_by_definition(mask, radius):
    np.testing.assert_array_equal(dilate(mask, radius), naive(mask, radius, np.max, 0))
    np.testing.assert_array_equal(box_blur_sum(mask, radius), naive(mask, radius, np.sum, "edge"))


@settings(max_examples=150, deadline=None)
@given(soft_masks, numbers_)
def test_promises(mask, numbers):
    alpha = layer_alpha(mask, numbers, exact=False)
    denoise = denoise_mask(mask, numbers)
    assert alpha.dtype == np.uint8 and denoise.dtype == np.float32
    assert denoise.min() >= 0 and denoise.max() <= 1
    full = mask == 255
    assert (alpha[full] == 255).all()
    assert (denoise[full] == 1).all()
    reached = naive((mask > 0).astype(np.uint8), numbers.reach, np.max, 0) > 0
    assert not alpha[~reached].any()
    assert not denoise[~reached].any()
    if numbers.blend <= numbers.grow + numbers.feather // 2:
        # No pixel of the layer shows something that was not repainted.
        assert (denoise[alpha > 0] > 0).all()


@settings(max_examples=60, deadline=None)
@given(soft_masks, numbers_, st.randoms())
def test_a_larger_selection_never_gives_less(mask, numbers, random):
    larger = np.maximum(mask, np.roll(mask, random.randrange(4), axis=random.randrange(2)))
    assert (layer_alpha(larger, numbers, exact=False) >= layer_alpha(mask, numbers, exact=False)).all()
    assert (denoise_mask(larger, numbers) >= denoise_mask(mask, numbers)).all()


def test_profile_of_a_hard_edge():
    selection = np.zeros((9, 200), np.uint8)
    selection[:, :50] = 255
    numbers = MaskNumbers(grow=4, feather=32, blend=20)
    denoise = denoise_mask(selection, numbers)[4]
    alpha = layer_alpha(selection, numbers, exact=False)[4]
    assert (denoise[:54] == 1).all() and denoise[54] < 1
    assert denoise[50 + 4 + 16] == pytest.approx(0.5, abs=0.03)
    assert denoise[85] > 0 and not denoise[86:].any()
    assert (np.diff(denoise) <= 0).all() and (np.diff(alpha.astype(int)) <= 0).all()
    assert (alpha[:66] == 255).all() and alpha[85] > 0 and not alpha[86:].any()


def test_one_pixel():
    selection = np.zeros((64, 64), np.uint8)
    selection[20, 30] = 255
    numbers = MaskNumbers(1, 8, 5)
    alpha = layer_alpha(selection, numbers, exact=False)
    assert alpha[20, 30] == 255
    assert bounds_of(alpha) == Box(30 - 9, 20 - 9, 19, 19)


def test_selection_at_the_border_stays_opaque_up_to_it():
    selection = np.zeros((64, 64), np.uint8)
    selection[:, :10] = 255
    alpha = layer_alpha(selection, MaskNumbers(2, 8, 6), exact=False)
    assert (alpha[:, :10] == 255).all()


def test_exact_is_the_selection_itself():
    selection = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
    alpha = layer_alpha(selection, MaskNumbers(0, 0, 0), exact=True)
    np.testing.assert_array_equal(alpha, selection)
    assert alpha is not selection
    np.testing.assert_allclose(denoise_mask(selection, MaskNumbers(0, 0, 0)), selection / 255, atol=1e-6)


def test_nothing_selected():
    empty = np.zeros((5, 7), np.uint8)
    assert bounds_of(empty) is None
    assert not layer_alpha(empty, MaskNumbers(1, 2, 3), exact=False).any()
    assert not denoise_mask(empty, MaskNumbers(1, 2, 3)).any()


def test_golden_profile():
    """The documented function may not change unnoticed: a soft disc, the peer's numbers."""
    y, x = np.mgrid[0:96, 0:128]
    disc = np.clip((30 - np.hypot(x - 64, y - 48)) * 32 + 128, 0, 255).astype(np.uint8)
    numbers = MaskNumbers(4, 32, 20)
    alpha, denoise = layer_alpha(disc, numbers, exact=False), denoise_mask(disc, numbers)
    assert alpha[48, [64, 94, 100, 110, 113, 120, 127]].tolist() == GOLDEN_ALPHA
    np.testing.assert_allclose(denoise[48, [64, 94, 100, 110, 113, 120, 127]], GOLDEN_DENOISE, atol=5e-4)


GOLDEN_ALPHA = [255, 255, 255, 255, 255, 170, 85]
GOLDEN_DENOISE = [1.0, 1.0, 0.921, 0.622, 0.531, 0.319, 0.106]


def test_fast_enough():
    selection = np.zeros((1024, 1024), np.uint8)
    selection[60:960, 60:960] = 255
    numbers = MaskNumbers(4, 100, 25)
    best = 1.0
    for _ in range(5):
        start = time.process_time()
        denoise_mask(selection, numbers)
        layer_alpha(selection, numbers, exact=False)
        best = min(best, time.process_time() - start)
    print(f"masks of 1024 x 1024: {best * 1000:.1f} ms")
    assert best < 0.25  # 50 ms on an idle machine; the test may share it


def test_what_lies_within_reach():
    selection = np.zeros((20, 30), np.uint8)
    assert within_reach(selection, 5) is None
    selection[4:6, 25:28] = 1
    assert within_reach(selection, 0) == Box(25, 4, 3, 2)
    assert within_reach(selection, 5) == Box(20, 0, 10, 11)  # no further than the picture
