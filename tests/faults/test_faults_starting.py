"""A server that begins in a bad moment: two at once, killed, a record that leads elsewhere, other versions.

`IMPASTO_FAULTS` is how often two are started at once (default 5, at most 100), and how often one is killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from impasto_client.client import Client
from impasto_client.connecting import connect_or_start
from impasto_client.endpoint import read_endpoint
from impasto_client.launch import find_or_start
from impasto_protocol.errors import AuthError, ImpastoError, ProtocolError, ResourceError
from impasto_protocol.home import (
    Endpoint,
    endpoint_file,
    launch_file,
    lock_file,
    log_file,
    token_file,
    write_private,
)
from impasto_protocol.messages import ClientInfo, Jobs, JobsOk
from impasto_protocol.version import PROTOCOL
from impasto_server.service.home import single_instance
from websockets.sync.server import serve as listen

ROOT = Path(__file__).resolve().parents[2]
TIMES = max(1, min(100, int(os.environ.get("IMPASTO_FAULTS", "5"))))
SEED = int(os.environ.get("IMPASTO_FAULTS_SEED", "1"))
INFO = ClientInfo("test", "0")


def command(home: Path, port: int = 0) -> list[str]:
    path = [str(ROOT), str(ROOT / "protocol"), str(ROOT / "server")]
    return [sys.executable, str(ROOT / "tests/faults/serve_starting.py"), str(home), str(port), *path]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder whose server an editor can start, and which has none at the end."""
    folder = tmp_path / "home"
    folder.mkdir()
    write_private(launch_file(folder), json.dumps({"argv": command(folder)}))
    yield folder
    stop(folder)


def stop(home: Path) -> None:
    try:
        found = read_endpoint(home)
    except AuthError:
        found = None
    if found is not None and found.pid != os.getpid():
        os.kill(found.pid, signal.SIGKILL)


def connected(home: Path, **options: Any) -> Client:
    return connect_or_start(INFO, lambda m: None, lambda e: None, home=home, **options)


# ---- two at once


def test_two_editors_start_the_server_at_once(tmp_path: Path) -> None:
    """Both are served by the same one, and there is no other."""
    for number in range(TIMES):
        home = tmp_path / str(number)
        home.mkdir()
        write_private(launch_file(home), json.dumps({"argv": command(home)}))
        clients: list[Client] = []
        failed: list[Exception] = []
        together = threading.Barrier(2)

        def editor(home: Path = home, clients: Any = clients, failed: Any = failed, together: Any = together) -> None:
            together.wait()
            try:
                clients.append(connected(home))
            except Exception as error:
                failed.append(error)

        editors = [threading.Thread(target=editor) for _ in range(2)]
        for thread in editors:
            thread.start()
        for thread in editors:
            thread.join(90)
        assert not failed and len(clients) == 2, (number, failed)
        log = log_file(home).read_text()
        assert log.count(" listens on ") == 1, log
        assert log.count("resource.already_running") <= 1 and "Traceback" not in log, log
        record = read_endpoint(home)
        assert record is not None and f"process {record.pid}" in log
        for client in clients:
            assert client.ask(Jobs, JobsOk).jobs == ()
        clients[0].shutdown()
        deadline = time.monotonic() + 30
        while (found := read_endpoint(home)) is not None and found.pid == record.pid:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        stop(home)  # the other one that was started, if it came to the lock only now


def test_two_servers_by_hand_at_once(tmp_path: Path) -> None:
    for number in range(TIMES):
        home = tmp_path / str(number)
        home.mkdir()
        both = [subprocess.Popen(command(home), stderr=subprocess.PIPE, text=True) for _ in range(2)]
        try:
            deadline = time.monotonic() + 60
            while all(process.poll() is None for process in both):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            loser = next(process for process in both if process.poll() is not None)
            (winner,) = (process for process in both if process is not loser)
            assert loser.returncode == 1
            assert loser.stderr is not None and "resource.already_running" in loser.stderr.read()
            while (record := read_endpoint(home)) is None:
                assert winner.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            assert record.pid == winner.pid
            winner.terminate()
            assert winner.wait(30) == 0 and not endpoint_file(home).exists()
        finally:
            for process in both:
                process.kill()
                process.communicate()


# ---- killed while starting


def test_a_server_killed_while_starting_hinders_nobody(home: Path) -> None:
    chance = random.Random(SEED)
    started = time.monotonic()
    connected(home).close()
    whole = time.monotonic() - started
    for _ in range(TIMES):
        stop(home)
        doomed = subprocess.Popen(command(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0, 1.2 * whole))
        doomed.kill()
        doomed.wait()
        client = connected(home)
        assert client.ask(Jobs, JobsOk).jobs == ()
        client.close()
        assert read_endpoint(home).pid != doomed.pid  # type: ignore[union-attr]


def test_an_editor_that_waits_for_it_is_told(home: Path) -> None:
    argv = [sys.executable, "-c", "import os; print('half way', flush=True); os.kill(os.getpid(), 9)"]
    write_private(launch_file(home), json.dumps({"argv": argv}))
    with pytest.raises(ResourceError, match="stopped while starting") as e:
        find_or_start(30, home=home)
    assert e.value.code == "resource.server_start" and "half way" in e.value.message
    assert str(log_file(home)) in e.value.message


# ---- what stands in the way


def test_a_port_in_use(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        write_private(launch_file(home), json.dumps({"argv": command(home, taken.getsockname()[1])}))
        with pytest.raises(ResourceError, match="cannot be listened on") as e:
            find_or_start(60, home=home)
        assert "leave --port out" in e.value.message and e.value.code == "resource.server_start"


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_a_token_file_that_others_can_read(home: Path) -> None:
    write_private(token_file(home), "a token that is long enough")
    token_file(home).chmod(0o644)
    with pytest.raises(ResourceError, match="chmod 600"):
        find_or_start(60, home=home)
    token_file(home).chmod(0o600)
    client = connected(home)
    token_file(home).chmod(0o640)
    with pytest.raises(AuthError, match="chmod 600"):
        connected(home)
    token_file(home).chmod(0o600)
    client.close()


@pytest.mark.parametrize("place", [endpoint_file, lock_file, token_file])
def test_a_record_that_is_none_of_ours(home: Path, place: Any) -> None:
    """A folder in its place stands for all that cannot be read or written."""
    place(home).mkdir()
    with pytest.raises(ResourceError, match=place(home).name) as e:
        find_or_start(60, home=home)
    assert "delete it" in e.value.message and "Traceback" not in e.value.message
    place(home).rmdir()
    connected(home).close()


def test_a_token_that_was_replaced_while_the_server_ran(home: Path) -> None:
    client = connected(home)
    record = read_endpoint(home)
    assert record is not None
    write_private(token_file(home), "quite another token, long enough")
    began = time.monotonic()
    with pytest.raises(AuthError, match=rf"process {record.pid}\) began with another token"):
        connected(home)
    assert time.monotonic() - began < 30
    write_private(token_file(home), record.token)
    assert client.ask(Jobs, JobsOk).jobs == ()
    client.close()
    connected(home, start=False).close()


# ---- a record that leads elsewhere


@contextmanager
def stranger(says: bytes | None) -> Iterator[int]:
    """Another program at the port; None is one that hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    peer = listener.accept()[0]
                except OSError:
                    return
                with peer:
                    if says is not None:
                        peer.recv(65536)
                        peer.sendall(says)

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]


def leave_record(home: Path, port: int, pid: int, protocol: tuple[int, int] = PROTOCOL, version: str = "0") -> None:
    write_private(token_file(home), "a token that is long enough")
    record = Endpoint("127.0.0.1", port, pid, "python", str(token_file(home)), version, protocol)
    write_private(endpoint_file(home), record.to_json())


@pytest.mark.parametrize("says", [None, b"220 mail.example ready\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n"])
def test_a_stale_record_whose_process_and_port_are_others_now(home: Path, says: bytes | None) -> None:
    """The number of the dead process is another program's, and so may be the port."""
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with stranger(says) as port:
            leave_record(home, port, other.pid)
            with pytest.raises(ImpastoError) as e:
                connected(home, start=False)
            assert e.value.code in ("resource.connection_lost", "protocol.version")
            client = connected(home)
            assert client.ask(Jobs, JobsOk).jobs == () and other.poll() is None
            client.close()
    finally:
        other.kill()
        other.communicate()


def test_a_stale_record_that_leads_to_the_server_of_somebody_else(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_private(launch_file(other), json.dumps({"argv": command(other)}))
    theirs = find_or_start(60, home=other)
    try:
        leave_record(home, theirs.port, theirs.pid)
        client = connected(home)
        ours = read_endpoint(home)
        assert ours is not None and ours.pid != theirs.pid and client.ask(Jobs, JobsOk).jobs == ()
        client.close()
    finally:
        stop(other)


# ---- versions


@contextmanager
def speaking(home: Path, subprotocol: str, protocol: tuple[int, int], version: str) -> Iterator[None]:
    """A server of another time, which holds the lock."""
    server = listen(lambda s: None, "127.0.0.1", 0, subprotocols=[subprotocol])  # type: ignore[list-item]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with single_instance(home):
            leave_record(home, server.socket.getsockname()[1], os.getpid(), protocol, version)
            yield
    finally:
        endpoint_file(home).unlink(missing_ok=True)
        server.shutdown()
        thread.join(10)


@pytest.mark.parametrize(
    ("subprotocol", "protocol", "version", "says"),
    [
        ("impasto.v2", (2, 0), "3.1.0", r"version 3\.1\.0\) is newer than this plug-in.*impasto plugin install"),
        ("impasto.v0", (0, 9), "0.0.1", r"version 0\.0\.1\) is older than this plug-in.*impasto stop"),
    ],
)
def test_plug_in_and_server_of_other_times(
    home: Path, subprotocol: str, protocol: tuple[int, int], version: str, says: str
) -> None:
    with speaking(home, subprotocol, protocol, version):
        began = time.monotonic()
        with pytest.raises(ProtocolError, match=says) as e:
            connected(home)
        assert e.value.code == "protocol.version" and e.value.data["got"] == list(protocol)
        assert time.monotonic() - began < 30, "the painter does not wait for what cannot come"
        assert endpoint_file(home).exists(), "nobody touched the other server's record"
