"""Noise levels against known numbers and stock schedulers."""

from __future__ import annotations

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from impasto_server.engine.modes import SAMPLERS, SCHEDULES
from impasto_server.engine.schedule import resolve_schedule, scaled_linear, sigmas, trim

from tests.golden.tiny import BETAS

TABLE = scaled_linear()


def test_table_of_stable_diffusion():
    assert torch.equal(TABLE.alphas_cumprod, EulerDiscreteScheduler(**BETAS).alphas_cumprod)
    assert pytest.approx(0.0292, abs=1e-4) == TABLE.sigma_min
    assert pytest.approx(14.6146, abs=1e-4) == TABLE.sigma_max


def test_sigma_and_timestep_are_inverse():
    timesteps = torch.tensor([0.0, 0.25, 1.0, 499.5, 998.9, 999.0])
    back = torch.stack([TABLE.timestep(s) for s in TABLE.sigma(timesteps)])
    torch.testing.assert_close(back, timesteps, atol=2e-2, rtol=0)
    assert float(TABLE.timestep(torch.tensor(1e-6))) == 0
    assert float(TABLE.timestep(torch.tensor(1e6))) == 999


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 20, 150])
def test_levels_fall_to_zero(sampler, schedule, steps):
    levels = sigmas(TABLE, schedule, sampler, steps)
    assert levels.dtype == torch.float32 and levels.shape == (steps + 1,)
    assert (levels[1:] < levels[:-1]).all() and levels[-1] == 0
    assert float(levels[0]) == pytest.approx(TABLE.sigma_max, rel=1e-5)
    if steps > 1:
        assert float(levels[-2]) == pytest.approx(TABLE.sigma_min, rel=1e-4)


def test_automatic_is_the_samplers_own():
    assert [resolve_schedule("automatic", s) for s in ("dpmpp_2m", "euler", "euler_a")] == [
        "karras",
        "uniform",
        "uniform",
    ]
    assert resolve_schedule("karras", "euler") == "karras"
    assert torch.equal(sigmas(TABLE, "automatic", "dpmpp_2m", 9), sigmas(TABLE, "karras", "dpmpp_2m", 9))


def test_karras_levels_are_those_of_diffusers():
    stock = DPMSolverMultistepScheduler(**BETAS, use_karras_sigmas=True)
    stock.set_timesteps(12)
    # diffusers' default leaves out the last row of the table, so only the shape of the curve is compared there.
    assert float((sigmas(TABLE, "karras", "euler", 12) / stock.sigmas)[:-1].sub(1).abs().max()) < 1e-2


def test_uniform_levels_are_those_of_stock_euler():
    stock = EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace")
    stock.set_timesteps(10)
    torch.testing.assert_close(sigmas(TABLE, "uniform", "euler", 10), stock.sigmas, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize(("strength", "steps"), [(0.0, 1), (0.5, 11), (0.75, 16), (0.999, 20), (1.0, 20)])
def test_trim_by_strength(strength, steps):
    levels = sigmas(TABLE, "karras", "dpmpp_2m", 20)
    trimmed = trim(levels, strength)
    assert len(trimmed) == steps + 1
    assert torch.equal(trimmed, levels[-(steps + 1) :])


def test_unknown_schedule():
    with pytest.raises(ValueError):
        sigmas(TABLE, "linear", "euler", 4)
