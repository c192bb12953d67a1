"""The hires pass with a tiny random checkpoint: sizes, prompts, seeds, what it loads, what it tells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine import run as run_module
from impasto_server.engine.hires import LATENT_MODES, cropped, enlarge_latents
from impasto_server.engine.infotext import read_infotext
from impasto_server.engine.jobs import Cancelled, Job, Layer, PreviewRequest, Progress
from impasto_server.engine.modes import Img2Img, Txt2Img, parse_params
from impasto_server.engine.params_hires import LATENT_UPSCALERS, HiresSize, hires_sizes
from impasto_server.engine.planning import plan
from impasto_server.engine.prompt_grammar import parse_negative
from impasto_server.engine.prompt_schedule import Phase, phases
from impasto_server.engine.prompt_words import WordFiles, resolve_words
from impasto_server.engine.run import Engine
from impasto_server.engine.schedule import exact_sigmas, scaled_linear, sigmas

from tests.engine.device import DEVICE
from tests.engine.test_run import picture, run, run_batch
from tests.tiny import NATIVE_SIZE, write_tiny_checkpoint

NATIVE = Size(NATIVE_SIZE, NATIVE_SIZE)
TWICE = Size(2 * NATIVE_SIZE, 2 * NATIVE_SIZE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


def hires_job(checkpoint, canvas=TWICE, **params):
    values = Txt2Img(
        **{"prompt": "a red apple", "seed": 5, "steps": 3, "width": 64, "height": 64, "hires": True, **params}
    )
    return Job("j", "txt2img", values, canvas, Box.of_size(canvas), checkpoint)


# ---- sizes: A1111's arithmetic


@pytest.mark.parametrize(
    ("first", "params", "scaled", "kept"),
    [
        ((512, 512), {}, (1024, 1024), (1024, 1024)),
        ((512, 768), {"hires_scale": 1.5}, (768, 1152), (768, 1152)),
        # int(512 * 1.35) = 691, of which whole latents are taken.
        ((512, 512), {"hires_scale": 1.35}, (688, 688), (688, 688)),
        ((512, 768), {"hires_width": 1024}, (1024, 1536), (1024, 1536)),
        ((512, 768), {"hires_height": 1200}, (800, 1200), (800, 1200)),
        # Both: covered, and the middle kept.
        ((512, 512), {"hires_width": 768, "hires_height": 640}, (768, 768), (768, 640)),
        ((512, 512), {"hires_width": 640, "hires_height": 768}, (768, 768), (640, 768)),
        ((768, 512), {"hires_width": 640, "hires_height": 640}, (960, 640), (640, 640)),
    ],
)
def test_sizes(first, params, scaled, kept):
    assert hires_sizes(HiresSize(**params), Size(*first)) == (Size(*scaled), Size(*kept))


def test_the_plan_says_both_passes():
    values = Txt2Img(width=64, height=48, steps=10, hires=True, hires_steps=4, hires_sampler="heun", batch=2)
    planned = plan("txt2img", values, Size(256, 192), None, NATIVE_SIZE)
    assert planned.working == Size(64, 48) and planned.final == Size(128, 96)
    assert planned.hires is not None and (planned.hires.steps, planned.hires.calls) == (4, 14)
    assert planned.calls == 20 and planned.all_steps == 14
    assert plan("txt2img", replace(values, hires=False), Size(256, 192), None, 64).hires is None


def test_a_box_takes_the_aspect_of_the_end():
    values = Txt2Img(width=64, height=64, hires=True, hires_width=128, hires_height=64)
    planned = plan("txt2img", values, Size(400, 400), None, NATIVE_SIZE)
    assert planned.final == Size(128, 64) and planned.box == Box(0, 100, 400, 200)


def test_a_size_beyond_all_limits_is_refused():
    values = Txt2Img(width=4096, height=4096, hires=True, hires_scale=4.0)
    plan("txt2img", values, NATIVE, None, NATIVE_SIZE)
    with pytest.raises(RequestError) as refused:
        plan("txt2img", replace(values, width=512, hires_width=8192), NATIVE, None, NATIVE_SIZE)
    assert refused.value.code == "request.bad_geometry"


# ---- latents


@pytest.mark.parametrize("name", LATENT_UPSCALERS)
def test_latents_are_enlarged(name):
    flat = torch.full((2, 4, 6, 8), 3.0)
    assert torch.allclose(enlarge_latents(flat, name, Size(13, 9)), torch.full((2, 4, 9, 13), 3.0))
    ramp = torch.arange(8.0).expand(1, 4, 6, 8)
    larger = enlarge_latents(ramp, name, Size(16, 12))
    assert (larger[..., 1:] - larger[..., :-1] >= -1e-5).all()


def test_the_modes_are_those_of_the_list():
    assert list(LATENT_MODES) == list(LATENT_UPSCALERS)


def test_the_middle_is_kept():
    latents = torch.arange(5.0).expand(1, 1, 4, 5)
    assert cropped(latents, Size(2, 4))[0, 0, 0].tolist() == [1.0, 2.0]
    assert cropped(latents, Size(4, 4))[0, 0, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


# ---- steps


def test_exactly_the_steps_that_were_asked_for():
    """The last N of int(N / strength): 20 at 0.4 are those of a schedule of 50."""
    table = scaled_linear()
    levels = exact_sigmas(table, "karras", "dpmpp_2m", 20, 0.4)
    assert torch.equal(levels, sigmas(table, "karras", "dpmpp_2m", 50)[-21:])
    assert len(exact_sigmas(table, "uniform", "euler", 7, 1.0)) == 8
    assert len(exact_sigmas(table, "uniform", "euler", 7, 0.01)) == 8


def test_prompts_count_on_from_the_first_pass():
    """20 steps, then 10: fractions from 1 to 2 and steps from 21 on are those of the hires pass."""

    def said(text):
        return [(p.text, p.start, p.end) for p in phases(parse_negative(text), 10, 20)]

    assert said("[a:b:0.5]") == said("[a:b:15]") == said("[a:b:1.0]") == [("b", 0, 10)]
    assert said("[a:b:1.5]") == said("[a:b:25]") == [("a", 0, 6), ("b", 6, 10)]
    assert said("[a:b:2.0]") == said("[a:b:40]") == [("a", 0, 10)]
    assert phases(parse_negative("[a:b:1.5]"), 20) == (Phase("a", 0, 20),)


def test_words_of_its_own_make_the_same_choices():
    values = Txt2Img(prompt="a {red|blue} apple", hires=True, hires_prompt="a {red|blue} apple, sharp", seed=3)
    words = resolve_words(values, WordFiles(), 3)
    assert words.hires is not None and words.hires.prompt == words.prompt + ", sharp"
    assert words.hires.negative == words.negative
    again = words.params(values)
    assert again.hires_prompt == words.hires.prompt and resolve_words(again, WordFiles(), 9).hires == words.hires
    assert resolve_words(replace(values, hires=False), WordFiles(), 3).hires is None
    with pytest.raises(RequestError) as refused:
        resolve_words(replace(values, hires_prompt="[a:b:c]"), WordFiles(), 3)
    assert refused.value.path == "params.hires_prompt"


# ---- the engine


@pytest.mark.parametrize("upscaler", ["", "latent", "latent_bicubic_antialiased", "latent_nearest_exact"])
def test_a_larger_picture(engine, checkpoint, upscaler):
    layer, result, events = run(engine, hires_job(checkpoint, hires_upscaler=upscaler, hires_steps=2))
    assert layer.pixels.shape == (128, 128, 4) and layer.stage == "hires" and layer.alpha == "opaque"
    assert result.ran["working"] == [64, 64] and result.ran["steps"] == 3
    assert result.ran["hires"]["working"] == [128, 128] and result.ran["hires"]["steps"] == 2
    progress = [e for e in events if isinstance(e, Progress)]
    fractions = [p.fraction for p in progress]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    stages = list(dict.fromkeys(p.stage for p in progress))
    assert stages == ["load", "encode", "denoise", "upscale", "hires", "decode"]
    assert set(result.timings) == set(stages)


def test_the_recipe_makes_it_again(engine, checkpoint):
    job = hires_job(
        checkpoint, hires_prompt="a green apple", hires_upscaler="latent", hires_strength=0.7, hires_sampler="euler"
    )
    layer, _, _ = run(engine, job)
    again, _, _ = run(engine, replace(job, params=Txt2Img(**layer.info["params"])))
    np.testing.assert_array_equal(layer.pixels, again.pixels)
    assert layer.info["hires"]["sampler"] == "euler" and layer.info["hires"]["model"]["file"] == "tiny"
    text = layer.info["parameters"]
    assert (
        "Denoising strength: 0.7" in text and "Hires upscale: 2, Hires upscaler: Latent, Hires sampler: Euler" in text
    )
    assert "Hires prompt: a green apple" in text and "Hires steps" not in text and "Size: 64x64" in text
    read = parse_params("txt2img", read_infotext(text).params)
    for name in [name for name in layer.info["params"] if name.startswith("hires")]:
        assert getattr(read, name) == layer.info["params"][name], name


def test_each_setting_of_its_own_counts(engine, checkpoint, tmp_path):
    base, _, _ = run(engine, hires_job(checkpoint))
    other = str(write_tiny_checkpoint(tmp_path / "other.safetensors", seed=4))
    changes = [
        {"hires_strength": 0.8},
        {"hires_steps": 2},
        {"hires_sampler": "heun"},
        {"hires_schedule": "uniform"},
        {"hires_prompt": "something else"},
        {"hires_negative_prompt": "something else"},
        {"hires_upscaler": "latent"},
    ]
    for change in changes:
        made, _, _ = run(engine, hires_job(checkpoint, **change))
        assert (made.pixels != base.pixels).any(), change
    made, result, _ = run(engine, replace(hires_job(checkpoint, hires_model="other"), hires_checkpoint=other))
    assert (made.pixels != base.pixels).any()
    assert result.ran["model"] == "Tiny test model" and made.info["hires"]["model"]["file"] == "other"
    assert "Hires checkpoint: other" in made.info["parameters"]
    same, _, _ = run(engine, hires_job(checkpoint))
    np.testing.assert_array_equal(same.pixels, base.pixels)


def test_another_checkpoint_is_not_held_beside_the_first(checkpoint, tmp_path, monkeypatch):
    """The budget has room for one: while the second is loaded, nobody holds the first any more."""
    import gc
    import weakref

    other = str(write_tiny_checkpoint(tmp_path / "other.safetensors", seed=4))
    engine = Engine(DEVICE, "fp32", memory_budget=1)
    held: list[weakref.ref] = []
    alive: list[int] = []
    real = run_module.load_checkpoint

    def load(path, **more):
        gc.collect()
        alive.append(sum(ref() is not None for ref in held))
        components = real(path, **more)
        held.append(weakref.ref(components.unet))
        return components

    monkeypatch.setattr(run_module, "load_checkpoint", load)
    run(engine, replace(hires_job(checkpoint, hires_model="other"), hires_checkpoint=other))
    assert alive == [0, 0]


def test_strength_0_only_enlarges(engine, checkpoint):
    layer, result, _ = run(engine, hires_job(checkpoint, hires_strength=0.0, hires_upscaler="latent_nearest"))
    assert layer.pixels.shape == (128, 128, 4) and result.ran["hires"]["steps"] == 0


def test_the_first_pass_as_a_layer(engine, checkpoint):
    job = hires_job(checkpoint, hires_keep_first=True, batch=2, canvas=NATIVE)
    layers, _, events = run_batch(engine, job)
    assert [(each.index, each.stage, each.seed) for each in layers] == [
        (0, "generate", 5),
        (1, "generate", 6),
        (2, "hires", 5),
        (3, "hires", 6),
    ]
    plain, _, _ = run(engine, replace(job, params=replace(job.params, hires=False, batch=1)))
    # A batch sums in another order than a picture alone.
    assert np.abs(plain.pixels.astype(int) - layers[0].pixels).max() <= 1
    assert layers[0].info["params"]["hires"] is False and "Hires" not in layers[0].info["parameters"]
    assert layers[0].name == "a red apple (5), first pass" and layers[2].name == "a red apple (5)"
    alone, _, _ = run(engine, replace(job, params=Txt2Img(**{**layers[3].info["params"], "hires_keep_first": False})))
    assert np.abs(alone.pixels.astype(int) - layers[3].pixels).max() <= 1
    fractions = [e.fraction for e in events if isinstance(e, Progress)]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_image_to_image_too(engine, checkpoint):
    values = Img2Img(prompt="a red apple", seed=5, steps=3, strength=0.5, hires=True, hires_scale=1.5)
    canvas = Size(100, 80)
    job = Job("j", "img2img", values, canvas, Box.of_size(canvas), checkpoint, image=picture(*canvas))
    layer, result, _ = run(engine, job)
    assert layer.box == Box.of_size(canvas) and result.ran["working"] == [72, 56]
    assert result.ran["hires"]["working"] == [104, 80]


def test_an_inpainting_checkpoint(engine, tmp_path):
    path = str(write_tiny_checkpoint(tmp_path / "inpaint.safetensors", channels=9))
    layer, _, _ = run(engine, hires_job(path, hires_upscaler="latent"))
    assert layer.pixels[..., :3].std() > 0


def test_cancel_within_a_step_of_it(engine, checkpoint):
    events: list = []

    def cancelled():
        return any(isinstance(e, Progress) and e.stage == "hires" and e.step == 2 for e in events)

    with pytest.raises(Cancelled):
        engine.run(hires_job(checkpoint, hires_steps=100), events.append, cancelled)
    assert max(e.step for e in events if e.stage == "hires") == 2
    assert not [e for e in events if isinstance(e, Layer)]


def test_previews_of_both_passes(engine, checkpoint):
    _, _, events = run(engine, replace(hires_job(checkpoint), preview=PreviewRequest(max_size=200)))
    assert {e.width for e in events if hasattr(e, "jpeg")} == {64, 128}


def test_memory_runs_out_in_it(engine, checkpoint, monkeypatch):
    real = run_module.Work.sample

    def short(self, *args):
        if self.first is not None and not self.sequential:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *args)

    monkeypatch.setattr(run_module.Work, "sample", short)
    layer, result, events = run(engine, hires_job(checkpoint))
    assert result.ran["sequential"] is True and layer.stage == "hires"
    fractions = [e.fraction for e in events if isinstance(e, Progress)]
    assert fractions == sorted(fractions)
