"""The engine end to end with what the parameters of sampling say: every sampler, variations, guidance, steps, noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from impasto_server.engine import run as run_module
from impasto_server.engine.infotext import read_infotext
from impasto_server.engine.jobs import Cancelled, Progress
from impasto_server.engine.modes import Inpaint, Txt2Img, parse_params
from impasto_server.engine.noise import NoiseSource
from impasto_server.engine.params_common import SAMPLERS
from impasto_server.engine.run import Engine

from tests.engine.device import DEVICE
from tests.engine.test_run import image_job, run, run_batch, selection_job, text_job
from tests.tiny import write_tiny_checkpoint

NEW = [name for name in SAMPLERS if name not in ("euler", "euler_a", "dpmpp_2m", "unipc", "lcm")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny model.safetensors"))


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "inpaint.safetensors", channels=9))


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


def made(engine, job):
    return run(engine, job)[0].pixels


def with_params(job, **values):
    return replace(job, params=replace(job.params, **values))


def differ(one, other) -> bool:
    return bool((one != other).any())


@pytest.mark.parametrize("sampler", NEW)
def test_batches_with_prompts_of_their_own_in_a_mask(engine, inpainting, sampler):
    """9 channels, a choice of the prompt by the seed, a prompt that changes: each picture is the one of its recipe."""
    prompt = "a {red|green|blue|white} [cat:dog:0.5]"
    job = with_params(selection_job(inpainting), sampler=sampler, steps=4, prompt=prompt, batch=2)
    layers, _, _ = run_batch(engine, job)
    assert differ(layers[0].pixels, layers[1].pixels)
    for layer in layers if sampler != "dpm_adaptive" else layers[:0]:
        alone, _, _ = run(engine, replace(job, params=Inpaint(**layer.info["params"])))
        assert np.abs(alone.pixels.astype(int) - layer.pixels.astype(int)).max() <= 1
    for layer in layers:
        assert np.isfinite(layer.pixels).all() and layer.info["params"]["sampler"] == sampler


@pytest.mark.parametrize("sampler", NEW)
def test_a_cancel_is_heard_before_the_next_look(engine, checkpoint, sampler, monkeypatch):
    calls = []
    real = run_module.Work.denoiser

    def counted(self, *args):
        denoiser = real(self, *args)
        forward = type(denoiser).__call__

        def call(self, x, sigma):
            calls.append(float(sigma))
            return forward(self, x, sigma)

        monkeypatch.setattr(type(denoiser), "__call__", call)
        return denoiser

    monkeypatch.setattr(run_module.Work, "denoiser", counted)
    with pytest.raises(Cancelled):
        engine.run(text_job(checkpoint, sampler=sampler, steps=9), lambda e: None, lambda: len(calls) == 3)
    assert len(calls) == 3


def test_variations_share_the_seed(engine, checkpoint):
    job = text_job(checkpoint, seed=5, variation_seed=40, variation_strength=0.3, batch=2)
    layers, result, _ = run_batch(engine, job)
    assert result.seeds == (5, 5) and differ(layers[0].pixels, layers[1].pixels)
    for index, layer in enumerate(layers):
        assert layer.info["params"]["variation_seed"] == 40 + index and layer.info["params"]["seed"] == 5
        told = layer.info["parameters"]
        assert f"Variation seed: {40 + index}, Variation seed strength: 0.3" in told
        alone = made(engine, replace(job, params=Txt2Img(**layer.info["params"])))
        assert np.abs(alone.astype(int) - layer.pixels.astype(int)).max() <= 1
    # What -1 draws is told, and makes the picture again.
    drawn, _, _ = run(engine, text_job(checkpoint, seed=5, variation_strength=0.3))
    assert drawn.info["params"]["variation_seed"] >= 0
    assert not differ(made(engine, replace(job, params=Txt2Img(**drawn.info["params"]))), drawn.pixels)
    assert not differ(
        made(engine, text_job(checkpoint, seed=5, variation_seed=40)), made(engine, text_job(checkpoint, seed=5))
    )


@pytest.mark.parametrize(
    "values",
    [
        {"eta": 0.3, "sampler": "euler_a"},
        {"eta": 0.6, "sampler": "ddim"},
        {"s_churn": 3.0, "sampler": "euler"},
        {"s_noise": 0.9, "sampler": "dpmpp_sde"},
        {"ngms": 14.0, "sampler": "euler"},
        {"ngms": 14.0, "ngms_all": True, "sampler": "euler"},
        {"cfg_rescale": 0.7, "sampler": "euler"},
        {"zero_terminal_snr": True, "sampler": "euler"},
        {"ensd": 31337, "sampler": "euler_a"},
        {"seed_resize_width": 64, "seed_resize_height": 32, "sampler": "euler"},
        {"variation_seed": 4, "variation_strength": 0.5, "sampler": "euler"},
    ],
    ids=lambda values: " ".join(map(str, values)),
)
def test_each_setting_counts_and_its_text_makes_the_picture_again(engine, checkpoint, values):
    job = text_job(checkpoint, steps=6, **values)
    layer, _, _ = run(engine, job)
    neutral = made(engine, text_job(checkpoint, steps=6, sampler=values["sampler"]))
    assert differ(layer.pixels, neutral) and np.isfinite(layer.pixels).all()
    understood = read_infotext(layer.info["parameters"])
    asked = {name: value for name, value in understood.params.items() if name not in ("width", "height", "model")}
    again = replace(
        job, params=replace(parse_params("txt2img", asked), width=job.params.width, height=job.params.height)
    )
    assert not differ(made(engine, again), layer.pixels)


@pytest.mark.parametrize("make", [image_job, selection_job])
@pytest.mark.parametrize("values", [{"noise_multiplier": 0.8}, {"extra_noise": 0.2}])
def test_noise_at_the_start(engine, checkpoint, make, values):
    plain, other = (run(engine, make(checkpoint, strength=0.5, **more))[0] for more in ({}, values))
    assert differ(plain.pixels, other.pixels)
    assert {name: other.info["params"][name] for name in values} == values
    told = {"noise_multiplier": "Noise multiplier: 0.8", "extra_noise": "Extra noise: 0.2"}
    assert all(told[name] in other.info["parameters"] for name in values)


def test_the_start_is_a1111s(engine, checkpoint, monkeypatch):
    starts = []
    real = run_module.Work.sample

    def keep(self, denoiser, denoise, x):
        starts.append((x, denoiser.sigmas[0], self))
        return real(self, denoiser, denoise, x)

    monkeypatch.setattr(run_module.Work, "sample", keep)
    run(engine, image_job(checkpoint, strength=0.5, seed=3))
    run(engine, image_job(checkpoint, strength=0.5, seed=3, noise_multiplier=0.5, extra_noise=0.2))
    (plain, sigma, work), (changed, _, _) = starts
    noise = NoiseSource("philox", 3).draw(4, *work.latent_size).to(plain)
    latent = plain - noise * sigma
    torch.testing.assert_close(changed, latent + 0.5 * noise * sigma + 0.5 * 0.2 * noise, rtol=1e-5, atol=1e-5)


def test_exact_steps(engine, checkpoint):
    for make in (image_job, selection_job):
        job = with_params(make(checkpoint), steps=5, strength=0.4)
        layer, result, events = run(engine, with_params(job, exact_steps=True))
        assert result.ran["steps"] == layer.info["steps"] == 5
        assert [e.step for e in events if isinstance(e, Progress) and e.stage == "denoise"] == [0, 1, 2, 3, 4, 5]
        plain, result, _ = run(engine, job)
        assert result.ran["steps"] == 3 and differ(plain.pixels, layer.pixels)


def test_cfgpp_takes_a_twelfth_of_the_scale(engine, checkpoint, monkeypatch):
    """And is DDIM without a negative side of its own: both sides alike."""
    job = text_job(checkpoint, sampler="ddim_cfgpp", schedule="uniform", prompt="", negative_prompt="", cfg=9.0)
    assert not differ(made(engine, job), made(engine, with_params(job, sampler="ddim")))
    guided = with_params(job, prompt="a red apple")
    other = with_params(guided, cfg=2.0)
    assert differ(made(engine, guided), made(engine, other))


@pytest.mark.parametrize(
    ("sampler", "again"), [("dpm_fast", "dpm2_a"), ("ddim_cfgpp", "plms"), ("restart", "dpm_adaptive")]
)
def test_the_hires_pass_takes_them_too(engine, checkpoint, sampler, again):
    values = {"variation_seed": 9, "variation_strength": 0.4, "ensd": 3, "s_noise": 1.02, "cfg_rescale": 0.5}
    job = with_params(
        text_job(checkpoint, steps=4, sampler=sampler, **values),
        hires=True, hires_scale=1.5, hires_sampler=again, hires_strength=0.6,
    )  # fmt: skip
    layer, result, events = run(engine, job)
    assert result.ran["hires"]["sampler"] == again and result.ran["sampler"] == sampler
    assert max(e.step for e in events if isinstance(e, Progress) and e.stage == "hires") <= 4
    assert not differ(made(engine, with_params(job, **layer.info["params"])), layer.pixels)
    plain = made(engine, with_params(job, variation_strength=0.0, ensd=0, s_noise=1.0, cfg_rescale=0.0))
    assert differ(layer.pixels, plain)
