"""Guidance, batching, adapters and labels of the denoiser."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from impasto_server.engine.attention import install
from impasto_server.engine.conditioning import Conditioning
from impasto_server.engine.denoise import Denoiser, to_denoised
from impasto_server.engine.schedule import scaled_linear, sigmas

from tests.golden.tiny import seeded, tiny_text, tiny_unet

TABLE = scaled_linear()
LEVELS = sigmas(TABLE, "karras", "euler", 8)


@pytest.fixture(scope="module")
def denoiser():
    positive, negative = tiny_text()
    return Denoiser(
        network=tiny_unet(),
        prediction="epsilon",
        positive=(Conditioning(positive),),
        negative=(Conditioning(negative),),
        cfg=7.5,
        sigmas=LEVELS,
        timestep_of=TABLE.timestep,
    )


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def noisy(batch=1):
    return torch.randn(batch, 4, 16, 16, generator=seeded(5)) * LEVELS[2]


def counted(denoiser, x, sigma, **changes):
    """Result, and the number of rows in each call of the network."""
    rows: list[int] = []
    hook = denoiser.network.register_forward_pre_hook(lambda m, args: rows.append(args[0].shape[0]))
    try:
        return replace(denoiser, **changes)(x, sigma), rows
    finally:
        hook.remove()


def relative(expected, got):
    return float((expected - got).abs().max() / expected.abs().max())


def test_guidance_is_one_call(denoiser):
    out, rows = counted(denoiser, noisy(), LEVELS[2])
    assert rows == [2] and out.shape == (1, 4, 16, 16) and out.dtype == torch.float32


def test_sequential_guidance_is_the_same_picture(denoiser):
    batched, _ = counted(denoiser, noisy(), LEVELS[2])
    alone, rows = counted(denoiser, noisy(), LEVELS[2], sequential=True)
    assert rows == [1, 1]
    assert relative(batched, alone) < 1e-5


def test_cfg_1_skips_the_negative(denoiser):
    out, rows = counted(denoiser, noisy(), LEVELS[2], cfg=1.0)
    assert rows == [1]
    almost, _ = counted(denoiser, noisy(), LEVELS[2], cfg=1.0 + 1e-6)
    assert relative(out, almost) < 1e-4


def test_ngms_skips_the_negative_in_every_other_call(denoiser):
    low, rows = replace(denoiser, ngms=float(LEVELS[2]) + 0.1, _calls=itertools.count()), []
    hook = denoiser.network.register_forward_pre_hook(lambda m, args: rows.append(args[0].shape[0]))
    try:
        outs = [low(noisy(), LEVELS[i]) for i in (1, 2, 3, 4, 5)]
    finally:
        hook.remove()
    assert rows == [2, 1, 2, 1, 2]  # the first is above the level, and would not be skipped in any case
    assert torch.equal(outs[1], replace(denoiser, cfg=1.0)(noisy(), LEVELS[2]))
    assert torch.equal(outs[2], denoiser(noisy(), LEVELS[3]))
    _, rows = counted(
        denoiser, noisy(), LEVELS[2], ngms=float(LEVELS[2]) + 0.1, ngms_all=True, _calls=itertools.count()
    )
    assert rows == [1]
    _, rows = counted(denoiser, noisy(), LEVELS[2], ngms=float(LEVELS[2]), ngms_all=True)
    assert rows == [2]


def test_guidance_rescale_is_the_papers_and_diffusers(denoiser):
    def outputs(cfg: float, rescale: float = 0.0) -> torch.Tensor:
        x = noisy(2)
        return (x - replace(denoiser, cfg=cfg, cfg_rescale=rescale)(x, LEVELS[2])) / LEVELS[2]  # epsilon

    cond, guided = outputs(1.0), outputs(7.5)
    torch.testing.assert_close(outputs(7.5, 0.7), rescale_noise_cfg(guided, cond, 0.7), rtol=1e-4, atol=1e-5)
    whole = outputs(7.5, 1.0)
    torch.testing.assert_close(whole.std([1, 2, 3]), cond.std([1, 2, 3]), rtol=1e-4, atol=1e-5)
    assert torch.equal(outputs(7.5, 0.0), guided)


def test_the_negative_side_by_itself(denoiser):
    for cfg in (0.6, 1.0):
        run = replace(denoiser, cfg=cfg, keep_unguided=True, ngms=99.0, ngms_all=True, _unguided=[])
        run(noisy(2), LEVELS[2])
        alone = replace(denoiser, positive=denoiser.negative, cfg=1.0)(noisy(2), LEVELS[2])
        assert relative(alone, run.unguided()) < 1e-5


def test_a_batch_equals_its_pictures_one_by_one(denoiser):
    x = noisy(3)
    together, rows = counted(denoiser, x, LEVELS[2])
    assert rows == [6]
    for i in range(3):
        assert relative(together[i : i + 1], denoiser(x[i : i + 1], LEVELS[2])) < 1e-5


def test_texts_of_unequal_length_go_in_separate_calls(denoiser):
    long = torch.cat([denoiser.positive[0].tokens] * 2, 1)
    out, rows = counted(denoiser, noisy(2), LEVELS[2], positive=(Conditioning(long),))
    assert rows == [2, 2]
    # Attention over every key twice is attention over every key once.
    assert relative(denoiser(noisy(2), LEVELS[2]), out) < 1e-5


def test_regions(denoiser):
    left = torch.zeros(1, 1, 16, 16)
    left[..., :8] = 1
    other = Conditioning(torch.randn(1, 77, 32, generator=seeded(9)), mask=1 - left)
    first = replace(denoiser.positive[0], mask=left)
    out, rows = counted(denoiser, noisy(), LEVELS[2], positive=(first, other))
    assert rows == [3]
    plain = denoiser(noisy(), LEVELS[2])
    assert relative(plain[..., :8], out[..., :8]) < 1e-5
    assert relative(plain[..., 8:], out[..., 8:]) > 1e-3


def test_entries_follow_the_steps(denoiser):
    late = Conditioning(torch.randn(1, 77, 32, generator=seeded(9)), start=0.5)
    early = replace(denoiser.positive[0], end=0.5)
    both = replace(denoiser, positive=(early, late))
    x = noisy()
    assert torch.equal(both(x, LEVELS[2]), denoiser(x, LEVELS[2]))
    assert torch.equal(both(x, LEVELS[4]), replace(denoiser, positive=(late,))(x, LEVELS[4]))
    with pytest.raises(ValueError, match="step 5 of 8"):
        replace(denoiser, positive=(early,))(x, LEVELS[4])


class Watch:
    """An adapter that adds nothing but sees everything; with an extra pass of its own."""

    def __init__(self, extra: bool = False):
        self.extra, self.attached = extra, 0
        self.calls: list = []
        self.steps: list = []

    @contextmanager
    def attach(self, network):
        self.attached += 1
        try:
            yield
        finally:
            self.attached -= 1

    def prepare(self, call, step):
        self.calls.append(call)
        self.steps.append(step)

    def extra_pass(self, call, step):
        return replace(call, sample=call.sample[:1], encoder_hidden_states=call.encoder_hidden_states[:1],
                       rows=call.rows[:1]) if self.extra else None  # fmt: skip


def test_adapters_see_labels_and_steps(denoiser):
    watch = Watch()
    run = replace(denoiser, adapters=(watch,))
    with run.attached():
        assert watch.attached == 1
        run(noisy(2), LEVELS[3])
        # A sampler that looks between two levels is still at the step of the upper one.
        run(noisy(2), (LEVELS[3] + LEVELS[4]) / 2)
    assert watch.attached == 0
    labels = [(r.kind, r.region, r.image) for r in watch.calls[0].rows]
    assert labels == [("uncond", 0, 0), ("uncond", 0, 1), ("cond", 0, 0), ("cond", 0, 1)]
    assert [s.index for s in watch.steps] == [3, 3] and watch.steps[0].steps == 8


def test_extra_pass_runs_before_and_changes_nothing(denoiser):
    plain = denoiser(noisy(), LEVELS[2])
    out, rows = counted(denoiser, noisy(), LEVELS[2], adapters=(Watch(extra=True),))
    assert rows == [1, 2] and torch.equal(out, plain)
    control = install(denoiser.network)
    assert control.rows == () and control.step is None


def test_channels_of_an_adapter_reach_the_network(denoiser):
    class Concat(Watch):
        def prepare(self, call, step):
            call.add_channels(torch.ones(call.sample.shape[0], 5, 16, 16))

    out = replace(denoiser, network=tiny_unet(9), adapters=(Concat(),))(noisy(), LEVELS[2])
    assert torch.isfinite(out).all()


def test_parameterisations_agree_on_a_known_picture():
    x0, noise, sigma = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor(2.5)
    x = x0 + sigma * noise
    alpha = 1 / (sigma**2 + 1) ** 0.5
    torch.testing.assert_close(to_denoised("epsilon", x, noise, sigma), x0, rtol=1e-4, atol=1e-5)
    velocity = alpha * noise - sigma * alpha * x0
    torch.testing.assert_close(to_denoised("v_prediction", x, velocity, sigma), x0, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError):
        to_denoised("sample", x, noise, sigma)


def test_half_precision_networks_get_their_dtype(denoiser):
    network = tiny_unet().bfloat16()
    out = replace(denoiser, network=network)(noisy(), LEVELS[2])
    assert out.dtype == torch.float32
    assert relative(denoiser(noisy(), LEVELS[2]), out) < 0.2
