"""Refining in tiles: one tile is the untiled run to the last bit, and what many tiles cover has no seams or gaps."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine import refine as refine_module
from impasto_server.engine.jobs import Cancelled, ControlUnit, Job, Progress
from impasto_server.engine.modes import Img2Img, Inpaint, Refine, Txt2Img, parse_params
from impasto_server.engine.planning import plan
from impasto_server.engine.refine import _share, hold_colors, patches
from impasto_server.engine.run import Engine
from impasto_server.engine.tiled import TiledDenoiser, tile_boxes, tile_spans, tile_weight
from impasto_server.engine.work import Work

from tests.control import write_tiny_controlnet
from tests.engine.device import DEVICE
from tests.engine.test_run import picture, run, run_batch
from tests.tiny import NATIVE_SIZE, write_tiny_checkpoint

WIDE = Size(152, 104)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return str(write_tiny_checkpoint(folder / "tiny.safetensors"))


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


def refine_job(checkpoint, canvas=WIDE, image=None, **params):
    values = Refine(**{"prompt": "a red apple", "seed": 5, "steps": 4, "strength": 0.5, **params})
    pixels = picture(*canvas) if image is None else image
    return Job("j", "refine", values, canvas, Box.of_size(canvas), checkpoint, image=pixels)


@pytest.fixture
def latents_of(monkeypatch):
    """What each run of the loop gave."""
    made: list[torch.Tensor] = []
    sample = Work.sample

    def kept(self, *args, **named):
        made.append(sample(self, *args, **named))
        return made[-1]

    monkeypatch.setattr(Work, "sample", kept)
    return made


# ---- golden: one tile over the whole picture


@pytest.mark.parametrize("sampler", ["euler", "euler_a", "dpmpp_2m_sde", "heun", "unipc"])
@pytest.mark.parametrize("tiling", ["latent", "pixel"])
def test_one_tile_is_image_to_image(engine, checkpoint, latents_of, sampler, tiling):
    canvas = Size(NATIVE_SIZE, NATIVE_SIZE)
    image = picture(*canvas)
    values = Img2Img(prompt="a red apple", seed=5, steps=4, strength=0.5, sampler=sampler, batch=2)
    plain, _, _ = run_batch(engine, Job("i", "img2img", values, canvas, Box.of_size(canvas), checkpoint, image=image))
    job = refine_job(checkpoint, canvas, image, sampler=sampler, batch=2, tiling=tiling, hold_color=False)
    tiled, _, _ = run_batch(engine, job)
    assert len(latents_of) == 2 and torch.equal(*latents_of)
    for one, other in zip(plain, tiled, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("tiling", ["latent", "pixel"])
def test_one_large_tile_is_the_untiled_run(engine, checkpoint, latents_of, monkeypatch, tiling):
    job = refine_job(checkpoint, tile=4096, tiling=tiling, hold_color=False)
    tiled, _, _ = run(engine, job)
    monkeypatch.setattr(Work, "tiled_denoiser", lambda self, strength, tiles: self.denoiser(strength))
    untiled, _, _ = run(engine, refine_job(checkpoint, tile=4096, tiling="latent", hold_color=False))
    assert torch.equal(*latents_of)
    np.testing.assert_array_equal(tiled.pixels, untiled.pixels)


def test_a_panorama_of_one_tile_is_no_panorama(engine, checkpoint):
    canvas = Size(NATIVE_SIZE, NATIVE_SIZE)
    values = Txt2Img(prompt="a red apple", seed=5, steps=3, width=64, height=64)
    one, _, _ = run(engine, Job("t", "txt2img", values, canvas, Box.of_size(canvas), checkpoint))
    values = dataclasses.replace(values, panorama=True)
    other, _, _ = run(engine, Job("t", "txt2img", values, canvas, Box.of_size(canvas), checkpoint))
    np.testing.assert_array_equal(one.pixels, other.pixels)


# ---- the tiles


@given(st.integers(1, 300), st.integers(8, 64), st.integers(0, 40))
def test_spans_cover_and_share(length, side, overlap):
    overlap = min(overlap, side * 3 // 4)
    spans = tile_spans(length, side, overlap)
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert all(end - start == min(side, length) for start, end in spans)
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end - start >= overlap - 1


@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_mixing_keeps_what_all_tiles_agree_on(kind):
    x = torch.randn(2, 4, 19, 30, generator=torch.Generator().manual_seed(1))

    class Same:
        sigmas = torch.tensor([1.0, 0.0])

        def attached(self):
            import contextlib

            return contextlib.nullcontext()

        def __call__(self, x, sigma):
            return x * 2

    boxes = tile_boxes(Size(30, 19), 8, 3)
    mixed = TiledDenoiser(tuple((box, Same()) for box in boxes), kind, lambda: None)(x, torch.tensor(1.0))
    torch.testing.assert_close(mixed, x * 2)
    weight = tile_weight(Size(9, 9), "gaussian")
    assert weight.min() > 0 and int(weight.argmax()) == 40


@given(
    st.integers(8, 60).map(lambda n: n * 8),
    st.integers(8, 60).map(lambda n: n * 8),
    st.integers(8, 16).map(lambda n: n * 8),
    st.integers(0, 4).map(lambda n: n * 8),
    st.integers(0, 4).map(lambda n: n * 8),
)
def test_patches_leave_nothing_out(width, height, side, overlap, padding):
    """Laid over each other in their order, nothing of what was there before is left."""
    size = Size(width, height)
    left = np.ones((height, width), np.float32)
    for patch in patches(size, side, overlap, padding):
        paint, region = patch.paint, patch.region
        assert Box.of_size(size).contains(region) and region.contains(paint)
        assert all(value % 8 == 0 for value in (*paint, *region))
        view = left[paint.y : paint.bottom, paint.x : paint.right]
        view *= 1 - _share(patch)
    assert left.max() < 1e-6


def test_the_plan_is_the_document_in_eights_and_counts_tiles():
    values = Refine(steps=10, strength=0.3, tile=64, overlap=16)
    planned = plan("refine", values, Size(301, 203), None, 512)
    assert planned.working == Size(304, 208) and planned.box == Box(0, 0, 301, 203) and planned.steps == 4
    assert planned.calls > 4
    assert plan("refine", values, Size(301, 203), Box(10, 20, 64, 64), 512).calls == 4
    wide = Txt2Img(width=1024, height=256, panorama=True, steps=2)
    assert plan("txt2img", wide, Size(1024, 256), None, 256).calls > 2


@pytest.mark.parametrize("values", [{"tile": 8}, {"tiling": "round"}, {"seam_fix": "glue"}, {"strength": 2}])
def test_bad_parameters_are_refused(values):
    with pytest.raises(RequestError):
        parse_params("refine", values)


@pytest.mark.parametrize("native", [64, 128, 512, 768, 1024])
def test_tiles_follow_the_family(native):
    values = Refine()
    assert values.tile_side(native) == native and values.tile_overlap(native) % 8 == 0
    assert 0 < values.tile_overlap(native) < native and values.tile_context(native) % 8 == 0


# ---- whole runs


@pytest.mark.parametrize("tiling", ["latent", "pixel"])
@pytest.mark.parametrize("canvas", [WIDE, Size(149, 101), Size(40, 200)])
def test_any_size_keeps_its_place_and_alpha(engine, checkpoint, tiling, canvas):
    image = picture(*canvas)
    image[3:20, 5:30, 3] = 0
    image[30:35, 5:30, 3] = 99
    layer, result, events = run(engine, refine_job(checkpoint, canvas, image, tiling=tiling))
    assert layer.box == Box.of_size(canvas) and layer.stage == "refine" and layer.alpha == "soft"
    np.testing.assert_array_equal(layer.pixels[..., 3], image[..., 3])
    assert (layer.pixels[..., :3] != image[..., :3]).any()
    assert result.ran["tiling"] == tiling and layer.info["mode"] == "refine"
    fractions = [e.fraction for e in events if isinstance(e, Progress)]
    assert fractions == sorted(fractions) and fractions[-1] == 1


def test_same_seed_same_picture_and_batches(engine, checkpoint):
    for tiling in ("latent", "pixel"):
        two, result, _ = run_batch(engine, refine_job(checkpoint, tiling=tiling, batch=2))
        assert result.seeds == (5, 6)
        second, _, _ = run(engine, refine_job(checkpoint, tiling=tiling, seed=6))
        # A batch may sum in another order.
        assert abs(two[1].pixels.astype(int) - second.pixels).max() <= 2
        assert (two[0].pixels != two[1].pixels).any()


@pytest.mark.parametrize("fix", ["band", "half_tile", "half_tile_intersections"])
def test_seams_are_painted_once_more(engine, checkpoint, fix):
    plain, _, _ = run(engine, refine_job(checkpoint, tiling="pixel"))
    fixed, _, _ = run(engine, refine_job(checkpoint, tiling="pixel", seam_fix=fix, seam_width=16))
    assert (plain.pixels != fixed.pixels).any()
    again, _, _ = run(engine, refine_job(checkpoint, tiling="pixel", seam_fix=fix, seam_strength=0.0))
    np.testing.assert_array_equal(plain.pixels, again.pixels)


def test_strength_nothing_leaves_the_picture(engine, checkpoint):
    job = refine_job(checkpoint, strength=0.0)
    layer, _, _ = run(engine, job)
    np.testing.assert_array_equal(layer.pixels, job.image)


@pytest.mark.parametrize("tiling", ["latent", "pixel"])
def test_cancel_within_a_tile(engine, checkpoint, tiling):
    seen: list[Progress] = []

    def stop():
        return any(e.stage == "denoise" and e.step for e in seen)

    with pytest.raises(Cancelled):
        engine.run(refine_job(checkpoint, tiling=tiling), lambda e: isinstance(e, Progress) and seen.append(e), stop)
    assert sum(e.stage == "denoise" and e.step > 0 for e in seen) == 1


@pytest.mark.parametrize("tiling", ["latent", "pixel"])
@pytest.mark.parametrize("preprocessor", ["tile", "tile_colorfix"])
def test_a_control_unit_sees_the_part_of_its_tile(engine, checkpoint, folder, tiling, preprocessor):
    """The job's own picture, and the same one sent with the unit, say the same."""
    network = str(write_tiny_controlnet(folder / "tile.safetensors"))
    job = refine_job(checkpoint, tiling=tiling, sampler="euler")
    unit = ControlUnit("tile", "params.control[0]", network, None, preprocessor, 1.0)
    own, _, _ = run(engine, dataclasses.replace(job, control=(unit,)))
    sent, _, _ = run(engine, dataclasses.replace(job, control=(dataclasses.replace(unit, image=job.image),)))
    without, _, _ = run(engine, job)
    assert (own.pixels != without.pixels).any()
    if preprocessor == "tile":
        np.testing.assert_array_equal(own.pixels, sent.pixels)


def test_an_inpainting_checkpoint_in_tiles(engine, folder):
    nine = str(write_tiny_checkpoint(folder / "nine.safetensors", channels=9))
    for tiling in ("latent", "pixel"):
        layer, _, _ = run(engine, refine_job(nine, tiling=tiling))
        assert layer.pixels.shape == (104, 152, 4)


@pytest.mark.parametrize("channels", [4, 9])
def test_outpainting_a_panorama(engine, folder, channels):
    """A wide empty margin painted at the document's own size, and what was there stays."""
    path = str(write_tiny_checkpoint(folder / f"of{channels}.safetensors", channels=channels))
    canvas = Size(256, 64)
    values = Inpaint(prompt="hills", seed=5, steps=3, panorama=True, area="whole")
    mask = np.zeros((64, 256), np.uint8)
    mask[:, 64:] = 255
    job = Job("j", "inpaint", values, canvas, Box.of_size(canvas), path, image=picture(*canvas), mask=mask)
    layer, result, _ = run(engine, job)
    assert result.ran["working"] == [256, 64] and layer.alpha == "soft"


def test_latent_tiles_as_far_as_memory_allows(engine, checkpoint, monkeypatch):
    _, result, _ = run(engine, refine_job(checkpoint))
    assert result.ran["tiling"] == "latent"
    monkeypatch.setattr(refine_module, "free_bytes", lambda device: 1000)
    _, result, _ = run(engine, refine_job(checkpoint))
    assert result.ran["tiling"] == "pixel"


# ---- colours


def test_coarse_colours_are_held_and_fine_detail_is_not():
    rng = np.random.default_rng(1)
    original = np.full((203, 331, 3), 128, np.uint8)
    detail = rng.integers(-20, 21, original.shape)
    ramp = np.linspace(-30, 30, 331)[None, :, None]
    shifted = np.clip(original + detail + ramp + 15, 0, 255).astype(np.uint8)
    held = hold_colors(shifted, original).astype(float)
    assert abs(held.mean((0, 1)) - 128).max() < 0.2
    assert abs((held - 128) - (detail - detail.mean())).mean() < 3
    np.testing.assert_array_equal(hold_colors(original, original), original)


def test_bands_of_held_colours_do_not_show(monkeypatch):
    rng = np.random.default_rng(2)
    one, other = (rng.integers(0, 256, (230, 90, 3), np.uint8) for _ in range(2))
    whole = hold_colors(one, other)
    monkeypatch.setattr(refine_module, "_BAND", 64)
    assert abs(hold_colors(one, other).astype(int) - whole).max() <= 1
