"""The runner against the real service: what an editor and the server promise each other."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from impasto_client.client import Client
from impasto_client.document import ResultLayer, Snapshot
from impasto_client.endpoint import read_endpoint
from impasto_client.events import (
    CatalogChanged,
    ConnectionChanged,
    Failed,
    HistoryListed,
    JobChanged,
    ParametersRead,
    Planned,
    ResultFetched,
    ResultReady,
)
from impasto_client.tasks import Runner
from impasto_protocol.errors import AssetError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.home import launch_file, write_private
from impasto_protocol.messages import ClientInfo
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


def test_results_of_another_editor_are_listed_and_fetched(editor: Editor, tmp_path: Path) -> None:
    editor.until(CatalogChanged, seconds=60)
    editor.runner.submit("made", "inpaint", {"prompt": "x", "steps": 3}, snapshot(Box(90, 40, 64, 48)))
    assert editor.ended("made").state == "finished"
    made = next(e for e in editor.of("made") if isinstance(e, ResultReady)).result

    other = Editor(tmp_path, start=False)
    other.runner = Runner("other", other._on_event, home=tmp_path)
    other.runner.start()
    try:
        other.runner.kept.list(5)
        entry = other.until(HistoryListed).entries[0]
        assert (entry.job, entry.info and entry.info["mode"]) == ("made", made.recipe["mode"])
        other.runner.kept.fetch(entry.job, entry.index)
        found = other.until(ResultFetched).result
        assert found is not None and found == made
        swapped = found.in_format("rgba8")
        assert swapped.pixels[0:4] == bytes(found.pixels[i] for i in (2, 1, 0, 3))
        assert swapped.in_format("bgra8") == found
        other.runner.kept.fetch("never-made", 0)
        failed = other.until(ResultFetched, lambda e: e.result is None)
        assert failed.error is not None and failed.error.code == "asset.missing"
    finally:
        other.close()


def test_a_format_that_is_no_picture_is_refused() -> None:
    result = ResultLayer("j", 0, Box(0, 0, 1, 1), b"1234", "bgra8", "n", "s", "soft", 1)
    with pytest.raises(AssetError, match="cannot be turned into"):
        result.in_format("l8")


def test_a_job_ends_with_the_connection_where_that_was_asked_for(editor: Editor, tmp_path: Path) -> None:
    editor.until(CatalogChanged, seconds=60)
    other = Editor(tmp_path, start=False)
    other.runner = Runner("other", other._on_event, home=tmp_path, on_disconnect="cancel")
    other.runner.start()
    other.runner.submit("short", "inpaint", {"prompt": "slow", "steps": 150}, snapshot(Box(90, 40, 64, 48)))
    other.until(JobChanged, lambda e: e.job_id == "short" and e.state == "running")
    other.close()
    endpoint = read_endpoint(tmp_path)
    assert endpoint is not None
    client = Client.connect(endpoint, ClientInfo("test", "0", "test"), lambda _: None, lambda _: None)
    try:
        wait_until(lambda: [job.state for job in client.jobs() if job.job == "short"] == ["cancelled"])
    finally:
        client.close()


def test_a_result_is_taken_further(editor: Editor) -> None:
    catalog = editor.until(CatalogChanged, seconds=60).catalog
    assert catalog.presets == ()
    recipe = {"mode": "txt2img", "params": {"prompt": "a fox", "seed": 7, "width": 64, "height": 72, "batch": 1}}
    for way, mode in (("hires", "txt2img"), ("img2img", "img2img"), ("inpaint", "inpaint")):
        editor.runner.further(way, way, recipe)
        read = editor.until(ParametersRead, lambda e, way=way: e.ticket == way)
        assert (read.mode, read.params["seed"], read.params["prompt"]) == (mode, 7, "a fox")
        assert read.params.get("hires", False) is (way == "hires") and ("width" in read.params) is (way == "hires")
    editor.runner.further("wrong", "hires", {"mode": "inpaint", "params": {}})
    failed = editor.until(Failed)
    assert failed.ticket == "wrong" and failed.error.code == "request.invalid_param"


def test_a_picture_that_is_dropped_on_a_panel_is_read(editor: Editor) -> None:
    editor.until(CatalogChanged, seconds=60)
    text = "a fox\nSteps: 9, Sampler: Euler a, Seed: 3, Size: 64x72, Tiling: True"
    editor.runner.read_parameters("one", text)
    read = editor.until(ParametersRead)
    assert (read.ticket, read.mode, read.params["steps"], read.notes[0].key) == ("one", "txt2img", 9, "Tiling")
    # Larger than what goes into one message.
    editor.runner.read_parameters("two", b"\xef\xbb\xbf" + ("\n" * (1 << 21)).encode() + text.encode())
    assert editor.until(ParametersRead, lambda e: e.ticket == "two").params == read.params
    editor.runner.read_parameters("three", b"\xff\xd8\xff\x00")
    failed = editor.until(Failed)
    assert failed.ticket == "three" and failed.error.code == "asset.bad_image"
