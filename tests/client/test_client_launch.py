from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import TOKEN, FakeServer
from impasto_client.client import Client
from impasto_client.connecting import connect_or_start
from impasto_client.endpoint import Endpoint, read_endpoint
from impasto_client.events import ConnectionChanged, PreviewReady
from impasto_client.launch import find_or_start, scrubbed_environment, start_server
from impasto_client.tasks import Runner
from impasto_protocol.errors import AuthError, ImpastoError, ProtocolError, ResourceError
from impasto_protocol.home import endpoint_file, launch_file, log_file, token_file, write_private
from impasto_protocol.messages import ClientInfo
from scenarios import Editor, client_of, snapshot, wait_until

INFO = ClientInfo("test", "0")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    server = FakeServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder whose servers stop at the end."""
    yield tmp_path
    (tmp_path / "stop").touch()


def can_launch(home: Path, way: str = "serve") -> None:
    path = [part for part in sys.path if part]
    argv = [sys.executable, str(Path(__file__).with_name("serve_fake.py")), str(home), "0", way, *path]
    write_private(launch_file(home), json.dumps({"argv": argv}))


# ---- the record


def test_record_is_read(server: FakeServer) -> None:
    endpoint = read_endpoint(server.home)
    assert endpoint is not None
    assert (endpoint.host, endpoint.port, endpoint.token, endpoint.pid) == (
        "127.0.0.1",
        server.port,
        TOKEN,
        os.getpid(),
    )
    assert TOKEN not in repr(endpoint)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"host": 1}', "\udcff", '{"host":"h","port":"x","pid":1}'], ids=range(7)
)
def test_a_record_that_is_none_counts_as_none(tmp_path: Path, text: str) -> None:
    endpoint_file(tmp_path).write_text(text, errors="surrogateescape")
    assert read_endpoint(tmp_path) is None


def test_no_folder_no_server(tmp_path: Path) -> None:
    assert read_endpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("changes", [{"pid": 2**22 + 1}, {"pid": 0}, {"pid": 2**70}, {"port": 0}, {"port": 99999}])
def test_a_stale_record_counts_as_none(server: FakeServer, changes: dict[str, int]) -> None:
    server.announce(**changes)
    assert read_endpoint(server.home) is None


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_a_token_that_others_can_read_is_refused_with_the_mend(server: FakeServer) -> None:
    token_file(server.home).chmod(0o644)
    with pytest.raises(AuthError, match="chmod 600"):
        read_endpoint(server.home)
    token_file(server.home).unlink()
    with pytest.raises(AuthError, match="start it again"):
        read_endpoint(server.home)


def test_the_user_folder_comes_from_the_environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPASTO_HOME", str(server.home))
    endpoint = read_endpoint()
    assert endpoint is not None and endpoint.port == server.port


# ---- starting


def test_server_is_started_and_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    can_launch(home)
    monkeypatch.setenv("PYTHONHOME", "/nonsense")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nonsense")
    monkeypatch.setenv("QT_PLUGIN_PATH", "/nonsense")
    said: list[str] = []
    client = connect_or_start(
        INFO, lambda m: None, lambda e: None, home=home, on_status=lambda state, text: said.append(state)
    )
    assert said == ["starting", "connecting"] and client.welcome.server.name == "fake"
    client.close()
    environment = json.loads((home / "environment.json").read_text())
    assert not {"PYTHONHOME", "LD_LIBRARY_PATH", "QT_PLUGIN_PATH"} & set(environment)
    assert environment["IMPASTO_HOME"] == str(home)
    assert "the fake server starts" in log_file(home).read_text()
    # Found, not started again.
    before = log_file(home).read_text()
    endpoint = find_or_start(home=home)
    assert endpoint.pid != os.getpid() and log_file(home).read_text() == before


def test_a_server_that_dies_is_told_with_the_end_of_its_log(home: Path) -> None:
    log_file(home).write_text("old news of another day\n")
    can_launch(home, "die")
    with pytest.raises(ResourceError, match="no luck either") as caught:
        find_or_start(20, home=home)
    assert caught.value.code == "resource.server_start" and "exit code 3" in caught.value.message
    assert "old news" not in caught.value.message and str(log_file(home)) in caught.value.message


def test_no_second_server_where_one_is_starting(home: Path) -> None:
    """The lock is the other one's: wait for its record instead of failing."""
    can_launch(home, "locked")
    other = FakeServer(home)
    threading.Timer(1.0, other.start).start()
    assert find_or_start(20, home=home).pid == os.getpid()
    other.stop()


def test_a_lock_that_is_never_freed_is_told(home: Path) -> None:
    can_launch(home, "locked")
    with pytest.raises(ResourceError):
        find_or_start(1.0, home=home)


@pytest.mark.parametrize("argv", [None, ["/nowhere/python", "-m", "x"]])
def test_what_cannot_be_started_says_what_to_do(tmp_path: Path, argv: list[str] | None) -> None:
    if argv is not None:
        write_private(launch_file(tmp_path), json.dumps({"argv": argv}))
    with pytest.raises(ResourceError, match="impasto serve") as caught:
        start_server(log_file(tmp_path), tmp_path)
    assert caught.value.code == "resource.server_start"


def test_an_editor_that_must_not_start_a_server_does_not(home: Path) -> None:
    can_launch(home)
    with pytest.raises(ResourceError, match="impasto serve"):
        find_or_start(home=home, start=False)
    assert not log_file(home).exists()


def test_waiting_can_be_given_up(home: Path) -> None:
    can_launch(home, "locked")
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    started = time.monotonic()
    with pytest.raises(ResourceError, match="given up"):
        find_or_start(30, home=home, stop=stop)
    assert time.monotonic() - started < 5


def test_a_record_whose_server_does_not_answer_is_replaced(home: Path) -> None:
    """After a crash the number of the dead process may be another program's."""
    gone = FakeServer(home).start()
    record = endpoint_file(home).read_text()
    gone.stop()
    endpoint_file(home).write_text(record)
    can_launch(home)
    client = connect_or_start(INFO, lambda m: None, lambda e: None, home=home)
    client.close()
    endpoint = read_endpoint(home)
    assert endpoint is not None and endpoint.pid != os.getpid()


def test_scrubbed_environment_keeps_the_rest() -> None:
    environment = {
        **{"HOME": "/h", "LANG": "de", "DISPLAY": ":1", "CUDA_VISIBLE_DEVICES": "0", "HSA_OVERRIDE_GFX_VERSION": "1"},
        **{"PYTHONPATH": "x", "PYTHONHOME": "x", "LD_PRELOAD": "x", "DYLD_LIBRARY_PATH": "x", "QT_SCALE_FACTOR": "2"},
        **{"APPDIR": "/mnt/.mount_k", "PATH": os.pathsep.join(["/mnt/.mount_k/usr/bin", "/usr/bin"])},
    }
    assert scrubbed_environment(environment) == {
        **{"HOME": "/h", "LANG": "de", "DISPLAY": ":1", "CUDA_VISIBLE_DEVICES": "0", "HSA_OVERRIDE_GFX_VERSION": "1"},
        "PATH": "/usr/bin",
    }


# ---- connecting


def test_wrong_token_is_refused(server: FakeServer) -> None:
    write_private(token_file(server.home), "another one")
    with pytest.raises(AuthError):
        client_of(server)


def test_what_is_no_impasto_server_is_told(tmp_path: Path) -> None:
    from websockets.sync.server import serve

    with serve(lambda socket: None, "127.0.0.1", 0) as stranger:  # no subprotocol
        thread = threading.Thread(target=stranger.serve_forever, daemon=True)
        thread.start()
        server = FakeServer(tmp_path)
        server._server = stranger
        server.announce()
        with pytest.raises(ProtocolError, match=r"does not speak impasto\.v1"):
            client_of(server)
        stranger.shutdown()
        thread.join(5)


@pytest.mark.parametrize(
    ("says", "code"),
    [
        (None, "resource.connection_lost"),  # hangs up without reading
        (b"", "resource.connection_lost"),
        (b"HTTP/1.1 101 Sw", "resource.connection_lost"),
        (b"220 mail.example ready\r\n\r\n", "protocol.version"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "resource.connection_lost"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "protocol.version"),
    ],
)
def test_a_peer_that_hangs_up_is_a_lost_server_and_another_program_is_named(says: bytes | None, code: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer = listener.accept()[0]
            if says is not None:
                peer.recv(65536)
                peer.sendall(says)
            peer.close()

        threading.Thread(target=answer, daemon=True).start()
        endpoint = Endpoint("127.0.0.1", listener.getsockname()[1], "t", os.getpid(), "0", (1, 0))
        with pytest.raises(ImpastoError) as caught:
            Client.connect(endpoint, INFO, lambda m: None, lambda e: None)
    assert caught.value.code == code


def test_a_proxy_of_the_system_is_not_used(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY", "socks_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    client_of(server).close()


# ---- a runner that starts its server


def test_killed_server_is_started_again_and_the_job_fails_readably(home: Path) -> None:
    can_launch(home)
    editor = Editor(home, start=False)
    editor.runner = Runner("test", editor._on_event, home=home)
    editor.runner.start()
    try:
        editor.until(ConnectionChanged, lambda e: e.state == "starting")
        editor.connected()
        first = read_endpoint(home)
        assert first is not None
        editor.runner.submit("job", "inpaint", {"slow": True}, snapshot())
        editor.until(PreviewReady)
        os.kill(first.pid, 9)
        ended = editor.ended("job")
        assert ended.state == "failed" and ended.error is not None
        assert "run it again" in ended.error.message and ended.error.code == "job.unknown"
        wait_until(lambda: sum(isinstance(e, ConnectionChanged) and e.state == "connected" for e in editor.events) == 2)
        second = read_endpoint(home)
        assert second is not None and second.pid != first.pid
        editor.runner.submit("again", "inpaint", {}, snapshot())
        assert editor.ended("again").state == "finished"
    finally:
        editor.close()


def test_a_server_that_cannot_start_is_tried_once_and_fails_what_waits(home: Path) -> None:
    can_launch(home, "die")
    editor = Editor(home, start=False)
    editor.runner = Runner("test", editor._on_event, home=home)
    editor.runner.plan("ticket", "inpaint", {}, (8, 8))
    editor.runner.start()
    try:
        failed = editor.until(ConnectionChanged, lambda e: e.state == "failed")
        assert "no luck either" in failed.message
        time.sleep(1.0)
        starts = log_file(home).read_text().count("the fake server starts")
        assert starts <= 2  # not again and again; the plan asked once more at most
        editor.runner.submit("job", "inpaint", {}, snapshot())
        can_launch(home)
        editor.runner.start()
        assert editor.ended("job").state == "finished"
    finally:
        editor.close()


def test_a_server_that_was_stopped_stays_stopped(home: Path) -> None:
    can_launch(home)
    server = FakeServer(home).start()
    editor = Editor(home, start=False)
    editor.runner = Runner("test", editor._on_event, home=home)
    editor.runner.start()
    try:
        editor.connected()
        server.stop(code=1001)
        lost = editor.until(ConnectionChanged, lambda e: e.state == "lost")
        assert lost.message == "The Impasto server was stopped."
        time.sleep(1.2)
        assert not log_file(home).exists()
        # Until the painter wants something.
        editor.runner.submit("job", "inpaint", {}, snapshot())
        assert editor.ended("job").state == "finished"
    finally:
        editor.close()


def test_lost_for_good_fails_the_running_job(tmp_path: Path) -> None:
    server = FakeServer(tmp_path).start()
    server.gate.clear()
    editor = Editor(tmp_path).connected()
    try:
        editor.runner.submit("job", "inpaint", {}, snapshot())
        editor.until(PreviewReady)
        server.stop()
        error = editor.ended("job").error
        assert isinstance(error, ImpastoError) and error.code == "resource.connection_lost"
        assert "stopped while this job ran" in error.message
    finally:
        editor.close()
