"""Noise levels against known numbers and stock schedulers."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from impasto_server.engine.modes import Txt2Img
from impasto_server.engine.params_common import SAMPLERS, SCHEDULES
from impasto_server.engine.schedule import (
    beta_quantile,
    resolve_schedule,
    run_levels,
    scaled_linear,
    sigmas,
    trim,
    zero_terminal_snr,
)
from impasto_server.engine.step_counts import level_count, run_steps, scheduled_steps

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
    for sampler in ("dpmpp_2m", "dpmpp_3m_sde"):  # the second leaves out a level
        levels = sigmas(TABLE, schedule, sampler, steps)
        count = level_count(schedule, sampler, steps)
        assert levels.dtype == torch.float32 and levels.shape == (count + 1,)
        assert (levels[1:] < levels[:-1]).all()
        end = TABLE.sigma_min if schedule == "kl_optimal" else 0
        assert float(levels[-1]) == pytest.approx(end, rel=1e-4)
        if schedule != "ddim":
            assert count == steps and float(levels[0]) == pytest.approx(TABLE.sigma_max, rel=1e-4)
    levels = sigmas(TABLE, schedule, "dpmpp_2m", steps)
    if steps > 1 and schedule not in ("sgm_uniform", "simple", "ddim", "kl_optimal"):
        assert float(levels[-2]) == pytest.approx(TABLE.sigma_min, rel=1e-2 if schedule == "align_your_steps" else 1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_discarding_leaves_out_the_last_level_but_one(schedule):
    longer = (
        sigmas(TABLE, schedule, "dpmpp_2m", 13) if schedule != "automatic" else sigmas(TABLE, "karras", "euler", 13)
    )
    assert torch.equal(sigmas(TABLE, schedule, "dpm2", 12), torch.cat([longer[:-2], longer[-1:]]))


def test_ddims_timesteps():
    # A1111's and diffusers' ("leading", offset 1) for 20 steps; where 1000 is no multiple of the steps there are more.
    stock = DDIMScheduler(**BETAS)
    stock.set_timesteps(20)
    ours = sigmas(TABLE, "ddim", "ddim", 20)
    assert torch.equal(ours[:-1], TABLE.sigmas[stock.timesteps])
    assert [level_count("ddim", "euler", n) for n in (15, 20, 30, 50)] == [16, 20, 31, 50]
    assert len(sigmas(TABLE, "ddim", "euler", 30)) == 32


def test_kl_optimal_levels():
    ours = sigmas(TABLE, "kl_optimal", "euler", 10).double()
    steps = ours.atan().diff()
    torch.testing.assert_close(steps, steps[:1].expand(10), rtol=1e-4, atol=0)


def test_align_your_steps_levels():
    known = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
    assert sigmas(TABLE, "align_your_steps", "euler", 11).tolist() == pytest.approx([*known, 0.0])
    between = sigmas(TABLE, "align_your_steps", "euler", 21)
    assert between[:-1:2].tolist() == pytest.approx(known)
    assert float(between[1]) == pytest.approx((14.615 * 6.475) ** 0.5)


def test_polyexponential_to_the_power_1_is_exponential():
    levels = [sigmas(TABLE, name, "euler", 13) for name in ("polyexponential", "exponential")]
    assert torch.equal(*levels)


def test_zero_terminal_snr():
    # Lin et al. 2023, algorithm 1, as it stands there, but for the last row.
    roots = TABLE.alphas_cumprod.double().sqrt()
    wanted = roots - roots[-1]
    wanted = (wanted * (roots[0] / wanted[0])) ** 2
    found = zero_terminal_snr(TABLE)
    torch.testing.assert_close(found.alphas_cumprod[:-1].double(), wanted[:-1], rtol=1e-5, atol=1e-9)
    assert float(found.sigmas[0]) == pytest.approx(TABLE.sigma_min, rel=1e-5)
    assert found.sigma_max == pytest.approx(4518.7, rel=1e-3)
    stock = rescale_zero_terminal_snr(EulerDiscreteScheduler(**BETAS).betas)
    torch.testing.assert_close(found.alphas_cumprod[:-1], torch.cumprod(1 - stock, 0)[:-1], rtol=1e-3, atol=1e-7)
    levels = sigmas(found, "karras", "dpmpp_2m", 20)
    assert (levels[1:] < levels[:-1]).all() and torch.isfinite(levels).all()


@pytest.mark.parametrize(("strength", "total"), [(0.5, 40), (0.75, 26), (0.999, 20), (1.0, 20), (0.01, 1000)])
def test_exact_steps(strength, total):
    params = Txt2Img(exact_steps=True)
    assert run_steps(params, strength) == 20 and scheduled_steps(20, strength) == total
    levels, highest = run_levels(TABLE, params, strength)
    whole = sigmas(TABLE, "karras", "dpmpp_2m", total)
    assert torch.equal(levels, whole[-21:]) and highest == whole.max()


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpm2", "plms", "ddim"])
@pytest.mark.parametrize("schedule", ["automatic", "ddim", "kl_optimal", "simple"])
@pytest.mark.parametrize("exact", [False, True])
def test_plans_count_the_steps_that_run(sampler, schedule, exact):
    for steps in (1, 7, 30, 150):
        params = Txt2Img(sampler=sampler, schedule=schedule, steps=steps, exact_steps=exact)
        for strength in (0.0, 0.01, 0.3, 0.75, 1.0):
            levels, highest = run_levels(TABLE, params, strength)
            assert highest >= levels.max()
            assert len(levels) - 1 == run_steps(params, strength)
            assert (levels[1:] < levels[:-1]).all()


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
        "dpmpp_2m_sde_heun": "exponential",
        "dpmpp_2s_a": "karras",
        "dpmpp_3m_sde": "exponential",
        "lms": "uniform",
        "dpm2": "karras",
        "dpm2_a": "karras",
        "dpm_fast": "uniform",
        "dpm_adaptive": "uniform",
        "restart": "karras",
        "ddim_cfgpp": "ddim",
        "plms": "ddim",
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
