"""What inpainting is for and where it looks, as both editors choose it; the table is the server's own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from impasto_client.flips import Sample
from impasto_client.intents import Aim, intent_choices, intent_for, intent_of, named_by
from impasto_client.targets import LAYER, Obstacle, aim, context_box, obstacle
from impasto_client.wishes import Wishes
from impasto_protocol.geometry import Box
from impasto_protocol.schema import Mode
from impasto_server.engine.intents import INTENTS
from impasto_server.engine.modes import MODES, describe, parse_params

from tests.client.editor_double import Document, DoubleHost, Layer, rectangle

INPAINT = next(mode for mode in describe() if mode.name == "inpaint")
CANVAS = Box(0, 0, 100, 80)


@pytest.mark.parametrize("mode", INTENTS)
def test_the_table_names_what_the_mode_takes(mode: str) -> None:
    assert mode in MODES
    for intent in INTENTS[mode]:
        parse_params(mode, intent.params)
    assert not INTENTS[mode][0].params
    assert not INTENTS[mode][-1].params


def test_intents_come_over_the_wire() -> None:
    assert Mode.from_wire(INPAINT.to_wire()) == INPAINT and INPAINT.intents
    old = dataclasses.replace(INPAINT, intents=())
    assert "intents" not in old.to_wire() and Mode.from_wire(old.to_wire()) == old


@pytest.mark.parametrize(
    ("chosen", "area", "strength", "meant"),
    [
        ("auto", Box(10, 10, 20, 20), 1.0, "fill"),
        ("auto", Box(0, 60, 100, 20), 1.0, "expand"),
        ("auto", Box(60, 0, 40, 80), 1.0, "expand"),
        ("auto", Box(0, 60, 100, 20), 0.5, "fill"),  # something is to be kept
        ("remove", Box(0, 60, 100, 20), 1.0, "remove"),
        ("unheard of", None, 1.0, "fill"),
    ],
)
def test_which_is_meant(chosen: str, area: Box | None, strength: float, meant: str) -> None:
    intent = intent_for(INPAINT.intents, chosen, area, CANVAS, strength)
    assert intent is not None and intent.name == meant
    assert intent_for((), chosen, area, CANVAS, strength) is None


def test_each_keeps_its_own() -> None:
    wishes, (fill, remove) = Wishes(), [next(i for i in INPAINT.intents if i.name == n) for n in ("fill", "remove")]
    wishes.keep_settings("inpaint", {"steps": 9, "grow": 40}, INPAINT, remove)
    assert wishes.settings("inpaint", remove) == {"steps": 9, "grow": 40}
    assert wishes.settings("inpaint", fill) == {"steps": 9}
    assert wishes.strength("inpaint", remove) == 0.9 and wishes.strength("inpaint", fill) == 1.0
    sent = wishes.params("inpaint", more={"steps": 9, "grow": 40}, intent=remove)
    assert (sent["strength"], sent["masked_content"], sent["grow"]) == (0.9, "fill", 40)
    assert Wishes.restored(wishes.kept()) == wishes


@pytest.mark.parametrize("intent", [i for i in INPAINT.intents if i.params], ids=lambda i: i.name)
def test_a_recipe_names_its_intent(intent: object) -> None:
    wishes = Wishes()
    params = dict(parse_params("inpaint", intent.params).__dict__)  # type: ignore[attr-defined]
    assert intent_of(INPAINT.intents, params) == intent
    assert wishes.take_for("inpaint", params, INPAINT) == intent.name  # type: ignore[attr-defined]
    assert not wishes.settings("inpaint", intent)  # type: ignore[arg-type]
    assert wishes.strengths["paint"] == 1.0
    assert named_by(INPAINT.intents) == {"masked_content", "invert", "grow"}
    assert len(intent_choices(INPAINT.intents)) == len(INPAINT.intents) + 1


def test_a_layer_as_mask_is_not_seen_unless_it_is_what_stays() -> None:
    where = Layer("where", box=Box(20, 10, 30, 20))
    document, host = Document(layers=[Layer("painting"), where]), DoubleHost()
    target = aim(host, "inpaint", document, {}, Aim(mask=f"{LAYER}where"))
    assert target.area == Box(20, 10, 30, 20) and target.without is where and target.region is not None
    assert set(bytes(target.region.mask)) == set(b"l")
    assert aim(host, "inpaint", document, {"invert": True}, Aim(mask=f"{LAYER}where")).without is None


def test_what_is_in_the_way_of_a_mask() -> None:
    document, host = Document(layers=[Layer("painting", blank=True)]), DoubleHost()
    assert "empty" in obstacle(host, "inpaint", document, Aim(mask=f"{LAYER}painting"))
    assert "gone" in obstacle(host, "inpaint", document, Aim(mask=f"{LAYER}nobody"))
    assert obstacle(host, "inpaint", document) == "Select a region first."
    assert obstacle(host, "inpaint", None, Aim(mask=f"{LAYER}painting")) == "Open a document first."
    assert obstacle(host, "txt2img", document, Aim(mask=f"{LAYER}nobody")) == ""


def test_the_context() -> None:
    frame, small = Layer("frame", box=Box(10, 5, 60, 60)), Layer("small", box=Box(0, 0, 12, 12))
    document, host = (
        Document(selection=rectangle(20, 10, 30, 20), layers=[Layer("painting"), frame, small]),
        DoubleHost(),
    )
    planned = Box(8, 8, 64, 64)

    def box(context: str, **params: object) -> Box:
        return context_box(aim(host, "inpaint", document, params, Aim(context=context)), planned, 4)

    assert box("") == planned
    assert box("selection") == Box(16, 6, 38, 28)
    assert box("whole") == CANVAS
    assert box(f"{LAYER}frame") == Box(10, 5, 60, 60)
    assert box("selection", invert=True) == planned  # around the selection lies all the rest
    with pytest.raises(Obstacle, match="does not cover"):
        box(f"{LAYER}small")
    with pytest.raises(Obstacle, match="gone"):
        box(f"{LAYER}nobody")


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("down", [False, True])
def test_a_flip_is_seen(across: bool, down: bool) -> None:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (80, 100, 4), np.uint8)

    class Pictured(DoubleHost):
        def read_visible(self, document: object, box: Box, without: object = None) -> bytes:
            return shown[box.y : box.bottom, box.x : box.right].tobytes()

    box = Box(11, 7, 40, 30)
    sample = Sample.of(box, picture[7:37, 11:51].tobytes())
    shown = picture[:: -1 if down else 1, :: -1 if across else 1]
    assert sample.was_flipped(Pictured(), Document(), CANVAS) == (across or down)
    shown = picture.copy()
    shown[10:30, 20:40] = 0  # painted over
    assert not sample.was_flipped(Pictured(), Document(), CANVAS)
