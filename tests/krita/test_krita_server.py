"""The server as the plug-in meets it: not there, started, lost in the middle of a job, and back."""

from __future__ import annotations

import json
import os
import signal

import pytest
from impasto_protocol.home import launch_file

from tests.krita.conftest import Painter

pytestmark = pytest.mark.krita


@pytest.fixture(scope="module")
def launch() -> list[str]:
    """At first, a program that does not exist."""
    return ["/nowhere/impasto", "serve"]


def test_a_server_that_cannot_be_started_is_a_sentence_and_a_button(painter: Painter, launch: list[str]) -> None:
    from tests.krita import stub

    enabled, text, retry, box = painter.run("""
def gen():
    doc = yield from new_document()
    select(doc, 10, 10, 60, 60)
    yield (lambda: controller().connection.state == "failed", 20)
    yield 0.3
    return [widget("inpaint").isEnabled(), widget("connection").text(), shown("retry"),
            QApplication.activeModalWidget() is not None]
""")
    assert enabled and retry and not box
    assert "could not be started" in text

    before, after, message = painter.run("""
def gen():
    doc = app.activeDocument()
    before = state(doc)
    prompt("nobody is there")
    press("inpaint")
    yield (lambda: controller().notice is not None, 20)
    yield (lambda: controller().running() is None, 5)
    yield 0.2
    return [before, state(doc), widget("message").text()]
""")
    assert after == before
    assert "could not be started" in message

    launch_file(painter.home).write_text(json.dumps({"argv": stub.launch_command()}))
    state, retry = painter.run("""
def gen():
    press("retry")
    yield (connected, 30)
    yield 0.2
    return [widget("connection").text(), shown("retry")]
""")
    assert "Impasto" in state and not retry


def test_a_server_killed_in_the_middle_of_a_job(painter: Painter) -> None:
    """The document stays as it was, the docker says it, and the next use has a server again."""
    painter.hold.touch()
    painter.run("""
def gen():
    global doc, before
    doc = yield from new_document()
    select(doc, 10, 10, 60, 60)
    yield (lambda: widget("inpaint").isEnabled(), 5)
    before = state(doc)
    prompt("lost")
    press("inpaint")
    yield (lambda: controller().running() is not None and controller().running().step == 3, 20)
""")
    first = painter.server_pid()
    os.kill(first, signal.SIGKILL)
    before, after, message, box = painter.run("""
def gen():
    yield (lambda: controller().running() is None, 30)
    yield 0.2
    return [before, state(doc), widget("message").text(), QApplication.activeModalWidget() is not None]
""")
    assert after == before and not box
    assert "run it again" in message

    painter.hold.unlink()
    names, message = painter.run("""
def gen():
    prompt("found")
    yield (lambda: widget("inpaint").isEnabled(), 5)
    press("inpaint")
    yield (lambda: "Impasto: found" in layers(doc), 40)
    yield (idle, 10)
    return [layers(doc), shown("message")]
""")
    assert "Impasto: lost" not in names
    assert not message
    assert painter.server_pid() != first


def test_the_models_of_the_catalogue_and_why_one_cannot_be_used(painter: Painter) -> None:
    current, entries = painter.run("""
def gen():
    yield (connected, 20)
    combo = widget("model")
    return [combo.currentText(), [[combo.itemText(i), combo.model().item(i).isEnabled(),
            combo.itemData(i, Qt.ItemDataRole.ToolTipRole)] for i in range(combo.count())]]
""")
    assert current == "Painterly"
    assert entries[1] == ["broken", False, "The file ends early; download it again."]


def test_settings_come_from_the_schema_and_only_what_was_changed_is_sent(painter: Painter) -> None:
    first, second, third = painter.run("""
def gen():
    yield (connected, 20)
    docker().panel.advanced.set_open(True)
    widget("prompt").setPlainText("p")
    first = docker().params()
    widget("steps").set_value(33)
    widget("feather").setValue(12)
    widget("exact").setChecked(True)
    second = docker().params()
    press("reset")
    docker().panel.advanced.set_open(False)
    return [first, second, docker().params()]
""")
    assert set(first) == {"prompt", "negative_prompt", "strength", "seed", "model"}
    assert second == {**first, "steps": 33, "feather": 12, "exact": True}
    assert third == first
