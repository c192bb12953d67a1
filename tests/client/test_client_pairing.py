"""A client pairs with the real service, on loopback and over TLS, and uses it from then on."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer
from impasto_client import endpoint as endpoint_module
from impasto_client.client import Client
from impasto_client.connecting import connect_or_start
from impasto_client.endpoint import Endpoint
from impasto_client.events import ConnectionChanged
from impasto_client.paired import PairedServer, PairedServers, client_folder, read_paired, write_paired
from impasto_client.pairing import endpoint_of, pair
from impasto_protocol.errors import AuthError, ImpastoError, ProtocolError, RequestError, ResourceError
from impasto_protocol.home import launch_file, paired_file
from impasto_protocol.messages import ClientInfo, Jobs, JobsOk
from impasto_protocol.version import PROTOCOL
from scenarios import Editor, snapshot
from threaded import free_port, service

from tests.service.fakes import TOKEN

INFO = ClientInfo("test", "0")


def connected(home: Path, **options: Any) -> Client:
    return connect_or_start(INFO, lambda m: None, lambda e: None, home=home, **options)


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    """The server's folder and the client's."""
    return tmp_path / "server", tmp_path / "client"


# ---- pairing


def test_pair_on_loopback_and_use_it(homes: tuple[Path, Path]) -> None:
    with service(homes[0]) as server:
        paired = pair(server.inner, server.code(), INFO, "flatpak krita", home=homes[1])
        assert paired.fingerprint == "" and paired.token != TOKEN and paired.token not in repr(paired)
        assert stat.S_IMODE(paired_file(homes[1]).stat().st_mode) == 0o600 or os.name != "posix"
        client = connected(homes[1])
        assert client.ask(Jobs, JobsOk).jobs == () and client.welcome.protocol == PROTOCOL
        client.close()
        with pytest.raises(AuthError) as e:
            pair(server.inner, "AAAA-AAAA", home=homes[1])
        assert e.value.code == "auth.wrong_code"
        assert read_paired(homes[1]).chosen == paired.name, "a failed try takes nothing away"


def test_pair_over_tls_and_pixels_both_ways(homes: tuple[Path, Path]) -> None:
    with service(homes[0], tls=True, port=free_port()) as server:
        paired = pair(server.outer, server.code(), INFO, "laptop", home=homes[1])
        assert paired.fingerprint == server.server.doors[1].fingerprint.hex()
        editor = Editor(homes[1])
        try:
            editor.connected()
            editor.runner.submit("job", "inpaint", {"steps": 2}, snapshot())
            assert editor.ended("job").state == "finished"
        finally:
            editor.close()
        client = connected(homes[1])
        assert not client.through_files
        data = os.urandom(9 << 20)
        digest = client.upload(data)
        threads = [threading.Thread(target=client.upload, args=(os.urandom(3 << 20),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert client.fetch(digest) == data
        for thread in threads:
            thread.join(30)
        client.close()


def test_revoked_it_says_what_to_do(homes: tuple[Path, Path]) -> None:
    with service(homes[0]) as server:
        pair(server.inner, server.code(), INFO, "laptop", home=homes[1])
        editor = Editor(homes[1])
        try:
            editor.connected()
            server.on_loop(lambda: server.server.revoke("laptop"))
            failed = editor.until(ConnectionChanged, lambda e: e.state == "failed")
            assert "no longer knows this computer; pair with it again" in failed.message
        finally:
            editor.close()


def test_another_certificate_is_refused_before_the_token_is_sent(homes: tuple[Path, Path], tmp_path: Path) -> None:
    port = free_port()
    with service(homes[0], tls=True, port=port) as server:
        pair(server.outer, server.code(), INFO, "laptop", home=homes[1])
    with service(tmp_path / "impostor", tls=True, port=port) as other:
        with pytest.raises(AuthError, match="another certificate") as e:
            connected(homes[1])
        assert e.value.code == "auth.denied"
        # To pair anew with what is there now is the painter's decision.
        pair(other.outer, other.code(), INFO, "laptop", home=homes[1])
        connected(homes[1]).close()
        assert len(read_paired(homes[1]).servers) == 1


def test_who_stands_in_between_gets_nothing(homes: tuple[Path, Path], tmp_path: Path) -> None:
    """It has a certificate of its own, takes the client's proof and answers as well as it can without the code."""
    with service(homes[0], tls=True, port=free_port()) as server:
        code = server.code()
        with service(tmp_path / "between", tls=True, port=free_port()) as between:
            said: list[Any] = []

            def answer(asked: Any, fingerprint: bytes) -> Any:
                from impasto_protocol.pairing import Paired

                said.append(asked)
                return Paired("laptop", "a token of the attacker", bytes(32))

            between.server.pairings.pair = answer  # type: ignore[method-assign]
            with pytest.raises(AuthError, match="does not know the code"):
                pair(between.outer, code, INFO, "laptop", home=homes[1])
        assert not read_paired(homes[1]).servers
        with pytest.raises(AuthError) as e:
            server.on_loop(lambda: server.server.pairings.pair(said[0], server.server.doors[1].fingerprint))
        assert e.value.code == "auth.wrong_code", "the proof holds for the other certificate alone"


# ---- which server is used


def test_a_paired_server_that_is_away_is_not_replaced_by_another(homes: tuple[Path, Path], tmp_path: Path) -> None:
    with service(homes[0]) as server:
        pair(server.inner, server.code(), INFO, "laptop", home=homes[1])
    launch_file(homes[1]).write_text(json.dumps({"argv": ["/nowhere/impasto"]}))
    with pytest.raises(ResourceError, match="start `impasto serve` on its computer") as e:
        connected(homes[1])
    assert e.value.code == "resource.connection_lost" and e.value.retryable
    own = FakeServer(homes[1]).start()
    try:
        with pytest.raises(ResourceError):
            connected(homes[1])
        write_paired(read_paired(homes[1]).choose(""), homes[1])
        client = connected(homes[1])
        assert client.welcome.server.name == "fake"
        client.close()
    finally:
        own.stop()


def test_choosing_and_forgetting() -> None:
    a, b = PairedServer("a:1", "a", 1, "t", "00"), PairedServer("b:2", "b", 2, "t", "11")
    both = PairedServers().with_server(a).with_server(b)
    assert both.chosen == "b:2" and both.choose("a:1").chosen == "a:1" and both.choose("").chosen == ""
    assert both.without("b:2") == PairedServers((a,), "") and both.without("a:1").chosen == "b:2"
    assert both.with_server(PairedServer("b:2", "b", 2, "new")).servers[-1].token == "new"
    with pytest.raises(RequestError, match="paired are: a:1, b:2"):
        both.choose("c:3")


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_tokens_that_others_can_read_are_refused_with_the_mend(tmp_path: Path) -> None:
    write_paired(PairedServers().with_server(PairedServer("a:1", "a", 1, "t")), tmp_path)
    paired_file(tmp_path).chmod(0o644)
    with pytest.raises(AuthError, match="chmod 600"):
        connected(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"servers": [{}]}', '{"servers": [], "chosen": "x"}', "\udcff"])
def test_a_damaged_list_is_refused_with_the_mend(tmp_path: Path, text: str) -> None:
    paired_file(tmp_path).write_text(text, errors="surrogateescape")
    paired_file(tmp_path).chmod(0o600)
    with pytest.raises(AuthError, match="delete it and pair again"):
        connected(tmp_path)


def test_in_a_sandbox_it_is_kept_where_the_sandbox_keeps_things(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.path.exists
    assert client_folder(Path("/x")) == Path("/x")
    monkeypatch.setattr(endpoint_module.os.path, "exists", lambda path: path == "/.flatpak-info" or real(path))
    flatpak = {"XDG_DATA_HOME": "/home/ada/.var/app/org.kde.krita/data", "HOME": "/home/ada"}
    assert client_folder(environ=flatpak) == Path("/home/ada/.var/app/org.kde.krita/data/impasto")
    assert client_folder(environ={**flatpak, "IMPASTO_HOME": "/i"}) == Path("/i").absolute()


# ---- addresses


@pytest.mark.parametrize(
    ("typed", "host", "port", "secure"),
    [
        ("192.168.1.20", "192.168.1.20", 7867, True),
        (" studio.local:9000 ", "studio.local", 9000, True),
        ("wss://Studio.local/", "studio.local", 7867, True),
        ("127.0.0.1:40123", "127.0.0.1", 40123, False),
        ("ws://localhost:40123", "localhost", 40123, False),
        ("wss://127.0.0.1:40123", "127.0.0.1", 40123, True),
        ("[fd00::1]:9000", "fd00::1", 9000, True),
        ("[::1]:9000", "::1", 9000, False),
    ],
)
def test_addresses_as_people_type_them(typed: str, host: str, port: int, secure: bool) -> None:
    endpoint = endpoint_of(typed)
    assert (endpoint.host, endpoint.port, endpoint.secure) == (host, port, secure)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "as `impasto pair` shows it"),
        ("http://studio", "as `impasto pair` shows it"),
        ("studio:port", "as `impasto pair` shows it"),
        ("a b", "as `impasto pair` shows it"),
        ("user@studio", "as `impasto pair` shows it"),
        ("studio:0", "from 1 to 65535"),
        ("studio:99999", "from 1 to 65535"),
        ("127.0.0.1", "needs the port"),
        ("ws://studio", "must be encrypted"),
    ],
)
def test_what_is_no_address_says_how_to_write_one(typed: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as e:
        pair(typed, "K7QX-M2RD")
    assert e.value.path == "address"


def test_the_wrong_kind_of_door(homes: tuple[Path, Path]) -> None:
    with service(homes[0], tls=True, port=free_port()) as server:
        code = server.code()
        with pytest.raises(ResourceError, match="hung up before the connection was encrypted"):
            pair("wss://" + server.inner, code, home=homes[1])
        with socket.create_server(("127.0.0.1", 0)) as mail:
            threading.Thread(
                target=lambda: mail.accept()[0].sendall(b"220 mail.example ready\r\n"), daemon=True
            ).start()
            with pytest.raises(ProtocolError, match="does not answer with an encrypted connection"):
                pair(f"wss://127.0.0.1:{mail.getsockname()[1]}", code, home=homes[1])
        with pytest.raises(ImpastoError) as e:
            pair(server.outer.replace("wss", "ws"), code, home=homes[1])
        assert e.value.code in ("protocol.version", "resource.connection_lost")
        assert pair(server.outer, code, home=homes[1]).name


def test_an_address_where_nobody_is(tmp_path: Path) -> None:
    for address in (f"127.0.0.1:{free_port()}", f"wss://127.0.0.1:{free_port()}", "no-such-host.invalid"):
        with pytest.raises(ResourceError, match="does not answer") as e:
            pair(address, "K7QX-M2RD", home=tmp_path)
        assert e.value.code == "resource.connection_lost"


def test_a_server_that_hangs_up_in_the_middle_of_tls(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer = listener.accept()[0]
            peer.recv(65536)
            peer.close()

        threading.Thread(target=answer, daemon=True).start()
        place = ("127.0.0.1", listener.getsockname()[1], "t", 0, "", PROTOCOL)
        with pytest.raises(ResourceError, match="hung up before") as e:
            Client.connect(Endpoint(*place, secure=True), INFO, lambda m: None, lambda e: None)
        assert e.value.code == "resource.connection_lost"


def test_a_server_that_is_too_old_to_pair(tmp_path: Path) -> None:
    """Before 1.5 anything but a hello was answered with protocol.not_ready."""
    from impasto_protocol import connection

    server = FakeServer(tmp_path).start()
    real = connection.ServerConnection._greet
    try:
        monkey = pytest.MonkeyPatch()

        def old(self: Any, fields: Any) -> Any:
            if fields.get("type") != "hello":
                raise ProtocolError("protocol.not_ready", "Nothing is taken before the hello; send it first.")
            return real(self, fields)

        monkey.setattr(connection.ServerConnection, "_greet", old)
        with pytest.raises(ProtocolError, match="too old to pair"):
            pair(f"127.0.0.1:{server.port}", "K7QX-M2RD", home=tmp_path / "client")
    finally:
        monkey.undo()
        server.stop()
