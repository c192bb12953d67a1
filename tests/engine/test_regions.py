"""Regions: prompts bound to masks, against the formula and beside what else there is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from impasto_protocol.errors import RequestError
from impasto_server.engine.conditioning import Conditioning
from impasto_server.engine.jobs import RegionUnit
from impasto_server.engine.prompt_words import WordFiles, resolve_words
from impasto_server.engine.regions import Region, guided_by_regions
from impasto_server.engine.run import Engine
from impasto_server.engine.text import Guidance

from tests.engine.device import DEVICE
from tests.engine.test_ip_adapter import left_half
from tests.engine.test_run import run, selection_job, text_job
from tests.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors", half=False))


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


WHITE = np.full((64, 64, 4), 255, np.uint8)


def entry(prompt, **more):
    return {"prompt": prompt, "mask": "control_1", "weight": 1.0, "negative": "", **more}


def with_regions(job, *regions):
    """The job with regions of (prompt, mask, fields)."""
    entries = [entry(prompt, **more) for prompt, _, more in regions]
    units = tuple(
        RegionUnit(f"region {i + 1}", f"params.regions[{i}]", prompt, mask=mask, **more)
        for i, (prompt, mask, more) in enumerate(regions)
        if more.get("weight", 1.0)
    )
    return replace(job, params=replace(job.params, regions=entries), regions=units)


# ---- the formula


def guidance(value, negative=None):
    return Guidance((Conditioning(torch.full((1, 77, 4), value)),), (Conditioning(torch.zeros(1, 77, 4)),), 0)


def region(value, mask, **fields):
    return Region(RegionUnit("region", "params.regions[0]", "x", **fields), guidance(value), mask)


def test_the_common_prompt_keeps_what_the_regions_leave():
    left = torch.tensor([[[[1.0, 0.5, 0.0, 0.0]]]])
    right = torch.tensor([[[[0.0, 0.0, 0.0, 1.0]]]])
    both = guided_by_regions(guidance(1.0), [region(2.0, left, weight=0.5), region(3.0, right)])
    assert [float(e.tokens[0, 0, 0]) for e in both.positive] == [1.0, 2.0, 3.0]
    torch.testing.assert_close(both.positive[0].mask, torch.tensor([[[[0.5, 0.75, 1.0, 0.0]]]]))
    torch.testing.assert_close(both.positive[1].mask, left * 0.5)
    assert both.negative[0].mask is None  # nothing of its own is to be avoided
    avoided = guided_by_regions(guidance(1.0), [region(2.0, left, negative="rain"), region(3.0, right)])
    assert len(avoided.negative) == 2
    torch.testing.assert_close(avoided.negative[0].mask, 1 - left)


def test_regions_over_all_leave_no_row_for_the_common_prompt():
    whole = guided_by_regions(guidance(1.0), [region(2.0, torch.ones(1, 1, 2, 2))])
    assert len(whole.positive) == 1
    common = guidance(1.0)
    assert guided_by_regions(common, []) is common


# ---- words


def words(job):
    return resolve_words(job.params, job.words, 5)


def test_a_region_speaks_after_the_common_prompt(checkpoint):
    job = with_regions(text_job(checkpoint, prompt="a forest, "), ("a deer", WHITE, {"negative": "snow"}))
    (said,) = words(job).regions
    assert (said.prompt, said.negative_prompt) == ("a forest, a deer", "snow")
    kept = words(job).params(job.params)
    assert kept.regions[0]["prompt"] == "a deer" and kept.prompt == "a forest, "


def test_choices_in_a_region_are_made_and_kept(checkpoint):
    job = with_regions(text_job(checkpoint, prompt="a forest"), ("a {deer|fox|crow}", WHITE, {}))
    said = words(job)
    chosen = said.params(job.params).regions[0]["prompt"]
    assert chosen in ("a deer", "a fox", "a crow") and said.regions[0].prompt == f"a forest, {chosen}"
    again = resolve_words(said.params(job.params), WordFiles(), 9)
    assert again.regions[0].prompt == said.regions[0].prompt


@pytest.mark.parametrize(("prompt", "what"), [("a deer AND a fox", "AND"), ("a deer <lora:fur:1>", "a LoRA")])
def test_what_counts_for_the_whole_picture_is_refused(checkpoint, prompt, what):
    with pytest.raises(RequestError, match=f"cannot hold {what}") as caught:
        words(with_regions(text_job(checkpoint), (prompt, WHITE, {})))
    assert caught.value.path == "params.regions[0].prompt"


# ---- in the engine


def test_a_region_over_all_is_its_prompt(engine, checkpoint):
    wanted, *_ = run(engine, text_job(checkpoint, prompt="a forest, a deer", seed=3))
    regional, *_ = run(engine, with_regions(text_job(checkpoint, prompt="a forest", seed=3), ("a deer", WHITE, {})))
    np.testing.assert_array_equal(regional.pixels, wanted.pixels)


def test_a_region_without_weight_is_none(engine, checkpoint):
    job = text_job(checkpoint, prompt="a forest", seed=3)
    plain, *_ = run(engine, job)
    silent, *_ = run(engine, with_regions(job, ("a deer", WHITE, {"weight": 0.0})))
    np.testing.assert_array_equal(silent.pixels, plain.pixels)


def test_each_side_follows_its_prompt(engine, checkpoint):
    """Random weights mean nothing by a prompt, but a side is nearer to the picture of its own."""
    job = text_job(checkpoint, prompt="", seed=3, steps=6)
    left, right = left_half(64, 64, False), left_half(64, 64, False)[:, ::-1].copy()
    one, *_ = run(engine, replace(job, params=replace(job.params, prompt="a deer")))
    other, *_ = run(engine, replace(job, params=replace(job.params, prompt="a red house on the hill")))
    both, *_ = run(engine, with_regions(job, ("a deer", left, {}), ("a red house on the hill", right, {})))

    def apart(picture, side):
        return np.abs(both.pixels.astype(int) - picture.pixels)[:, side].mean()

    assert apart(one, slice(0, 24)) < apart(other, slice(0, 24))
    assert apart(other, slice(40, 64)) < apart(one, slice(40, 64))


@pytest.mark.parametrize("channels", [4, 9])
def test_regions_work_where_only_a_selection_is_painted(engine, tmp_path, channels):
    path = str(write_tiny_checkpoint(tmp_path / "paint.safetensors", channels=channels, half=False))
    job = selection_job(path)
    plain, *_ = run(engine, job)
    regional, *_ = run(engine, with_regions(job, ("a deer in the snow", left_half(80, 60, True), {"negative": "rain"})))
    assert regional.box == plain.box and (regional.pixels != plain.pixels).any()
