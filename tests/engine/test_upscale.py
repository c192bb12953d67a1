"""Upscaling: light and alpha are kept, bands do not show, and what is too much is refused before anything runs."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine import upscale as upscale_module
from impasto_server.engine.jobs import Cancelled, Job, Layer, Progress
from impasto_server.engine.modes import Upscale, describe, needs_checkpoint, parse_params
from impasto_server.engine.planning import MAX_PIXELS, plan, upscale_bands
from impasto_server.engine.run import Engine
from impasto_server.engine.upscale import lanczos_rows

from tests.engine.device import DEVICE


def picture(width: int, height: int, *, opaque: bool = False) -> np.ndarray:
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 4), np.uint8)
    if opaque:
        pixels[..., 3] = 255
    return pixels


def run(image: np.ndarray, cancelled=lambda: False, **params):
    canvas = Size(image.shape[1], image.shape[0])
    job = Job("u", "upscale", Upscale(**params), canvas, Box.of_size(canvas), "", image=image)
    events: list = []
    result = Engine(DEVICE, "fp32").run(job, events.append, cancelled)
    return events, result


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 8.0])
def test_the_layer_is_a_new_document(scale):
    image = picture(37, 21, opaque=True)
    events, result = run(image, scale=scale)
    (layer,) = [e for e in events if isinstance(e, Layer)]
    width, height = int(37 * scale + 0.5), int(21 * scale + 0.5)
    assert layer.box == Box(0, 0, width, height) and layer.stage == "upscale" and layer.alpha == "opaque"
    assert layer.pixels.shape == (height, width, 4) and (layer.pixels[..., 3] == 255).all()
    assert layer.info == {
        "mode": "upscale",
        "params": dataclasses.asdict(Upscale(scale=scale)),
        "working": [width, height],
        "postprocessing": f"Postprocess upscale by: {scale:g}, Postprocess upscaler: Lanczos",
    }
    assert result.seeds == () and result.ran["method"] == "lanczos" and set(result.timings) == {"upscale"}
    if scale == 1:
        assert (layer.pixels == image).all()


def test_flat_colours_and_alpha_stay_what_they_are():
    image = np.empty((9, 12, 4), np.uint8)
    for color in ((0, 0, 0, 255), (255, 255, 255, 255), (13, 130, 201, 77), (1, 2, 3, 1)):
        image[:] = color
        result = lanczos_rows(image, Size(36, 27), 0, 27).astype(int)
        assert (abs(result - color) <= 1).all() and (result[..., 3] == color[3]).all()


def test_nothing_bleeds_out_of_what_is_transparent():
    image = np.zeros((16, 16, 4), np.uint8)
    image[...] = (0, 255, 0, 0)  # an invisible green
    image[:, :8] = (255, 0, 0, 255)
    result = lanczos_rows(image, Size(64, 64), 0, 64)
    seen = result[result[..., 3] > 0]
    assert (seen[:, 0] == 255).all() and not seen[:, 1].any()
    assert (result[:, :20, 3] > 240).all() and not result[:, 48:, 3].any()


def test_colours_are_mixed_as_light():
    """Half-way between black and white is half the light: 188 in sRGB, not 128."""
    image = np.zeros((8, 8, 4), np.uint8)
    image[..., 3] = 255
    image[:, 4:, :3] = 255
    row = lanczos_rows(image, Size(24, 24), 0, 24)[12, :, 0].astype(int)
    dark, light = row[11], row[12]
    linear = [((v / 255 + 0.055) / 1.055) ** 2.4 for v in (dark, light)]
    assert abs(sum(linear) - 1) < 0.02


@pytest.mark.parametrize("size", [Size(96, 64), Size(71, 49)])
def test_bands_do_not_show(size):
    image = picture(40, 30)
    whole = lanczos_rows(image, size, 0, size.height).astype(int)
    cuts = [0, 7, 8, 31, size.height]
    parts = [lanczos_rows(image, size, a, b) for a, b in itertools.pairwise(cuts)]
    apart = abs(np.concatenate(parts).astype(int) - whole)
    # Where hardly any alpha is left, a rounding of it turns the colour.
    assert apart[..., 3].max() <= 1 and apart[whole[..., 3] > 8].max() <= 1


def test_progress_and_cancel_by_the_band(monkeypatch):
    monkeypatch.setattr("impasto_server.engine.planning._BAND_PIXELS", 1000)
    image = picture(40, 30)
    events, _ = run(image, scale=2)
    steps = [e for e in events if isinstance(e, Progress)]
    assert [e.step for e in steps] == list(range(6)) and {e.steps for e in steps} == {5}
    assert steps[-1].fraction == 1 and all(e.stage == "upscale" for e in steps)
    done = []
    original = upscale_module.lanczos_rows
    monkeypatch.setattr(upscale_module, "lanczos_rows", lambda *a: (done.append(a), original(*a))[1])
    with pytest.raises(Cancelled):
        run(image, cancelled=lambda: len(done) == 2, scale=2)
    assert len(done) == 2


def test_plan_tells_the_size_of_the_result():
    planned = plan("upscale", Upscale(scale=3), Size(100, 50), None, 0)
    assert planned.box == Box(0, 0, 100, 50) and planned.working == Size(300, 150)
    assert planned.reach == 0 and planned.steps == upscale_bands(planned.working) == 1 and not planned.warnings
    assert plan("upscale", Upscale(scale=1.5), Size(3, 1), None, 0).working == Size(5, 2)


@pytest.mark.parametrize(("canvas", "scale"), [(Size(16000, 16000), 2), (Size(16384, 2100), 8), (Size(90_000, 10), 2)])
def test_results_beyond_the_limit_are_refused(canvas, scale):
    with pytest.raises(RequestError) as caught:
        plan("upscale", Upscale(scale=scale), canvas, None, 0)
    assert caught.value.code == "request.bad_geometry" and caught.value.path == "params.scale"
    assert caught.value.data["limit"] == MAX_PIXELS


@pytest.mark.parametrize("values", [{"scale": 0.5}, {"scale": 9}, {"scale": "2"}, {"upscaler": 3}, {"prompt": "x"}])
def test_bad_parameters_are_refused(values):
    with pytest.raises(RequestError) as caught:
        parse_params("upscale", values)
    assert caught.value.code == "request.invalid_param"


def test_it_needs_a_picture_and_no_checkpoint():
    job = Job("u", "upscale", Upscale(), Size(4, 4), Box(0, 0, 4, 4), "")
    with pytest.raises(RequestError) as caught:
        Engine(DEVICE, "fp32").run(job, lambda e: None, lambda: False)
    assert caught.value.code == "request.missing_input"
    assert [m.name for m in describe() if not needs_checkpoint(m.name)] == ["upscale", "faceswap", "annotate"]


@pytest.mark.parametrize(
    ("wanted", "size"),
    [
        ({"width": 90}, (90, 60)),
        ({"height": 90}, (135, 90)),
        ({"width": 80, "height": 80}, (80, 80)),
        ({"width": 7}, (7, 5)),
    ],
)
def test_a_size_instead_of_the_scale(wanted, size):
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 4), np.uint8)
    events, _ = run(image, **wanted)
    (layer,) = [e for e in events if isinstance(e, Layer)]
    assert layer.pixels.shape[:2] == size[::-1] and layer.box == Box(0, 0, *size)
    if wanted.get("width") == wanted.get("height") == 80:
        middle = np.ascontiguousarray(image[:, 10:50])
        assert (layer.pixels == lanczos_rows(middle, Size(80, 80), 0, 80)).all()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 400), st.integers(0, 400), st.floats(1, 8))
def test_no_size_is_nothing(width, height, to_width, to_height, scale):
    params = Upscale(scale=scale, width=to_width, height=to_height)
    size, crop = params.target(Size(width, height)), params.crop_of(Size(width, height))
    assert min(size) >= 1 and min(crop.size) >= 1 and Box(0, 0, width, height).contains(crop)
