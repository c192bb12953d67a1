"""Where clients come in: plain on loopback, encrypted beyond it, and nothing open that nobody asked for."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.errors import AuthError, ImpastoError, ResourceError
from impasto_protocol.home import tls_file
from impasto_protocol.messages import ClientInfo, Error, Hello, Jobs, JobsOk, Welcome
from impasto_protocol.pairing import Pair, Paired, PairOpen, PairOpened, client_proof, code_key
from impasto_protocol.version import PROTOCOL, SUBPROTOCOL
from impasto_server.service import server as server_module
from impasto_server.service.doors import Door, is_loopback, warning_of
from impasto_server.service.server import Server
from impasto_server.service.tls import identity_of
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from tests.service.fakes import TOKEN, Peer, connected, running, settings_for


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def blind() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def outside(server: Server, **options: Any) -> Any:
    """A socket through the outer door."""
    door = server.doors[1]
    options.setdefault("ssl", blind() if door.fingerprint else None)
    url = f"{'wss' if options['ssl'] else 'ws'}://127.0.0.1:{door.port}"
    return connect(url, subprotocols=[SUBPROTOCOL], compression=None, proxy=None, **options)  # type: ignore[list-item]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "192.168.1.5", "studio.local", "localhost.example.org", "1270.0.0.1"]
)
def test_beyond(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "192.168.1.5", "studio.local"])
def test_nothing_is_opened_by_an_address_alone(tmp_path: Path, host: str) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path, host=host)):
            pass

    with pytest.raises(ResourceError, match="--insecure") as e:
        asyncio.run(scenario())
    assert e.value.code == "resource.beyond_loopback" and "--tls" in e.value.message


def test_an_encrypted_door_beside_the_one_on_loopback(tmp_path: Path) -> None:
    async def scenario() -> None:
        warnings: list[str] = []
        settings = settings_for(tmp_path, host="0.0.0.0", port=free_port(), tls=True)
        async with running(settings, opened=warnings.append) as (server, endpoint), connected(endpoint) as owner:
            assert endpoint.host == "127.0.0.1" and endpoint.port != settings.port
            assert owner.welcome.spool is not None
            opened = await owner.ask(PairOpen)
            assert isinstance(opened, PairOpened) and len(opened.addresses) == 2
            assert opened.addresses[1] == f"{socket.gethostname()}:{settings.port}"
            (warning,) = warnings
            assert "every address of this computer" in warning and str(settings.port) in warning
            assert "Who has been paired" in warning and "`impasto stop`" in warning and "--revoke" in warning
            assert (opened.fingerprint or "?").upper() == warning.split("SHA-256 is ")[1].split(".")[0].replace(":", "")
            async with outside(server) as socket_:
                peer = Peer(socket_)
                der = socket_.transport.get_extra_info("ssl_object").getpeercert(True)
                seen = hashlib.sha256(der).digest()
                assert seen.hex() == opened.fingerprint
                salt = os.urandom(32)
                proof = client_proof(code_key(opened.code, salt), salt, seen)
                await peer.send(Pair(PROTOCOL, ClientInfo("peer", "1"), "laptop", salt, proof))
                given = await peer.receive()
                assert isinstance(given, Paired)
                await peer.send(Hello(PROTOCOL, ClientInfo("peer", "1"), given.token))
                welcome = await peer.receive()
                assert isinstance(welcome, Welcome) and welcome.spool is None, "no path of this computer is told"
                assert isinstance(await peer.ask(Jobs), JobsOk)
            with pytest.raises(InvalidStatus) as e:
                async with outside(server, origin="https://example.org"):
                    pass
            assert e.value.response.status_code == 403
            with pytest.raises((OSError, EOFError, WebSocketException)):
                async with outside(server, ssl=None):
                    pass
        # The same certificate the next time.
        async with running(settings) as (server, _):
            assert server.doors[1].fingerprint.hex() == opened.fingerprint

    asyncio.run(scenario())


def test_without_encryption_it_says_so_and_pairs_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        warnings: list[str] = []
        settings = settings_for(tmp_path, host="0.0.0.0", port=free_port(), insecure=True)
        async with running(settings, opened=warnings.append) as (server, endpoint), connected(endpoint) as owner:
            assert "NOT ENCRYPTED" in warnings[0] and "stop the server" in warnings[0]
            opened = await owner.ask(PairOpen)
            assert isinstance(opened, PairOpened) and len(opened.addresses) == 1
            async with outside(server) as socket_:
                peer, salt = Peer(socket_), bytes(32)
                proof = client_proof(code_key(opened.code, salt), salt, b"")
                await peer.send(Pair(PROTOCOL, ClientInfo("peer", "1"), "laptop", salt, proof))
                refused = await peer.receive()
                assert isinstance(refused, Error) and refused.code == "auth.denied" and "--tls" in refused.message
            async with outside(server) as socket_:
                peer = Peer(socket_)
                await peer.send(Hello(PROTOCOL, ClientInfo("peer", "1"), TOKEN))
                assert isinstance(await peer.receive(), Welcome)

    asyncio.run(scenario())


def test_strangers_cannot_lock_out_the_editors_of_this_computer(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(server_module, "MAX_BEYOND", 3)

    async def scenario() -> None:
        settings = settings_for(tmp_path, host="0.0.0.0", port=free_port(), tls=True)
        async with running(settings) as (server, endpoint):
            strangers = [await outside(server) for _ in range(3)]
            with pytest.raises(InvalidStatus) as e:
                async with outside(server):
                    pass
            assert e.value.response.status_code == 503
            async with connected(endpoint) as owner:
                assert isinstance(await owner.ask(Jobs), JobsOk)
            for stranger in strangers:
                await stranger.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("changes", [{}, {"host": "0.0.0.0", "tls": True}])
def test_a_port_in_use_is_a_sentence(tmp_path: Path, changes: dict[str, Any]) -> None:
    async def scenario(port: int) -> None:
        async with running(settings_for(tmp_path, port=port, **changes)):
            pass

    taken = socket.create_server((changes.get("host", "127.0.0.1"), 0))
    with taken, pytest.raises(ResourceError, match=r"--port") as e:
        asyncio.run(scenario(taken.getsockname()[1]))
    assert e.value.code == "resource.cannot_listen"


@pytest.mark.parametrize("changes", [{"port": 99999}, {"port": -1}, {"host": "no such host", "tls": True, "port": 1}])
def test_what_is_no_address_is_a_sentence(tmp_path: Path, changes: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path, **changes)):
            pass

    with pytest.raises(ImpastoError) as e:
        asyncio.run(scenario())
    assert e.value.code == "resource.cannot_listen" and str(changes["port"]) in e.value.message


# ---- the certificate


def test_the_certificate_is_made_once_and_private(tmp_path: Path) -> None:
    first = identity_of(tmp_path)
    assert stat.S_IMODE(tls_file(tmp_path).stat().st_mode) == 0o600 or os.name != "posix"
    assert identity_of(tmp_path).fingerprint == first.fingerprint and len(first.fingerprint) == 32
    other = tmp_path / "other"
    other.mkdir()
    assert identity_of(other).fingerprint != first.fingerprint


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_a_key_that_others_can_read_is_refused_with_the_mend(tmp_path: Path) -> None:
    identity_of(tmp_path)
    tls_file(tmp_path).chmod(0o640)
    with pytest.raises(AuthError, match="chmod 600"):
        identity_of(tmp_path)


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"])
def test_a_damaged_certificate_is_refused_with_the_mend(tmp_path: Path, text: str) -> None:
    identity_of(tmp_path)
    tls_file(tmp_path).write_text(text)
    with pytest.raises(AuthError, match="delete the file"):
        identity_of(tmp_path)


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: Any) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ResourceError, match="pip install cryptography"):
        identity_of(tmp_path)


def test_the_warning_names_one_address(tmp_path: Path) -> None:
    door = Door("192.168.1.5", 7867, False, identity_of(tmp_path))
    assert "computers that reach 192.168.1.5, port 7867 can connect" in warning_of(door)
    assert door.address == "192.168.1.5:7867" and Door("fd00::1", 1, False).address == "[fd00::1]:1"
