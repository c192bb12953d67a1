"""What users rely on: the box holds the mask and its reach, lies on the canvas, and the model sees its own size."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.modes import Img2Img, Inpaint, Txt2Img
from impasto_server.engine.planning import check_box, inpaint_reach, plan, resolve_mask, working_size
from impasto_server.engine.step_counts import model_steps

NATIVE = st.sampled_from([128, 256, 512, 768, 1024])


@st.composite
def canvas_and_selection(draw: st.DrawFn) -> tuple[Size, Box]:
    canvas = Size(draw(st.integers(1, 5000)), draw(st.integers(1, 5000)))
    x, y = draw(st.integers(0, canvas.width - 1)), draw(st.integers(0, canvas.height - 1))
    return canvas, Box(x, y, draw(st.integers(1, canvas.width - x)), draw(st.integers(1, canvas.height - y)))


number = st.one_of(st.just("auto"), st.integers(0, 512).map(float))


flag = st.booleans()


@settings(max_examples=300, deadline=None)
@given(canvas_and_selection(), NATIVE, st.floats(0, 1), number, number, number, number, flag, flag, flag)
def test_box_holds_mask_and_reach_on_the_canvas(
    case, native, strength, grow, feather, blend, padding, exact, whole, invert
):
    canvas, selection = case
    params = Inpaint(
        strength=strength,
        grow=grow,
        feather=feather,
        blend=blend,
        padding=padding,
        exact=exact,
        area="whole" if whole else "masked",
        invert=invert,
    )
    p = plan("inpaint", params, canvas, selection, native)
    everything = Box.of_size(canvas)
    assert p.reach == inpaint_reach(params, selection, native)
    assert everything.contains(p.box)
    needed = selection.grow(p.reach).intersect(everything)
    assert needed is not None and p.box.contains(needed)
    assert p.box == everything or not (whole or invert)
    for side, limit in zip(p.box.size, canvas, strict=True):
        assert side == limit or side % 8 == 0
        assert side >= min(native, limit)
    assert p.working.width % 8 == 0 and p.working.height % 8 == 0
    assert min(p.working) >= 64
    assert 0.45 * native**2 <= p.working.area <= 1.55 * native**2
    # A client that sends our box, or any larger one, is served.
    assert check_box("inpaint", params, canvas, selection, native, p.box).working == p.working
    assert check_box("inpaint", params, canvas, selection, native, everything).reach == p.reach


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 8000), st.integers(1, 8000), NATIVE)
def test_working_size_keeps_the_aspect(width, height, native):
    size = working_size(Size(width, height), native)
    aspect = min(max(width / height, 0.25), 4.0)
    # Snapping moves each side by at most 4 px.
    low = (size.width - 4.01) / (size.height + 4.01)
    high = (size.width + 4.01) / (size.height - 4.01)
    assert low <= aspect <= high or size == Size(width, height)


def test_peer_numbers_for_a_512_model():
    numbers = resolve_mask(Inpaint(), Box(0, 0, 300, 400), 512)
    assert (numbers.grow, numbers.feather, numbers.blend) == (4, 50, 25)
    assert numbers.reach == 79
    small = resolve_mask(Inpaint(), Box(0, 0, 30, 40), 512)
    assert (small.grow, small.feather, small.blend) == (4, 32, 20)
    assert resolve_mask(Inpaint(strength=0.5), Box(0, 0, 30, 40), 512).feather == 16
    assert resolve_mask(Inpaint(exact=True), Box(0, 0, 30, 40), 512).reach == 0


def test_numbers_scale_with_the_native_size():
    starter = resolve_mask(Inpaint(), Box(0, 0, 30, 40), 128)
    assert (starter.grow, starter.feather, starter.blend) == (1, 8, 5)


def test_explicit_numbers_are_taken():
    numbers = resolve_mask(Inpaint(grow=0.0, feather=4.0, blend=8.0), Box(0, 0, 300, 400), 512)
    assert (numbers.grow, numbers.feather, numbers.blend) == (0, 4, 8)


@pytest.mark.parametrize("native", [128, 512, 1024])
def test_one_pixel_selection_gives_a_native_square(native):
    p = plan("inpaint", Inpaint(), Size(2048, 2048), Box(1000, 1000, 1, 1), native)
    assert p.box.width == p.box.height >= native
    assert p.box.contains(Box(1000, 1000, 1, 1))
    assert p.working.area == pytest.approx(native**2, rel=0.5)


def test_box_is_shifted_and_not_cut_at_the_border():
    p = plan("inpaint", Inpaint(), Size(2048, 2048), Box(0, 2040, 8, 8), 512)
    assert p.box == Box(0, 2048 - p.box.height, p.box.width, p.box.height)
    assert min(p.box.size) >= 512


def test_wide_selection_gets_a_squarer_box():
    p = plan("inpaint", Inpaint(), Size(4096, 4096), Box(1000, 2000, 1200, 200), 512)
    assert p.box.width / p.box.height < 3


def test_native_box_is_not_resampled():
    p = plan("inpaint", Inpaint(area="whole"), Size(512, 640), Box(10, 10, 50, 50), 512)
    assert p.working == Size(512, 640) and p.warnings == ()


def test_large_area_is_scaled_down_and_says_so():
    p = plan("img2img", Img2Img(), Size(2048, 1024), None, 512)
    assert p.box == Box(0, 0, 2048, 1024)
    assert p.working == Size(728, 360)
    assert any("scaled up" in w for w in p.warnings)


def test_long_narrow_area_warns_and_stays_usable():
    p = plan("img2img", Img2Img(), Size(4096, 16), None, 512)
    assert p.working == Size(1024, 256)
    assert any("narrow" in w for w in p.warnings)


def test_img2img_takes_the_selection():
    p = plan("img2img", Img2Img(strength=0.5), Size(1000, 1000), Box(900, 900, 300, 300), 512)
    assert p.box == Box(900, 900, 100, 100)
    assert p.working == Size(512, 512)
    assert p.steps == 11


@pytest.mark.parametrize(
    ("width", "height", "canvas", "working", "box"),
    [
        (0, 0, Size(1000, 500), Size(728, 360), Box(0, 0, 1000, 500)),
        (0, 0, Size(512, 512), Size(512, 512), Box(0, 0, 512, 512)),
        (512, 512, Size(512, 512), Size(512, 512), Box(0, 0, 512, 512)),
        (510, 512, Size(512, 512), Size(512, 512), Box(0, 0, 512, 512)),
        (768, 0, Size(1000, 500), Size(768, 384), Box(0, 0, 1000, 500)),
        (0, 384, Size(1000, 500), Size(768, 384), Box(0, 0, 1000, 500)),
        (512, 512, Size(1000, 500), Size(512, 512), Box(250, 0, 500, 500)),
        (8, 8, Size(512, 512), Size(64, 64), Box(0, 0, 512, 512)),
    ],
)
def test_txt2img_size_and_place(width, height, canvas, working, box):
    p = plan("txt2img", Txt2Img(width=width, height=height), canvas, None, 512)
    assert (p.working, p.box) == (working, box)
    assert p.steps == 20


def test_txt2img_belongs_at_the_selection():
    p = plan("txt2img", Txt2Img(), Size(2000, 2000), Box(100, 200, 300, 300), 128)
    assert (p.box, p.working) == (Box(100, 200, 300, 300), Size(128, 128))


def test_an_inverted_selection_needs_the_whole_canvas():
    p = plan("inpaint", Inpaint(invert=True), Size(900, 700), Box(100, 100, 30, 40), 512)
    assert p.box == Box(0, 0, 900, 700)
    # Lengths go by what was drawn: a small thing that is to be kept must not drown in a feather made for the canvas.
    assert p.reach == inpaint_reach(Inpaint(), Box(100, 100, 30, 40), 512)


@pytest.mark.parametrize(
    ("params", "steps", "calls"),
    [
        (Img2Img(), 16, 16),
        (Img2Img(sampler="heun"), 16, 31),
        (Img2Img(sampler="dpmpp_sde", strength=0.0), 1, 1),
        (Img2Img(sampler="dpmpp_sde", batch=4), 16, 124),
        (Txt2Img(steps=30, batch=8), 30, 240),
    ],
)
def test_calls_count_the_work(params, steps, calls):
    p = plan("img2img" if isinstance(params, Img2Img) else "txt2img", params, Size(512, 512), None, 512)
    assert (p.steps, p.calls) == (steps, calls)


def test_steps_follow_a1111():
    assert [model_steps(20, s) for s in (1.0, 0.5, 0.0, 0.75)] == [20, 11, 1, 16]


@pytest.mark.parametrize(
    ("canvas", "selection", "code"),
    [
        (Size(100, 100), None, "request.empty_selection"),
        (Size(100, 100), Box(5, 5, 0, 0), "request.empty_selection"),
        (Size(100, 100), Box(5, 5, -3, 7), "request.empty_selection"),
        (Size(100, 100), Box(100, 0, 10, 10), "request.bad_geometry"),
        (Size(100, 100), Box(-10, -10, 10, 10), "request.bad_geometry"),
        (Size(0, 100), Box(0, 0, 1, 1), "request.bad_geometry"),
        (Size(100, -1), Box(0, 0, 1, 1), "request.bad_geometry"),
        (Size(100_001, 10), Box(0, 0, 1, 1), "request.bad_geometry"),
    ],
)
def test_refusals(canvas, selection, code):
    with pytest.raises(RequestError) as refused:
        plan("inpaint", Inpaint(), canvas, selection, 512)
    assert refused.value.code == code


def test_box_above_the_limit_is_refused():
    with pytest.raises(RequestError, match="above the limit"):
        plan("img2img", Img2Img(), Size(20_000, 20_000), None, 512)
    # The same canvas works for a small selection.
    assert plan("inpaint", Inpaint(), Size(20_000, 20_000), Box(9, 9, 99, 99), 512).box.width < 4096


@pytest.mark.parametrize("box", [Box(0, 0, 20, 20), Box(-1, 0, 50, 50), Box(60, 60, 50, 50), Box(0, 0, 0, 5)])
def test_sent_boxes_that_cut_the_mask_or_leave_the_canvas_are_refused(box):
    with pytest.raises(RequestError) as refused:
        check_box("inpaint", Inpaint(), Size(100, 100), Box(10, 10, 20, 20), 512, box)
    assert refused.value.code == "request.bad_geometry"


def test_planning_is_fast():
    start = time.perf_counter()
    for _ in range(100):
        plan("inpaint", Inpaint(), Size(4096, 4096), Box(100, 100, 500, 300), 512)
    assert (time.perf_counter() - start) / 100 < 0.001
