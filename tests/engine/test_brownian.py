"""The noise of A1111's SDE samplers against numbers of k-diffusion and torchsde (brownian.json).

There torchsde's own random numbers were replaced by those of `noise_at`, as A1111 does. The samplers ran 8 steps of
karras over two pictures [1, 2, 3] with the seeds 7 and 123456, from the whole noise or half the strength, and the
network said half of what it saw, so that the noise of each step counts to the end.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_server.engine.brownian import BrownianPath, BrownianTree, step_noise
from impasto_server.engine.infotext import read_infotext
from impasto_server.engine.modes import Txt2Img
from impasto_server.engine.noise import NoiseSource, noise_at, noise_for_batch
from impasto_server.engine.run import Engine
from impasto_server.engine.sampler_names import SAMPLER_INFO
from impasto_server.engine.samplers import bound
from impasto_server.engine.schedule import run_levels, scaled_linear

from tests.engine.device import DEVICE
from tests.engine.test_run import run, run_batch, text_job
from tests.tiny import write_tiny_checkpoint

RECORDED = json.loads((Path(__file__).parent / "brownian.json").read_text())
LOW, HIGH = 0.029167, 14.614647
SDE = [name for name, info in SAMPLER_INFO.items() if info.brownian]


def tree_of(seed: int, kind: str = "philox", count: int = 3) -> BrownianTree:
    return BrownianTree(lambda drawn: noise_at(kind, drawn, (count,)), seed, LOW, HIGH)


@pytest.mark.parametrize("case", RECORDED["tree"])
def test_gains_are_those_of_torchsde(case):
    kind, seed = case.split()
    tree = tree_of(int(seed), kind)
    for start, end, gain in RECORDED["tree"][case]:
        torch.testing.assert_close(tree(start, end), torch.tensor(gain), rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", RECORDED["samplers"])
def test_samplers_end_where_those_of_k_diffusion_do(case):
    sampler, strength, kind = case.split()
    params = Txt2Img(sampler=sampler, schedule="karras", steps=8, noise=kind, sde_noise="tree")
    levels, highest = run_levels(scaled_linear(), params, float(strength))
    sources = [NoiseSource(kind, seed) for seed in (7, 123456)]
    x = noise_for_batch(sources)(torch.empty(2, 1, 2, 3)) * levels[0]
    noise = step_noise(params, sources, x, levels, highest)
    found = bound(params, lambda: x)(lambda x, _: x * 0.5, x, levels, noise, lambda *_: None)
    wanted = torch.tensor(RECORDED["samplers"][case])
    assert float((found.flatten() - wanted).abs().max() / wanted.abs().max()) < 2e-6


def test_all_samplers_of_a_motion_are_recorded():
    assert {case.split()[0] for case in RECORDED["samplers"]} == set(SDE)


LEVELS = st.floats(LOW, HIGH)


@given(st.integers(0, 2**32 - 1), st.lists(LEVELS, min_size=3, max_size=6))
@settings(max_examples=40, deadline=None)
def test_gains_add_up_and_do_not_depend_on_what_was_asked_before(seed, levels):
    levels = sorted(levels)
    asked = tree_of(seed)
    gains = [asked(a, b) for a, b in pairwise(levels)]
    whole = tree_of(seed)(levels[0], levels[-1])
    torch.testing.assert_close(torch.stack(gains).sum(0), whole, rtol=0, atol=2e-5)
    assert torch.equal(asked(levels[0], levels[-1]), whole)
    assert torch.equal(tree_of(seed)(levels[0], levels[1]), gains[0])


def test_gains_are_normal_and_as_large_as_their_intervals():
    tree = tree_of(1, count=20000)
    for start, end in ((LOW, 0.2), (0.2, 1.5), (1.5, HIGH)):
        gain = tree(start, end)
        assert float(gain.mean()) == pytest.approx(0, abs=0.03 * math.sqrt(end - start))
        assert float(gain.std()) == pytest.approx(math.sqrt(end - start), rel=0.02)
    assert abs(float(torch.corrcoef(torch.stack([tree(LOW, 1.5), tree(1.5, HIGH)]))[0, 1])) < 0.03


def test_beyond_its_ends_the_motion_stands_still():
    tree = tree_of(5)
    assert torch.equal(tree(0.0, 20.0), tree(LOW, HIGH))
    assert not tree(HIGH, 20.0).any() and not tree(1.0, 1.0).any()


def test_other_samplers_and_the_default_draw_from_the_stream():
    levels = torch.tensor([10.0, 1.0, 0.0])
    x = torch.zeros(1, 4, 2, 2)
    for params in (Txt2Img(sampler="dpmpp_sde"), Txt2Img(sampler="euler_a", sde_noise="tree")):
        noise = step_noise(params, [NoiseSource("philox", 1)], x, levels, 10.0)
        assert not isinstance(noise, BrownianPath)
        assert torch.equal(noise(x), NoiseSource("philox", 1).draw(4, 2, 2))


@pytest.mark.parametrize("sampler", ["dpmpp_sde", "dpmpp_3m_sde"])
def test_pictures_of_a_batch_are_those_that_they_are_alone(tmp_path, sampler):
    engine = Engine(DEVICE, "fp32")
    job = text_job(str(write_tiny_checkpoint(tmp_path / "tiny.safetensors")))
    params = replace(job.params, sampler=sampler, steps=4, sde_noise="tree", batch=2)
    job = replace(job, params=params)
    layers, _, _ = run_batch(engine, job)
    for layer in layers:
        again, _, _ = run(engine, replace(job, params=Txt2Img(**layer.info["params"])))
        assert abs(again.pixels.astype(int) - layer.pixels.astype(int)).max() <= 1
    other, _, _ = run(engine, replace(job, params=replace(params, batch=1, sde_noise="stream")))
    assert (other.pixels != layers[0].pixels).any()
    assert read_infotext(layers[0].info["parameters"]).params["sde_noise"] == "tree"
    assert read_infotext(other.info["parameters"]).params["sde_noise"] == "stream"


@pytest.mark.parametrize(
    ("said", "tree"),
    [
        ("Sampler: DPM++ 2M SDE Karras", True),
        ("Sampler: DPM++ SDE, Schedule type: Karras", True),
        ("Sampler: Euler a", False),
        ("Sampler: Euler a, Denoising strength: 0.5, Hires upscale: 2, Hires sampler: DPM++ 3M SDE", True),
    ],
)
def test_old_texts_ask_for_the_tree(said, tree):
    params = read_infotext(f"a cat\nSteps: 20, {said}, CFG scale: 7, Seed: 5, Size: 512x512").params
    assert params.get("sde_noise") == ("tree" if tree else None)
