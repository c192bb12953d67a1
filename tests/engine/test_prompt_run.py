"""Prompts in the engine: what the network sees at each call, AND, clip skip, and batches whose prompts differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from impasto_protocol.errors import ModelError, RequestError
from impasto_server.engine.conditioning import Conditioning
from impasto_server.engine.denoise import Denoiser
from impasto_server.engine.load import load_checkpoint
from impasto_server.engine.modes import Txt2Img
from impasto_server.engine.prompt_styles import Style
from impasto_server.engine.prompt_words import WordFiles, resolve_words
from impasto_server.engine.run import Engine
from impasto_server.engine.schedule import scaled_linear, sigmas
from impasto_server.engine.text import TextCache, encode, encode_pair, guidance

from tests.engine.device import DEVICE
from tests.engine.test_run import image_job, run, run_batch, selection_job, text_job
from tests.golden.tiny import seeded, tiny_text, tiny_unet
from tests.tiny import tiny_modules, write_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors", half=False))


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


@pytest.fixture(scope="module")
def tiny(checkpoint):
    return load_checkpoint(checkpoint, device=torch.device("cpu"), dtype=torch.float32)


def words(prompt, negative="", seed=1, files=None):
    return resolve_words(Txt2Img(prompt=prompt, negative_prompt=negative), files or WordFiles(), seed)


# ---- text


def test_a_prompt_that_never_changes_is_one_entry(tiny):
    cache = TextCache()
    got = guidance(tiny, words("a (cat:1.2)", "bad"), 20, cache=cache)
    positive, negative = encode_pair(tiny, "a (cat:1.2)", "bad", cache=cache)
    assert got.calls == 0 and len(got.positive) == len(got.negative) == 1
    assert torch.equal(got.positive[0].tokens, positive) and torch.equal(got.negative[0].tokens, negative)
    assert (got.positive[0].start, got.positive[0].end, got.positive[0].scale) == (0.0, 1.0, 1.0)


def test_each_text_of_a_schedule_is_encoded_once(tiny, monkeypatch):
    asked = []
    forward = tiny.text_encoder.forward

    def counted(*args, **kwargs):
        asked.append(kwargs["input_ids"].shape)
        return forward(*args, **kwargs)

    monkeypatch.setattr(tiny.text_encoder, "forward", counted)
    got = guidance(tiny, words("[cat|dog] AND [cat|dog] :2", "[bad:worse:0.5]"), 40, cache=TextCache())
    assert len(asked) == 4 and got.calls == 40
    assert len(got.positive) == 2 * 39 and len(got.negative) == 2
    assert {entry.scale for entry in got.positive} == {1.0, 2.0}


def test_all_texts_of_a_run_are_equally_long(tiny):
    got = guidance(tiny, words("[a:" + "cat " * 80 + ":3]", "bad"), 10, cache=TextCache())
    assert {entry.tokens.shape for entry in (*got.positive, *got.negative)} == {(1, 154, 32)}


def test_clip_skip_takes_an_earlier_layer_and_the_last_norm(tiny):
    cache = TextCache()
    plain, skipped = (encode(tiny, "a cat", cache=cache, clip_skip=n) for n in (1, 2))
    _, _, text = tiny_modules()
    ids = torch.tensor([[49406, *tiny.tokenizer.encode("a cat"), *[49407] * 74]])
    with torch.no_grad():
        hidden = text(ids, output_hidden_states=True).hidden_states[-2]
        assert torch.equal(skipped, text.final_layer_norm(hidden))
    assert not torch.equal(plain, skipped)
    assert torch.equal(encode(tiny, "a cat", cache=cache), plain)
    with pytest.raises(RequestError, match="has 2 layers") as caught:
        encode(tiny, "a cat", cache=cache, clip_skip=3)
    assert caught.value.path == "params.clip_skip"


# ---- guidance


TABLE = scaled_linear()
LEVELS = sigmas(TABLE, "karras", "euler", 8)


@pytest.mark.parametrize("cfg", [1.0, 7.5])
@pytest.mark.parametrize("sequential", [False, True])
def test_and_is_the_formula_of_composable_diffusion(cfg, sequential):
    one, none = tiny_text()
    two = torch.randn(1, 77, 32, generator=seeded(9))
    x = torch.randn(2, 4, 16, 16, generator=seeded(5)) * LEVELS[2]

    def denoised(*entries, cfg=cfg):
        made = Denoiser(
            network=tiny_unet(),
            prediction="epsilon",
            positive=entries,
            negative=(Conditioning(none),),
            cfg=cfg,
            sigmas=LEVELS,
            timestep_of=TABLE.timestep,
            sequential=sequential,
        )
        with torch.inference_mode():
            return made(x, LEVELS[2])

    composed = denoised(Conditioning(one, scale=1.5), Conditioning(two, part=1, scale=-0.5))
    # x0 is linear in the prediction, so that the formula holds for it, too.
    uncond = denoised(Conditioning(none), cfg=1.0)
    parts = [denoised(Conditioning(tokens), cfg=1.0) for tokens in (one, two)]
    expected = uncond + cfg * (1.5 * (parts[0] - uncond) - 0.5 * (parts[1] - uncond))
    assert float((composed - expected).abs().max() / expected.abs().max()) < 1e-5
    # One part of weight 1 is ordinary guidance, to the last bit.
    assert torch.equal(denoised(Conditioning(one, part=3)), denoised(Conditioning(one)))


# ---- whole runs


def seen_by_the_network(engine, job, monkeypatch):
    """Which text each call of the network had as its prompt: the numbers of the distinct ones in order."""
    calls: list[torch.Tensor] = []
    real = Denoiser._call

    def call(self, rows, *args):
        calls.append(torch.stack([row.entry.tokens[0, :4] for row in rows if row.label.kind == "cond"]))
        return real(self, rows, *args)

    monkeypatch.setattr(Denoiser, "_call", call)
    layer, _, _ = run(engine, job)
    distinct: list[torch.Tensor] = []
    order = []
    for tokens in calls:
        found = [i for i, other in enumerate(distinct) if torch.equal(other, tokens)]
        if not found:
            distinct.append(tokens)
        order.append(found[0] if found else len(distinct) - 1)
    return order, layer


@pytest.mark.parametrize(
    ("prompt", "sampler", "expected"),
    [
        ("a [cat:dog:2]", "euler", [0, 0, 0, 1, 1, 1]),
        ("a [cat:dog:0.5]", "dpmpp_2m", [0, 0, 0, 0, 1, 1]),
        ("a [cat|dog|bird]", "euler_a", [0, 0, 1, 2, 0, 1]),
        # Two calls a step, one in the last: numbers and alternations go by calls.
        ("a [cat:dog:4]", "heun", [0] * 5 + [1] * 6),
        ("a [cat:dog:0.5]", "dpmpp_sde", [0] * 7 + [1] * 4),
        ("a [cat|dog]", "heun", [0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]),
    ],
)
def test_the_schedule_is_counted_in_calls(engine, checkpoint, prompt, sampler, expected, monkeypatch):
    job = text_job(checkpoint, prompt=prompt, steps=6, sampler=sampler)
    order, _ = seen_by_the_network(engine, job, monkeypatch)
    assert order == expected


def test_image_to_image_counts_from_its_first_step(engine, checkpoint, monkeypatch):
    """A1111's rule: fractions are of the steps that were asked for, also where fewer run."""
    job = image_job(checkpoint, prompt="[cat:dog:0.25]", strength=0.5)
    job = replace(job, params=replace(job.params, steps=8))
    order, _ = seen_by_the_network(engine, job, monkeypatch)
    assert order == [0, 0, 0, 1, 1]


def test_a_schedule_that_never_switches_is_the_plain_prompt(engine, checkpoint):
    plain, _, _ = run(engine, text_job(checkpoint, prompt="a cat"))
    for prompt in ("a [cat:dog:99]", "a [cat::1.5]", "a [dog:cat:0]"):
        layer, _, _ = run(engine, text_job(checkpoint, prompt=prompt))
        np.testing.assert_array_equal(layer.pixels, plain.pixels)


@pytest.mark.parametrize("make", [text_job, image_job, selection_job])
def test_and_in_every_mode(engine, checkpoint, make):
    job = make(checkpoint)
    pixels = []
    for prompt in ("a cat", "a cat AND a dog", "a cat AND a dog :-0.5", "a [cat|dog] AND a dog"):
        layer, _, _ = run(engine, replace(job, params=replace(job.params, prompt=prompt)))
        pixels.append(layer.pixels)
    assert all((pixels[0] != other).any() for other in pixels[1:])


def test_pictures_of_a_batch_choose_by_their_own_seeds(engine, checkpoint):
    files = WordFiles({"Ink": Style("ink of {prompt}", "blurry")}, {"beast": ("cat", "dog", "bird")})
    job = text_job(checkpoint, prompt="a __beast__ {at night|by day} # note", styles="Ink", batch=4)
    layers, _, _ = run_batch(engine, replace(job, words=files))
    prompts = [layer.info["params"]["prompt"] for layer in layers]
    assert len(set(prompts)) > 1 and all(text.startswith("ink of a ") and "#" not in text for text in prompts)
    for layer in layers:
        assert layer.info["params"]["negative_prompt"] == "blurry" and layer.info["params"]["styles"] == ""
        assert layer.info["asked"] == {"prompt": "a __beast__ {at night|by day} # note", "styles": "Ink"}
        assert layer.info["parameters"].startswith(layer.info["params"]["prompt"])
        # What was written, with this seed alone, and the recipe, without any file: the same picture.
        written = replace(job, params=replace(job.params, seed=layer.seed, batch=1), words=files)
        for again in (written, replace(job, params=Txt2Img(**layer.info["params"]))):
            alone, _, _ = run(engine, again)
            assert np.abs(alone.pixels.astype(int) - layer.pixels.astype(int)).max() <= 1


def test_the_recipe_says_clip_skip_and_nothing_that_was_not_asked(engine, checkpoint):
    plain, _, _ = run(engine, text_job(checkpoint))
    skipped, _, _ = run(engine, text_job(checkpoint, clip_skip=2))
    assert "Clip skip: 2, " in skipped.info["parameters"] and "Clip skip" not in plain.info["parameters"]
    assert "asked" not in plain.info and (plain.pixels != skipped.pixels).any()


def test_what_cannot_be_done_is_refused_before_loading(engine, tmp_path):
    missing = str(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="no LoRA 'ink'") as caught:
        run(engine, text_job(missing, prompt="a cat <lora:ink:0.8>"))
    assert caught.value.code == "model.unknown"
    with pytest.raises(RequestError, match="at character 3"):
        run(engine, text_job(missing, prompt="a [cat:dog:half]"))


@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize("make", [image_job, selection_job])
def test_choices_and_schedules_in_pictures_that_are_repainted(engine, tmp_path, make, channels):
    path = str(write_tiny_checkpoint(tmp_path / "tiny.safetensors", channels=channels))
    job = make(path)
    prompt = "{cat|dog|owl|fox} [at {night|noon}|by day] AND {sun|moon|snow} :0.5"
    job = replace(job, params=replace(job.params, prompt=prompt, batch=3))
    layers, _, _ = run_batch(engine, job)
    assert len({layer.info["params"]["prompt"] for layer in layers}) > 1
    for layer in layers:
        alone, _, _ = run(engine, replace(job, params=type(job.params)(**layer.info["params"])))
        assert alone.box == layer.box
        assert np.abs(alone.pixels.astype(int) - layer.pixels.astype(int)).max() <= 1
