"""One connection: requests, uploads, downloads, its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import impasto_client.exchange
import impasto_client.transport
import pytest
from fake_server import FakeServer
from impasto_client import tasks
from impasto_client.client import Client
from impasto_client.document import Snapshot
from impasto_client.endpoint import read_endpoint
from impasto_client.events import JobChanged, PreviewReady, ResultReady
from impasto_client.jobs import JobList
from impasto_client.tasks import Runner
from impasto_protocol import messages as wire
from impasto_protocol.errors import AssetError, ImpastoError, JobError, ProtocolError, RequestError, ResourceError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.images import digest_of
from impasto_protocol.messages import ClientInfo, Have, InputPicture, Message, Put, PutNew
from impasto_protocol.version import Limits
from scenarios import Editor, client_of, snapshot, wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    server = FakeServer(tmp_path, Limits(chunk=4096, window=3)).start()
    yield server
    server.stop()


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    client = client_of(server)
    yield client
    client.close()


def puts(server: FakeServer) -> list[Put | PutNew]:
    return [m for m in server.received if isinstance(m, (Put, PutNew))]


def test_requests(client: Client) -> None:
    catalog = client.catalog()
    assert catalog is not None and catalog.modes[0].name == "inpaint"
    assert client.catalog(catalog.rev) is None
    plan = client.plan("inpaint", {}, Size(64, 64), Box(1, 2, 3, 4))
    assert plan.box == Box(1, 2, 3, 4) and plan.seconds == 1.5
    with pytest.raises(RequestError, match="no such mode"):
        client.plan("dance", {}, Size(1, 1))
    assert client.jobs() == ()
    client.shutdown()


def test_upload_sends_once_in_chunks_below_the_limit(server: FakeServer, client: Client) -> None:
    data = bytes(range(256)) * 80
    digest = client.upload(data)
    assert server.blobs[digest] == data and digest == digest_of(data)
    assert [(p.offset, len(p.data)) for p in puts(server)] == [(i * 4096, 4096) for i in range(5)]
    assert client.upload(memoryview(bytearray(data))) == digest and len(puts(server)) == 5
    assert client.have((digest, "0" * 32)) == ("0" * 32,)


def test_by_loopback_a_large_picture_is_sent_without_a_question(server: FakeServer) -> None:
    """The server hashes it while it arrives: to hash it here first would only take longer."""
    client = client_of(server)
    data = bytes(range(256)) * 1200
    assert client.upload(data) == digest_of(data) and server.blobs[digest_of(data)] == data
    assert {type(p) for p in puts(server)} == {PutNew} and not any(isinstance(m, Have) for m in server.received)
    client.close()


@pytest.mark.parametrize("why", ["far", "old"])
def test_to_another_computer_or_an_older_server_a_picture_is_named_first(
    server: FakeServer, client: Client, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "far":
        monkeypatch.setattr(impasto_client.transport.Transport, "near", False)
    else:
        monkeypatch.setattr(client, "welcome", replace(client.welcome, protocol=(1, 1)))
    data = bytes(range(256)) * 1200
    for _ in range(2):
        assert client.upload(data) == digest_of(data)
    assert {type(p) for p in puts(server)} == {Put} and len({p.offset for p in puts(server)}) == len(puts(server))


def test_upload_keeps_to_the_window(server: FakeServer, client: Client) -> None:
    server.silent_about = "put"

    def upload() -> None:
        with pytest.raises(ResourceError):
            client.upload(bytes(4096 * 10))

    thread = threading.Thread(target=upload)
    thread.start()
    wait_until(lambda: len(puts(server)) == 3)
    time.sleep(0.1)
    assert len(puts(server)) == 3
    # Other messages pass meanwhile.
    assert client.have(()) == ()
    client.close()
    thread.join(10)
    assert not thread.is_alive()


def test_upload_can_be_stopped(server: FakeServer, client: Client) -> None:
    server.put_delay = 0.02
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(JobError, match="given up"):
        client.upload(bytes(4096 * 500), stop)
    assert len(puts(server)) < 100


def test_refused_upload_raises(client: Client, server: FakeServer) -> None:
    class Greedy:
        chunk = 10**6
        window = 4
        upload_bytes = 1 << 30

    object.__setattr__(client.welcome, "limits", Greedy)
    with pytest.raises(ImpastoError, match="the limit is 4096"):
        client.upload(bytes(9000))


def test_fetch_puts_pieces_together(server: FakeServer, client: Client) -> None:
    data = bytes(range(256)) * 100
    server.blobs[digest_of(data)] = data
    assert client.fetch(digest_of(data), len(data)) == data
    with pytest.raises(AssetError, match="announced were 5"):
        client.fetch(digest_of(data), 5)
    with pytest.raises(AssetError) as caught:
        client.fetch("0" * 32)
    assert caught.value.code == "asset.missing"
    server.damage_results = True
    with pytest.raises(AssetError) as caught:
        client.fetch(digest_of(data))
    assert caught.value.code == "asset.digest_mismatch"


def test_an_answer_counts_although_the_connection_ended_behind_it() -> None:
    """A thread that wakes late finds both; without this an accepted job would count as not sent."""
    waiter = impasto_client.exchange.Waiter()
    waiter.put(answer=wire.Ok(1))
    waiter.put(error=ResourceError("resource.connection_lost", "Lost."))
    waiter.wait(lambda: waiter.answer is not None, 1)
    with pytest.raises(ResourceError):
        waiter.wait(lambda: waiter.received > 0, 1)


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 50_000])
def test_pieces_may_come_shorter_than_asked(server: FakeServer, client: Client, size: int) -> None:
    """Several are asked for at a time; those behind one that came short are asked for again."""
    server.short_pieces = True
    data = bytes(number % 251 for number in range(size))
    server.blobs[digest_of(data)] = data
    assert client.fetch(digest_of(data)) == data == client.fetch(digest_of(data), size)


def test_large_frames_cross_whole(tmp_path: Path) -> None:
    server = FakeServer(tmp_path).start()
    client = client_of(server)
    data = bytes(3 * 256 * 1024 + 17) + b"end"
    assert server.blobs[client.upload(data)] == data
    assert len(puts(server)) == 1
    assert client.fetch(digest_of(data)) == data
    client.close()
    server.stop()


def test_silence_is_told(server: FakeServer, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impasto_client.exchange, "REQUEST_SECONDS", 0.2)
    server.silent_about = "have"
    with pytest.raises(ResourceError) as caught:
        client.have(())
    assert caught.value.code == "resource.no_answer"
    server.silent_about = ""
    assert client.have(()) == ()


@pytest.mark.parametrize("who", ["server", "client"])
def test_the_end_of_a_connection_wakes_everybody(server: FakeServer, who: str) -> None:
    endpoint = read_endpoint(server.home)
    assert endpoint is not None
    ends: list[ImpastoError] = []
    client = Client.connect(endpoint, ClientInfo("test", "0"), lambda m: None, ends.append)
    server.silent_about = "have"
    raised: list[ImpastoError] = []

    def ask() -> None:
        try:
            client.have(())
        except ImpastoError as error:
            raised.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(isinstance(m, Have) for m in server.received) == 3)
    if who == "server":
        server.drop()
    else:
        client.close()
    for thread in threads:
        thread.join(5)
    assert [e.code for e in raised] == ["resource.connection_lost"] * 3
    wait_until(lambda: len(ends) == 1)
    with pytest.raises(ResourceError):
        client.have(())


def test_threads_share_a_connection(client: Client, server: FakeServer) -> None:
    buffers = [bytes([i]) * 20000 for i in range(6)]
    threads = [threading.Thread(target=client.upload, args=(data,)) for data in buffers]
    threads += [threading.Thread(target=client.plan, args=("inpaint", {}, Size(8, 8))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert {digest_of(b) for b in buffers} <= set(server.blobs)


def test_a_defect_in_a_callback_ends_the_connection_readably(server: FakeServer) -> None:
    def broken(message: Message) -> None:
        raise RuntimeError("a defect")

    endpoint = read_endpoint(server.home)
    assert endpoint is not None
    ends: list[ImpastoError] = []
    before, threading.excepthook = threading.excepthook, lambda args: None
    try:
        client = Client.connect(endpoint, ClientInfo("test", "0"), broken, ends.append)
        shot = snapshot()
        picture = InputPicture(client.upload(shot.pixels), 8, 4, "bgra8")
        with pytest.raises(ResourceError):
            client.submit("j", "inpaint", {}, shot.canvas, {"image": picture})
            for _ in range(100):
                client.have(())
        wait_until(lambda: len(ends) == 1)
    finally:
        threading.excepthook = before


# ---- the runner's corners


def test_an_evicted_picture_is_sent_again(server: FakeServer) -> None:
    editor = Editor(server.home).connected()
    server.evict_once = True
    editor.runner.submit("job", "inpaint", {}, snapshot())
    assert editor.ended("job").state == "finished"
    assert len({p.digest for p in puts(server)}) == 2 and len(puts(server)) == 4
    editor.close()


def test_a_damaged_result_fails_the_job(server: FakeServer) -> None:
    server.damage_results = True
    editor = Editor(server.home).connected()
    editor.runner.submit("job", "inpaint", {}, snapshot())
    error = editor.ended("job").error
    assert error is not None and error.code == "asset.digest_mismatch"
    assert not any(isinstance(e, ResultReady) for e in editor.events)
    editor.close()


@pytest.mark.parametrize("bad", ["pixels", "mask", "format"])
def test_a_snapshot_that_does_not_fit_its_box_fails_before_anything_is_sent(server: FakeServer, bad: str) -> None:
    shot = snapshot()
    fields: dict[str, Any] = {**vars(shot), bad: "cmyk" if bad == "format" else b"123"}
    editor = Editor(server.home).connected()
    editor.runner.submit("job", "inpaint", {}, Snapshot(**fields))
    error = editor.ended("job").error
    assert error is not None and error.code == "asset.bad_image" and not puts(server)
    editor.close()


def test_cancel_of_a_plan_drops_what_follows(server: FakeServer) -> None:
    editor = Editor(server.home).connected()
    editor.runner.cancel("ticket")
    editor.runner.plan("ticket", "inpaint", {}, (8, 8))
    editor.runner.submit("ticket", "inpaint", {}, snapshot())
    editor.runner.submit("other", "inpaint", {}, snapshot())
    editor.ended("other")
    assert editor.of("ticket") == [JobChanged("ticket", "cancelled")]
    assert not any(getattr(e, "ticket", None) == "ticket" for e in editor.events)
    editor.close()


def test_cancel_while_waiting_for_a_connection(tmp_path: Path) -> None:
    editor = Editor(tmp_path)
    editor.runner.submit("job", "inpaint", {}, snapshot())
    editor.runner.cancel("job")
    assert [e.state for e in editor.of("job")] == ["waiting", "cancelled"]
    editor.close()


def test_the_same_job_twice_is_one_job(server: FakeServer) -> None:
    editor = Editor(server.home).connected()
    for _ in range(3):
        editor.runner.submit("job", "inpaint", {}, snapshot())
    editor.ended("job")
    editor.runner.submit("job", "inpaint", {}, snapshot())
    editor.runner.cancel("job")
    editor.runner.submit("next", "inpaint", {}, snapshot())
    editor.ended("next")
    assert [e.state for e in editor.of("job") if isinstance(e, JobChanged)].count("finished") == 1
    assert isinstance(editor.of("job")[-1], JobChanged) and editor.of("job")[-1].state == "finished"
    editor.close()


def test_no_call_of_the_runner_waits(server: FakeServer) -> None:
    server.put_delay = 0.05
    editor = Editor(server.home).connected()
    shot = snapshot(256, 256)
    slowest = 0.0
    for i in range(5):
        for call in (
            lambda i=i: editor.runner.submit(f"j{i}", "inpaint", {}, shot),
            lambda i=i: editor.runner.plan(f"p{i}", "inpaint", {}, (8, 8)),
            lambda i=i: editor.runner.cancel(f"j{i}"),
            editor.runner.refresh_catalog,
        ):
            started = time.perf_counter()
            call()
            slowest = max(slowest, time.perf_counter() - started)
    started = time.perf_counter()
    editor.runner.stop()
    slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 0.05
    editor.runner.join()
    count = len(editor.events)
    time.sleep(0.1)
    assert len(editor.events) == count


def test_an_editor_that_fails_at_an_event_keeps_its_connection(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    editor = Editor(server.home, start=False)
    keep = editor._on_event

    def clumsy(event: Any) -> None:
        keep(event)
        raise RuntimeError("the panel is gone")

    editor.runner = Runner("test", clumsy, start_server=False, home=server.home)
    editor.runner.start()
    editor.runner.submit("job", "inpaint", {}, snapshot())
    assert editor.ended("job").state == "finished"
    assert "the panel is gone" in caplog.text
    editor.close()


def test_a_changed_catalogue_is_told(server: FakeServer) -> None:
    editor = Editor(server.home).connected()
    editor.until(impasto_client.events.CatalogChanged)
    server.rev = "2"
    editor.runner.refresh_catalog()
    editor.until(impasto_client.events.CatalogChanged, lambda e: e.catalog.rev == "2")
    editor.close()


# ---- the list of jobs


def test_job_list() -> None:
    jobs = JobList(keep_results=2, keep_ended=1)
    jobs.add("a", "inpaint", "a cat")
    jobs.apply(JobChanged("a", "running", 0.5, "generate", 2, 4))
    jobs.apply(PreviewReady("a", b"jpeg", 8, 8))
    state = jobs.apply(JobChanged("a", "running", 0.25, "generate", 1, 4))
    assert state is not None and (state.fraction, state.preview, state.title) == (0.5, b"jpeg", "a cat")
    assert jobs.active == (state,)
    error = JobError("job.unknown", "Gone.")
    jobs.apply(JobChanged("a", "failed", error=error))
    ended = jobs.get("a")
    assert ended is not None and ended.error is error and not ended.active
    # What comes late changes nothing.
    assert jobs.apply(JobChanged("a", "running", 0.9)) == ended
    jobs.apply(JobChanged("b", "cancelled"))
    assert [job.job_id for job in jobs.ended] == ["b"]


def test_job_list_bounds_the_pixels_it_keeps() -> None:
    from impasto_client.document import ResultLayer

    jobs = JobList(keep_results=10, keep_bytes=100)
    for i in range(5):
        jobs.apply(
            ResultReady("a", ResultLayer("a", i, Box(0, 0, 4, 4), bytes(40), "rgba8", "n", "generate", "soft", i))
        )
    assert [r.index for r in jobs.results] == [4, 3]
    state = jobs.get("a")
    assert state is not None and state.results == 5


def test_a_job_that_waits_shows_where_it_stands_now(tmp_path: Path, monkeypatch: Any) -> None:
    """Also where the news comes late: a job that runs waits no more."""
    events: list[Any] = []
    runner = Runner("test", events.append, start_server=False, home=tmp_path)
    monkeypatch.setattr(runner._link, "client_of", lambda generation: object())
    runner._jobs["j"] = tasks._Job("j", "inpaint", {}, snapshot())
    for message in (wire.Queued("j", 1, 3), wire.Position("j", 2), wire.Position("j", 1), wire.Started("j", 2)):
        runner._on_message(0, message)
    runner._on_message(0, wire.Position("j", 0))
    runner._receive.start()
    runner._receive.stop()
    runner._receive.join(10)
    assert [(e.state, e.position) for e in events] == [("queued", 3), ("queued", 2), ("queued", 1), ("running", 0)]
    jobs = JobList()
    shown = [jobs.apply(event) for event in events]
    assert [state.position for state in shown if state is not None] == [3, 2, 1, 0]


def test_progress_does_not_go_back_while_pixels_of_another_job_arrive(tmp_path: Path, monkeypatch: Any) -> None:
    """The thread that tells "started" may be busy; progress overtakes it then."""
    events: list[Any] = []
    runner = Runner("test", events.append, start_server=False, home=tmp_path)
    monkeypatch.setattr(runner._link, "client_of", lambda generation: object())
    runner._jobs["j"] = tasks._Job("j", "inpaint", {}, snapshot())
    for message in (wire.Queued("j", 1, 2), wire.Started("j", 2), wire.Progress("j", "generate", 1, 4, 0.25)):
        runner._on_message(0, message)
    runner._receive.start()
    runner._receive.stop()
    runner._receive.join(10)
    assert [(e.state, e.fraction) for e in events] == [("running", 0.25)]
    assert runner._jobs["j"].done_seq == 2


def test_a_job_does_not_end_without_the_result_that_was_lost_on_the_way(server: FakeServer, monkeypatch: Any) -> None:
    """The connection ends while a result is fetched, and the link has not seen it yet: the end is not taken either."""
    real, lost = tasks.fetch_result, threading.Event()

    def fetch(client: Client, output: Any) -> Any:
        if not lost.is_set():
            lost.set()
            raise ResourceError("resource.connection_lost", "gone")
        return real(client, output)

    monkeypatch.setattr(tasks, "fetch_result", fetch)
    editor = Editor(server.home).connected()
    try:
        editor.runner.submit("job", "inpaint", {}, snapshot())
        assert lost.wait(15)
        time.sleep(0.3)  # the end of the job arrives on the old connection; nothing is told of it
        server.drop()
        assert editor.ended("job").state == "finished"
        kinds = [type(event) for event in editor.of("job")]
        assert sum(isinstance(e, ResultReady) for e in editor.events) == 1, kinds
    finally:
        editor.close()


def test_a_server_that_is_older_than_the_plug_in_is_told_so(
    server: FakeServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "welcome", replace(client.welcome, protocol=(1, 3)))
    with pytest.raises(ProtocolError) as e:
        client.doctor()
    assert "older than this plug-in" in e.value.message and "update it" in e.value.message
    assert not [m for m in server.received if isinstance(m, wire.Doctor)], "it would not understand"
