"""Soft inpainting: A1111's formulas on numbers that can be worked out, and what users rely on in the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from impasto_protocol.geometry import Size
from impasto_server.engine.infotext import read_infotext
from impasto_server.engine.inpaint import compose_layer
from impasto_server.engine.masks import layer_alpha
from impasto_server.engine.modes import Inpaint, parse_params
from impasto_server.engine.params_soft import Soft
from impasto_server.engine.planning import resolve_mask
from impasto_server.engine.run import Engine
from impasto_server.engine.soft import changed_alpha, mix, percentile_mean, soft_denoise, soft_mask
from PIL import Image

from tests.engine.device import DEVICE
from tests.engine.test_run import SELECTED, alpha_of, run, selection_job
from tests.tiny import NATIVE_SIZE, write_tiny_checkpoint


def grey(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value)


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values)[None, :, None, None]


def test_a_mixture_has_the_length_of_the_power_mean() -> None:
    a, b = vector(3.0, 4.0, 0.0, 0.0), vector(0.0, 0.0, 0.0, 10.0)
    mixed = mix(a, b, grey(0.25), 4.0)
    straight = 0.75 * a + 0.25 * b
    length = (0.75 * 5.0**4 + 0.25 * 10.0**4) ** (1 / 4)
    assert float(mixed.norm()) == pytest.approx(length, rel=1e-5)
    torch.testing.assert_close(mixed / mixed.norm(), straight / straight.norm())
    # High powers take the longer one, and do not overflow.
    assert float(mix(a * 1e3, b * 1e3, grey(0.5), 32.0).norm()) == pytest.approx(1e4 * 0.5 ** (1 / 32), rel=1e-4)
    assert torch.equal(mix(a, b, grey(0.0), 4.0), a) and torch.equal(mix(a, b, grey(1.0), 4.0), b)
    assert torch.isfinite(mix(a, -a, grey(0.5), 4.0)).all(), "they cancel out"


def test_grey_places_are_let_go_as_the_noise_falls() -> None:
    shares = []
    a, b = vector(1.0, 0.0), vector(0.0, 1.0)
    for sigma in (10.0, 1.0, 0.1):
        blended = soft_denoise(lambda x, s: b, grey(0.5), a, Soft(soft_contrast=1.0))
        mixed = blended(a, torch.tensor(sigma))
        shares.append(float(mixed[0, 1] / mixed.sum()))
    assert shares == pytest.approx([0.5 ** (sigma * 0.5) for sigma in (10.0, 1.0, 0.1)], rel=1e-4)
    for mask, side in ((0.0, a), (1.0, b)):
        for params in (Soft(), Soft(soft_preservation=0.0)):
            assert torch.equal(soft_denoise(lambda x, s: b, grey(mask), a, params)(a, torch.tensor(3.0)), side)


def test_the_mask_keeps_its_greys() -> None:
    strength = np.zeros((16, 16), np.float32)
    strength[:, 4:8] = 1.0
    assert soft_mask(strength, 2, 2)[0, 0].tolist() == [[0.5, 0.0], [0.5, 0.0]]


def test_percentiles_of_a_neighbourhood() -> None:
    flat = np.full((6, 7), 2.5, np.float32)
    np.testing.assert_allclose(percentile_mean(flat, 0.25, 0.75), flat, rtol=1e-6)
    spot = np.zeros((9, 9), np.float32)
    spot[4, 4] = 1.0
    # The centre of a 5 x 5 Gaussian has some 9 % of it: nearly all of the greatest tenth, and nothing of the middle.
    weight = 1 / sum(np.exp(-(x * x + y * y) / 4.5) for x in range(-2, 3) for y in range(-2, 3))
    top = percentile_mean(spot, 0.9, 1.0)
    assert top[4, 4] == pytest.approx(weight / 0.1, rel=1e-5) and top[1, 1] == 0
    assert not percentile_mean(spot, 0.25, 0.75).any()


def test_the_alpha_follows_what_has_changed() -> None:
    size = Size(128, 64)
    original = torch.zeros(4, 8, 16)
    result = original.clone()
    result[:, :, 8:] = 2.0  # a distance of 4
    alpha = changed_alpha(result, original, torch.ones(8, 16), Soft(), size)
    assert alpha.shape == (64, 128) and alpha[:, :16].max() == 0 and alpha[:, 100:].min() > 250
    half = changed_alpha(original + 0.25, original, torch.ones(8, 16), Soft(), size)
    assert abs(int(half[32, 64]) - 127) <= 1, "at the threshold it shows by half"
    assert changed_alpha(original + 0.25, original, torch.ones(8, 16), Soft(soft_threshold=2.0), size).max() < 10
    assert changed_alpha(original + 0.25, original, torch.ones(8, 16), Soft(soft_threshold=0.0), size).min() > 250
    # With the influence of the mask what is selected shows sooner than what is hardly.
    mask = torch.cat([torch.full((8, 8), 0.01), torch.ones(8, 8)], 1)
    led = changed_alpha(original + 0.25, original, mask, Soft(soft_mask_influence=1.0), size)
    assert led[32, 16] < 30 and led[32, 112] > 250


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: Any) -> str:
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(DEVICE, "fp32")


def soft_job(checkpoint: str, **params: Any) -> Any:
    job = selection_job(checkpoint, soft=True, **params)
    feathered = np.array(Image.fromarray(job.mask).resize((9, 9)).resize(job.mask.shape[::-1]))
    return replace(job, mask=feathered)


@pytest.mark.parametrize("exact", [False, True])
def test_nothing_shows_beyond_the_reach(engine: Engine, checkpoint: str, exact: bool) -> None:
    job = soft_job(checkpoint, exact=exact)
    layer, _, _ = run(engine, job)
    alpha = alpha_of(layer, job.box)
    most = layer_alpha(job.mask, resolve_mask(job.params, SELECTED, NATIVE_SIZE), exact)
    assert (alpha[most == 0] == 0).all() and alpha.any()
    if exact:
        assert (alpha > most).any(), "grey places are mixed already and do not fade twice"
    else:
        assert (alpha <= most).all()


def test_it_is_another_picture_and_told(engine: Engine, checkpoint: str) -> None:
    job = soft_job(checkpoint, strength=0.8)
    hard, _, _ = run(engine, replace(job, params=replace(job.params, soft=False)))
    layer, _, _ = run(engine, job)
    assert (layer.alpha == "soft" and layer.pixels.shape != hard.pixels.shape) or (layer.pixels != hard.pixels).any()
    text = layer.info["parameters"]
    assert (
        "Soft inpainting enabled: True, Soft inpainting schedule bias: 1, Soft inpainting preservation strength: 0.5"
        in text
    )
    assert "Soft inpainting" not in hard.info["parameters"]
    read = parse_params("inpaint", read_infotext(text).params)
    assert isinstance(read, Inpaint) and read.soft and read.soft_contrast == 4.0
    again, _, _ = run(engine, replace(job, params=Inpaint(**layer.info["params"])))
    np.testing.assert_array_equal(again.pixels, layer.pixels)


def test_inpainting_checkpoints_too(engine: Engine, tmp_path: Any) -> None:
    path = str(write_tiny_checkpoint(tmp_path / "inpaint.safetensors", channels=9))
    layer, _, _ = run(engine, soft_job(path))
    assert layer.pixels.size


def test_a_weakened_alpha() -> None:
    selection = np.full((4, 4), 255, np.uint8)
    numbers = resolve_mask(Inpaint(exact=True), SELECTED, 64)
    pixels, _ = compose_layer(
        np.zeros((4, 4, 3), np.uint8), SELECTED, selection, numbers, True, np.full((4, 4), 100, np.uint8)
    )
    assert (pixels[..., 3] == 100).all()
