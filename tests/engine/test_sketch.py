"""Sketch to image: image to image of the sketch over white or over the document."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.jobs import Job, Layer
from impasto_server.engine.modes import Img2Img, Sketch
from impasto_server.engine.pictures import flattened
from impasto_server.engine.run import Engine

from tests.engine.device import DEVICE
from tests.tiny import write_tiny_checkpoint

CANVAS, BOX = Size(160, 120), Box(20, 10, 96, 72)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


def strokes() -> np.ndarray:
    sketch = np.zeros((BOX.height, BOX.width, 4), np.uint8)
    sketch[20:50, 30:70] = (220, 20, 30, 255)
    sketch[10:20, 48:54] = (20, 160, 40, 128)
    return sketch


def backdrop() -> np.ndarray:
    pixels = np.random.default_rng(2).integers(0, 256, (BOX.height, BOX.width, 4), np.uint8)
    pixels[..., 3] = 255
    return pixels


def sketch_job(checkpoint, under=None, **params):
    values = Sketch(**{"prompt": "an apple", "seed": 4, "steps": 3, **params})
    return Job("s", "sketch", values, CANVAS, BOX, checkpoint, image=strokes(), backdrop=under)


def run(engine, job) -> Layer:
    events: list = []
    engine.run(job, events.append, lambda: False)
    (layer,) = [e for e in events if isinstance(e, Layer)]
    return layer


def test_it_is_image_to_image_of_the_sketch_on_white_paper(engine, checkpoint):
    job = sketch_job(checkpoint)
    layer = run(engine, job)
    assert layer.box == BOX and layer.alpha == "opaque" and (layer.pixels[..., 3] == 255).all()
    assert layer.info["mode"] == "sketch" and layer.info["params"]["background"] == "white"
    assert "Denoising strength: 0.75" in layer.info["parameters"]
    paper = np.full((BOX.height, BOX.width, 4), 255, np.uint8)
    paper[..., :3] = flattened(strokes())
    same = Img2Img(prompt="an apple", seed=4, steps=3)
    stock = run(engine, replace(job, mode="img2img", params=same, image=paper))
    np.testing.assert_array_equal(layer.pixels, stock.pixels)
    assert job.image is not None and (job.image == strokes()).all(), "the sketch is not written to"


def test_over_the_document(engine, checkpoint):
    white = run(engine, sketch_job(checkpoint, backdrop()))
    over = run(engine, sketch_job(checkpoint, backdrop(), background="document"))
    assert (white.pixels != over.pixels).any(), "the backdrop is used where it is asked for, and only there"
    np.testing.assert_array_equal(white.pixels, run(engine, sketch_job(checkpoint)).pixels)
    assert "background: document" in over.info["parameters"]
    mixed = flattened(strokes(), backdrop()[..., :3])
    clear = strokes()[..., 3] == 0
    assert (mixed[clear] == backdrop()[clear][:, :3]).all() and (mixed[30, 40] == (220, 20, 30)).all()


def test_without_the_backdrop_that_it_asks_for(engine, checkpoint):
    for under in (None, backdrop()[1:]):
        with pytest.raises(RequestError) as caught:
            run(engine, sketch_job(checkpoint, under, background="document"))
        assert caught.value.path == "backdrop"
