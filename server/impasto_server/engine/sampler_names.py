"""Samplers and schedules by name: A1111's titles, each sampler's own schedule, what it takes. No torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "SAMPLERS",
    "SAMPLER_INFO",
    "SCHEDULES",
    "SCHEDULE_TITLES",
    "TWO_CALLS",
    "SamplerInfo",
    "resolve_schedule",
    "schedule_name",
    "split_sampler",
]


@dataclass(frozen=True)
class SamplerInfo:
    """What is known of a sampler without running it.

    `schedule` is what "automatic" means; `eta` what "auto" means, None where it takes none; `two_calls` where it looks
    at the network twice in a step, by which A1111 counts the calls of prompts that change; `discards` where it leaves
    out the last level but one; `brownian` where its noise is that of a motion, see `Sampled.sde_noise`; `churn` where
    it takes `s_churn`; `draws` where it draws noise without being asked; `unguided` where it wants the prediction of
    the negative side by itself; `carries` where slopes from before, or within a long step, go on to count, so that a
    pixel whose prediction jumps is led astray; `rests` where it ends at the lowest level, not at 0.
    """

    title: str
    paper: str
    schedule: str = "uniform"
    eta: float | None = None
    two_calls: bool = False
    discards: bool = False
    brownian: bool = False
    churn: bool = False
    draws: bool = False
    unguided: bool = False
    carries: bool = False
    rests: bool = False


SAMPLER_INFO: Mapping[str, SamplerInfo] = {
    "euler": SamplerInfo("Euler", "Karras et al. 2022, algorithm 2", churn=True),
    "euler_a": SamplerInfo("Euler a", "Song et al. 2021 (DDIM), equation 16", eta=1.0, draws=True),
    "heun": SamplerInfo("Heun", "Karras et al. 2022, algorithm 2", two_calls=True, churn=True),
    "dpmpp_2m": SamplerInfo("DPM++ 2M", "Lu et al. 2022 (DPM-Solver++), algorithm 2", "karras"),
    "dpmpp_sde": SamplerInfo(
        "DPM++ SDE", "Lu et al. 2022, sections 4 and 5", "karras", eta=1.0, two_calls=True, brownian=True, draws=True
    ),
    "dpmpp_2m_sde": SamplerInfo(
        "DPM++ 2M SDE", "Lu et al. 2022, section 5", "exponential", eta=1.0, brownian=True, draws=True
    ),
    "dpmpp_2m_sde_heun": SamplerInfo(
        "DPM++ 2M SDE Heun", "Lu et al. 2022, section 5", "exponential", eta=1.0, brownian=True, draws=True
    ),
    "dpmpp_2s_a": SamplerInfo(
        "DPM++ 2S a", "Lu et al. 2022, algorithm 1", "karras", eta=1.0, two_calls=True, draws=True
    ),
    "dpmpp_3m_sde": SamplerInfo(
        "DPM++ 3M SDE", "Lu et al. 2022, section 5", "exponential", eta=1.0, discards=True, brownian=True, draws=True
    ),
    "lms": SamplerInfo("LMS", "Adams and Bashforth, order 4", carries=True),
    "dpm2": SamplerInfo(
        "DPM2", "Lu et al. 2022 (DPM-Solver), algorithm 1", "karras", two_calls=True, discards=True, churn=True
    ),
    "dpm2_a": SamplerInfo(
        "DPM2 a",
        "Lu et al. 2022 (DPM-Solver), algorithm 1",
        "karras",
        eta=1.0,
        two_calls=True,
        discards=True,
        draws=True,
    ),
    "dpm_fast": SamplerInfo(
        "DPM fast", "Lu et al. 2022 (DPM-Solver), section 3.4", eta=1.0, draws=True, carries=True, rests=True
    ),
    "dpm_adaptive": SamplerInfo(
        "DPM adaptive", "Lu et al. 2022 (DPM-Solver), appendix C", eta=1.0, draws=True, carries=True, rests=True
    ),
    "restart": SamplerInfo("Restart", "Xu et al. 2023, algorithm 2", "karras", two_calls=True, draws=True),
    "ddim": SamplerInfo("DDIM", "Song et al. 2021, equation 12", eta=0.0),
    "ddim_cfgpp": SamplerInfo("DDIM CFG++", "Chung et al. 2024, algorithm 2", "ddim", eta=0.0, unguided=True),
    "plms": SamplerInfo("PLMS", "Liu et al. 2022 (PNDM), equation 12", "ddim", carries=True),
    # A1111's time_uniform and diffusers' default look at the network at these levels; over the uniform ones the last
    # step but one is too long for a third-order method.
    "unipc": SamplerInfo("UniPC", "Zhao et al. 2023", "sgm_uniform"),
    "lcm": SamplerInfo("LCM", "Luo et al. 2023, algorithm 3", draws=True),
}
"""Name -> what is known of it, in the order in which panels show them."""

SAMPLERS = tuple(SAMPLER_INFO)

TWO_CALLS = tuple(name for name, info in SAMPLER_INFO.items() if info.two_calls)
"""Samplers that look twice at every step but the last."""

SCHEDULE_TITLES: Mapping[str, str] = {
    "automatic": "Automatic",
    "uniform": "Uniform",
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Polyexponential",
    "sgm_uniform": "SGM Uniform",
    "kl_optimal": "KL Optimal",
    "align_your_steps": "Align Your Steps",
    "simple": "Simple",
    "normal": "Normal",
    "ddim": "DDIM",
    "beta": "Beta",
}
"""Name -> A1111's title."""

SCHEDULES = tuple(SCHEDULE_TITLES)

_OLD_SAMPLERS = {
    "plms": "plms",
    "k_euler_ancestral": "euler_a",
    "euler_ancestral": "euler_a",
    "dpm_2": "dpm2",
    "dpm_2_a": "dpm2_a",
    "dpm_2_ancestral": "dpm2_a",
    "dpmpp_2s_ancestral": "dpmpp_2s_a",
    "dpm_ad": "dpm_adaptive",
    "uni_pc": "unipc",
}
"""Names of A1111's interface and of k-diffusion that differ from ours by more than case and signs."""

_OLD_SCHEDULES = {"ka": "karras", "sgm": "sgm_uniform", "ays": "align_your_steps", "ddim_uniform": "ddim"}


def resolve_schedule(schedule: str, sampler: str) -> str:
    """The schedule that really runs: "automatic" becomes the sampler's own."""
    return SAMPLER_INFO[sampler].schedule if schedule == "automatic" else schedule


def split_sampler(name: str, schedule: str = "") -> tuple[str, str] | None:
    """Our (sampler, schedule) for names as A1111 writes or wrote them, None where one of them is unknown.

    Titles ("DPM++ 2M"), our names, k-diffusion's ("k_dpmpp_2m_ka"), and the old titles that name both
    ("DPM++ 2M SDE Exponential"); a schedule beside the name (its title or ours) goes before one within it, and without
    any it is "automatic", but for DDIM: there A1111 has one set of timesteps, our schedule "ddim".
    """
    wanted = _simple(schedule)
    beside = _schedule_of(wanted) if wanted else ""
    words = _simple(name).removeprefix("k_").split("_")
    for cut in range(len(words), 0, -1):
        sampler = _sampler_of("_".join(words[:cut]))
        within = _schedule_of("_".join(words[cut:])) if cut < len(words) else ""
        if sampler is None or within is None or beside is None:
            continue
        chosen = (beside if beside != "automatic" else "") or within or "automatic"
        return sampler, "ddim" if sampler == "ddim" and chosen == "automatic" and name != sampler else chosen
    return None


def schedule_name(text: str) -> str | None:
    """Our name of a schedule for its title or name, None where there is none."""
    return _schedule_of(_simple(text))


def _simple(text: str) -> str:
    """Lower case, "++" as "pp", everything else that is no letter or digit as one underscore."""
    return re.sub(r"[^a-z0-9]+", "_", text.strip().lower().replace("++", "pp")).strip("_")


def _sampler_of(simple: str) -> str | None:
    for name, info in SAMPLER_INFO.items():
        if simple in (name, _simple(info.title)):
            return name
    return _OLD_SAMPLERS.get(simple)


def _schedule_of(simple: str) -> str | None:
    for name, title in SCHEDULE_TITLES.items():
        if simple in (name, _simple(title)):
            return name
    return _OLD_SCHEDULES.get(simple)
