"""Names of samplers and schedules, ours and A1111's of all times."""

from __future__ import annotations

from pathlib import Path

import pytest
from impasto_client.wording import pretty
from impasto_server.engine.sampler_names import SAMPLER_INFO, SAMPLERS, SCHEDULE_TITLES, schedule_name, split_sampler

A1111 = """DPM++ 2M; DPM++ SDE; DPM++ 2M SDE; DPM++ 2M SDE Heun; DPM++ 2S a; DPM++ 3M SDE; Euler a; Euler; LMS; Heun;
DPM2; DPM2 a; DPM fast; DPM adaptive; Restart; DDIM; DDIM CFG++; PLMS; UniPC; LCM"""
SCHEDULES = """Automatic; Uniform; Karras; Exponential; Polyexponential; SGM Uniform; KL Optimal; Align Your Steps;
Simple; Normal; DDIM; Beta"""


def titles(text: str) -> set[str]:
    return {" ".join(title.split()) for title in text.split(";")}


def test_all_of_a1111_are_here():
    assert {info.title for info in SAMPLER_INFO.values()} == titles(A1111)
    assert set(SCHEDULE_TITLES.values()) == titles(SCHEDULES)


@pytest.mark.parametrize("name", SAMPLERS)
def test_titles_and_names(name):
    title = SAMPLER_INFO[name].title
    plain = "ddim" if name == "ddim" else "automatic"
    assert split_sampler(title) == split_sampler(title.upper()) == (name, plain)
    assert split_sampler(name) == (name, "automatic")
    for schedule, schedule_title in SCHEDULE_TITLES.items():
        wanted = plain if schedule == "automatic" else schedule
        assert split_sampler(title, schedule_title) == split_sampler(f"{title} {schedule_title}") == (name, wanted)
        assert split_sampler(name, schedule) == (name, schedule)


@pytest.mark.parametrize(
    ("old", "sampler", "schedule"),
    [
        ("k_dpmpp_2m_ka", "dpmpp_2m", "karras"),
        ("k_euler_ancestral", "euler_a", "automatic"),
        ("euler_ancestral", "euler_a", "automatic"),
        ("k_dpm_2_a_ka", "dpm2_a", "karras"),
        ("dpmpp_2s_ancestral", "dpmpp_2s_a", "automatic"),
        ("uni_pc", "unipc", "automatic"),
        ("  dpm++ 3m  sde exponential ", "dpmpp_3m_sde", "exponential"),
        ("DPM++ 2M SDE SGMUniform", None, None),
        ("Euler Karras Karras", None, None),
        ("", None, None),
        ("Karras", None, None),
    ],
)
def test_old_names(old, sampler, schedule):
    assert split_sampler(old) == ((sampler, schedule) if sampler else None)


def test_a_schedule_beside_goes_before_one_within():
    assert split_sampler("DPM++ 2M Karras", "Exponential") == ("dpmpp_2m", "exponential")
    assert split_sampler("DPM++ 2M Karras", "Automatic") == ("dpmpp_2m", "karras")
    assert split_sampler("DPM++ 2M", "Karrass") is None


def test_the_docs_say_the_same():
    text = (Path(__file__).resolve().parents[2] / "docs" / "engine.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    by_name = {row[0].split(" ")[0].strip("`"): row for row in rows if len(row) == 6}
    assert [name for name in by_name if name in SAMPLER_INFO] == list(SAMPLERS)
    for name, info in SAMPLER_INFO.items():
        _, title, schedule, looks, fresh, paper = by_name[name]
        assert (title, schedule, paper) == (info.title, info.schedule, info.paper)
        assert looks.startswith("twice") == info.two_calls
        assert fresh.startswith("eta") == bool(info.eta) and (fresh == "no") == (
            not info.draws and not info.churn and info.eta is None
        )
    schedules = {row[0].strip("`") for row in rows if len(row) == 3}
    assert set(SCHEDULE_TITLES) <= schedules


def test_editors_show_the_same_names():
    shown = {name: pretty(name) for name in (*SAMPLERS, *SCHEDULE_TITLES)}
    assert shown == {name: info.title for name, info in SAMPLER_INFO.items()} | dict(SCHEDULE_TITLES)


def test_names_of_schedules():
    assert [schedule_name(text) for text in ("SGM Uniform", "karras", "KL optimal", "foo")] == [
        "sgm_uniform",
        "karras",
        "kl_optimal",
        None,
    ]
