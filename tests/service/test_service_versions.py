"""An older plug-in with this server: the messages of version 1.0 alone, from the hello to the pixels; another major."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.codec import decode, encode
from impasto_protocol.messages import Error
from impasto_protocol.version import PROTOCOL, Limits

from tests.service.fakes import TOKEN, open_socket, running, settings_for

LIMITS = Limits(frame=64 << 20)


def test_a_plug_in_of_the_first_version_still_makes_its_picture(tmp_path: Path) -> None:
    """Written as maps: what that plug-in sent does not change with our classes."""

    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), open_socket(endpoint) as peer:

            async def ask(message: dict[str, Any], kind: str) -> dict[str, Any]:
                await peer.socket.send(encode(message))
                while True:
                    told: dict[str, Any] = decode(bytes(await peer.socket.recv()), LIMITS)
                    assert told["type"] != "error", told
                    if told["type"] == kind:
                        return told

            client = {"name": "impasto_krita", "version": "0.0.1", "host": "krita 5.1"}
            hello = {"type": "hello", "protocol": [1, 0], "client": client, "token": TOKEN}
            welcome = await ask(hello, "welcome")
            assert welcome["protocol"] == list(PROTOCOL) and welcome["protocol"][0] == 1
            catalog = await ask({"type": "catalog", "id": 1}, "catalog")
            assert {"txt2img", "inpaint"} <= {mode["name"] for mode in catalog["modes"]}
            job = {"type": "submit", "id": 2, "job": "old", "mode": "txt2img", "params": {"prompt": "x", "steps": 2}}
            await ask({**job, "canvas": [64, 64], "inputs": {}, "output_format": "rgba8"}, "accepted")
            output = None
            while True:
                event = decode(bytes(await peer.socket.recv()), LIMITS)
                if event["type"] == "output":
                    output = event
                if event["type"] in ("finished", "failed", "cancelled"):
                    break
            assert event["type"] == "finished" and output is not None
            get = {"type": "get", "id": 3, "digest": output["digest"], "offset": 0, "length": 1 << 20}
            data = await ask(get, "data")
            assert len(data["data"]) == output["width"] * output["height"] * 4

    asyncio.run(scenario())


@pytest.mark.parametrize("protocol", [[2, 0], [0, 9]])
def test_a_plug_in_of_another_major_version_is_told_both(tmp_path: Path, protocol: list[int]) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), open_socket(endpoint) as peer:
            client = {"name": "impasto_krita", "version": "9"}
            await peer.socket.send(encode({"type": "hello", "protocol": protocol, "client": client, "token": TOKEN}))
            told = await peer.receive()
            assert isinstance(told, Error) and told.code == "protocol.version"
            for version in (protocol, PROTOCOL):
                assert ".".join(map(str, version)) in told.message

    asyncio.run(scenario())
