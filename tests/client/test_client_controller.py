"""What both editors' panels do, with an editor and a runner of plain data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import impasto_client.controller
import pytest
from editor_double import Document, DoubleHost, DoubleRunner, Layer, entry, layer, planned, rectangle, result
from impasto_client.controller import Controller
from impasto_client.events import (
    ConnectionChanged,
    Diagnosed,
    Done,
    Failed,
    HistoryListed,
    JobChanged,
    ParametersRead,
    Planned,
    PlanResult,
    ResultFetched,
    ServerCatalog,
)
from impasto_client.gallery import PAGE, Query, Shown
from impasto_protocol.errors import AssetError, RequestError, ResourceError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.reading import ParameterNote
from impasto_protocol.schema import Mode
from PIL import Image


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


def shown(controller: Any) -> Shown:
    """The newest result of the strip."""
    newest: Shown = controller.gallery.visible[0]
    return newest


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
    assert controller._orders.get(job).target.region is None  # 16 MB of a large one: the packed mask is enough
    document.selection = None
    heard: list[str] = []
    controller.added = lambda made: heard.append(made.name)
    controller.handle(result(job, Box(5, 15, 40, 20), mode="inpaint", params={"prompt": "a cat", "seed": 5}))
    controller.handle(JobChanged(job, "finished"))
    assert names(document) == ["painting", "made"] and heard == ["made"]
    assert shown(controller).before == b"vvvv" and shown(controller).small == b"rrrr"
    made = document.layers[1]
    recipe = json.loads(made.recipe)
    assert recipe["seed"] == 5 and recipe["box"] == [5, 15, 40, 20] and recipe["selection"] == [10, 20, 30, 8]

    assert controller.ask_again(document, made, {"seed": 9})
    ticket, mode, params, canvas, area = controller._runner.last("plan")
    assert (mode, params, canvas) == ("inpaint", {"prompt": "a cat", "seed": 9}, (100, 80))
    assert area == Box(10, 20, 30, 8)
    controller.handle(planned(ticket, Box(10, 20, 30, 8)))
    assert controller._runner.last("submit")[3].mask == rectangle(10, 20, 30, 8).mask
    assert controller.host.read[-1] == ("visible", (made,))
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
    controller.results.apply([shown(controller).key], None)
    assert controller.notice.is_error and "Open a document first" in controller.notice.text
    other = Document()
    controller.results.apply([shown(controller).key], other)
    assert names(other) == ["painting", "made"]
    small = Document(width=40, height=30)
    controller.results.apply([shown(controller).key], small)
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


# ---- the queue


def waiting(controller: Any, document: Document, box: Box, place: str = "back") -> str:
    assert controller.ask("inpaint", document, {}, place)
    job: str = controller._runner.last("plan")[0]
    controller.handle(planned(job, box))
    return job


def test_front_back_and_instead_of_what_waits(controller: Any) -> None:
    box, document = Box(10, 10, 20, 20), Document(selection=rectangle(10, 10, 20, 20))
    first = waiting(controller, document, box)
    controller.handle(JobChanged(first, "running"))
    second, third = (
        waiting(controller, document, box),
        waiting(controller, Document(selection=rectangle(0, 0, 9, 9)), box),
    )
    front = waiting(controller, document, box, "front")
    assert controller._runner.last("submit")[4:] == ("front", None)
    instead = waiting(controller, document, box, "replace")
    assert controller._runner.last("submit")[4:] == ("back", second)
    assert [args[0] for name, args, _ in controller._runner.asked if name == "cancel"] == [third, front]
    assert controller.running().job_id == first and len({first[:16], third[:16]}) == 2 and first[:16] == instead[:16]
    controller._runner.asked.clear()
    controller.cancel(second)
    controller.cancel()
    controller.cancel("unknown")
    controller.cancel_all()
    asked = [args[0] for name, args, _ in controller._runner.asked if name == "cancel"]
    assert asked[:2] == [second, first] and asked[2:] == [instead, front, third, second, first]


def test_what_to_expect_is_asked_once_for_the_same(controller: Any) -> None:
    document = Document(selection=rectangle(10, 10, 20, 20))
    controller.expect("inpaint", document, {"steps": 5})
    assert not controller._runner.asked  # no server yet: polling must not start one
    controller.connection = ConnectionChanged("connected")
    controller.catalog = ServerCatalog("1", (Mode("inpaint", "Inpaint", "", (), ()),), (), (), ())
    for prompt in ("a", "ab", "abc"):
        controller.expect("inpaint", document, {"steps": 5, "prompt": prompt, "seed": 1})
    ((_, (ticket, mode, params, canvas, area), _),) = controller._runner.asked
    assert (mode, params, canvas, area) == ("inpaint", {"steps": 5}, (100, 80), Box(10, 10, 20, 20))
    controller.handle(Planned(ticket, PlanResult(Box(0, 0, 9, 9), Size(512, 512), seconds=12.0)))
    assert controller.estimate.plan.seconds == 12.0 and controller.jobs.active == ()
    controller.expect("inpaint", document, {"steps": 9})
    late, ticket = ticket, controller._runner.last("plan")[0]
    controller.handle(Failed(ticket, RequestError("request.bad_geometry", "Choose a smaller scale.")))
    controller.handle(Planned(late, PlanResult(Box(0, 0, 9, 9), Size(8, 8))))
    assert controller.estimate.plan is None and controller.estimate.error.message == "Choose a smaller scale."
    document.selection = None
    controller.expect("inpaint", document, {"steps": 9})
    assert controller.estimate.error is None and len(controller._runner.asked) == 2


# ---- results


def test_a_document_finds_its_results_again(controller: Any) -> None:
    document = Document(selection=rectangle(10, 10, 20, 20))
    controller.look_at(document)
    job = submitted(controller, "inpaint", document, Box(10, 10, 20, 20))
    assert document.identity == ""  # nothing is written into a document that has no result
    controller.handle(result(job, Box(10, 10, 20, 20)))
    assert len(document.identity) == 16 and job.startswith(document.identity + "-")
    assert controller.gallery.query == Query(document.identity + "-")
    again = Document(identity=document.identity)
    controller.look_at(again)
    assert len([1 for name, _, _ in controller._runner.asked if name == "list"]) == 1  # the same is listed already
    controller.look_at(Document(identity="no identity of ours"))
    assert controller.gallery.visible == ()
    wishes = next(more for name, _, more in reversed(controller._runner.asked) if name == "list")
    assert len(wishes["begins"]) == 17 and wishes["begins"] != document.identity + "-"


def test_what_the_server_keeps_is_listed_fetched_and_added(controller: Any) -> None:
    controller.look_at(None, "cat", starred=True)
    name, (count,), wishes = controller._runner.asked[-1]
    assert (name, count) == ("list", PAGE) and wishes["search"] == "cat" and wishes["starred"] and not wishes["begins"]
    old, gone = layer("old", Box(1, 2, 3, 4), mode="inpaint"), layer("gone", Box(0, 0, 5, 5))
    large = layer("large", Box(0, 0, 5000, 1), "upscale")
    large = type(large)(**{**large.__dict__, "box": Box(0, 0, 5000, 5000)})
    entries = tuple(entry(made, starred=True) for made in (old, gone, large))
    controller.handle(HistoryListed(entries, Query("", "dog"), False))  # to an older question
    assert controller.gallery.visible == ()
    controller.handle(HistoryListed(entries, controller.gallery.query, True))
    assert [s.job_id for s in controller.gallery.visible] == ["old", "gone", "large"] and controller.gallery.more
    assert [args for name, args, _ in controller._runner.asked if name == "fetch"] == [("old", 0), ("gone", 0)]
    controller.handle(ResultFetched("old", 0, entries[0], old))
    controller.handle(ResultFetched("gone", 0, error=AssetError("asset.missing", "It is gone.")))
    assert [(s.job_id, s.small) for s in controller.gallery.visible] == [("old", b"rrrr"), ("large", None)]
    document = Document()
    controller.results.apply([("old", 0)], document)  # its pixels are not here: they come first
    assert names(document) == ["painting"]
    controller.handle(ResultFetched("old", 0, entries[0], old))
    assert names(document) == ["painting", "made"]
    controller.results.star(("old", 0), False)
    assert controller._runner.asked[-1][:2] == ("star", ("old", 0, False)) and not controller.gallery.visible[0].starred
    controller.results.apply([("gone", 0)], document)
    controller.handle(ResultFetched("gone", 0, error=AssetError("asset.missing", "It is gone.")))
    assert controller.notice.text == "It is gone."
    controller.gallery.show_more()
    assert controller._runner.asked[-1][1] == (2 * PAGE,)


def test_several_are_added_at_once_where_the_painter_says(controller: Any) -> None:
    document = Document(layers=[Layer("ground"), Layer("varnish")])
    for name, at in (("a", 1), ("b", 2)):
        controller.results.keep(layer(name, Box(at, at, 4, 4)))
    controller.results.apply([("b", 0), ("a", 0)], document, "group")
    assert controller.host.groups == ["Impasto"] and len(document.layers) == 4
    controller.results.apply([("a", 0)], document, "above")
    assert names(document)[:2] == ["ground", "made"] and controller.host.groups[-1] == ""
    controller.results.keep(layer("large", Box(0, 0, 4, 4), "upscale"))
    controller.results.apply([("large", 0)], None)
    assert len(controller.host.opened) == 1


def test_a_result_is_saved_as_a_file(controller: Any, tmp_path: Path) -> None:
    controller.results.keep(layer("a", Box(0, 0, 4, 4), parameters="a cat\nSteps: 5"))
    controller.results.save(("a", 0), tmp_path / "cat.png")
    with Image.open(tmp_path / "cat.png") as image:
        assert image.size == (4, 4) and image.info["parameters"] == "a cat\nSteps: 5"
    controller.handle(Done(("saved", tmp_path / "cat.png")))
    assert controller.notice.text == f"Saved as {tmp_path / 'cat.png'}." and not controller.notice.is_error
    controller.handle(Done(("saved", tmp_path / "cat.png"), OSError(28, "No space left on device")))
    assert controller.notice.is_error and "No space left on device" in controller.notice.text


def test_make_again_takes_the_active_layer_or_what_is_looked_at(controller: Any) -> None:
    document = Document(selection=rectangle(10, 10, 20, 20))
    job = submitted(controller, "inpaint", document, Box(10, 10, 20, 20), prompt="{a|b}")
    recipe = {"mode": "inpaint", "params": {"prompt": "a", "seed": 5}, "asked": {"prompt": "{a|b}"}}
    controller.handle(result(job, Box(10, 10, 20, 20), **recipe))
    document.selection = None
    document.active = 1
    assert controller.make_again(document, None)
    assert controller._runner.last("plan")[2]["seed"] == 5
    document.active = 0
    assert not controller.make_again(document, None)
    assert "not made by Impasto" in controller.notice.text
    assert controller.make_again(document, shown(controller), new_seed=True)
    assert controller._runner.last("plan")[2] == {"prompt": "{a|b}", "seed": -1}
    assert controller._runner.last("plan")[4] == Box(10, 10, 20, 20)
    document.width = 15
    assert not controller.make_again(document, shown(controller))
    assert "cropped" in controller.notice.text
    document.open = False
    assert not controller.make_again(Document(), shown(controller))
    assert "closed" in controller.notice.text


def test_a_new_picture_sends_no_pixels(controller: Any) -> None:
    document = Document()
    submitted(controller, "txt2img", document, Box(0, 0, 100, 80))
    assert controller._runner.last("submit")[3].pixels == b"" and controller.host.read == []
    submitted(controller, "img2img", document, Box(0, 0, 100, 80))
    assert controller.host.read == [("visible", ())]


def test_the_settings_of_an_old_picture_are_asked_for_and_told(controller: Any, tmp_path: Path) -> None:
    heard: list[Any] = []
    controller.taken = lambda mode, params: heard.append((mode, params))
    controller.read_settings("a cat\nSteps: 20, Seed: 1")
    assert controller._runner.last("read_parameters") == ("reading", "a cat\nSteps: 20, Seed: 1")
    (tmp_path / "old.png").write_bytes(b"picture")
    controller.read_settings(tmp_path / "old.png")
    assert controller._runner.last("read_parameters") == ("reading", b"picture")
    notes = tuple(ParameterNote("unsupported", "Eta", "1", f"{key} is not known here.") for key in "ABCD")
    told = (*notes, ParameterNote("info", "Version", "1", "Made by 1.9."))
    controller.handle(ParametersRead("reading", "txt2img", {"steps": 20}, told, "AUTOMATIC1111"))
    assert heard == [("txt2img", {"steps": 20})]
    assert controller.notice.text == (
        "Took the settings of a picture by AUTOMATIC1111. A is not known here. B is not known here. "
        "C is not known here. And 1 more."
    )
    controller.handle(Failed("reading", RequestError("request.no_parameters", "The picture says nothing.")))
    assert controller.notice.is_error and controller.notice.text == "The picture says nothing."
    controller.read_settings(tmp_path / "gone.png")
    assert controller.notice.text == "gone.png could not be read: No such file or directory."


def test_layers_guide_a_job_and_are_found_again(controller: Any) -> None:
    lines, painting = Layer("lines"), Layer("painting")
    document = Document(layers=[painting, lines])
    assert controller.layers(document) == [("layer:lines", "Lines"), ("layer:painting", "Painting")]
    assert controller.layers(None) == []
    units = [{"image": "", "weight": 1.0}, {"image": "layer:lines", "weight": 0.5}, {"image": "layer:painting"}]
    seen = [{"image": "layer:lines"}]
    job = submitted(controller, "txt2img", document, Box(0, 0, 50, 40), control=units, references=seen)
    sent = controller._runner.last("submit")
    assert [unit["image"] for unit in sent[2]["control"]] == ["", "control_1", "control_2"]
    assert units[1]["image"] == "layer:lines"  # what the panel holds is left alone
    assert {name: (part.box, bytes(part.pixels[:1])) for name, part in sent[3].pictures.items()} == {
        "control_1": (Box(0, 0, 50, 40), b"l"),
        "control_2": (Box(0, 0, 50, 40), b"l"),
        "control_3": (Box(0, 0, 100, 80), b"l"),  # a reference is looked at as a whole
    }
    assert controller.host.read == [("layer", lines), ("layer", painting), ("layer", lines)]
    sent[3].check()
    controller.handle(result(job, Box(0, 0, 100, 80), mode="txt2img", params={"control": sent[2]["control"]}))
    assert json.loads(document.layers[2].recipe)["pictures"] == {
        "control_1": "lines",
        "control_2": "painting",
        "control_3": "lines",
    }
    assert controller.ask_again(document, document.layers[2])
    controller.handle(planned(controller._runner.last("plan")[0], Box(0, 0, 100, 80)))
    assert list(controller._runner.last("submit")[3].pictures) == ["control_1", "control_2", "control_3"]
    document.layers.remove(lines)
    assert not controller.ask_again(document, document.layers[1])
    assert "guided this one is gone" in controller.notice.text
    assert not controller.ask("txt2img", document, {"control": units})
    assert "is gone; choose another one" in controller.notice.text


def test_masks_lie_where_the_job_paints_and_pictures_are_seen_whole(controller: Any) -> None:
    here, photo = Layer("here"), Layer("photo")
    document = Document(layers=[photo, here])
    adapters = [{"image": "layer:photo", "image_2": "", "mask": "layer:here"}]
    regions = [{"prompt": "a deer", "mask": "layer:here"}]
    submitted(controller, "txt2img", document, Box(0, 0, 50, 40), ip_adapters=adapters, regions=regions)
    sent = controller._runner.last("submit")
    assert sent[2]["ip_adapters"] == [{"image": "control_1", "image_2": "", "mask": "control_2"}]
    assert sent[2]["regions"] == [{"prompt": "a deer", "mask": "control_3"}]
    assert {name: part.box for name, part in sent[3].pictures.items()} == {
        "control_1": Box(0, 0, 100, 80),
        "control_2": Box(0, 0, 50, 40),
        "control_3": Box(0, 0, 50, 40),
    }


def test_a_diagnosis_goes_to_the_clipboard(controller: Any) -> None:
    copied: list[str] = []
    controller.diagnosed = copied.append
    controller.diagnose()
    assert "in a moment" in controller.notice.text
    (ticket,) = controller._runner.last("doctor")
    controller.handle(Diagnosed(ticket, "ok    torch     2.13", 0))
    assert copied == ["ok    torch     2.13"] and not controller.notice.is_error
    controller.handle(Diagnosed(ticket, "BAD   disk      full", 2))
    assert copied[-1].startswith("BAD") and "2 of its lines" in controller.notice.text and controller.notice.is_error
    controller.handle(Failed(ticket, ResourceError("resource.connection_lost", "There is no connection.")))
    assert len(copied) == 2 and controller.notice.text == "There is no connection."


# ---- what is enlarged, and into what


@pytest.mark.parametrize("into", ["resize", "copy"])
def test_a_document_is_enlarged_with_its_layers_once_the_picture_is_there(controller: Any, into: str) -> None:
    document = Document()
    job = submitted(controller, "upscale", document, Box(0, 0, 100, 80), scale=2.0, into=into)
    assert controller._runner.last("plan")[2] == {"scale": 2.0}  # the server knows nothing of it
    assert controller.host.enlarged == []
    controller.handle(result(job, Box(0, 0, 200, 160), "upscale"))
    ((where, layer, recipe, size, copied),) = controller.host.enlarged
    assert where is document and layer.box == Box(0, 0, 200, 160) and size == (200, 160) and copied == (into == "copy")
    assert json.loads(recipe)["box"] == [0, 0, 200, 160] and not controller.host.opened
    assert bool(document.identity) == (into == "resize")


def test_the_selection_is_enlarged_alone_and_lies_where_it_lay(controller: Any) -> None:
    document = Document(selection=rectangle(33, 21, 31, 17))
    job = submitted(controller, "upscale", document, Box(33, 21, 31, 17), scale=1.5, source="selection", into="resize")
    assert controller._runner.last("plan")[2:] == ({"scale": 1.5}, (100, 80), Box(33, 21, 31, 17))
    controller.handle(result(job, Box(0, 0, 47, 26), "upscale"))
    ((_, layer, _, size, _),) = controller.host.enlarged
    assert size == (150, 120) and layer.box == Box(50, 32, 47, 26)


def test_a_layer_is_enlarged_alone(controller: Any) -> None:
    document = Document()
    submitted(controller, "upscale", document, Box(0, 0, 100, 80), source="layer")
    assert controller.host.read == [("layer", document.layers[0])]


@pytest.mark.parametrize("change", ["closed", "changed its size"])
def test_a_document_that_is_another_by_now_is_left_alone(controller: Any, change: str) -> None:
    document = Document()
    job = submitted(controller, "upscale", document, Box(0, 0, 100, 80), into="resize")
    document.open, document.width = change != "closed", 120
    controller.handle(result(job, Box(0, 0, 200, 160), "upscale"))
    assert not controller.host.enlarged and len(controller.host.opened) == 1
    assert f"{change} meanwhile; the picture is a document of its own" in controller.notice.text


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"source": "selection"}, "Select a region first"),
        ({"source": "half"}, "source cannot be 'half'; choose one of picture, layer, selection."),
        ({"into": "resize", "width": 300, "height": 100}, "leave one of them 0"),
        ({"into": "copy", "width": 90000}, "above the limit"),
    ],
)
def test_what_cannot_be_enlarged_is_told_before_anything_is_sent(
    controller: Any, params: dict[str, Any], sentence: str
) -> None:
    assert not controller.ask("upscale", Document(), params)
    assert sentence in controller.notice.text and controller.notice.is_error


def test_an_empty_layer_is_not_enlarged(controller: Any) -> None:
    assert not controller.ask("upscale", Document(layers=[Layer("empty", blank=True)]), {"source": "layer"})
    assert "The active layer is empty" in controller.notice.text
