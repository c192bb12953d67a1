"""What units do to the prediction and to the result: colours kept, light kept, surroundings kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from impasto_server.engine.jobs import ControlUnit
from impasto_server.engine.recolor import value_of
from impasto_server.engine.run import Engine
from impasto_server.engine.shaped import ColorFix, KeepAround, box_blurred, pasted

from tests.control import write_tiny_controlnet
from tests.engine.device import DEVICE
from tests.engine.test_run import picture, run, run_batch, selection_job, text_job
from tests.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return str(write_tiny_checkpoint(folder / "tiny.safetensors", half=False))


@pytest.fixture(scope="module")
def control(folder):
    return str(write_tiny_controlnet(folder / "control.safetensors"))


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


def unit(model, **more):
    more.setdefault("image", picture(64, 64))
    return ControlUnit("control unit 1", "params.control[0]", model, **more)


def test_a_box_blur_is_the_mean_of_a_square():
    values = torch.randn(1, 2, 9, 7)
    blurred = box_blurred(values, 2)
    padded = np.pad(values[0].numpy(), ((0, 0), (2, 2), (2, 2)), mode="edge")
    for y in range(9):
        for x in range(7):
            np.testing.assert_allclose(blurred[0, :, y, x], padded[:, y : y + 5, x : x + 5].mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 40.0])
def test_fixing_after_guidance_is_fixing_each_side(sharpness):
    """A1111 blurs the negative side, and gives both sides the colours before they are guided."""
    torch.manual_seed(0)
    latent, towards, away = (torch.randn(1, 4, 16, 16) for _ in range(3))
    cfg, radius = 7.0, 3

    def fixed(side):
        return side - box_blurred(side, radius) + box_blurred(latent, radius)

    softer = sharpness / 100 * box_blurred(away, radius) + (1 - sharpness / 100) * away
    wanted = fixed(softer) + cfg * (fixed(towards) - fixed(softer))
    guided = away + cfg * (towards - away)
    got = ColorFix(latent, radius, sharpness, cfg)(guided, away)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_what_is_around_is_kept():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 1:3, 1:3] = 1
    latent, denoised = torch.zeros(1, 4, 4, 4), torch.ones(2, 4, 4, 4)
    assert KeepAround(latent, mask)(denoised, None).sum() == 2 * 4 * 4
    hole = np.zeros((40, 40), bool)
    hole[15:25, 15:25] = True
    both = pasted(np.full((40, 40, 3), 200, np.uint8), np.full((40, 40, 3), 50, np.uint8), hole)
    assert (both[16:24, 16:24] == 200).all() and (both[:8] == 50).all() and (both[:, :8] == 50).all()


def coarse(pixels):
    return pixels[..., :3].reshape(4, 16, 4, 16, 3).mean((1, 3))


def test_colours_are_kept(engine, checkpoint, control):
    job = replace(text_job(checkpoint, steps=6, seed=3, prompt="a cat"))
    tile, *_ = run(engine, replace(job, control=(unit(control, preprocessor="tile"),)))
    fixed, *_ = run(engine, replace(job, control=(unit(control, preprocessor="tile_colorfix", threshold_low=0.0),)))
    sharp, *_ = run(engine, replace(job, control=(unit(control, preprocessor="tile_colorfix_sharp", threshold_low=1.0,
                                                       threshold_high=90.0),)))  # fmt: skip
    units = (unit(control, preprocessor="tile_colorfix", threshold_low=0.0),)
    other, *_ = run(engine, replace(text_job(checkpoint, steps=6, seed=9, prompt="a dog"), control=units))
    # All colours are the picture's where none may differ: whatever else is asked for, it is the same picture.
    assert abs(coarse(fixed.pixels) - coarse(other.pixels)).max() < 1
    assert abs(coarse(tile.pixels) - coarse(other.pixels)).mean() > 5
    assert (sharp.pixels != fixed.pixels).any()
    # Out of its range it does nothing, to the last bit.
    late, *_ = run(engine, replace(job, control=(unit(control, preprocessor="tile_colorfix", start=0.95),)))
    plain, *_ = run(engine, job)
    np.testing.assert_array_equal(late.pixels, plain.pixels)


def test_each_picture_of_a_batch_keeps_the_colours(engine, checkpoint, control):
    units = (unit(control, preprocessor="tile_colorfix_sharp", threshold_low=1.0),)
    layers, *_ = run_batch(engine, replace(text_job(checkpoint, steps=3, seed=3, batch=2), control=units))
    alone, *_ = run(engine, replace(text_job(checkpoint, steps=3, seed=4), control=units))
    assert abs(layers[1].pixels.astype(int) - alone.pixels).max() <= 1


def test_the_light_of_the_picture_is_kept(engine, checkpoint, control):
    job = text_job(checkpoint, steps=3, seed=3)
    for kind in ("recolor_luminance", "recolor_intensity"):
        layer, *_ = run(engine, replace(job, control=(unit(control, preprocessor=kind),)))
        plain, *_ = run(engine, job)
        wanted = value_of(picture(64, 64)[..., :3], kind)
        far = abs(value_of(layer.pixels[..., :3], kind).astype(int) - wanted)
        # Colours beyond sRGB are cut, which moves the light of some.
        assert np.median(far) <= 2 and np.median(far) < np.median(
            abs(value_of(plain.pixels[..., :3], kind).astype(int) - wanted)
        )


def test_inpaint_only_leaves_the_rest_in_every_mode(engine, checkpoint, control):
    image = picture(64, 64)
    image[..., 3] = 255
    image[24:40, 24:40, 3] = 0
    job = text_job(checkpoint, steps=3, seed=3)
    kept, *_ = run(engine, replace(job, control=(unit(control, image=image, preprocessor="inpaint_only"),)))
    far = abs(kept.pixels[..., :3].astype(int) - image[..., :3]).max(2)
    assert far[:16].max() == 0 and far[:, 50:].max() == 0 and far[26:38, 26:38].max() > 3
    free, *_ = run(engine, replace(job, control=(unit(control, image=image, preprocessor="inpaint"),)))
    assert abs(free.pixels[:16, :, :3].astype(int) - image[:16, :, :3]).max() > 0


def test_a_selection_is_the_hole(engine, checkpoint, control):
    job = selection_job(checkpoint)
    plain, *_ = run(engine, job)
    for kind in ("inpaint", "inpaint_only"):
        guided, *_ = run(engine, replace(job, control=(unit(control, image=None, preprocessor=kind),)))
        assert (guided.pixels[..., :3] != plain.pixels[..., :3]).any()
        np.testing.assert_array_equal(guided.pixels[..., 3], plain.pixels[..., 3])
