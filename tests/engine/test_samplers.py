"""Samplers on a problem whose answer is known: pictures that are normal with standard deviation SIGMA_DATA."""

from __future__ import annotations

import pytest
import torch
from impasto_server.engine.modes import SAMPLERS as NAMES
from impasto_server.engine.samplers import SAMPLERS, sample_euler, sample_euler_ancestral
from impasto_server.engine.schedule import scaled_linear, sigmas

SIGMA_DATA = 0.5


def ideal(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The best possible prediction of x0 for normal data."""
    return x * SIGMA_DATA**2 / (SIGMA_DATA**2 + sigma**2)


def draw(like: torch.Tensor) -> torch.Tensor:
    return torch.randn(like.shape, generator=GENERATOR, dtype=like.dtype)


GENERATOR = torch.Generator()


def ignore(index: int, denoised: torch.Tensor) -> None:
    pass


def test_every_declared_sampler_exists():
    assert set(SAMPLERS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_normal_data_comes_back(name):
    GENERATOR.manual_seed(1)
    levels = sigmas(scaled_linear(), "karras", name, 60)
    x = torch.randn(64, 4, 16, 16, generator=GENERATOR) * levels[0]
    out = SAMPLERS[name][0](ideal, x, levels, draw, ignore)
    assert float(out.std()) == pytest.approx(SIGMA_DATA, rel=0.08)
    assert abs(float(out.mean())) < 0.02


def test_second_order_beats_first_order():
    levels = sigmas(scaled_linear(), "karras", "euler", 12)
    x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(2)) * levels[0]
    # The exact solution of dx/dsigma = (x - ideal) / sigma.
    exact = x * (SIGMA_DATA**2 / (SIGMA_DATA**2 + levels[0] ** 2)) ** 0.5
    error = {n: float((SAMPLERS[n][0](ideal, x, levels, draw, ignore) - exact).abs().max()) for n in SAMPLERS}
    assert error["dpmpp_2m"] < 0.5 * error["euler"]


def test_ancestral_without_eta_is_euler():
    levels = sigmas(scaled_linear(), "uniform", "euler", 6)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)) * levels[0]
    plain = sample_euler(ideal, x, levels, draw, ignore)
    torch.testing.assert_close(sample_euler_ancestral(ideal, x, levels, draw, ignore, eta=0.0), plain)


@pytest.mark.parametrize("name", NAMES)
def test_on_step_sees_each_prediction_and_can_stop(name):
    levels = sigmas(scaled_linear(), "automatic", name, 5)
    x = torch.randn(1, 4, 8, 8) * levels[0]
    seen: list[int] = []

    def watch(index: int, denoised: torch.Tensor) -> None:
        assert denoised.shape == x.shape
        seen.append(index)
        if len(seen) == 8:
            raise KeyboardInterrupt

    SAMPLERS[name][0](ideal, x, levels, draw, watch)
    assert seen == [0, 1, 2, 3, 4]
    with pytest.raises(KeyboardInterrupt):
        SAMPLERS[name][0](ideal, x, levels, draw, watch)
    assert len(seen) == 8


@pytest.mark.parametrize("name", NAMES)
def test_one_step(name):
    levels = sigmas(scaled_linear(), "automatic", name, 1)
    x = torch.randn(1, 4, 8, 8) * levels[0]
    out = SAMPLERS[name][0](ideal, x, levels, draw, ignore)
    torch.testing.assert_close(out, ideal(x, levels[0]), rtol=1e-4, atol=1e-5)
