"""A chain is its jobs one after the other: the same pictures, told as they come, kept where a later one fails."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from impasto_protocol.errors import ImpastoError, ModelError, RequestError, ResourceError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine import scratch
from impasto_server.engine.chain import CHAINABLE, next_job, picture_after
from impasto_server.engine.further import remaining
from impasto_server.engine.jobs import Cancelled, Chain, Job, Layer, Link, Progress
from impasto_server.engine.modes import Refine, Upscale
from impasto_server.engine.run import Engine
from impasto_server.engine.upscale import Enlarger

from tests.engine.test_run import NATIVE, SELECTED, run_batch, selection_job, text_job
from tests.tiny import write_tiny_checkpoint
from tests.upscalers import compact, save

NOWHERE = Size(0, 0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def engine():
    return Engine("cpu", "fp32")


def link(mode, params, path="", pick=0):
    return Link(Job("", mode, params, NOWHERE, Box.of_size(NOWHERE), path), pick)


def refined(checkpoint, **params):
    return link("refine", Refine(**{"prompt": "a red apple", "seed": 9, "steps": 3, **params}), checkpoint)


def with_links(job, *links):
    return dataclasses.replace(job, chain=Chain(links))


def alone(engine, mode, params, path, image):
    size = Size(image.shape[1], image.shape[0])
    layers, _, _ = run_batch(engine, Job("x", mode, params, size, Box.of_size(size), path, image=image))
    return layers


def test_it_is_its_jobs_one_after_the_other(engine, checkpoint, tmp_path):
    upscaler = str(save(tmp_path / "x.pth", compact()))
    larger = Upscale(scale=2.0, upscaler="x")
    job = with_links(
        text_job(checkpoint, batch=3), link("upscale", larger, upscaler, pick=1), refined(checkpoint, tiling="pixel")
    )
    layers, result, events = run_batch(engine, job)
    assert [layer.index for layer in layers] == [0, 1, 2, 3, 4]
    assert [layer.stage for layer in layers] == ["generate"] * 3 + ["upscale", "refine"]
    first, _, _ = run_batch(engine, text_job(checkpoint, batch=3))
    for one, other in zip(first, layers, strict=False):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    (upscaled,) = alone(engine, "upscale", larger, upscaler, first[1].pixels)
    np.testing.assert_array_equal(upscaled.pixels, layers[3].pixels)
    (fine,) = alone(engine, "refine", job.chain.then[1].job.params, checkpoint, upscaled.pixels)
    np.testing.assert_array_equal(fine.pixels, layers[4].pixels)
    assert layers[4].box == Box(0, 0, 128, 128)
    assert [len(layer.info.get("then", ())) for layer in layers] == [2, 2, 2, 1, 0]
    assert len(result.ran["chain"]) == 3 and result.ran["tiling"] == "pixel" and result.seeds == (5, 6, 7, 9)
    fractions = [e.fraction for e in events if isinstance(e, Progress)]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1)


def test_what_is_left_to_do_is_in_the_recipe(engine, checkpoint):
    job = with_links(text_job(checkpoint), link("upscale", Upscale(scale=1.5)), refined(checkpoint))
    layers, _, _ = run_batch(engine, job)
    mode, params, rest = remaining(layers[0].info)
    assert mode == "upscale" and params == dataclasses.asdict(Upscale(scale=1.5)) and rest[0]["mode"] == "refine"
    with pytest.raises(RequestError):
        remaining(layers[-1].info)


def test_places_in_the_document(engine, checkpoint):
    """Without an upscale a link stays where its picture was; inpainting hands on all of what it was sent."""
    job = with_links(selection_job(checkpoint), refined(checkpoint))
    layers, _, _ = run_batch(engine, job)
    assert layers[1].box == job.box and layers[0].box != job.box
    picture, at = picture_after(job, layers[0])
    assert at == (job.box.x, job.box.y) and picture.shape == job.image.shape
    x, y = SELECTED.x - job.box.x, SELECTED.y - job.box.y
    assert (picture[y : y + 16, x : x + 20] != job.image[y : y + 16, x : x + 20]).any()
    outside = np.ones(picture.shape[:2], bool)
    inner = layers[0].box
    outside[inner.y - job.box.y : inner.bottom - job.box.y, inner.x - job.box.x : inner.right - job.box.x] = False
    np.testing.assert_array_equal(picture[outside], job.image[outside])
    (fine,) = alone(engine, "refine", job.chain.then[0].job.params, checkpoint, picture)
    np.testing.assert_array_equal(fine.pixels, layers[1].pixels)


def test_finished_links_stay_where_a_later_one_fails(engine, checkpoint, tmp_path):
    gone = link("upscale", Upscale(upscaler="gone"), str(tmp_path / "gone.pth"))
    told = []
    with pytest.raises(ModelError):
        engine.run(with_links(text_job(checkpoint), gone, refined(checkpoint)), told.append, lambda: False)
    assert [e.stage for e in told if isinstance(e, Layer)] == ["generate"]


@pytest.mark.parametrize("when", ["before it is written", "in its last tile"])
def test_the_disk_runs_out_in_a_later_link(engine, checkpoint, tmp_path, monkeypatch, when):
    """What was finished stays, and says what is left: with room again the chain is gone on with."""
    upscaler = str(save(tmp_path / "x.pth", compact()))
    job = with_links(text_job(checkpoint), link("upscale", Upscale(scale=2.0, upscaler="x"), upscaler))
    told = []
    with monkeypatch.context() as patched:
        if when == "before it is written":
            patched.setattr(scratch, "MAPPED", 1000)
            patched.setattr(scratch.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
        else:
            write = Enlarger.rows

            def rows(self, image, size, done):
                *finished, _ = write(self, image, size, done)
                yield from finished
                raise ResourceError("resource.disk_full", "The disk is full; free some space.", retryable=True)

            patched.setattr(Enlarger, "rows", rows)
        with pytest.raises(ResourceError) as error:
            engine.run(job, told.append, lambda: False)
    assert error.value.code == "resource.disk_full" and error.value.retryable
    kept = [event for event in told if isinstance(event, Layer)]
    assert [layer.stage for layer in kept] == ["generate"]
    assert remaining(kept[0].info)[0] == "upscale"
    (larger,), _, _ = run_batch(engine, next_job(job, kept))
    assert larger.stage == "upscale" and larger.pixels.shape[:2] == (2 * NATIVE.height, 2 * NATIVE.width)


def test_cancelled_between_links(engine, checkpoint):
    told = []

    def stop():
        return any(isinstance(e, Layer) for e in told)

    with pytest.raises(Cancelled):
        engine.run(with_links(text_job(checkpoint), refined(checkpoint)), told.append, stop)
    assert len([e for e in told if isinstance(e, Layer)]) == 1


def test_a_picture_that_is_not_there(engine, checkpoint):
    job = with_links(text_job(checkpoint), dataclasses.replace(refined(checkpoint), pick=3))
    with pytest.raises(ImpastoError) as told:
        engine.run(job, lambda e: None, lambda: False)
    assert told.value.code == "request.invalid_param"


def test_going_on_from_any_link_gives_the_same(engine, checkpoint):
    """What the service does after the worker died."""
    job = with_links(text_job(checkpoint), link("upscale", Upscale(scale=1.5)), refined(checkpoint))
    layers, _, _ = run_batch(engine, job)
    second = next_job(job, layers[:1])
    again, _, _ = run_batch(engine, second)
    assert [layer.index for layer in again] == [1, 2] and second.canvas == NATIVE
    for one, other in zip(layers[1:], again, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert one.box == other.box


def test_what_can_follow():
    assert {"upscale", "refine", "img2img"} <= set(CHAINABLE)
    assert not {"txt2img", "inpaint", "annotate"} & set(CHAINABLE)
