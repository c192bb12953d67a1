"""The runner against the real service: what an editor and the server promise each other."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from impasto_client.document import Snapshot
from impasto_client.endpoint import read_endpoint
from impasto_client.events import CatalogChanged, ConnectionChanged, Failed, JobChanged, Planned, ResultReady
from impasto_client.tasks import Runner
from impasto_protocol.geometry import Box, Size
from impasto_protocol.home import launch_file, write_private
from scenarios import Editor, wait_until

ROOT = Path(__file__).resolve().parents[2]
CANVAS = Size(256, 192)


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[Editor]:
    path = [str(ROOT), str(ROOT / "protocol"), str(ROOT / "server")]
    argv = [sys.executable, str(Path(__file__).with_name("serve_service.py")), str(tmp_path), *path]
    write_private(launch_file(tmp_path), json.dumps({"argv": argv}))
    editor = Editor(tmp_path, start=False)
    editor.runner = Runner("test", editor._on_event, home=tmp_path)
    editor.runner.start()
    yield editor
    editor.close()
    (tmp_path / "stop").touch()
    wait_until(lambda: read_endpoint(tmp_path) is None)


def snapshot(box: Box) -> Snapshot:
    pixels = bytes((10, 20, 30, 255)) * (box.width * box.height)
    mask = bytes(255 if 8 <= i % box.width < 40 else 0 for i in range(box.width * box.height))
    return Snapshot(CANVAS, box, pixels, "bgra8", mask)


def test_plan_submit_cancel_and_a_killed_server(editor: Editor, tmp_path: Path) -> None:
    catalog = editor.until(CatalogChanged, seconds=60).catalog
    mode = catalog.mode("inpaint")
    assert mode is not None and mode.available and catalog.models

    selection = (100, 50, 32, 32)
    editor.runner.plan("plan", "inpaint", {"prompt": "x"}, CANVAS, selection)
    box = editor.until(Planned).plan.box
    assert box.contains(Box(*selection)) and Box.of_size(CANVAS).contains(box)
    editor.runner.plan("bad", "inpaint", {"steps": "many"}, CANVAS, selection)
    refused = editor.until(Failed)
    assert (refused.ticket, refused.error.code, refused.error.path) == ("bad", "request.invalid_param", "params.steps")

    editor.runner.submit("good", "inpaint", {"prompt": "x", "steps": 3}, snapshot(Box(90, 40, 64, 48)))
    assert editor.ended("good").state == "finished"
    result = next(e for e in editor.of("good") if isinstance(e, ResultReady)).result
    assert result.format == "bgra8" and len(result.pixels) == 4 * result.box.width * result.box.height
    fractions = [e.fraction for e in editor.of("good") if isinstance(e, JobChanged) and e.state == "running"]
    assert fractions == sorted(fractions)

    # Nothing is read from the document; the result still goes where it was asked for.
    editor.runner.submit("new", "txt2img", {"prompt": "x", "steps": 3}, Snapshot(CANVAS, Box(90, 40, 64, 64), b""))
    assert editor.ended("new").state == "finished"
    assert next(e for e in editor.of("new") if isinstance(e, ResultReady)).result.box == Box(90, 40, 64, 64)

    editor.runner.submit("slow", "inpaint", {"prompt": "slow", "steps": 150}, snapshot(Box(90, 40, 64, 48)))
    editor.until(JobChanged, lambda e: e.job_id == "slow" and e.state == "running")
    started = time.monotonic()
    editor.runner.cancel("slow")
    assert editor.ended("slow").state == "cancelled" and time.monotonic() - started < 5
    assert not any(isinstance(e, ResultReady) for e in editor.of("slow"))

    editor.runner.submit("lost", "inpaint", {"prompt": "slow", "steps": 150}, snapshot(Box(90, 40, 64, 48)))
    editor.until(JobChanged, lambda e: e.job_id == "lost" and e.state == "running")
    first = read_endpoint(tmp_path)
    assert first is not None
    os.kill(first.pid, 9)
    ended = editor.ended("lost")
    assert ended.error is not None and "run it again" in ended.error.message
    wait_until(lambda: sum(isinstance(e, ConnectionChanged) and e.state == "connected" for e in editor.events) == 2, 60)
    editor.runner.submit("after", "inpaint", {"prompt": "x", "steps": 3}, snapshot(Box(90, 40, 64, 48)))
    assert editor.ended("after").state == "finished"
