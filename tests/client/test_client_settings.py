"""The values behind both panels: the generated form, and what a painter sets by mode."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from impasto_client.events import PlanResult
from impasto_client.form_model import (
    FormModel,
    choices_of,
    entry_params,
    entry_title,
    enum_choices,
    grouped,
    kind_of,
    lacks,
    new_entry,
)
from impasto_client.jobs import JobState
from impasto_client.ways import actions, choice_of, mode_for
from impasto_client.wishes import Wishes, chosen_row, hints_of, model_rows, settings_of
from impasto_client.wording import describe_plan, job_title, seconds_in_words
from impasto_protocol.geometry import Box, Size
from impasto_protocol.schema import Mode, Param
from impasto_server.engine.modes import describe

MODES: dict[str, Mode] = {mode.name: mode for mode in describe()}
MODELS = [
    {"kind": "lora", "id": "ink", "title": "Ink"},
    {"kind": "checkpoint", "id": "one", "title": "One", "hints": {"cfg": 3.0}},
    {"kind": "checkpoint", "id": "two"},
    {"kind": "unknown", "id": "torn", "usable": False, "reason": "It ends early."},
]


def test_every_parameter_has_a_kind_of_widget() -> None:
    kinds = {p.name: kind_of(p) for mode in MODES.values() for p in mode.params}
    assert kinds["loras"] == "list" and kinds["steps"] == "slider" and kinds["grow"] == "number"
    assert kinds["sampler"] == "choice" and kinds["exact"] == "check" and kinds["upscaler"] == "model"
    assert kinds["styles"] == "text"
    assert [title for title, _ in grouped(settings_of(MODES["inpaint"]))][:2] == ["Prompt", "Model"]


def test_only_what_the_painter_changed_is_an_override() -> None:
    form = FormModel()
    heard: list[int] = []
    form.changed = lambda: heard.append(1)
    assert form.set_params(settings_of(MODES["inpaint"])) and not form.set_params(settings_of(MODES["inpaint"]))
    form.set_hints({"cfg": 3.0})
    assert form.value("cfg") == 3.0 and form.overrides() == {}
    form.edited("cfg", 7.0)
    form.edited("steps", 20)
    assert form.overrides() == {"cfg": 7.0} and len(heard) == 2
    form.edited("cfg", 3.0)
    assert form.overrides() == {}
    form.set_overrides({"steps": 9, "nothing": 1})
    assert form.overrides() == {"steps": 9} and form.value("steps") == 9
    form.reset()
    assert form.overrides() == {} and form.value("steps") == 20


def test_experts_settings_and_switched_groups_are_shown_where_they_are_wanted() -> None:
    form = FormModel()
    form.set_params(settings_of(MODES["img2img"]))
    assert {"steps", "cfg", "loras", "hires"} <= form.shown() and not {"sampler", "hires_scale"} & form.shown()
    form.edited("hires", True)
    assert "hires_scale" in form.shown() and "hires_model" not in form.shown()
    form.advanced = True
    assert {"sampler", "hires_model"} <= form.shown() == {p.name for p in form.params}
    form.advanced = False
    form.edited("sampler", "euler")
    assert "sampler" in form.shown()  # what was changed is seen


def test_what_a_newer_description_does_not_allow_is_let_go() -> None:
    form = FormModel()
    form.set_overrides({"steps": 9, "sampler": "gone", "scale": 2})
    form.set_params(settings_of(MODES["inpaint"]))
    assert form.overrides() == {"steps": 9}
    assert form.chosen() == {"steps": 9, "scale": 2}  # another mode may know it


def test_the_list_of_models() -> None:
    rows = model_rows(MODELS)
    assert [(r.id, r.title, r.usable) for r in rows] == [
        ("", "Automatic", True),
        ("one", "One", True),
        ("two", "two", True),
        ("torn", "torn", False),
    ]
    assert rows[3].tip == "It ends early."
    assert chosen_row(rows, "two") == 2 and chosen_row(rows, "torn") == 0 and chosen_row(rows, "gone") == 0
    assert [r.id for r in model_rows(MODELS[:2])] == ["one"] and model_rows([])[0].title == "No model yet"
    assert hints_of(MODELS, "one") == {"cfg": 3.0} and hints_of(MODELS, "two") == {} == hints_of(MODELS, None)
    upscaler = next(p for p in MODES["upscale"].params if p.name == "upscaler")
    assert choices_of(upscaler, MODELS) == [("", "Lanczos")]


def test_what_cannot_be_used_now_says_so() -> None:
    plain = Param("preprocessor", "string", "canny", "Preprocessor", enum=("canny", "openpose"))
    assert enum_choices(plain) == [("canny", "Canny", ""), ("openpose", "Openpose", "")]
    told = replace(plain, ui={"unavailable": {"openpose": "run `impasto models pull pose`."}})
    assert enum_choices(told)[1] == ("openpose", "Openpose (missing)", "run `impasto models pull pose`.")
    assert enum_choices(replace(plain, ui={"unavailable": "what?"})) == enum_choices(plain)


def test_wishes_are_kept_by_mode() -> None:
    wishes = Wishes(prompt="a cat", seed=4)
    wishes.strengths["paint"] = 0.5
    wishes.more["sketch"] = {"steps": 9}
    again = Wishes.restored(json.loads(json.dumps(wishes.kept())))
    assert again == wishes
    assert again.params("inpaint", "one") == {
        "prompt": "a cat",
        "negative_prompt": "",
        "strength": 0.5,
        "seed": 4,
        "model": "one",
    }
    assert again.params("sketch", more={"steps": 9})["steps"] == 9 and again.params("upscale") == {"scale": 2.0}
    assert again.params("img2img")["strength"] == 0.5 and "strength" not in again.params("txt2img")
    for damaged in ([], {"seed": "x"}, {"strengths": 3}, {"more": {"inpaint": 1}}):
        with pytest.raises((ValueError, TypeError, AttributeError)):
            Wishes.restored(damaged)  # type: ignore[arg-type]


def test_painting_follows_what_is_there() -> None:
    assert mode_for("paint", "auto", True, 1.0) == mode_for("paint", "auto", True, 0.3) == "inpaint"
    assert mode_for("paint", "auto", False, 1.0) == "txt2img" and mode_for("paint", "auto", False, 0.99) == "img2img"
    assert mode_for("paint", "img2img", True, 1.0) == "img2img" and mode_for("sketch", "auto", True, 1.0) == "sketch"
    for mode in actions("document"):
        choice, way = choice_of(mode)
        assert mode_for(choice, way, False, 0.5) == mode_for(choice, way, True, 1.0) == mode


def test_times_and_jobs_in_words() -> None:
    told = [seconds_in_words(s) for s in (0.4, 1.6, 12.4, 33, 89, 100, 3599, 9000)]
    assert told == [
        "a second",
        "2 seconds",
        "12 seconds",
        "35 seconds",
        "90 seconds",
        "2 minutes",
        "60 minutes",
        "2.5 hours",
    ]
    plan = PlanResult(Box(0, 0, 1, 1), Size(512, 384))
    assert describe_plan(plan) == "At 512 × 384 pixels."
    assert describe_plan(replace(plan, seconds=30.0)) == "About 30 seconds, at 512 × 384 pixels."
    assert job_title(JobState("a", "inpaint")) == "Inpainting"
    assert job_title(JobState("a", "inpaint", "a   cat\nand " + "more " * 20)) == "a cat and more more more more m…"


def test_the_settings_of_a_recipe_are_taken_over_whole() -> None:
    wishes = Wishes(prompt="old", seed=1, model="two")
    wishes.more["paint"] = {"exact": True}
    known = MODES["inpaint"].params
    params = {p.name: list(p.default) if isinstance(p.default, list) else p.default for p in known}
    wishes.take("inpaint", {**params, "prompt": "new", "seed": 7, "cfg": 3.0, "strength": 0.4, "model": "one"}, known)
    assert wishes.more["paint"] == {"cfg": 3.0} and wishes.strengths["paint"] == 0.4
    assert (wishes.prompt, wishes.seed, wishes.model) == ("new", 7, "one")
    unit = {"model": "lines", "image": "control_1", "weight": 0.5}
    wishes.take("inpaint", {"prompt": "newest", "control": [unit]}, known)
    assert wishes.more["paint"] == {"control": [{**unit, "image": ""}]}  # that picture was another job's
    wishes.take("inpaint", {"prompt": "newer"}, known)
    assert wishes.params("inpaint")["strength"] == 1.0 and wishes.seed == -1 and wishes.more["paint"] == {}


def test_a_list_of_loras_is_a_value_like_any_other() -> None:
    loras = next(p for p in MODES["inpaint"].params if p.name == "loras")
    assert entry_title(loras) == "LoRA" and lacks(loras, MODELS) == ""
    assert lacks(loras, MODELS[1:]) == "The server has no LoRA yet; put one into its models folder."
    assert [(p.name, kind_of(p)) for p in entry_params(loras)] == [
        ("model", "model"),
        ("strength", "slider"),
        ("text_strength", "number"),
    ]
    assert choices_of(entry_params(loras)[0], MODELS) == [("ink", "Ink")]  # one must be named
    entry = new_entry(loras, MODELS)
    assert entry == {"model": "ink", "strength": 1.0, "text_strength": "auto"}
    form = FormModel()
    form.set_params(settings_of(MODES["inpaint"]))
    assert form.value("loras") == []
    form.edited("loras", [entry])
    assert form.overrides() == {"loras": [entry]}
    form.edited("loras", [])
    assert form.overrides() == {}
    units = Param("units", "array", [], "Control units", items=(Param("image", "string", "", "Picture"),))
    assert entry_title(units) == "Control unit" and new_entry(units, []) == {"image": ""} and lacks(units, []) == ""
