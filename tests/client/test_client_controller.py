"""What both editors' panels do, with an editor and a runner of plain data."""

from __future__ import annotations

import json
from typing import Any

import impasto_client.controller
import pytest
from editor_double import Document, DoubleHost, DoubleRunner, Layer, planned, rectangle, result
from impasto_client.controller import Controller
from impasto_client.events import Failed, JobChanged
from impasto_protocol.errors import ResourceError
from impasto_protocol.geometry import Box


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(impasto_client.controller, "Runner", DoubleRunner)
    return Controller(DoubleHost(), "double", lambda event: None)


def asked(controller: Any, mode: str, document: Document, **params: Any) -> str:
    """Ask and plan; the job's id."""
    assert controller.ask(mode, document, params), controller.notice
    ticket: str = controller._runner.last("plan")[0]
    return ticket


def submitted(controller: Any, mode: str, document: Document, box: Box, **params: Any) -> str:
    job = asked(controller, mode, document, **params)
    controller.handle(planned(job, box))
    assert controller._runner.last("submit")[0] == job
    return job


def names(document: Document) -> list[str]:
    return [layer.name for layer in document.layers]


def test_a_selection_becomes_a_layer_that_can_be_made_again(controller: Any) -> None:
    document = Document(selection=rectangle(10, 20, 30, 8))
    job = submitted(controller, "inpaint", document, Box(0, 10, 60, 40), prompt="a cat")
    assert controller._runner.last("plan")[1:] == ("inpaint", {"prompt": "a cat"}, (100, 80), Box(10, 20, 30, 8))
    picture = controller._runner.last("submit")[3]
    assert picture.box == Box(0, 10, 60, 40) and bytes(picture.pixels) == b"v" * 60 * 40 * 4
    picture.check()
    assert document.selection is not None
    for y in range(8):
        assert bytes(picture.mask[(y + 10) * 60 + 10 :][:30]) == document.selection.mask[y * 30 :][:30]
    document.selection = None
    heard: list[tuple[str, bool]] = []
    controller.added = lambda shown, old: heard.append((shown.result.name, old))
    controller.handle(result(job, Box(5, 15, 40, 20), mode="inpaint", params={"prompt": "a cat", "seed": 5}))
    controller.handle(JobChanged(job, "finished"))
    assert names(document) == ["painting", "made"] and heard == [("made", False)]
    assert controller.shown[0].before == b"vvvv" and controller.shown[0].small == b"rrrr"
    made = document.layers[1]
    recipe = json.loads(made.recipe)
    assert recipe["seed"] == 5 and recipe["box"] == [5, 15, 40, 20] and recipe["selection"] == [10, 20, 30, 8]

    assert controller.ask_again(document, made, {"seed": 9})
    ticket, mode, params, canvas, area = controller._runner.last("plan")
    assert (mode, params, canvas) == ("inpaint", {"prompt": "a cat", "seed": 9}, (100, 80))
    assert area == Box(10, 20, 30, 8)
    controller.handle(planned(ticket, Box(10, 20, 30, 8)))
    assert controller._runner.last("submit")[3].mask == rectangle(10, 20, 30, 8).mask
    assert controller.host.read[-1] == ("visible", made)
    document.layers.append(Layer("varnish"))
    controller.handle(result(ticket, Box(10, 20, 30, 8)))
    assert names(document) == ["painting", "made", "made", "varnish"]


def test_a_sketch_goes_above_its_layer_and_is_found_again(controller: Any) -> None:
    document = Document(layers=[Layer("painting"), Layer("sketch"), Layer("varnish")], active=1)
    job = submitted(controller, "sketch", document, Box(0, 0, 100, 80), background="document")
    picture = controller._runner.last("submit")[3]
    assert bytes(picture.pixels[:1]) == b"l" and bytes(picture.backdrop[:1]) == b"v" and picture.mask is None
    controller.handle(result(job, Box(0, 0, 100, 80), mode="sketch", params={}))
    assert names(document) == ["painting", "sketch", "made", "varnish"]
    assert controller.ask_again(document, document.layers[2])
    del document.layers[1]
    assert not controller.ask_again(document, document.layers[1])
    assert controller.notice.text.startswith("The sketch of this layer is gone")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: setattr(d, "open", False), "closed before"),
        (lambda d: setattr(d, "width", 90), "changed its size"),
        (lambda d: d.layers.clear(), "removed before"),
    ],
    ids=["closed", "resized", "removed"],
)
def test_what_is_gone_before_it_was_read_ends_the_job(controller: Any, spoil: Any, words: str) -> None:
    document = Document()
    job = asked(controller, "sketch", document)
    spoil(document)
    controller.handle(planned(job, Box(0, 0, 100, 80)))
    assert words in controller.notice.text and controller.running() is None
    assert all(name != "submit" for name, _, _ in controller._runner.asked)


def test_a_result_whose_document_is_gone_is_kept(controller: Any) -> None:
    document = Document(selection=rectangle(50, 40, 20, 20))
    job = submitted(controller, "inpaint", document, Box(50, 40, 20, 20))
    document.open = False
    controller.handle(result(job, Box(50, 40, 20, 20)))
    assert "closed meanwhile" in controller.notice.text and names(document) == ["painting"]
    controller.apply(controller.shown[0].result, None)
    assert controller.notice.is_error and "Open a document first" in controller.notice.text
    other = Document()
    controller.apply(controller.shown[0].result, other)
    assert names(other) == ["painting", "made"]
    small = Document(width=40, height=30)
    controller.apply(controller.shown[0].result, small)
    assert "lies outside" in controller.notice.text and names(small) == ["painting"]


def test_a_document_that_changed_its_size_gets_the_layer_with_a_notice(controller: Any) -> None:
    document = Document(selection=rectangle(50, 40, 20, 20))
    job = submitted(controller, "inpaint", document, Box(50, 40, 20, 20))
    document.width = 120
    controller.handle(result(job, Box(50, 40, 20, 20)))
    assert names(document) == ["painting", "made"] and "changed its size" in controller.notice.text
    job = submitted(controller, "inpaint", document, Box(50, 40, 20, 20))
    document.width = document.height = 30
    controller.handle(result(job, Box(50, 40, 20, 20)))
    assert len(document.layers) == 2 and "cropped meanwhile" in controller.notice.text


def test_an_upscaled_picture_is_a_new_document(controller: Any) -> None:
    document = Document()
    job = submitted(controller, "upscale", document, Box(0, 0, 100, 80), scale=2.0)
    controller.handle(result(job, Box(0, 0, 200, 160), "upscale"))
    ((layer, recipe, resolution),) = controller.host.opened
    assert layer.box == Box(0, 0, 200, 160) and json.loads(recipe)["seed"] == 5 and resolution == 300.0
    assert names(document) == ["painting"]


def test_obstacles_and_errors_are_sentences(controller: Any) -> None:
    assert not controller.ask("inpaint", Document(), {})
    assert controller.notice.is_error and controller.notice.text == "Select a region first."
    assert not controller.ask("sketch", Document(layers=[Layer("empty", blank=True)]), {})
    assert "empty on the canvas" in controller.notice.text
    assert not controller.ask_again(Document(), Layer("elsewhere"))
    assert "that Impasto made" in controller.notice.text
    plain = Document()
    assert not controller.ask_again(plain, plain.layers[0])
    assert "was not made by Impasto" in controller.notice.text
    broken = Document(layers=[Layer("made", recipe=b'{"mode": "inpaint", "params": {}, "mask": "!"}')])
    assert not controller.ask_again(broken, broken.layers[0])
    assert "damaged" in controller.notice.text
    job = asked(controller, "upscale", Document())
    assert controller.notice is None
    controller.handle(Failed(job, ResourceError("resource.busy", "The queue is full; wait for a job to end.")))
    assert controller.notice.text == "The queue is full; wait for a job to end." and controller.running() is None
