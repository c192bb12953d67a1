"""The same kills as an editor lives through them: its runner starts the server again and tells one end for each job."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import impasto_client.pictures
import pytest
from impasto_client.client import Client
from impasto_client.document import Snapshot
from impasto_client.endpoint import Endpoint, read_endpoint
from impasto_client.events import TERMINAL_STATES, ConnectionChanged, JobChanged, ResultReady
from impasto_client.tasks import Runner
from impasto_protocol.geometry import Box, Size
from impasto_protocol.home import launch_file, spool_folder, write_private
from impasto_protocol.messages import ClientInfo

from tests.faults.ground import HERE, ROOT, kill_workers
from tests.service.fakes import disc, picture

KILLS = min(200, int(os.environ.get("IMPASTO_FAULTS", "12"))) // 2
SEED = int(os.environ.get("IMPASTO_FAULTS_SEED", "1"))
BOX = Box(10, 20, 64, 48)
CANVAS = Size(200, 100)


class Editor:
    """A runner, and what it told."""

    def __init__(self, home: Path) -> None:
        path = [str(ROOT), str(ROOT / "protocol"), str(ROOT / "server")]
        argv = [sys.executable, str(HERE / "serve_faulty.py"), str(home), *path]
        write_private(launch_file(home), json.dumps({"argv": argv}))
        self.home = home
        self.events: list[Any] = []
        self.runner = Runner("test", self.events.append, home=home)
        self.runner.start()

    def connected(self) -> Endpoint:
        """Wait for the present server."""
        deadline = time.monotonic() + 60
        while True:
            last = [e.state for e in tuple(self.events) if isinstance(e, ConnectionChanged)][-1:]
            endpoint = read_endpoint(self.home)
            if last == ["connected"] and endpoint is not None:
                return endpoint
            assert time.monotonic() < deadline, self.events
            time.sleep(0.02)

    def of(self, job: str) -> list[Any]:
        return [event for event in tuple(self.events) if getattr(event, "job_id", "") == job]

    def ends(self, job: str) -> list[JobChanged]:
        return [e for e in self.of(job) if isinstance(e, JobChanged) and e.state in TERMINAL_STATES]

    def hang_up(self) -> None:
        client = self.runner._link.client
        if client is not None:
            client._transport._socket.shutdown(2)


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Editor]:
    # The pictures are small here; they go through files as those of a painter do.
    monkeypatch.setattr(impasto_client.pictures, "SPOOL_FROM", 1024)
    editor = Editor(tmp_path)
    yield editor
    editor.runner.stop()
    editor.runner.join()
    (tmp_path / "stop").touch()
    deadline = time.monotonic() + 30
    while read_endpoint(tmp_path) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(spool_folder(tmp_path).iterdir())


def kill(editor: Editor, kind: str) -> None:
    if kind == "connection":
        editor.hang_up()
        return
    endpoint = editor.connected()
    assert endpoint.pid != os.getpid()
    if kind == "server":
        os.kill(endpoint.pid, signal.SIGKILL)
        return
    else:
        kill_workers(endpoint.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the worker is found through /proc")
def test_an_editor_hears_one_end_of_each_job(editor: Editor) -> None:
    chance = random.Random(SEED)
    pixels, mask = picture(64, 48), disc(64, 48)
    prompts: dict[str, str] = {}
    editor.connected()
    kinds = [("server", "connection", "worker")[n % 3] for n in range(KILLS)]
    chance.shuffle(kinds)
    for kind in kinds:
        for _ in range(2):
            job = f"job-{len(prompts)}"
            prompts[job] = chance.choice(["slow", "many slow", "many", ""])
            params = {"prompt": prompts[job], "steps": chance.randint(1, 6)}
            editor.runner.submit(job, "inpaint", params, Snapshot(CANVAS, BOX, pixels, "rgba8", mask))
        time.sleep(chance.random() * 0.5)
        if chance.random() < 0.2:
            editor.runner.cancel(chance.choice(sorted(prompts)))
        kill(editor, kind)
    deadline = time.monotonic() + 60
    while not all(editor.ends(job) for job in prompts):
        editor.runner.start()  # as the painter's click would: look for the server at once
        assert time.monotonic() < deadline, [(job, editor.of(job)[-1]) for job in prompts if not editor.ends(job)]
        time.sleep(0.1)

    client = Client.connect(editor.connected(), ClientInfo("test", "0"), lambda message: None, lambda error: None)
    try:
        kept = {(entry.job, entry.index): entry for entry in client.history()}
        for job, prompt in prompts.items():
            (end,) = editor.ends(job)
            assert editor.of(job)[-1] == end
            results = [event.result for event in editor.of(job) if isinstance(event, ResultReady)]
            assert [result.index for result in results] == list(range(len(results)))
            if end.state == "finished":
                assert len(results) == (3 if "many" in prompt else 1)
            elif end.state == "failed":
                assert end.error is not None and end.error.retryable
            for result in results:
                assert result.box == BOX and result.pixels[3::4] == mask and result.pixels[0::4] == pixels[0::4]
                assert len(client.fetch(kept[job, result.index].digest)) == len(result.pixels)
    finally:
        client.close()
    assert any(end.state == "finished" for job in prompts for end in editor.ends(job))
