"""The choice of an upscaler in the docker: what the catalogue has, and what is sent. A real Krita, a stub engine."""

from __future__ import annotations

import pytest

from tests.krita.conftest import Painter
from tests.krita.test_krita_actions import HELPERS

pytestmark = pytest.mark.krita


@pytest.fixture(scope="module", autouse=True)
def ready(painter: Painter) -> None:
    painter.run(HELPERS)
    painter.run("def gen():\n    yield (connected, 30)")


def test_the_upscaler_is_chosen_among_those_of_the_catalogue(painter: Painter) -> None:
    offered, sent, kept, default = painter.run("""
def gen():
    yield from new_document()
    choose("upscale")
    form = docker().panel.form
    combo = form._fields["upscaler"].widget
    offered = [(combo.itemText(i), combo.itemData(i)) for i in range(combo.count())]
    combo.setCurrentIndex(1)
    sent = docker().params()
    # One that has gone stays to be seen until another is chosen; a new list of models changes nothing else.
    form.set_overrides({"upscaler": "gone"})
    form.set_models(controller().catalog.models)
    kept = [combo.currentText(), docker().params()["upscaler"]]
    form.reset()
    default = [combo.currentText(), docker().params()]
    choose("inpaint")
    return [offered, sent, kept, default]
""")
    assert offered == [["Lanczos", ""], ["Sharp 4x", "sharp"]]
    assert sent == {"scale": 2.0, "upscaler": "sharp"}
    assert kept == ["gone (not found)", "gone"]
    assert default == ["Lanczos", {"scale": 2.0}]
