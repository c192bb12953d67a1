"""The engine end to end: batches, inverted selections, what the repainting starts from, samplers that look twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box
from impasto_server.engine import generate
from impasto_server.engine import run as run_module
from impasto_server.engine.jobs import Cancelled, Layer, Preview, PreviewRequest, Progress
from impasto_server.engine.masks import layer_alpha
from impasto_server.engine.modes import Img2Img, Inpaint, Txt2Img
from impasto_server.engine.params_common import SAMPLERS, TWO_CALLS
from impasto_server.engine.params_inpaint import MASKED_CONTENTS
from impasto_server.engine.planning import resolve_mask
from impasto_server.engine.run import Engine
from impasto_server.engine.schedule import resolve_schedule

from tests.engine.device import DEVICE
from tests.engine.test_run import CANVAS, SELECTED, alpha_of, image_job, run, run_batch, selection_job, text_job
from tests.tiny import NATIVE_SIZE, write_tiny_checkpoint

WHOLE = Box.of_size(CANVAS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny model.safetensors"))


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


@pytest.fixture
def kept(monkeypatch):
    """All noise that runs start from ("noise") and all latents that they end in ("sample"), in order."""
    tensors = {"noise": [], "sample": []}
    for name, drawn in tensors.items():
        real = getattr(run_module.Work, name)

        def keep(self, *args, real=real, drawn=drawn):
            drawn.append(real(self, *args))
            return drawn[-1]

        monkeypatch.setattr(run_module.Work, name, keep)
    return tensors


@pytest.mark.parametrize("make", [text_job, image_job, selection_job])
def test_a_batch_is_the_same_seeds_one_by_one(engine, checkpoint, make, kept):
    job = make(checkpoint, sampler="euler_a")
    layers, result, _ = run_batch(engine, replace(job, params=replace(job.params, batch=3)))
    assert [layer.index for layer in layers] == [0, 1, 2]
    assert [layer.seed for layer in layers] == [5, 6, 7] == list(result.seeds)
    for layer in layers:
        assert layer.info["params"]["seed"] == layer.seed and f"Seed: {layer.seed}," in layer.info["parameters"]
        assert str(layer.seed) in layer.name
        # The recipe makes this one picture again.
        kind = {"txt2img": Txt2Img, "img2img": Img2Img, "inpaint": Inpaint}[job.mode]
        alone, _, _ = run(engine, replace(job, params=kind(**layer.info["params"])))
        assert alone.box == layer.box and alone.seed == layer.seed
        assert np.abs(alone.pixels.astype(int) - layer.pixels.astype(int)).max() <= 1
    assert (layers[0].pixels != layers[1].pixels).any()
    # The noise to the last bit, the latents but for the rounding of larger matrix products.
    noise, *noise_alone = kept["noise"]
    latents, *latents_alone = kept["sample"]
    assert torch.equal(noise, torch.cat(noise_alone))
    assert float((latents - torch.cat(latents_alone)).abs().max() / latents.abs().max()) < 1e-4


def test_seeds_of_a_batch_go_round(engine, checkpoint):
    _, result, _ = run_batch(engine, text_job(checkpoint, seed=2**32 - 1, batch=2, steps=1))
    assert result.seeds == (2**32 - 1, 0)


def test_progress_and_previews_of_a_batch(engine, checkpoint):
    job = replace(text_job(checkpoint, batch=2), preview=PreviewRequest(max_size=32))
    _, _, events = run_batch(engine, job)
    alone_job = replace(text_job(checkpoint), preview=PreviewRequest(max_size=32))
    _, _, alone = run(engine, alone_job)
    progress = [e for e in events if isinstance(e, Progress)]
    fractions = [p.fraction for p in progress]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert [p.step for p in progress if p.stage == "denoise"] == [0, 1, 2, 3]
    assert [(p.step, p.steps) for p in progress if p.stage == "decode"] == [(0, 2), (1, 2), (2, 2)]
    # The preview is that of the first picture, and all pictures come at the end.
    previews = [e for e in events if isinstance(e, Preview)]
    assert [p.step for p in previews] == [1, 2, 3]
    assert [(p.width, p.height) for p in previews] == [(32, 32)] * 3
    assert [len(p.jpeg) for p in previews] == [len(e.jpeg) for e in alone if isinstance(e, Preview)]
    assert [isinstance(e, Layer) for e in events[-2:]] == [True, True]


@pytest.mark.parametrize("where", ["sample", "decode"])
def test_a_batch_that_is_too_large_goes_in_small_steps(engine, checkpoint, monkeypatch, where):
    expected, _, _ = run_batch(engine, text_job(checkpoint, batch=3))
    real, refused = getattr(run_module.Work, where), []

    def short(self, *args):
        if not self.sequential and (where == "sample" or len(refused) == 1):
            refused.append(0)
            raise torch.OutOfMemoryError("CUDA out of memory")
        refused.append(0)
        return real(self, *args)

    monkeypatch.setattr(run_module.Work, where, short)
    layers, result, _ = run_batch(engine, text_job(checkpoint, batch=3))
    assert result.ran["sequential"] is True
    assert [layer.index for layer in layers] == [0, 1, 2]  # none twice
    for layer, other in zip(layers, expected, strict=True):
        assert np.abs(layer.pixels.astype(int) - other.pixels.astype(int)).max() <= 1


def test_a_batch_with_an_inpainting_checkpoint(engine, tmp_path):
    path = str(write_tiny_checkpoint(tmp_path / "inpaint.safetensors", channels=9))
    for make in (text_job, selection_job):
        layers, _, _ = run_batch(engine, make(path, batch=2))
        assert (layers[0].pixels != layers[1].pixels).any()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_progress_and_recipe_of_every_sampler(engine, checkpoint, sampler):
    layer, result, events = run(engine, image_job(checkpoint, sampler=sampler, strength=0.5))
    steps = [e.step for e in events if isinstance(e, Progress) and e.stage == "denoise"]
    if sampler == "dpm_adaptive":  # its steps are other ones
        steps = list(dict.fromkeys(steps))
    assert steps == [0, 1, 2, 3][: len(steps)] and len(steps) >= 3 and result.ran["steps"] == 3
    assert layer.info["sampler"] == sampler and layer.info["schedule"] == resolve_schedule("automatic", sampler)


@pytest.mark.parametrize("sampler", TWO_CALLS)
def test_cancel_between_the_two_looks_of_a_step(engine, checkpoint, sampler, monkeypatch):
    calls = []
    real = run_module.Work.denoiser

    def counted(self, *args):
        denoiser = real(self, *args)
        monkeypatch.setattr(type(denoiser), "__call__", lambda self, x, sigma: calls.append(float(sigma)) or x * 0)
        return denoiser

    monkeypatch.setattr(run_module.Work, "denoiser", counted)
    with pytest.raises(Cancelled):
        engine.run(text_job(checkpoint, sampler=sampler, steps=9), lambda e: None, lambda: len(calls) == 4)
    assert len(calls) == 4


def test_inverted_selection(engine, checkpoint):
    job = selection_job(checkpoint, invert=True, grow=0.0, feather=2.0, blend=2.0)
    assert job.box == WHOLE  # the inverse reaches to every border
    layer, _, _ = run(engine, job)
    alpha = alpha_of(layer, job.box)
    inverse = 255 - job.mask
    np.testing.assert_array_equal(alpha, layer_alpha(inverse, resolve_mask(job.params, SELECTED, NATIVE_SIZE), False))
    assert (alpha[inverse == 255] == 255).all()
    # What was selected stays, but for the reach from its rim.
    inside = alpha[SELECTED.y + 4 : SELECTED.bottom - 4, SELECTED.x + 4 : SELECTED.right - 4]
    assert inside.size and not inside.any()
    assert "Mask mode: Inpaint not masked" in layer.info["parameters"]


def test_inverted_selection_exactly(engine, checkpoint):
    job = selection_job(checkpoint, invert=True, exact=True)
    layer, _, _ = run(engine, job)
    np.testing.assert_array_equal(alpha_of(layer, job.box), 255 - job.mask)


def test_everything_selected_and_inverted_is_refused(engine, checkpoint):
    job = selection_job(checkpoint, selection=WHOLE, invert=True)
    with pytest.raises(RequestError) as refused:
        engine.run(job, lambda e: None, lambda: False)
    assert refused.value.code == "request.empty_selection" and "kept" in str(refused.value)


def started_from(engine, job, monkeypatch):
    """The latents that the noise of the first level is added to, the mask, the noise, and the original's latents."""
    seen = {}
    real_blend, real_sample = generate.blend_denoise, run_module.Work.sample

    def blend(denoise, mask, latent, noise, sigmas, **more):
        seen.update(mask=mask, noise=noise, latent=latent, sigma=sigmas[0])
        return real_blend(denoise, mask, latent, noise, sigmas, **more)

    def sample(self, denoiser, denoise, x):
        seen["start"] = x - seen["noise"] * seen["sigma"]
        return real_sample(self, denoiser, denoise, x)

    monkeypatch.setattr(generate, "blend_denoise", blend)
    monkeypatch.setattr(run_module.Work, "sample", sample)
    layer, _, _ = run(engine, job)
    return layer, seen


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_what_repainting_starts_from(engine, checkpoint, monkeypatch, strength):
    start, layers = {}, {}
    for content in MASKED_CONTENTS:
        job = selection_job(checkpoint, strength=strength, masked_content=content, sampler="euler")
        layers[content], seen = started_from(engine, job, monkeypatch)
        start[content] = seen["start"]
    hole = (seen["mask"] >= 0.5).expand_as(seen["start"])
    close = dict(rtol=0, atol=2e-5)
    torch.testing.assert_close(start["original"], seen["latent"], **close)
    assert float((start["fill"] - seen["latent"])[hole].abs().mean()) > 5e-4
    torch.testing.assert_close(start["latent_noise"][hole], seen["noise"][hole], **close)
    torch.testing.assert_close(start["latent_nothing"][hole], torch.zeros_like(seen["noise"][hole]), **close)
    for content in ("latent_noise", "latent_nothing"):
        torch.testing.assert_close(start[content][~hole], start["fill"][~hole], **close)
    # The default, as it always was: filled at full strength, the original below.
    auto = "fill" if strength == 1.0 else "original"
    np.testing.assert_array_equal(layers["auto"].pixels, layers[auto].pixels)
    assert f"Masked content: {auto}" in layers["auto"].info["parameters"]
    pictures = [layers[c].pixels.tobytes() for c in MASKED_CONTENTS if c != "auto"]
    assert len(set(pictures)) == 4


def test_latent_noise_is_each_pictures_own(engine, checkpoint):
    job = selection_job(checkpoint, batch=2, masked_content="latent_noise")
    layers, _, _ = run_batch(engine, job)
    alone, _, _ = run(engine, replace(job, params=replace(job.params, batch=1, seed=6)))
    assert np.abs(alone.pixels.astype(int) - layers[1].pixels.astype(int)).max() <= 1
