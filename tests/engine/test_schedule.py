"""Noise levels against known numbers and stock schedulers."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from impasto_server.engine.params_common import SAMPLERS, SCHEDULES
from impasto_server.engine.schedule import beta_quantile, resolve_schedule, scaled_linear, sigmas, trim

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


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 20, 150])
def test_levels_fall_to_zero(schedule, steps):
    levels = sigmas(TABLE, schedule, "dpmpp_2m", steps)
    assert levels.dtype == torch.float32 and levels.shape == (steps + 1,)
    assert (levels[1:] < levels[:-1]).all() and levels[-1] == 0
    assert float(levels[0]) == pytest.approx(TABLE.sigma_max, rel=1e-5)
    if steps > 1 and schedule not in ("sgm_uniform", "simple"):
        assert float(levels[-2]) == pytest.approx(TABLE.sigma_min, rel=1e-4)


def test_automatic_is_the_samplers_own():
    own = {sampler: resolve_schedule("automatic", sampler) for sampler in SAMPLERS}
    assert own == {
        "euler": "uniform",
        "euler_a": "uniform",
        "heun": "uniform",
        "dpmpp_2m": "karras",
        "dpmpp_sde": "karras",
        "dpmpp_2m_sde": "exponential",
        "ddim": "uniform",
        "unipc": "sgm_uniform",
        "lcm": "uniform",
    }
    assert set(own.values()) <= set(SCHEDULES)  # so that what ran can be asked for by name
    assert resolve_schedule("karras", "euler") == "karras"
    assert torch.equal(sigmas(TABLE, "automatic", "dpmpp_2m", 9), sigmas(TABLE, "karras", "dpmpp_2m", 9))


def test_normal_is_uniform():
    assert torch.equal(sigmas(TABLE, "normal", "euler", 13), sigmas(TABLE, "uniform", "euler", 13))


def test_exponential_levels_are_those_of_diffusers():
    stock = EulerDiscreteScheduler(**BETAS, use_exponential_sigmas=True)
    stock.set_timesteps(12)
    ours = sigmas(TABLE, "exponential", "euler", 12)
    steps = (ours[1:-1] / ours[:-2]).log()
    torch.testing.assert_close(steps, steps[:1].expand(11), rtol=1e-4, atol=0)
    # diffusers starts from its own first and last timestep, so its ends are compared with its ends.
    own = stock.sigmas[0] * (stock.sigmas[-2] / stock.sigmas[0]) ** (torch.arange(12) / 11)
    torch.testing.assert_close(stock.sigmas[:-1], own, rtol=1e-5, atol=0)


def test_sgm_uniform_levels_stop_a_step_earlier():
    ours = sigmas(TABLE, "sgm_uniform", "euler", 10)
    assert torch.equal(ours[:-1], sigmas(TABLE, "uniform", "euler", 11)[:-2])


def test_simple_levels_are_rows_of_the_table():
    ours = sigmas(TABLE, "simple", "euler", 3)
    assert torch.equal(ours, torch.stack([TABLE.sigmas[999], TABLE.sigmas[666], TABLE.sigmas[333], torch.tensor(0.0)]))


def test_beta_quantiles():
    wanted = torch.linspace(0, 1, 41, dtype=torch.float64)
    # The arcsine distribution and the uniform one are beta distributions whose quantiles have a closed form.
    torch.testing.assert_close(beta_quantile(wanted, 0.5), torch.sin(torch.pi / 2 * wanted) ** 2, rtol=0, atol=1e-12)
    torch.testing.assert_close(beta_quantile(wanted, 1.0), wanted, rtol=0, atol=1e-12)
    # And at 0.6 the density, integrated numerically between two quantiles, gives back the probability between them.
    low, high = beta_quantile(torch.tensor([0.1, 0.7], dtype=torch.float64), 0.6)
    t = torch.linspace(float(low), float(high), 200_001, dtype=torch.float64)
    density = (t * (1 - t)) ** -0.4 * math.gamma(1.2) / math.gamma(0.6) ** 2
    assert float(torch.trapezoid(density, t)) == pytest.approx(0.6, abs=1e-9)


def test_beta_levels_are_dense_at_both_ends():
    levels = sigmas(TABLE, "beta", "euler", 21)[:-1]
    gaps = levels[:-1] - levels[1:]
    assert float(gaps[0]) < 0.4 * float(gaps[9]) and float(gaps[-1]) < 0.4 * float(gaps[9])
    torch.testing.assert_close(levels + levels.flip(0), torch.full((21,), TABLE.sigma_max + TABLE.sigma_min))


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
