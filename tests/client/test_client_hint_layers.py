"""Hints of control units as layers, or to look at; units that are off; strengths in words."""

from __future__ import annotations

import json
from typing import Any

import impasto_client.controller
import pytest
from editor_double import Document, DoubleHost, DoubleRunner, Layer, planned, result
from impasto_client.controller import Controller
from impasto_client.events import JobChanged, ServerCatalog
from impasto_client.form_model import new_entry, strength_of, strengths_of
from impasto_client.hint_layers import HintWish, makes_hints
from impasto_protocol.geometry import Box
from impasto_server.engine.modes import describe

MODES = tuple(describe())
CANVAS = Box(0, 0, 100, 80)
CONTROL, REFERENCES = (
    next(p for mode in MODES if mode.name == "txt2img" for p in mode.params if p.name == name)
    for name in ("control", "references")
)
UNIT = {**new_entry(CONTROL, [{"kind": "controlnet", "id": "lines"}]), "preprocessor": "canny"}


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(impasto_client.controller, "Runner", DoubleRunner)
    made = Controller(DoubleHost(), "double", lambda event: None)
    made.catalog = ServerCatalog("1", MODES, (), (), ())
    return made


def hinted(controller: Any, document: Document, keep: bool, **changes: Any) -> list[tuple[HintWish, Any]]:
    """Ask for a hint and let it come; what was told of it."""
    told: list[tuple[HintWish, Any]] = []
    controller.hints.bound = controller.hints.shown = lambda wish, what: told.append((wish, what))
    annotate = controller.catalog.mode("annotate")
    assert controller.hints.ask(document, annotate, 0, {**UNIT, **changes}, keep), controller.notice
    job = controller._runner.last("plan")[0]
    controller.handle(planned(job, CANVAS))
    controller.handle(result(job, CANVAS, stage="annotate", mode="annotate", params={"preprocessor": "canny"}))
    controller.handle(JobChanged(job, "finished"))
    return told


def test_the_hint_of_the_canvas_becomes_a_layer_that_the_unit_takes(controller: Any) -> None:
    document = Document()
    ((wish, value),) = hinted(controller, document, keep=True)
    assert value == "layer:made" and wish.at == 0 and wish.keep
    assert [layer.name for layer in document.layers] == ["painting", "made"]
    assert controller.host.read[0] == ("visible", ())
    _, mode, params, _, _, _ = controller._runner.last("submit")
    assert mode == "annotate" and params["preprocessor"] == "canny" and "weight" not in params
    assert wish.is_of([{**UNIT, "weight": 0.3}]), "another weight needs no other hint"
    assert not wish.is_of([{**UNIT, "preprocessor": "scribble"}]) and not wish.is_of([])


def test_the_hint_of_a_layer_goes_just_above_it(controller: Any) -> None:
    document = Document(layers=[Layer("painting"), Layer("sketch"), Layer("frame")])
    hinted(controller, document, keep=True, image="layer:sketch")
    assert [layer.name for layer in document.layers] == ["painting", "sketch", "made", "frame"]
    assert controller.host.read[0] == ("layer", document.layers[1])


def test_what_is_only_looked_at_is_no_layer_and_no_result(controller: Any) -> None:
    document = Document()
    ((wish, picture),) = hinted(controller, document, keep=False)
    assert picture == b"rrrr" and not wish.keep
    assert len(document.layers) == 1 and not controller.gallery.visible and not document.identity
    assert controller._runner.last("plan")[0].startswith("hint-"), "none of the document's own"


@pytest.mark.parametrize(
    ("document", "changes", "sentence"),
    [
        (None, {}, "Open a document first."),
        (Document(), {"preprocessor": "none"}, "Choose a preprocessor first"),
        (Document(), {"image": "layer:gone"}, "The layer of this control unit is gone"),
        (Document(layers=[Layer("none", blank=True)]), {"image": "layer:none"}, "layer of this control unit is empty"),
    ],
)
def test_what_is_in_the_way_is_said(controller: Any, document: Any, changes: Any, sentence: str) -> None:
    annotate = controller.catalog.mode("annotate")
    assert not controller.hints.ask(document, annotate, 0, {**UNIT, **changes}, True)
    assert sentence in controller.notice.text and controller.notice.is_error


def test_a_hint_over_the_picture_is_no_part_of_what_is_painted_over(controller: Any) -> None:
    recipe = json.dumps({"mode": "annotate", "params": {}}).encode()
    hint, drawn = Layer("hint", recipe=recipe), Layer("my scribble")
    document = Document(layers=[Layer("painting"), drawn, hint])
    units = [{**UNIT, "image": "layer:hint"}, {**UNIT, "image": "layer:my scribble"}]

    def seen() -> Any:
        controller.host.read.clear()
        assert controller.ask("img2img", document, {"control": units})
        controller.handle(planned(controller._runner.last("plan")[0], CANVAS))
        return controller.host.read[0]

    assert seen() == ("visible", (hint,)), "the painter's own layer stays"
    hint.shown = False
    assert seen() == ("visible", ()), "nothing has to be left out"


def test_a_unit_that_is_off_needs_no_layer(controller: Any) -> None:
    document = Document()
    units = [{**UNIT, "enabled": False, "image": "layer:gone"}]
    assert controller.ask("txt2img", document, {"control": units}), controller.notice
    _, _, params, _, _ = controller._runner.last("plan")
    assert params["control"][0]["image"] == "" and params["control"][0]["enabled"] is False


def test_strengths_in_words_come_from_the_schema() -> None:
    titles = [title for title, _ in strengths_of(CONTROL)]
    assert titles == ["Hinted at", "Followed", "Followed closely", "Traced"] and not strengths_of(REFERENCES)
    assert titles[strength_of(CONTROL, UNIT)] == "Followed closely"
    assert strength_of(CONTROL, {**UNIT, "weight": 0.33}) == -1
    assert makes_hints(CONTROL) and not makes_hints(REFERENCES)
