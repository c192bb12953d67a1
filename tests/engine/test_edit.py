"""Checkpoints that change a picture by an instruction, end to end in the engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from impasto_protocol.errors import ModelError
from impasto_server.engine.identify import identify_file
from impasto_server.engine.jobs import ReferenceUnit
from impasto_server.engine.run import Engine
from impasto_server.service import facts
from impasto_server.service.catalogue import Catalogue
from impasto_server.service.resolving import resolve_params

from tests.engine.device import DEVICE
from tests.engine.test_run import image_job, picture, run, selection_job
from tests.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "edits.safetensors", channels=8, half=False))


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


def test_the_picture_is_shown_and_image_guidance_counts(engine, checkpoint):
    job = image_job(checkpoint, strength=1.0, seed=3, steps=4)
    one, *_ = run(engine, job)
    stronger, *_ = run(engine, replace(job, params=replace(job.params, image_cfg=2.5)))
    other, *_ = run(engine, replace(job, image=job.image[::-1].copy()))
    assert (one.pixels != stronger.pixels).any() and (one.pixels != other.pixels).any()
    again, *_ = run(engine, job)
    np.testing.assert_array_equal(again.pixels, one.pixels)


def test_an_ordinary_checkpoint_does_not_heed_image_guidance(engine, tmp_path):
    job = image_job(str(write_tiny_checkpoint(tmp_path / "plain.safetensors")), seed=3, steps=3)
    one, *_ = run(engine, job)
    other, *_ = run(engine, replace(job, params=replace(job.params, image_cfg=3.0)))
    np.testing.assert_array_equal(one.pixels, other.pixels)


def test_a_selection_a_hires_pass_and_a_reference(engine, checkpoint):
    layer, *_ = run(engine, selection_job(checkpoint))
    assert layer.alpha == "soft" and (layer.pixels[..., 3] > 0).sum() > 0
    job = image_job(checkpoint, steps=2, seed=3)
    small, *_ = run(engine, job)
    large, *_ = run(engine, replace(job, params=replace(job.params, hires=True, hires_scale=1.5)))
    assert (large.pixels.shape != small.pixels.shape) or (large.pixels != small.pixels).any()
    seen = (ReferenceUnit("reference 1", "params.references[0]", picture(64, 64), kind="both"),)
    guided, *_ = run(engine, replace(job, references=seen))
    assert (guided.pixels != small.pixels).any()


def test_without_a_picture_it_is_refused_and_it_is_never_the_first_choice(checkpoint, tmp_path):
    write_tiny_checkpoint(tmp_path / "aa-edits.safetensors", channels=8)
    assert identify_file(checkpoint).variant == "instruct-pix2pix"
    catalogue = Catalogue([tmp_path], facts.identify)
    catalogue.scan()
    with pytest.raises(ModelError, match="image to image") as caught:
        resolve_params(catalogue, "txt2img", {"prompt": "make it snow"})
    assert (caught.value.code, caught.value.path) == ("model.unsupported", "params.model")
    params, model = resolve_params(catalogue, "img2img", {"prompt": "make it snow"})
    assert model.id == "aa-edits" and params.image_cfg == 1.5
    write_tiny_checkpoint(tmp_path / "zz-plain.safetensors")
    catalogue.scan()
    assert resolve_params(catalogue, "txt2img", {})[1].id == "zz-plain"
