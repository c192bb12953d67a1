"""A client asks what `impasto doctor` says: in a process of its own, once for all who ask, with nobody kept waiting."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from impasto_client.client import Client
from impasto_client.endpoint import Endpoint
from impasto_protocol.messages import ClientInfo, Doctor, DoctorOk, Error, Jobs, JobsOk
from impasto_server.cli.main import VERBS
from impasto_server.service.diagnosis import COMMAND, Diagnosis

from tests.service.fakes import TOKEN, connected, running, settings_for

COUNTS = """
import json, os, pathlib, time
home = pathlib.Path(os.environ["IMPASTO_HOME"])
(home / "asked").open("a").write("x")
while not (home / "go").exists():
    time.sleep(0.02)
print(json.dumps({"text": "ok    torch     2.13\\nBAD   disk      full", "bad": 1}))
"""


def test_the_command_is_the_doctor() -> None:
    assert COMMAND[:3] == (sys.executable, "-m", "impasto_server.cli.main") and COMMAND[3] in VERBS


def test_one_look_for_all_who_ask_while_others_are_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (server, endpoint):
            server.diagnosis = Diagnosis(tmp_path, (sys.executable, "-c", COUNTS))
            async with connected(endpoint) as first, connected(endpoint) as second:
                await first.send(Doctor(501))
                await second.send(Doctor(502))
                await first.send(Jobs(503))
                answer = await first.receive()
                assert isinstance(answer, JobsOk) and answer.id == 503, "nothing waits for the doctor"
                (tmp_path / "go").touch()
                for peer, number in ((first, 501), (second, 502)):
                    told = await peer.receive()
                    assert isinstance(told, DoctorOk) and told.id == number and told.bad == 1
                    assert "BAD   disk" in told.text
                assert (tmp_path / "asked").read_text() == "x"

    asyncio.run(scenario())


def test_the_client_asks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (server, there):
            (tmp_path / "go").touch()
            server.diagnosis = Diagnosis(tmp_path, (sys.executable, "-c", COUNTS))
            endpoint = Endpoint(there.host, there.port, TOKEN, there.pid, there.version, there.protocol)

            def ask() -> DoctorOk:
                client = Client.connect(endpoint, ClientInfo("test", "0"), lambda m: None, lambda e: None)
                try:
                    return client.doctor()
                finally:
                    client.close()

            assert (await asyncio.to_thread(ask)).bad == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("code", ["print('no JSON')", "raise SystemExit('no such module')", "print('{\"text\": 1}')"])
def test_a_doctor_that_fails_is_an_error_with_what_to_do(tmp_path: Path, code: str) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (server, endpoint):
            server.diagnosis = Diagnosis(tmp_path, (sys.executable, "-c", code))
            async with connected(endpoint) as peer:
                told: Any = await peer.ask(Doctor)
                assert (
                    isinstance(told, Error) and told.code == "resource.no_answer" and "impasto doctor" in told.message
                )

    asyncio.run(scenario())


def test_a_client_that_leaves_and_a_server_that_stops_end_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (server, endpoint):
            server.diagnosis = Diagnosis(tmp_path, (sys.executable, "-c", COUNTS))
            async with connected(endpoint) as peer:
                await peer.send(Doctor(1))
                await peer.ask(Jobs)
        assert server.diagnosis._running is not None and server.diagnosis._running.done()

    asyncio.run(scenario())
