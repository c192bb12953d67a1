"""Taking a result further, and presets: the part of both panels that has no widgets."""

from __future__ import annotations

from typing import Any

import impasto_client.controller
import pytest
from editor_double import Document, DoubleHost, DoubleRunner, planned, rectangle, result
from impasto_client.controller import Controller
from impasto_client.events import Failed, JobChanged, ParametersRead, ServerCatalog
from impasto_client.form_model import FormModel
from impasto_client.further import FURTHER, layer_of, offered
from impasto_client.gallery import Shown
from impasto_client.presets import PresetChoice, family_for
from impasto_client.wishes import settings_of
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box
from impasto_server.engine.modes import describe

MODES = tuple(describe())
CHECKPOINTS = [
    {"kind": "checkpoint", "id": "one", "family": "sd1"},
    {"kind": "checkpoint", "id": "two", "family": "sdxl"},
    {"kind": "lora", "id": "lcm", "family": "sd1"},
]
FAST = {
    "id": "fast:lcm",
    "title": "Fast: LCM, 6 steps",
    "family": "sd1",
    "params": {"loras": [{"model": "lcm", "strength": 0.8}], "sampler": "lcm", "steps": 6, "cfg": 1.5},
}


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(impasto_client.controller, "Runner", DoubleRunner)
    made = Controller(DoubleHost(), "double", lambda event: None)
    made.catalog = ServerCatalog("1", MODES, (), (), ())
    return made


def painted(controller: Any, document: Document, mode: str, **params: Any) -> Shown:
    """Make a result; as the strip shows it."""
    assert controller.ask(mode, document, params), controller.notice
    job = controller._runner.last("plan")[0]
    box = Box(0, 0, 100, 80)
    controller.handle(planned(job, box))
    controller.handle(result(job, box, mode=mode, params={**params, "seed": 5}))
    controller.handle(JobChanged(job, "finished"))
    newest: Shown = controller.gallery.visible[0]
    return newest


def answered(controller: Any, mode: str, **params: Any) -> None:
    """The server's answer to the last wish."""
    controller.handle(ParametersRead(controller._runner.last("further")[0], mode, params))


def test_a_hires_pass_begins_at_once_over_the_same_place(controller: Any) -> None:
    document = Document()
    picture = painted(controller, document, "img2img", prompt="a fox", batch=4)
    controller.further.ask(document, picture, "hires")
    _, way, info = controller._runner.last("further")
    assert (way, info["mode"], info["params"]) == ("hires", "img2img", {"prompt": "a fox", "batch": 4, "seed": 5})
    answered(controller, "img2img", prompt="a fox", seed=5, hires=True)
    job, mode, params, _, _ = controller._runner.last("plan")
    assert (mode, params) == ("img2img", {"prompt": "a fox", "seed": 5, "hires": True})
    controller.handle(planned(job, Box(0, 0, 100, 80)))
    assert controller.host.read[-1] == ("visible", (document.layers[1],))  # what it began with, not itself

    del document.layers[1]  # the job that made it is remembered
    controller.further.ask(document, picture, "hires")
    answered(controller, "img2img", seed=6, hires=True)
    assert controller._runner.last("plan")[2] == {"seed": 6, "hires": True}
    controller._orders._orders.clear()
    controller.further.ask(document, picture, "hires")
    answered(controller, "img2img", seed=7, hires=True)
    assert controller.notice.is_error and "no layer of the document; add it" in controller.notice.text
    assert controller._runner.last("plan")[2]["seed"] == 6


def test_the_other_ways_hand_their_settings_to_the_panel_and_say_what_to_press(controller: Any) -> None:
    heard: list[Any] = []
    controller.further.taken = lambda mode, params: heard.append((mode, params))
    controller.taken = lambda mode, params: heard.append("read from a file")
    document = Document(selection=rectangle(0, 0, 100, 80))
    picture = painted(controller, document, "inpaint", prompt="a fox", strength=1.0)
    plans = len([1 for name, _, _ in controller._runner.asked if name == "plan"])
    for way, button in (
        ("img2img", "Refine picture"),
        ("inpaint", "Inpaint selection"),
        ("upscale", "Upscale document"),
    ):
        controller.further.ask(document, picture, way)
        answered(controller, way, prompt="a fox")
        assert f"“{button}”: it begins with what the document shows." in controller.notice.text
    assert [mode for mode, _ in heard] == ["img2img", "inpaint", "upscale"]
    assert heard[0][1] == {"prompt": "a fox", "strength": 0.75} and "strength" not in heard[2][1]
    controller.further.ask(Document(), picture, "img2img")
    answered(controller, "img2img", prompt="a fox")
    assert "no layer of the document: add it as one first" in controller.notice.text
    assert plans == len([1 for name, _, _ in controller._runner.asked if name == "plan"])  # nothing was started


def test_only_the_last_wish_is_followed_and_a_refusal_is_said(controller: Any) -> None:
    heard: list[str] = []
    controller.further.taken = lambda mode, params: heard.append(mode)
    document = Document()
    picture = painted(controller, document, "txt2img")
    controller.further.ask(document, picture, "img2img")
    first = controller._runner.last("further")[0]
    controller.further.ask(document, picture, "upscale")
    controller.handle(ParametersRead(first, "img2img", {}))
    assert heard == []
    controller.handle(Failed(controller._runner.last("further")[0], RequestError("request.invalid_param", "Not so.")))
    assert controller.notice.text == "Not so." and controller.notice.is_error and heard == []


def test_what_the_server_has_is_offered(controller: Any) -> None:
    document = Document(selection=rectangle(0, 0, 100, 80))
    everything = [way for way, _ in FURTHER]
    assert offered(controller.catalog, painted(controller, document, "txt2img")) == everything
    assert offered(controller.catalog, painted(controller, document, "inpaint")) == everything[1:]
    assert offered(controller.catalog, painted(controller, document, "txt2img", hires=True)) == everything[1:]
    assert offered(None, None) == [] == offered(ServerCatalog("1", (), (), (), ()), controller.gallery.visible[0])


def test_the_layer_of_a_result_is_found_by_its_recipe(controller: Any) -> None:
    document = Document()
    one = painted(controller, document, "txt2img", prompt="a fox", loras=({"model": "ink"},))
    document.layers[1].name = "named by the painter"
    other = painted(controller, document, "txt2img", prompt="a wolf")
    assert layer_of(controller.host, document, one) is document.layers[1]
    assert layer_of(controller.host, document, other) is document.layers[2]
    assert layer_of(controller.host, Document(), one) is None and layer_of(controller.host, None, one) is None


# ---- presets


def test_a_preset_shows_what_it_set_and_is_taken_back() -> None:
    form = FormModel()
    form.set_params(settings_of(next(mode for mode in MODES if mode.name == "inpaint")))
    form.edited("loras", [{"model": "ink", "strength": 0.5, "text_strength": "auto"}])
    form.edited("feather", 3)
    before = form.overrides()
    choice = PresetChoice(form)
    choice.offer([FAST], CHECKPOINTS, "two")
    assert choice.titles() == []
    choice.offer([FAST], CHECKPOINTS, "one")
    assert choice.titles() == ["Fast: LCM, 6 steps"] and choice.current() == -1
    assert choice.choose(0) == "“Fast: LCM, 6 steps” has set: LoRAs, Steps, Guidance scale, Sampler."
    assert choice.current() == 0 and {"sampler", "steps", "loras"} <= form.shown()
    values = form.overrides()
    assert (values["sampler"], values["steps"], values["cfg"], values["feather"]) == ("lcm", 6, 1.5, 3)
    assert values["loras"][1] == {"model": "lcm", "strength": 0.8, "text_strength": "auto"}
    form.edited("steps", 8)
    assert choice.current() == -1  # it is the painter's own now
    form.edited("steps", 6)
    assert "taken back" in choice.choose(-1) and form.overrides() == before
    choice.choose(0)
    form.reset()
    assert choice.current() == -1 and form.overrides() == {}


def test_a_preset_that_the_mode_does_not_know_is_not_offered() -> None:
    form = FormModel()
    form.set_params(settings_of(next(mode for mode in MODES if mode.name == "upscale")))
    choice = PresetChoice(form)
    choice.offer([FAST], CHECKPOINTS, "one")
    assert choice.titles() == []
    assert family_for(CHECKPOINTS, "") == "" and family_for(CHECKPOINTS[:1], "") == "sd1"
