"""Samplers on a problem whose answer is known: pictures that are normal with standard deviation SIGMA_DATA."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from impasto_server.engine import samplers as samplers_module
from impasto_server.engine.modes import Txt2Img
from impasto_server.engine.noise import NoiseSource, noise_for_batch
from impasto_server.engine.params_common import SAMPLERS as NAMES
from impasto_server.engine.params_common import SCHEDULES, TWO_CALLS
from impasto_server.engine.sampler_names import SAMPLER_INFO
from impasto_server.engine.samplers import (
    SAMPLERS,
    bound,
    guidance_scale,
    sample_ddim,
    sample_ddim_cfgpp,
    sample_euler,
    sample_euler_ancestral,
)
from impasto_server.engine.samplers_dpm import sample_dpm2_ancestral, sample_dpm_adaptive, sample_dpm_fast
from impasto_server.engine.samplers_multistep import sample_lms, sample_plms
from impasto_server.engine.samplers_restart import restart_levels, sample_restart
from impasto_server.engine.samplers_sde import sample_dpmpp_2m_sde, sample_dpmpp_2s_ancestral, sample_dpmpp_sde
from impasto_server.engine.samplers_unipc import sample_unipc
from impasto_server.engine.sampling import Churn, Denoise
from impasto_server.engine.schedule import scaled_linear, sigmas
from impasto_server.engine.step_counts import model_calls

SIGMA_DATA = 0.5
DETERMINISTIC = {"euler": 1, "ddim": 1, "heun": 2, "dpmpp_2m": 2, "unipc": 3, "dpm2": 2}
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


@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun"])
def test_mean_of_the_reverse_sde_converges_in_second_order(name):
    # dm/dsigma = 2 (m - x0) / sigma, twice the drift of the ODE; with x0 = m / (1 + sigma) that is m ~ (1 + sigma)^2.
    # (With `ideal` x0 is constant along the mean, and every order exact.)
    exact = (1.1 / 11) ** 2
    assert order_of(SAMPLERS[name][0], lambda x, sigma: x / (1 + sigma), exact) == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["dpmpp_3m_sde", "dpmpp_2m_sde_heun"])
def test_lines_of_log_sigma_are_integrated_exactly(name, eta):
    """Where x0 is a line over lambda = -log sigma, the mean is x0 under exp(-(1 + eta) lambda), by quadrature."""
    levels = torch.tensor([9.0, 7.5, 6.5, 4.0, 3.5, 1.0, 0.0], dtype=torch.float64)
    seen = []

    def line(place: torch.Tensor) -> torch.Tensor:
        return 0.4 - 1.3 * place

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(float(x))
        return line(-sigma.log()) * torch.ones_like(x)

    SAMPLERS[name][0](denoise, torch.zeros(1, 1, 1, 1, dtype=torch.float64), levels, silence, ignore, eta=eta)
    for index in range(1, 5):  # from there on there are two predictions
        start, end = (float(-levels[index + i].log()) for i in (0, 1))
        place, rate = torch.linspace(start, end, 100_001, dtype=torch.float64), 1 + eta
        moved = rate * float(torch.trapezoid(torch.exp(rate * (place - end)) * line(place), place))
        assert seen[index + 1] == pytest.approx(math.exp(rate * (start - end)) * seen[index] + moved, abs=1e-8)


def along(slope: Callable[[float], float]) -> Denoise:
    """A prediction that makes dx/dsigma a given function of sigma alone."""
    return lambda x, sigma: x - sigma * slope(float(sigma))


def states(sampler: Callable[..., torch.Tensor], slope: Callable[[float], float], levels: torch.Tensor) -> list[float]:
    """x at each level, from 0 at the first."""
    seen = []

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(float(x))
        return along(slope)(x, sigma)

    out = sampler(denoise, torch.zeros(1, 1, 1, 1, dtype=torch.float64), levels, silence, ignore)
    return [*seen, float(out)]


def test_lms_integrates_cubics_exactly():
    levels = torch.tensor([9.0, 7.5, 6.5, 4.0, 3.5, 1.0, 0.0], dtype=torch.float64)
    found = states(sample_lms, lambda s: 4 * s**3 - 3 * s**2 + 2, levels)
    for index in range(3, 6):  # from there on there are four slopes
        start, end = float(levels[index]), float(levels[index + 1])
        exact = (end**4 - end**3 + 2 * end) - (start**4 - start**3 + 2 * start)
        assert found[index + 1] - found[index] == pytest.approx(exact, rel=1e-10)
    plain = states(functools.partial(sample_lms, order=1), lambda s: s, levels)
    assert plain == pytest.approx(states(sample_euler, lambda s: s, levels))


def test_plms_integrates_cubics_over_even_levels():
    levels = torch.linspace(7, 0, 8, dtype=torch.float64)
    found = states(sample_plms, lambda s: 4 * s**3, levels)
    del found[1]  # the second look of the first step
    for index in range(3, 7):
        start, end = float(levels[index]), float(levels[index + 1])
        assert found[index + 1] - found[index] == pytest.approx(end**4 - start**4, abs=1e-9)


def test_dpm_fast_is_of_third_order():
    """Over the looks, of which a step of third order has three."""
    errors = []
    for steps in (26, 98):  # the last step, of which all of these have one, is of second order
        levels = torch.tensor([*[10.0] * (steps - 1), 0.1, 0.0], dtype=torch.float64)
        x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        out = sample_dpm_fast(ideal, x, levels, silence, ignore)
        errors.append(abs(float(out) - ((SIGMA_DATA**2 + 0.01) / (SIGMA_DATA**2 + 100)) ** 0.5))
    assert math.log(errors[0] / errors[1]) / math.log(33 / 9) == pytest.approx(3, abs=0.4)


def test_dpm_adaptive_keeps_its_tolerance():
    """On pictures of ordinary contrast; a smaller tolerance is nearer to the exact solution, by more looks."""
    levels = torch.tensor([14.6, 0.03, 0.0], dtype=torch.float64)
    start = torch.linspace(-40, 40, 256, dtype=torch.float64).reshape(1, 4, 8, 8)
    exact = start * ((SIGMA_DATA**2 + 0.03**2) / (SIGMA_DATA**2 + 14.6**2)) ** 0.5
    errors, looks = [], []
    for tolerance in (0.05, 0.002):
        calls: list[float] = []

        def counted(x: torch.Tensor, sigma: torch.Tensor, calls: list[float] = calls) -> torch.Tensor:
            calls.append(float(sigma))
            return ideal(x, sigma)

        out = sample_dpm_adaptive(counted, start, levels, silence, ignore, tolerance=tolerance)
        errors.append(float((out - exact).abs().max()))
        looks.append(len(calls))
    assert errors[1] < errors[0] < 0.05
    assert 15 <= looks[0] < looks[1] <= 400


def test_dpm_adaptive_ends_where_the_network_is_rough():
    """Errors that no step is short enough for; and numbers that are none."""
    levels = sigmas(scaled_linear(), "automatic", "dpm_adaptive", 20)
    for rough in (lambda x: torch.randn(x.shape, generator=GENERATOR) * 5, lambda x: x * math.nan):
        calls: list[float] = []

        def denoise(x: torch.Tensor, sigma: torch.Tensor, calls: list[float] = calls, rough=rough) -> torch.Tensor:
            calls.append(float(sigma))
            return rough(x)

        sample_dpm_adaptive(denoise, torch.randn(1, 4, 8, 8, generator=GENERATOR) * 14, levels, silence, ignore)
        assert len(calls) < 3000


@pytest.mark.parametrize(("steps", "times", "again"), [(19, 0, 0), (20, 1, 9), (35, 1, 9), (36, 2, 9), (60, 2, 15)])
def test_restart_goes_back_to_2_from_a_tenth(steps, times, again):
    way = restart_levels(sigmas(scaled_linear(), "karras", "restart", steps))
    assert len(way) == steps and float(way[-1][1]) == 0
    starts = [i for i in range(1, steps) if way[i][0] > way[i - 1][1]]
    assert len(starts) == times
    for first, second in itertools.pairwise([*starts, *([starts[-1] + again] if starts else [])]):
        assert second - first == again
        assert 1.2 < float(way[first][0]) < 3.2 and 0.05 < float(way[second - 1][1]) < 0.2
    for (_, after), (now, _) in itertools.pairwise(way):
        assert after == now or now > after


def test_restart_adds_what_makes_the_higher_level():
    levels = sigmas(scaled_linear(), "karras", "restart", 20).double()
    way, drawn, seen = restart_levels(levels), [], []

    def keep(like: torch.Tensor) -> torch.Tensor:
        drawn.append(torch.ones_like(like))
        return drawn[-1]

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append((float(sigma), float(x)))
        return x  # nothing moves but by the noise

    sample_restart(denoise, torch.zeros(1, 1, 1, 1, dtype=torch.float64), levels, keep, ignore)
    jump = next(i for i in range(1, 20) if way[i][0] > way[i - 1][1])
    high, low = float(way[jump][0]), float(way[jump - 1][1])
    assert len(drawn) == 1 and seen[-1][1] == pytest.approx((high**2 - low**2) ** 0.5)


def test_cfgpp_noises_again_with_the_negative_side():
    levels = torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    x = torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64)
    seen = []

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(float(x))
        return x * 0 + 0.5

    out = sample_ddim_cfgpp(denoise, x, levels, silence, ignore, unguided=lambda: torch.full_like(x, 0.2))
    # The paper's equation 11: x0 of both sides, the noise of the negative one.
    assert seen == pytest.approx([2.0, 0.5 + 1.0 * (2.0 - 0.2) / 3.0]) and float(out) == pytest.approx(0.5)
    plain = sample_ddim(denoise, x, levels, silence, ignore)
    assert torch.equal(sample_ddim_cfgpp(denoise, x, levels, silence, ignore), plain)


@pytest.mark.parametrize("name", [n for n, info in SAMPLER_INFO.items() if info.churn])
def test_churn_raises_the_level_by_what_it_adds(name):
    levels = torch.tensor([4.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    looks = []

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        looks.append((float(sigma), float(x)))
        return torch.zeros_like(x)

    def ones(like: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(like)

    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    SAMPLERS[name][0](denoise, x, levels, ones, ignore, churn=Churn(0.6, low=1.5, high=3.0, noise=1.05))
    raised = [(sigma, x) for sigma, x in looks if sigma == pytest.approx(2.4)]  # 2 (1 + 0.6 / 3)
    assert raised[0][1] == pytest.approx(1.05 * (2.4**2 - 2**2) ** 0.5)
    assert {4.0, 1.0} <= {sigma for sigma, _ in looks}  # beyond the limits nothing is added
    looks.clear()
    SAMPLERS[name][0](denoise, x, levels, ones, ignore, churn=Churn(1000.0))
    assert looks[0][0] == pytest.approx(4 * 2**0.5)  # never more than by the square root of 2


@pytest.mark.parametrize("name", [n for n, info in SAMPLER_INFO.items() if info.draws])
def test_s_noise_scales_what_is_drawn(name):
    """Where nothing is predicted but 0, the end's next-to-last state is made of noise alone."""
    levels = sigmas(scaled_linear(), "karras", name, 24).double()
    spread = []
    for strength in (1.0, 0.5):
        GENERATOR.manual_seed(7)
        seen = []

        def denoise(x: torch.Tensor, sigma: torch.Tensor, seen: list[torch.Tensor] = seen) -> torch.Tensor:
            seen.append(x)
            return torch.zeros_like(x)

        x = torch.zeros(1, 4, 16, 16, dtype=torch.float64)
        options = {} if SAMPLER_INFO[name].eta is None else {"eta": 1.0}
        SAMPLERS[name][0](denoise, x, levels, draw, ignore, s_noise=strength, **options)
        spread.append(float(seen[-1].std()))
    assert spread[0] > 0 and spread[1] == pytest.approx(spread[0] / 2, rel=1e-6)


def test_bound_hands_on_what_the_parameters_say():
    seen = {}

    def spy(*args: object, **options: object) -> None:
        seen.update(options)

    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.setitem(samplers_module._FUNCTIONS, name, spy)
        for params, expected in (
            (Txt2Img(sampler="euler_a"), {"eta": 1.0, "s_noise": 1.0}),
            (Txt2Img(sampler="ddim", s_noise=0.5), {"eta": 0.0}),
            (Txt2Img(sampler="ddim", eta=0.7), {"eta": 0.7}),
            (Txt2Img(sampler="dpmpp_2m", eta=0.7, s_churn=3.0), {}),
            (Txt2Img(sampler="dpmpp_3m_sde", eta=0.5, s_noise=1.01), {"eta": 0.5, "s_noise": 1.01}),
            (
                Txt2Img(sampler="heun", s_churn=2.0, s_tmin=0.1, s_tmax=5.0, s_noise=1.003),
                {"churn": Churn(2.0, 0.1, 5.0, 1.003)},
            ),
            (Txt2Img(sampler="euler", s_churn=2.0), {"churn": Churn(2.0, 0.0, math.inf, 1.0)}),
        ):
            seen.clear()
            bound(params, lambda: torch.zeros(1))()
            assert seen == expected
        seen.clear()
        bound(Txt2Img(sampler="ddim_cfgpp"), lambda: torch.ones(1))()
        assert seen["unguided"]() == 1 and seen["eta"] == 0.0
    assert guidance_scale(Txt2Img(sampler="ddim_cfgpp", cfg=7.5)) == 0.6
    assert guidance_scale(Txt2Img(sampler="ddim", cfg=7.5)) == 7.5


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


def test_without_noise_pairs_are_one():
    levels = sigmas(scaled_linear(), "exponential", "euler", 12).double()
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * levels[0]
    plain = sample_euler(ideal, x, levels, silence, ignore)
    torch.testing.assert_close(sample_ddim(ideal, x, levels, silence, ignore), plain)
    torch.testing.assert_close(sample_euler_ancestral(ideal, x, levels, draw, ignore, eta=0.0), plain)
    torch.testing.assert_close(
        sample_dpmpp_2m_sde(ideal, x, levels, draw, ignore, eta=0.0),
        SAMPLERS["dpmpp_2m"][0](ideal, x, levels, draw, ignore),
    )
    torch.testing.assert_close(
        sample_dpm2_ancestral(ideal, x, levels, draw, ignore, eta=0.0),
        SAMPLERS["dpm2"][0](ideal, x, levels, draw, ignore),
    )
    torch.testing.assert_close(
        sample_dpmpp_2s_ancestral(ideal, x, levels, draw, ignore, eta=0.0),
        sample_dpmpp_sde(ideal, x, levels, draw, ignore, eta=0.0),
    )
    few = sigmas(scaled_linear(), "karras", "restart", 12).double()
    torch.testing.assert_close(
        sample_restart(ideal, x, few, silence, ignore), SAMPLERS["heun"][0](ideal, x, few, draw, ignore)
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
        if name == "dpm_adaptive":  # whose steps go by the errors of all pictures
            torch.testing.assert_close(together[row : row + 1], run([seed]), rtol=0, atol=0.1 * SIGMA_DATA)
        else:
            assert torch.equal(together[row : row + 1], run([seed]))


@pytest.mark.parametrize("name", NAMES)
def test_on_step_sees_each_prediction_and_can_stop(name):
    levels = sigmas(scaled_linear(), "automatic", name, 5)
    x = torch.randn(1, 4, 8, 8) * levels[0]
    seen: list[int] = []
    watched: list[int] = []
    stop_at = 3 if name == "dpm_adaptive" else 8

    def watch(index: int, denoised: torch.Tensor) -> None:
        assert denoised.shape == x.shape
        seen.append(index)
        if len(seen) == stop_at:
            raise KeyboardInterrupt

    if name == "dpm_adaptive":  # its steps are other ones, and it says how far it is
        SAMPLERS[name][0](ideal, x, levels, draw, lambda index, denoised: watched.append(index))
        assert watched == sorted(watched) and watched[0] == 0 and 3 <= watched[-1] <= 4
    else:
        SAMPLERS[name][0](ideal, x, levels, draw, watch)
        assert seen == [0, 1, 2, 3, 4]
    with pytest.raises(KeyboardInterrupt):
        SAMPLERS[name][0](ideal, x, levels, draw, watch)
    assert len(seen) == stop_at


@pytest.mark.parametrize("name", NAMES)
def test_calls_of_the_network(name):
    calls = []
    levels = sigmas(scaled_linear(), "karras", name, 7)

    def counted(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls.append(float(sigma))
        return ideal(x, sigma)

    SAMPLERS[name][0](counted, torch.randn(1, 4, 8, 8) * levels[0], levels, draw, ignore)
    if name != "dpm_adaptive":  # which decides as it goes
        assert len(calls) == model_calls(name, 7) == {"plms": 8}.get(name, 2 * 7 - 1 if name in TWO_CALLS else 7)
    # The middle of an ancestral step is the next level but for rounding.
    falls = all(after <= now * (1 + 1e-5) for now, after in itertools.pairwise(calls))
    assert calls[-1] > 0 and (falls or name == "dpm_adaptive")


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", NAMES)
def test_every_pair_gives_numbers(name, schedule):
    levels = sigmas(scaled_linear(), schedule, name, 10)
    GENERATOR.manual_seed(1)
    x = torch.randn(4, 4, 16, 16, generator=GENERATOR) * levels[0]
    out = SAMPLERS[name][0](ideal, x, levels, draw, ignore)
    # Ten steps are few: the spread is off by up to a half of itself, twice it for UniPC over levels not made for it.
    # DPM++ 3M SDE leaves out the last level but one, which KL Optimal, that does not end at 0, can least spare.
    limit = 6 if (name, schedule) == ("dpmpp_3m_sde", "kl_optimal") else 2.5
    assert 0.4 * SIGMA_DATA < float(out.std()) < limit * SIGMA_DATA


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
