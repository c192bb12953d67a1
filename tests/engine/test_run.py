"""The engine end to end with a tiny random checkpoint: every mode, and what users rely on around it."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from impasto_protocol.errors import ModelError, RequestError, ResourceError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine import run as run_module
from impasto_server.engine.jobs import Cancelled, Job, Layer, Preview, PreviewRequest, Progress
from impasto_server.engine.masks import layer_alpha
from impasto_server.engine.modes import Img2Img, Inpaint, Txt2Img
from impasto_server.engine.params_common import SAMPLERS
from impasto_server.engine.planning import plan, resolve_mask
from impasto_server.engine.run import Engine
from PIL import Image

from tests.engine.device import DEVICE
from tests.tiny import NATIVE_SIZE, write_tiny_checkpoint

CANVAS = Size(160, 120)
SELECTED = Box(60, 50, 20, 16)
NATIVE = Size(NATIVE_SIZE, NATIVE_SIZE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny model.safetensors"))


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


def picture(width, height):
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 4), np.uint8))
    pixels = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    pixels[..., 3] = 255
    return pixels


def selection_job(checkpoint, selection=SELECTED, canvas=CANVAS, **params):
    values = Inpaint(prompt="a red apple", seed=5, steps=4, **params)
    box = plan("inpaint", values, canvas, selection, NATIVE_SIZE).box
    mask = np.zeros((box.height, box.width), np.uint8)
    x, y = selection.x - box.x, selection.y - box.y
    mask[y : y + selection.height, x : x + selection.width] = 255
    image = picture(*canvas)[box.y : box.bottom, box.x : box.right]
    return Job("j", "inpaint", values, canvas, box, checkpoint, image=image, mask=mask)


def text_job(checkpoint, canvas=NATIVE, **params):
    values = Txt2Img(**{"prompt": "a red apple", "seed": 5, "steps": 3, **params})
    return Job("j", "txt2img", values, canvas, Box.of_size(canvas), checkpoint)


def image_job(checkpoint, canvas=CANVAS, **params):
    values = Img2Img(**{"prompt": "a red apple", "seed": 5, "steps": 4, **params})
    return Job("j", "img2img", values, canvas, Box.of_size(canvas), checkpoint, image=picture(*canvas))


def run_batch(engine, job):
    events: list = []
    result = engine.run(job, events.append, lambda: False)
    return [e for e in events if isinstance(e, Layer)], result, events


def run(engine, job):
    layers, result, events = run_batch(engine, job)
    assert len(layers) == 1 and layers[0].index == 0
    return layers[0], result, events


def alpha_of(layer, box):
    """The layer's alpha over the whole box."""
    alpha = np.zeros((box.height, box.width), np.uint8)
    x, y = layer.box.x - box.x, layer.box.y - box.y
    alpha[y : y + layer.box.height, x : x + layer.box.width] = layer.pixels[..., 3]
    return alpha


def test_txt2img(engine, checkpoint):
    layer, result, _ = run(engine, text_job(checkpoint, negative_prompt="blurry, dark"))
    assert layer.pixels.shape == (64, 64, 4) and layer.pixels.dtype == np.uint8
    assert layer.alpha == "opaque" and (layer.pixels[..., 3] == 255).all()
    assert layer.box == Box(0, 0, 64, 64) and layer.seed == 5 and result.seeds == (5,)
    assert layer.pixels[..., :3].std() > 1
    assert set(result.timings) == {"load", "encode", "denoise", "decode"}
    assert result.ran["sampler"] == "dpmpp_2m" and result.ran["schedule"] == "karras" and result.ran["steps"] == 3
    assert result.ran["device"] == engine.device.type and result.ran["dtype"] == "float32"
    assert result.ran["torch"] == torch.__version__


def test_txt2img_fills_the_place_it_belongs_at(engine, checkpoint):
    layer, result, _ = run(engine, text_job(checkpoint, canvas=Size(200, 100)))
    assert layer.box == Box(0, 0, 200, 100) and layer.pixels.shape == (100, 200, 4)
    assert result.ran["working"] == [88, 48]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_seed_same_picture(engine, checkpoint, sampler):
    one, _, _ = run(engine, text_job(checkpoint, sampler=sampler))
    two, _, _ = run(engine, text_job(checkpoint, sampler=sampler))
    other, _, _ = run(engine, text_job(checkpoint, sampler=sampler, seed=6))
    np.testing.assert_array_equal(one.pixels, two.pixels)
    assert (one.pixels != other.pixels).any()


def test_a_fresh_engine_gives_the_same_picture(engine, checkpoint):
    one, _, _ = run(engine, selection_job(checkpoint))
    two, _, _ = run(Engine(DEVICE, "fp32"), selection_job(checkpoint))
    np.testing.assert_array_equal(one.pixels, two.pixels)


def test_seed_is_drawn_and_told(engine, checkpoint):
    first, result, _ = run(engine, text_job(checkpoint, seed=-1))
    second, _, _ = run(engine, text_job(checkpoint, seed=-1))
    assert 0 <= first.seed < 2**32 and result.seeds == (first.seed,)
    assert first.info["params"]["seed"] == first.seed != second.seed
    again, _, _ = run(engine, text_job(checkpoint, seed=first.seed))
    np.testing.assert_array_equal(first.pixels, again.pixels)


def test_img2img_follows_the_strength(engine, checkpoint):
    def layer_of(strength):
        layer, result, _ = run(engine, image_job(checkpoint, strength=strength, cfg=1.0))
        assert layer.box == Box.of_size(CANVAS) and layer.pixels.shape == (120, 160, 4)
        return layer.pixels.astype(int), result.ran["steps"]

    (low, low_steps), (middle, steps), (high, high_steps) = layer_of(0.0), layer_of(0.5), layer_of(1.0)
    assert (low_steps, steps, high_steps) == (1, 3, 4)
    assert np.abs(low - middle).mean() > 0 and np.abs(middle - high).mean() > 0


def test_inpaint_layer_is_the_documented_alpha(engine, checkpoint):
    job = selection_job(checkpoint)
    layer, _, _ = run(engine, job)
    numbers = resolve_mask(job.params, SELECTED, NATIVE_SIZE)
    expected = np.zeros(CANVAS[::-1], np.uint8)
    expected[job.box.y : job.box.bottom, job.box.x : job.box.right] = layer_alpha(job.mask, numbers, False)
    got = np.zeros(CANVAS[::-1], np.uint8)
    got[layer.box.y : layer.box.bottom, layer.box.x : layer.box.right] = layer.pixels[..., 3]
    np.testing.assert_array_equal(got, expected)
    assert layer.alpha == "soft" and layer.box.contains(SELECTED)
    assert (got[50:66, 60:80] == 255).all()
    # Cut to what shows: every edge of the layer has a visible pixel.
    alpha = layer.pixels[..., 3]
    assert all(edge.any() for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))


def test_exact_selection_changes_nothing_else(engine, checkpoint):
    job = selection_job(checkpoint, exact=True)
    layer, _, _ = run(engine, job)
    assert layer.box == SELECTED and (layer.pixels[..., 3] == 255).all()


def test_one_pixel_selection(engine, checkpoint):
    for exact in (False, True):
        layer, _, _ = run(engine, selection_job(checkpoint, selection=Box(3, 117, 1, 1), exact=exact))
        alpha = layer.pixels[..., 3]
        assert alpha[117 - layer.box.y, 3 - layer.box.x] == 255


@pytest.mark.parametrize("exact", [False, True])
def test_soft_selection_in_memory_that_cannot_be_written(engine, checkpoint, exact):
    """Pictures come from shared memory, read-only; a selection feathered by the painter keeps its promises."""
    job = selection_job(checkpoint, exact=exact)
    soft = np.array(Image.fromarray(job.mask).resize((8, 8)).resize(job.mask.shape[::-1]))
    image = job.image.copy()
    soft.flags.writeable = image.flags.writeable = False
    layer, _, _ = run(engine, replace(job, mask=soft, image=image))
    alpha = alpha_of(layer, job.box)
    if exact:
        np.testing.assert_array_equal(alpha, soft)
    else:
        assert (alpha[soft == 255] == 255).all() and (alpha >= soft).all()


def test_whole_picture_context(engine, checkpoint):
    job = selection_job(checkpoint, area="whole")
    layer, result, _ = run(engine, job)
    assert job.box == Box.of_size(CANVAS) and layer.box.contains(SELECTED)
    assert result.ran["working"] == [72, 56]


def test_tiny_canvas(engine, checkpoint):
    layer, _, _ = run(engine, selection_job(checkpoint, selection=Box(1, 1, 2, 1), canvas=Size(5, 3)))
    assert Box(0, 0, 5, 3).contains(layer.box)


def test_any_box_that_holds_the_mask_is_served(engine, checkpoint):
    job = selection_job(checkpoint)
    everything = Box.of_size(CANVAS)
    mask = np.zeros(CANVAS[::-1], np.uint8)
    mask[job.box.y : job.box.bottom, job.box.x : job.box.right] = job.mask
    layer, _, _ = run(engine, replace(job, box=everything, image=picture(*CANVAS), mask=mask))
    assert layer.box.contains(SELECTED)


def test_transparency_is_white(engine, checkpoint):
    job = image_job(checkpoint)
    clear, white = job.image.copy(), job.image.copy()
    clear[:60, :, 3] = 0
    white[:60, :, :3] = 255
    one, _, _ = run(engine, replace(job, image=clear))
    two, _, _ = run(engine, replace(job, image=white))
    np.testing.assert_array_equal(one.pixels, two.pixels)


@pytest.mark.parametrize("make", [text_job, image_job, selection_job])
def test_progress_rises_to_one(engine, checkpoint, make):
    _, _, events = run(engine, make(checkpoint))
    progress = [e for e in events if isinstance(e, Progress)]
    fractions = [p.fraction for p in progress]
    assert fractions == sorted(fractions) and fractions[0] == 0.0 and fractions[-1] == 1.0
    assert list(dict.fromkeys(p.stage for p in progress)) == ["load", "encode", "denoise", "decode"]
    steps = [p.step for p in progress if p.stage == "denoise"]
    assert steps == list(range(progress[-3].steps + 1))


def test_previews_only_when_wanted(engine, checkpoint):
    _, _, events = run(engine, text_job(checkpoint))
    assert not [e for e in events if isinstance(e, Preview)]
    job = replace(text_job(checkpoint), preview=PreviewRequest(max_size=32))
    _, _, events = run(engine, job)
    previews = [e for e in events if isinstance(e, Preview)]
    assert [p.step for p in previews] == [1, 2, 3]
    for preview in previews:
        image = Image.open(io.BytesIO(preview.jpeg))
        assert image.format == "JPEG" and image.size == (preview.width, preview.height) == (32, 32)
    _, _, events = run(engine, replace(job, preview=PreviewRequest(interval=60.0)))
    assert [e.step for e in events if isinstance(e, Preview)] == [1]


def test_previews_do_not_change_the_picture(engine, checkpoint):
    plain, _, _ = run(engine, text_job(checkpoint))
    watched, _, _ = run(engine, replace(text_job(checkpoint), preview=PreviewRequest()))
    np.testing.assert_array_equal(plain.pixels, watched.pixels)


def test_cancel_within_one_step(engine, checkpoint):
    job = text_job(checkpoint, steps=150)
    events: list = []

    def cancelled():
        return any(isinstance(e, Progress) and e.stage == "denoise" and e.step == 2 for e in events)

    with pytest.raises(Cancelled):
        engine.run(job, events.append, cancelled)
    assert max(e.step for e in events) == 2
    with pytest.raises(Cancelled):
        engine.run(job, events.append, lambda: True)
    run(engine, text_job(checkpoint))  # and the next job runs


def test_the_recipe(engine, checkpoint):
    layer, _, _ = run(engine, selection_job(checkpoint, negative_prompt="blurry", sampler="euler_a", strength=0.5))
    info = layer.info
    assert info["mode"] == "inpaint" and info["params"]["prompt"] == "a red apple" and info["params"]["seed"] == 5
    assert info["model"] == {"title": "Tiny test model", "file": "tiny model"}
    assert (info["sampler"], info["schedule"], info["steps"]) == ("euler_a", "uniform", 3)
    assert info["working"] == [64, 64]
    assert info["digital_source_type"] == "trainedAlgorithmicMedia"
    lines = info["parameters"].split("\n")
    assert lines[0] == "a red apple" and lines[1] == "Negative prompt: blurry"
    assert lines[2] == (
        "Steps: 4, Sampler: Euler a, Schedule type: Uniform, CFG scale: 7, Seed: 5, Size: 64x64, Model: tiny model, "
        "RNG: NV, Denoising strength: 0.5, Inpaint area: Only masked, Masked content: original, Version: Impasto"
    )
    assert layer.name == "a red apple (5)"
    # The recipe makes the same picture again.
    again = replace(selection_job(checkpoint), params=Inpaint(**info["params"]))
    repeated, _, _ = run(engine, again)
    np.testing.assert_array_equal(layer.pixels, repeated.pixels)


def test_inpainting_checkpoint_runs_every_mode(engine, tmp_path):
    path = str(write_tiny_checkpoint(tmp_path / "inpaint.safetensors", channels=9))
    for make in (text_job, image_job, selection_job):
        layer, _, _ = run(engine, make(path))
        assert layer.pixels[..., :3].std() > 0


def test_memory_runs_out_once_then_in_small_steps(engine, checkpoint, monkeypatch):
    expected, _, _ = run(engine, text_job(checkpoint))
    real, refused = run_module.Work.sample, []

    def short(self, *args):
        if not self.sequential:
            refused.append(self.job.id)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *args)

    monkeypatch.setattr(run_module.Work, "sample", short)
    layer, result, events = run(engine, text_job(checkpoint))
    assert refused == ["j"] and result.ran["sequential"] is True
    assert np.abs(layer.pixels.astype(int) - expected.pixels.astype(int)).max() <= 1
    fractions = [e.fraction for e in events if isinstance(e, Progress)]
    assert fractions == sorted(fractions)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")]
)
def test_memory_runs_out_for_good(engine, checkpoint, monkeypatch, error):
    def short(self, *args):
        raise error

    monkeypatch.setattr(run_module.Work, "sample", short)
    with pytest.raises(ResourceError) as refused:
        engine.run(text_job(checkpoint), lambda e: None, lambda: False)
    assert refused.value.code == "resource.out_of_memory" and refused.value.retryable


def test_a_defect_is_not_taken_for_memory(engine, checkpoint, monkeypatch):
    def broken(self, *args):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(run_module.Work, "sample", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        engine.run(text_job(checkpoint), lambda e: None, lambda: False)


def test_bad_jobs(engine, checkpoint, tmp_path):
    job = selection_job(checkpoint)
    bad = {
        "request.empty_selection": replace(job, mask=np.zeros_like(job.mask)),
        "request.missing_input": replace(job, mask=None),
        "request.bad_geometry": replace(job, image=job.image[:-1]),
    }
    for code, wrong in bad.items():
        with pytest.raises(RequestError) as refused:
            engine.run(wrong, lambda e: None, lambda: False)
        assert refused.value.code == code
    with pytest.raises(RequestError) as refused:
        engine.run(replace(image_job(checkpoint), image=None), lambda e: None, lambda: False)
    assert refused.value.code == "request.missing_input"
    with pytest.raises(ModelError):
        engine.run(text_job(str(tmp_path / "none.safetensors")), lambda e: None, lambda: False)


def test_long_prompts_and_weights(engine, checkpoint):
    plain, _, _ = run(engine, text_job(checkpoint))
    long, _, _ = run(engine, text_job(checkpoint, prompt="(apple:1.4) " * 90, negative_prompt="dark"))
    assert (plain.pixels != long.pixels).any()


def test_bf16_where_the_cpu_has_it(checkpoint):
    engine = Engine("cpu", "auto")
    layer, result, _ = run(engine, selection_job(checkpoint))
    assert result.ran["dtype"] in ("bfloat16", "float32") and engine.device_name.startswith("cpu")
    assert layer.pixels[..., :3].std() > 0
