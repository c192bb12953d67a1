"""Pairing by a code: once, for minutes, not by trying; tokens of one's own, listed and taken back."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.errors import AuthError, ImpastoError, ProtocolError, RequestError, ResourceError
from impasto_protocol.home import pairings_file
from impasto_protocol.messages import ClientInfo, Error, Jobs, JobsOk, Ok, Shutdown
from impasto_protocol.pairing import (
    CODE_LETTERS,
    Pair,
    Paired,
    PairOpen,
    PairOpened,
    PairRevoke,
    clean_code,
    client_proof,
    code_key,
    new_code,
    server_proof,
    shown_code,
)
from impasto_protocol.version import PROTOCOL
from impasto_server.service import pairings as module
from impasto_server.service.pairings import CODE_SECONDS, MAX_WRONG, Pairings
from websockets.exceptions import ConnectionClosed

from tests.service.fakes import Peer, connected, open_socket, running, settings_for

INFO = ClientInfo("peer", "1", "krita 5.2.9")
SALT = b"s" * 32


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def asked(code: str, name: str = "laptop", fingerprint: bytes = b"", salt: bytes = SALT) -> Pair:
    return Pair(PROTOCOL, INFO, name, salt, client_proof(code_key(code, salt), salt, fingerprint))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The slow key made fast; how often it was made."""
    made: list[int] = []

    def key(code: str, salt: Any) -> bytes:
        made.append(1)
        return code.encode().ljust(32)

    monkeypatch.setattr(module, "code_key", key)
    monkeypatch.setitem(globals(), "code_key", lambda code, salt: code.encode().ljust(32))
    return made


# ---- the list by itself


def test_a_code_gives_a_token_of_ones_own_once(tmp_path: Path) -> None:
    pairings = Pairings(tmp_path / "p.json")
    code = pairings.open()
    given = pairings.pair(asked(code, fingerprint=b"f" * 32), b"f" * 32)
    assert given.name == "laptop" and len(given.token) > 32
    assert bytes(given.proof) == server_proof(code_key(code, SALT), SALT, b"f" * 32, given.token)
    assert pairings.who(given.token) == "laptop" and pairings.who(given.token + "x") is None
    with pytest.raises(AuthError) as e:
        pairings.pair(asked(code, fingerprint=b"f" * 32), b"f" * 32)
    assert e.value.code == "auth.wrong_code" and "impasto pair" in e.value.message
    text = (tmp_path / "p.json").read_text()
    assert given.token not in text and code not in text
    assert stat.S_IMODE((tmp_path / "p.json").stat().st_mode) == 0o600
    # Known again after a restart, and seen.
    again = Pairings(tmp_path / "p.json")
    assert again.who(given.token) == "laptop" and again.clients[0].used == 0
    again.seen("laptop")
    assert Pairings(tmp_path / "p.json").clients[0].used > 1e9


def test_a_proof_over_another_certificate_is_worth_nothing() -> None:
    """Who stands in between shows a certificate of its own, and cannot pass the proof on."""
    pairings = Pairings(None)
    code = pairings.open()
    with pytest.raises(AuthError):
        pairings.pair(asked(code, fingerprint=b"e" * 32), b"f" * 32)
    with pytest.raises(AuthError):
        pairings.pair(asked(code, fingerprint=b""), b"f" * 32)


def test_a_code_holds_for_minutes_of_a_clock_that_nobody_sets(quick: list[int], monkeypatch: Any) -> None:
    clock = Clock()
    pairings = Pairings(None, clock)
    real = module.time.time
    for jump in (-1e9, 1e9):
        code = pairings.open()
        monkeypatch.setattr(module.time, "time", lambda jump=jump: real() + jump)
        clock.now += CODE_SECONDS - 1
        assert pairings.pair(asked(code), b"").token
    code = pairings.open()
    clock.now += CODE_SECONDS
    with pytest.raises(AuthError) as e:
        pairings.pair(asked(code), b"")
    assert e.value.code == "auth.wrong_code"
    first = pairings.open()
    pairings.open()
    with pytest.raises(AuthError):
        pairings.pair(asked(first), b"")


def test_ten_wrong_codes_close_pairing_until_there_is_a_new_one(quick: list[int]) -> None:
    pairings = Pairings(None)
    with pytest.raises(AuthError) as e:
        pairings.pair(asked(new_code()), b"")
    assert e.value.code == "auth.wrong_code" and not quick, "there is no code at all"
    code = pairings.open()
    codes = []
    for _ in range(1000):
        with pytest.raises(AuthError) as e:
            pairings.pair(asked(new_code()), b"")
        codes.append(e.value.code)
    assert codes == ["auth.wrong_code"] * MAX_WRONG + ["auth.locked"] * (1000 - MAX_WRONG)
    assert len(quick) == MAX_WRONG, "nobody makes the server work after that"
    with pytest.raises(AuthError, match="closed after 10 wrong codes") as e:
        pairings.pair(asked(code), b"")
    assert e.value.code == "auth.locked"
    assert pairings.pair(asked(pairings.open()), b"").token


def test_names_can_be_told_apart_and_typed(quick: list[int], tmp_path: Path) -> None:
    pairings = Pairings(tmp_path / "p.json")
    names = [pairings.pair(asked(pairings.open(), name), b"").name for name in ("a", "a", "b\n\tc \x1b[2J" + "x" * 99)]
    assert names[:2] == ["a", "a 2"] and names[2].startswith("b c [2Jx") and len(names[2]) == 60
    # Nothing that could be shown is no name: nobody is to be taken for somebody else, or for nobody.
    for name, salt in ((" ", SALT), ("\x00\u200b\n", SALT), ("a", b"short")):
        with pytest.raises(ProtocolError):
            pairings.pair(asked(pairings.open(), name, salt=salt), b"")
    with pytest.raises(RequestError, match="there is a, a 2"):
        pairings.revoke("c")
    pairings.revoke("a")
    assert [client.name for client in Pairings(tmp_path / "p.json").clients] == names[1:]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"clients": [{}]}', '{"clients": [1]}', '{"clients": null}'])
def test_a_damaged_list_is_refused_with_the_mend(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(AuthError, match="delete the file and pair them again"):
        Pairings(tmp_path / "p.json")


def test_a_pairing_that_cannot_be_kept_is_none(quick: list[int], tmp_path: Path) -> None:
    pairings = Pairings(tmp_path / "gone" / "p.json")
    code = pairings.open()
    with pytest.raises(ResourceError, match="could not be saved"):
        pairings.pair(asked(code), b"")
    assert not pairings.clients
    (tmp_path / "gone").mkdir()
    assert pairings.pair(asked(code), b"").token, "the code was not lost"


@pytest.mark.parametrize("typed", ["k7qx-m2rd", " K7QX M2RD ", "K7QXM2RD"])
def test_a_code_as_people_type_it(typed: str) -> None:
    assert clean_code(typed) == "K7QXM2RD" and shown_code(clean_code(typed)) == "K7QX-M2RD"


@pytest.mark.parametrize("typed", ["", "K7QX", "K7QXM2RD2", "K7QXM2R0", "K7QXM2RÄ", "K7QX_M2RD"])
def test_what_is_no_code_is_told_before_anything_is_sent(typed: str) -> None:
    with pytest.raises(RequestError, match="8 letters and digits"):
        clean_code(typed)


def test_codes_are_drawn_from_all_letters() -> None:
    drawn = {letter for _ in range(200) for letter in new_code()}
    assert drawn == set(CODE_LETTERS) and not set("01ILOU") & drawn


# ---- over a socket


async def try_to_pair(endpoint: Any, asking: Pair) -> Paired:
    async with open_socket(endpoint) as peer:
        await peer.send(asking)
        answer = await peer.receive()
        if isinstance(answer, Error):
            with pytest.raises(ConnectionClosed):
                await peer.receive()
            raise answer.exception()
        assert isinstance(answer, Paired)
        return answer


async def a_code(owner: Peer) -> str:
    opened = await owner.ask(PairOpen)
    assert isinstance(opened, PairOpened)
    return opened.code


def test_paired_on_loopback_and_what_a_paired_client_may_do(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as owner:
            opened = await owner.ask(PairOpen)
            assert isinstance(opened, PairOpened)
            assert opened.addresses == (f"127.0.0.1:{endpoint.port}",) and opened.fingerprint is None
            given = await try_to_pair(endpoint, asked(opened.code))
            assert json.loads(pairings_file(tmp_path).read_text())["clients"][0]["name"] == "laptop"
            async with connected(endpoint, given.token) as paired:
                assert isinstance(await paired.ask(Jobs), JobsOk)
                for request in (PairOpen, lambda id: PairRevoke(id, "laptop"), Shutdown):
                    refused = await paired.ask(request)
                    assert isinstance(refused, Error) and refused.code == "auth.denied"
                refused = await owner.ask(lambda id: PairRevoke(id, "nobody"))
                assert isinstance(refused, Error) and refused.code == "request.invalid_param"
                assert isinstance(await owner.ask(lambda id: PairRevoke(id, "laptop")), Ok)
                with pytest.raises(ConnectionClosed) as end:
                    await paired.receive()
                assert end.value.rcvd is not None and end.value.rcvd.code == 1008
            with pytest.raises(AuthError):
                async with connected(endpoint, given.token):
                    pass

    asyncio.run(scenario())


def test_a_hello_may_follow_and_pairing_may_not_follow_a_hello(tmp_path: Path) -> None:
    from impasto_protocol.messages import Hello, Welcome

    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as owner:
            async with open_socket(endpoint) as peer:
                await peer.send(asked(await a_code(owner)))
                given = await peer.receive()
                assert isinstance(given, Paired)
                await peer.send(Hello(PROTOCOL, INFO, given.token))
                assert isinstance(await peer.receive(), Welcome)
            await owner.send(asked(await a_code(owner)))
            answer = await owner.receive()
            assert isinstance(answer, Error) and answer.code == "protocol.bad_message"

    asyncio.run(scenario())


def test_a_thousand_tries_over_the_wire(tmp_path: Path, quick: list[int]) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as owner:
            code = await a_code(owner)
            codes: list[str] = []

            async def one() -> None:
                try:
                    await try_to_pair(endpoint, asked(new_code()))
                except ImpastoError as e:
                    codes.append(e.code)

            for _ in range(125):
                await asyncio.gather(*(one() for _ in range(8)))
            assert sorted(codes) == ["auth.locked"] * 990 + ["auth.wrong_code"] * 10
            with pytest.raises(AuthError):
                await try_to_pair(endpoint, asked(code))
            assert (await try_to_pair(endpoint, asked(await a_code(owner)))).name == "laptop"

    asyncio.run(scenario())


def test_the_port_is_kept_for_who_was_paired(tmp_path: Path, quick: list[int]) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, first), connected(first) as owner:
            await try_to_pair(first, asked(await a_code(owner)))
        ports = []
        for _ in range(2):
            async with running(settings_for(tmp_path)) as (_, again):
                ports.append(again.port)
        assert ports == [first.port] * 2

    asyncio.run(scenario())


def test_a_kept_port_that_is_taken_gives_way(tmp_path: Path, quick: list[int], caplog: Any) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, first), connected(first) as owner:
            await try_to_pair(first, asked(await a_code(owner)))
        taken = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", first.port)
        async with taken, running(settings_for(tmp_path)) as (_, again), connected(again):
            assert again.port != first.port
        assert f"port {first.port} is taken" in caplog.text

    with caplog.at_level("WARNING", "impasto"):
        asyncio.run(scenario())


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_what_is_kept_is_private(tmp_path: Path, quick: list[int]) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as owner:
            await try_to_pair(endpoint, asked(await a_code(owner)))
        assert stat.S_IMODE(pairings_file(tmp_path).stat().st_mode) == 0o600

    asyncio.run(scenario())
