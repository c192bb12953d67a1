"""Samplers on a problem whose answer is known: pictures that are normal with standard deviation SIGMA_DATA."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from impasto_server.engine.noise import NoiseSource, noise_for_batch
from impasto_server.engine.params_common import SAMPLERS as NAMES
from impasto_server.engine.params_common import SCHEDULES, TWO_CALLS
from impasto_server.engine.samplers import SAMPLERS, sample_ddim, sample_euler, sample_euler_ancestral
from impasto_server.engine.samplers_sde import sample_dpmpp_2m_sde, sample_dpmpp_sde
from impasto_server.engine.samplers_unipc import sample_unipc
from impasto_server.engine.sampling import Denoise
from impasto_server.engine.schedule import scaled_linear, sigmas

SIGMA_DATA = 0.5
DETERMINISTIC = {"euler": 1, "ddim": 1, "heun": 2, "dpmpp_2m": 2, "unipc": 3}
"""Samplers of the probability flow ODE -> their order of convergence."""


def ideal(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The best possible prediction of x0 for normal data."""
    return x * SIGMA_DATA**2 / (SIGMA_DATA**2 + sigma**2)


def draw(like: torch.Tensor) -> torch.Tensor:
    return torch.randn(like.shape, generator=GENERATOR, dtype=like.dtype)


GENERATOR = torch.Generator()


def ignore(index: int, denoised: torch.Tensor) -> None:
    pass


def silence(like: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(like)


def order_of(sampler: Callable[..., torch.Tensor], denoise: Denoise, exact: float) -> float:
    """The slope of the error's logarithm between 32 and 128 steps, in float64.

    From x = 1 at sigma 10 to sigma 0.1 in steps even in log sigma, and to 0; `exact` is what x ought to be at 0.1.
    """
    last = float(denoise(torch.tensor(exact, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)))
    errors = []
    for steps in (32, 128):
        levels = torch.cat([torch.logspace(1, -1, steps + 1, dtype=torch.float64), torch.zeros(1)])
        out = sampler(denoise, torch.ones(1, 1, 1, 1, dtype=torch.float64), levels, silence, ignore)
        errors.append(abs(float(out) - last))
    return math.log(errors[0] / errors[1]) / math.log(4)


def test_every_declared_sampler_exists():
    assert set(SAMPLERS) == set(NAMES)


@pytest.mark.parametrize(("name", "order"), DETERMINISTIC.items())
def test_order_of_convergence_to_the_exact_solution(name, order):
    # dx/dsigma = (x - ideal) / sigma has the solution x ~ sqrt(SIGMA_DATA^2 + sigma^2).
    exact = ((SIGMA_DATA**2 + 0.01) / (SIGMA_DATA**2 + 100)) ** 0.5
    assert order_of(SAMPLERS[name][0], ideal, exact) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(("order", "variant"), [(1, "bh1"), (2, "bh1"), (2, "bh2"), (3, "bh2")])
def test_unipc_of_other_orders(order, variant):
    exact = ((SIGMA_DATA**2 + 0.01) / (SIGMA_DATA**2 + 100)) ** 0.5

    def sampler(*args):
        return sample_unipc(*args, order=order, variant=variant)

    assert order_of(sampler, ideal, exact) > order - 0.25


@pytest.mark.parametrize("sampler", [sample_dpmpp_sde, sample_dpmpp_2m_sde])
def test_mean_of_the_reverse_sde_converges_in_second_order(sampler):
    # dm/dsigma = 2 (m - x0) / sigma, twice the drift of the ODE; with x0 = m / (1 + sigma) that is m ~ (1 + sigma)^2.
    # (With `ideal` x0 is constant along the mean, and every order exact.)
    exact = (1.1 / 11) ** 2
    assert order_of(sampler, lambda x, sigma: x / (1 + sigma), exact) == pytest.approx(2, abs=0.25)


def test_the_noise_of_a_step_of_dpmpp_sde_is_one_brownian_motion():
    """With a prediction that does not depend on x, the state after one step tells the noise that was added."""
    levels = torch.tensor([4.0, 1.0], dtype=torch.float64)
    GENERATOR.manual_seed(3)
    x, draws, seen = torch.zeros(1, 1, 200, 200, dtype=torch.float64), [], []

    def keep(like: torch.Tensor) -> torch.Tensor:
        draws.append(draw(like))
        return draws[-1]

    out = sample_dpmpp_sde(lambda x, sigma: seen.append(x) or torch.zeros_like(x), x, levels, keep, ignore)
    # From 4 over 2 to 1: the way to the middle takes 2 of the 3 units of time.
    torch.testing.assert_close(seen[1], draws[0] * 3**0.5)
    torch.testing.assert_close(out, (2**0.5 * draws[0] + draws[1]) / 3**0.5 * (15 / 16) ** 0.5)
    correlation = torch.corrcoef(torch.stack([seen[1].flatten(), out.flatten()]))[0, 1]
    assert float(correlation) == pytest.approx((2 / 3) ** 0.5, abs=0.02)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "lcm"])
def test_normal_data_comes_back(name):
    GENERATOR.manual_seed(1)
    levels = sigmas(scaled_linear(), "karras", name, 60)
    x = torch.randn(64, 4, 16, 16, generator=GENERATOR) * levels[0]
    out = SAMPLERS[name][0](ideal, x, levels, draw, ignore)
    assert float(out.std()) == pytest.approx(SIGMA_DATA, rel=0.08)
    assert abs(float(out.mean())) < 0.02


def test_lcm_with_a_consistency_function():
    """What a distilled network learns: the end of the exact path. Then any number of steps gives the data."""

    def consistency(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x * SIGMA_DATA / (SIGMA_DATA**2 + sigma**2) ** 0.5

    GENERATOR.manual_seed(1)
    for steps in (1, 4):
        levels = sigmas(scaled_linear(), "automatic", "lcm", steps)
        x = torch.randn(64, 4, 16, 16, generator=GENERATOR) * levels[0]
        out = SAMPLERS["lcm"][0](consistency, x, levels, draw, ignore)
        assert float(out.std()) == pytest.approx(SIGMA_DATA, rel=0.02)


def test_without_noise_two_pairs_are_one():
    levels = sigmas(scaled_linear(), "exponential", "euler", 12).double()
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * levels[0]
    plain = sample_euler(ideal, x, levels, silence, ignore)
    torch.testing.assert_close(sample_ddim(ideal, x, levels, silence, ignore), plain)
    torch.testing.assert_close(sample_euler_ancestral(ideal, x, levels, draw, ignore, eta=0.0), plain)
    torch.testing.assert_close(
        sample_dpmpp_2m_sde(ideal, x, levels, draw, ignore, eta=0.0),
        SAMPLERS["dpmpp_2m"][0](ideal, x, levels, draw, ignore),
    )


def test_ddim_with_eta_is_euler_a():
    levels = sigmas(scaled_linear(), "uniform", "ddim", 6).double()
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64) * levels[0]
    ends = []
    for sampler in (sample_ddim, sample_euler_ancestral):
        GENERATOR.manual_seed(4)
        ends.append(sampler(ideal, x, levels, draw, ignore, eta=1.0))
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_the_same_at_any_batch_size(name):
    levels = sigmas(scaled_linear(), "automatic", name, 5)

    def run(seeds: list[int]) -> torch.Tensor:
        sources = [NoiseSource("philox", seed) for seed in seeds]
        x = torch.cat([source.draw(4, 8, 8) for source in sources]) * levels[0]
        return SAMPLERS[name][0](ideal, x, levels, noise_for_batch(sources), ignore)

    together = run([5, 6, 7])
    for row, seed in enumerate((5, 6, 7)):
        assert torch.equal(together[row : row + 1], run([seed]))


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
def test_calls_of_the_network(name):
    calls = []
    levels = sigmas(scaled_linear(), "automatic", name, 7)

    def counted(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls.append(float(sigma))
        return ideal(x, sigma)

    SAMPLERS[name][0](counted, torch.randn(1, 4, 8, 8) * levels[0], levels, draw, ignore)
    assert len(calls) == (2 * 7 - 1 if name in TWO_CALLS else 7)
    assert calls == sorted(calls, reverse=True) and calls[-1] > 0


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", NAMES)
def test_every_pair_gives_numbers(name, schedule):
    levels = sigmas(scaled_linear(), schedule, name, 10)
    GENERATOR.manual_seed(1)
    x = torch.randn(4, 4, 16, 16, generator=GENERATOR) * levels[0]
    out = SAMPLERS[name][0](ideal, x, levels, draw, ignore)
    # Ten steps are few: the spread is off by up to a half of itself, twice it for UniPC over levels not made for it.
    assert 0.4 * SIGMA_DATA < float(out.std()) < 2.5 * SIGMA_DATA


def test_unipcs_own_schedule_suits_it():
    x = torch.full((1, 1, 1, 1), (14.6146**2 + SIGMA_DATA**2) ** 0.5)
    error = {
        schedule: abs(
            float(sample_unipc(ideal, x, sigmas(scaled_linear(), schedule, "unipc", 10), silence, ignore)) / SIGMA_DATA
            - 1
        )
        for schedule in ("automatic", "uniform")
    }
    assert error["automatic"] < 0.25 * error["uniform"]


@pytest.mark.parametrize("name", NAMES)
def test_one_step(name):
    levels = sigmas(scaled_linear(), "automatic", name, 1)
    x = torch.randn(1, 4, 8, 8) * levels[0]
    out = SAMPLERS[name][0](ideal, x, levels, draw, ignore)
    torch.testing.assert_close(out, ideal(x, levels[0]), rtol=1e-4, atol=1e-5)
