"""What a user of the client relies on, told as functions over a folder; run by pytest and by every interpreter found.

Python 3.8, no pytest. Each scenario takes a fresh folder and raises AssertionError where a promise is broken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fake_server import FakeServer
from impasto_client.client import Client
from impasto_client.document import Snapshot
from impasto_client.endpoint import read_endpoint
from impasto_client.events import (
    CatalogChanged,
    ConnectionChanged,
    Failed,
    JobChanged,
    Planned,
    PreviewReady,
    ResultReady,
)
from impasto_client.jobs import JobList
from impasto_client.spool import SpoolFolder
from impasto_client.tasks import Runner
from impasto_protocol.errors import JobError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.messages import Cancel, ClientInfo, Put, PutNew, SpoolInfo
from impasto_protocol.version import Limits

T = TypeVar("T")


class Editor:
    """A runner and the events that it told."""

    def __init__(self, home: Path, start: bool = True) -> None:
        self.events: list[Any] = []
        self.changed = threading.Condition()
        self.runner = Runner("test", self._on_event, start_server=False, home=home)
        if start:
            self.runner.start()

    def _on_event(self, event: Any) -> None:
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def until(self, kind: type[T], test: Callable[[T], bool] = lambda event: True, seconds: float = 15) -> T:
        """The first event of the kind that passes the test, waited for."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while True:
                for event in self.events:
                    if isinstance(event, kind) and test(event):
                        return event
                left = deadline - time.monotonic()
                assert left > 0, f"no {kind.__name__} among {self.events!r}"
                self.changed.wait(left)

    def connected(self) -> Editor:
        self.until(ConnectionChanged, lambda e: e.state == "connected")
        return self

    def ended(self, job: str) -> JobChanged:
        return self.until(JobChanged, lambda e: e.job_id == job and e.state in ("finished", "failed", "cancelled"))

    def of(self, job: str) -> list[Any]:
        return [e for e in self.events if getattr(e, "job_id", None) == job]

    def close(self) -> None:
        self.runner.stop()
        self.runner.join()


def snapshot(width: int = 8, height: int = 4, seed: int = 1) -> Snapshot:
    pixels = bytes((i * 7 + seed) % 256 for i in range(256)) * (width * height * 4 // 256 + 1)
    return Snapshot(
        Size(4096, 4096), Box(3, 5, width, height), pixels[: width * height * 4], "bgra8", b"\xff" * (width * height)
    )


def client_of(server: FakeServer) -> Client:
    endpoint = read_endpoint(server.home)
    assert endpoint is not None
    return Client.connect(endpoint, ClientInfo("test", "0"), lambda message: None, lambda error: None)


def selection_becomes_a_layer(home: Path) -> None:
    server, shot = FakeServer(home).start(), snapshot()
    editor = Editor(home)
    try:
        catalog = editor.until(CatalogChanged).catalog
        mode = catalog.mode("inpaint")
        assert mode is not None and mode.params[0].name == "steps" and catalog.models[0]["kind"] == "checkpoint"
        editor.runner.plan("t", "inpaint", {"steps": 4}, (4096, 4096), shot.box)
        plan = editor.until(Planned).plan
        assert plan.box == shot.box and plan.working == Size(512, 512) and plan.warnings == ("careful",)
        editor.runner.submit("job-1", "inpaint", {"steps": 4}, shot)
        assert editor.ended("job-1").state == "finished"
        events = editor.of("job-1")
        result = next(e for e in events if isinstance(e, ResultReady)).result
        assert result.pixels == bytes(255 - v for v in shot.pixels)
        assert (result.box, result.format, result.alpha, result.seed) == (shot.box, "bgra8", "soft", 7)
        assert result.recipe["mode"] == "inpaint" and result.name == "Cat"
        assert isinstance(events[-1], JobChanged) and isinstance(events[-2], ResultReady)
        assert any(isinstance(e, PreviewReady) and e.jpeg.startswith(b"\xff\xd8") for e in events)
        fractions = [e.fraction for e in events if isinstance(e, JobChanged) and e.state == "running" and e.stage]
        assert fractions == [0.2, 0.4, 0.6, 0.8]
        jobs = JobList()
        for event in editor.events:
            jobs.apply(event)
        state = jobs.get("job-1")
        assert state is not None and not jobs.active and state.results == 1 and jobs.results == (result,)
        # The same pixels again are not sent again.
        puts = sum(isinstance(m, Put) for m in server.received)
        editor.runner.submit("job-2", "inpaint", {}, shot)
        assert editor.ended("job-2").state == "finished"
        assert sum(isinstance(m, Put) for m in server.received) == puts
    finally:
        editor.close()
        server.stop()


def cancel_overtakes_an_upload(home: Path) -> None:
    server = FakeServer(home, Limits(chunk=16384)).start()
    server.put_delay = 0.02
    editor = Editor(home).connected()
    try:
        editor.runner.submit("big", "inpaint", {}, snapshot(1024, 512))  # 128 chunks, 2.5 s
        editor.until(JobChanged, lambda e: e.state == "uploading")
        wait_until(lambda: any(isinstance(m, PutNew) for m in server.received))
        started = time.monotonic()
        editor.runner.cancel("big")
        assert editor.ended("big").state == "cancelled"
        assert time.monotonic() - started < 1.5
        assert "big" not in server.jobs
        # The abandoned upload harms no later one.
        server.put_delay = 0.0
        editor.runner.submit("next", "inpaint", {}, snapshot(64, 64))
        assert editor.ended("next").state == "finished"
    finally:
        editor.close()
        server.stop()


def cancel_ends_a_running_job(home: Path) -> None:
    server = FakeServer(home).start()
    server.gate.clear()
    editor = Editor(home).connected()
    try:
        editor.runner.submit("job", "inpaint", {}, snapshot())
        editor.until(PreviewReady)
        editor.runner.cancel("job")
        editor.runner.cancel("job")
        assert editor.ended("job").state == "cancelled"
        assert not any(isinstance(e, ResultReady) for e in editor.events)
        assert any(isinstance(m, Cancel) for m in server.received)
        assert len([e for e in editor.of("job") if isinstance(e, JobChanged) and e.state == "cancelled"]) == 1
    finally:
        editor.close()
        server.stop()


def job_survives_a_lost_connection(home: Path) -> None:
    server = FakeServer(home).start()
    server.gate.clear()
    editor = Editor(home).connected()
    try:
        editor.runner.submit("job", "inpaint", {}, snapshot())
        editor.until(PreviewReady)
        server.drop()
        editor.until(ConnectionChanged, lambda e: e.state == "lost")
        wait_until(lambda: sum(isinstance(e, ConnectionChanged) and e.state == "connected" for e in editor.events) == 2)
        server.gate.set()
        assert editor.ended("job").state == "finished"
        assert sum(isinstance(e, ResultReady) for e in editor.events) == 1
    finally:
        editor.close()
        server.stop()


def job_of_a_restarted_server_fails_readably(home: Path) -> None:
    server = FakeServer(home).start()
    server.gate.clear()
    editor = Editor(home).connected()
    second = FakeServer(home)
    try:
        editor.runner.submit("job", "inpaint", {}, snapshot())
        editor.until(PreviewReady)
        second.start()
        server.drop()
        error = editor.ended("job").error
        assert error is not None and error.code == "job.unknown" and "restarted" in error.message
        editor.runner.submit("again", "inpaint", {}, snapshot())
        assert editor.ended("again").state == "finished"
    finally:
        editor.close()
        server._server.shutdown()
        second.stop()


def submit_waits_for_the_server(home: Path) -> None:
    editor = Editor(home)
    server = FakeServer(home)
    try:
        failed = editor.until(ConnectionChanged, lambda e: e.state == "failed")
        assert "impasto serve" in failed.message
        editor.runner.submit("job", "inpaint", {}, snapshot())
        editor.runner.plan("ticket", "inpaint", {}, (64, 64))
        assert editor.until(Failed).ticket == "ticket"
        server.start()
        editor.runner.start()
        assert editor.ended("job").state == "finished"
    finally:
        editor.close()
        server.stop()


def errors_of_the_server_arrive(home: Path) -> None:
    server = FakeServer(home).start()
    editor = Editor(home).connected()
    try:
        editor.runner.plan("bad", "dance", {}, (64, 64))
        failed = editor.until(Failed)
        assert (failed.ticket, failed.error.code, failed.error.path) == ("bad", "request.unknown_mode", "mode")
        editor.runner.submit("bad-job", "inpaint", {"fail": True}, snapshot())
        error = editor.ended("bad-job").error
        assert error is not None and error.code == "model.corrupt"
        client = client_of(server)
        try:
            client.cancel("nobody")
            raise AssertionError("an unknown job was cancelled")
        except JobError as unknown:
            assert unknown.code == "job.unknown"
        finally:
            client.close()
    finally:
        editor.close()
        server.stop()


def wait_until(test: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def pictures_go_by_file_where_both_see_it(home: Path) -> None:
    folder = home / "spool"
    folder.mkdir()
    secret = bytes(range(32))
    shared: list[tuple[bytes, bytes]] = []
    for name, size in (("probe", 64), ("room", 100)):
        (folder / name).write_bytes(secret + bytes(size - 32))
    spool = SpoolFolder.prove(SpoolInfo(str(folder), "probe"), lambda *proof: shared.append(proof))
    assert spool is not None and shared == [(secret, (folder / "probe").read_bytes()[32:])] and any(shared[0][1])
    data = bytes(range(90))
    spool.write("room", memoryview(data), threading.Event())
    assert spool.read("room", 90) == data and (folder / "room").stat().st_size == 100
    for elsewhere in (SpoolInfo(str(home / "gone"), "probe"), SpoolInfo(str(folder), "../probe")):
        assert SpoolFolder.prove(elsewhere, lambda *proof: shared.append(proof)) is None
    assert len(shared) == 1


SCENARIOS: dict[str, Callable[[Path], None]] = {
    f.__name__: f
    for f in (
        selection_becomes_a_layer,
        cancel_overtakes_an_upload,
        cancel_ends_a_running_job,
        job_survives_a_lost_connection,
        job_of_a_restarted_server_fails_readably,
        submit_waits_for_the_server,
        errors_of_the_server_arrive,
        pictures_go_by_file_where_both_see_it,
    )
}
