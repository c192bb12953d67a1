"""Plug-ins of other times: another minor version works, another major one is told so at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from impasto_protocol.messages import ClientInfo, Error, Finished, Hello, Welcome
from impasto_protocol.version import PROTOCOL
from websockets.exceptions import InvalidStatus

from tests.service.fakes import TOKEN, ask_submit, open_socket, running, settings_for


@pytest.mark.parametrize("minor", [0, PROTOCOL[1] + 7])
def test_an_older_and_a_newer_minor_version_work(tmp_path: Path, minor: int) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), open_socket(endpoint) as peer:
            await peer.send(Hello((PROTOCOL[0], minor), ClientInfo("of another time", "9"), TOKEN))
            welcome = await peer.receive()
            assert isinstance(welcome, Welcome) and welcome.protocol == PROTOCOL
            await ask_submit(peer, "job")
            assert isinstance(await peer.end("job"), Finished)

    asyncio.run(scenario())


def test_another_major_version_is_told_in_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint):
            async with open_socket(endpoint) as peer:
                await peer.send(Hello((PROTOCOL[0] + 1, 0), ClientInfo("of another time", "9"), TOKEN))
                refused = await peer.receive()
                assert isinstance(refused, Error) and refused.code == "protocol.version"
                assert "install the plug-in and the server of the same Impasto version" in refused.message
            with pytest.raises(InvalidStatus) as e:
                async with open_socket(endpoint, subprotocols=["impasto.v2"]):
                    pass
            assert e.value.response.status_code == 400

    asyncio.run(scenario())
