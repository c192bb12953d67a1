"""The whole way: a real Krita, the real server started by the plug-in, the real engine in its spawned worker."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.krita.conftest import Painter
from tests.tiny import write_tiny_checkpoint

pytestmark = pytest.mark.krita

WIDTH, HEIGHT = 256, 192


@pytest.fixture(scope="module")
def launch() -> list[str]:
    return [sys.executable, "-m", "impasto_server.cli.main", "serve"]


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors")]


def picture(data: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(data), np.uint8).reshape(HEIGHT, WIDTH, 4)


def test_inpaint_undo_redo(painter: Painter) -> None:
    before, after, undone, redone, layer, info = painter.run(
        """
def gen():
    yield (connected, 60)
    doc = yield from new_document()
    select(doc, 80, 60, 64, 48)
    prompt("a boat")
    docker().panel.form.set_overrides({"steps": 4})
    yield (lambda: widget("inpaint").isEnabled(), 5)
    before = [projection(doc).hex(), layers(doc)]
    yield from begin(lambda: press("inpaint"))
    yield (idle, 120)
    yield 0.3
    assert controller().notice is None or not controller().notice.is_error, controller().notice.text
    after = [projection(doc).hex(), layers(doc)]
    node = next(n for n in doc.rootNode().childNodes() if n.name() not in before[1])
    alpha = bytes(node.pixelData(0, 0, doc.width(), doc.height()))[3::4]
    result = strip().current()
    app.action("edit_undo").trigger()
    yield (lambda: len(layers(doc)) == len(before[1]), 5)
    undone = [projection(doc).hex(), layers(doc)]
    app.action("edit_redo").trigger()
    yield (lambda: len(layers(doc)) == len(after[1]), 5)
    redone = [projection(doc).hex(), layers(doc)]
    return [before, after, undone, redone, alpha.hex(), [node.name(), list(result.box), result.seed]]
""",
        timeout=200,
    )
    alpha = np.frombuffer(bytes.fromhex(layer), np.uint8).reshape(HEIGHT, WIDTH)
    old, new = picture(before[0]), picture(after[0])
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[60:108, 80:144] = True
    assert (alpha[inside] == 255).all()
    assert (new[alpha == 0] == old[alpha == 0]).all()
    assert (alpha == 0).mean() > 0.3
    assert abs(new[inside].astype(int) - old[inside]).mean() > 5
    assert undone == before and redone == after
    assert "a boat" in info[0]


def test_with_exact_selection_the_alpha_is_the_selection(painter: Painter) -> None:
    """A feathered one, bit for bit; nothing else of the picture changes."""
    selected, layer, before, after = painter.run(
        """
def gen():
    yield (connected, 60)
    doc = yield from new_document()
    s = Selection()
    s.select(80, 60, 64, 48, 255)
    s.feather(6)
    doc.setSelection(s)
    prompt("a boat")
    docker().set_way("inpaint")
    yield 0.4
    widget("advanced").set_open(True)
    yield 0.2
    switch = next(b for b in docker().panel.form.findChildren(QCheckBox) if b.text() == "Exact selection")
    assert switch.isVisibleTo(docker().panel.form)
    switch.click()
    docker().panel.form.model.edited("steps", 2)
    yield (lambda: widget("inpaint").isEnabled(), 5)
    before = [projection(doc).hex(), layers(doc)]
    yield from begin(lambda: press("inpaint"))
    yield (idle, 120)
    yield 0.3
    assert controller().notice is None or not controller().notice.is_error, controller().notice.text
    node = next(n for n in doc.rootNode().childNodes() if n.name() not in before[1])
    size = (0, 0, doc.width(), doc.height())
    alpha = bytes(node.pixelData(*size))[3::4]
    switch.click()
    docker().set_way("auto")
    return [bytes(doc.selection().pixelData(*size)).hex(), alpha.hex(), before[0], projection(doc).hex()]
""",
        timeout=200,
    )
    assert selected == layer
    mask = np.frombuffer(bytes.fromhex(selected), np.uint8).reshape(HEIGHT, WIDTH)
    assert ((mask > 0) & (mask < 255)).sum() > 0
    assert (picture(before)[mask == 0] == picture(after)[mask == 0]).all()


def test_a_worker_that_dies_fails_one_job_only(painter: Painter) -> None:
    painter.run(
        """
def gen():
    global doc, before
    yield (connected, 60)
    doc = yield from new_document()
    select(doc, 40, 40, 64, 64)
    prompt("a storm")
    docker().panel.form.set_overrides({"steps": 150})
    yield (lambda: widget("inpaint").isEnabled(), 5)
    before = state(doc)
    press("inpaint")
    yield (lambda: controller().running() is not None and controller().running().step > 0, 60)
""",
        timeout=100,
    )
    server = painter.server_pid()
    # Each thread has the children that it started.
    lists = [file.read_text().split() for file in Path(f"/proc/{server}/task").glob("*/children")]
    children = [pid for found in lists for pid in found]
    workers = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(workers) == 1
    os.kill(int(workers[0]), signal.SIGKILL)
    before, after, message, names = painter.run(
        """
def gen():
    yield (lambda: controller().running() is None, 30)
    yield 0.2
    message = widget("message").text()
    after = state(doc)
    prompt("calm")
    docker().panel.form.set_overrides({"steps": 2})
    yield from begin(lambda: press("inpaint"))
    yield (idle, 120)
    return [before, after, message, layers(doc)]
""",
        timeout=200,
    )
    assert after == before
    assert message.endswith(".") and "Traceback" not in message
    assert any("calm" in name for name in names)
    assert painter.server_pid() == server
