"""Servers of other times: the client does without what an older one lacks, and lets be what a newer one has."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_server import FakeServer
from impasto_protocol import messages as wire
from impasto_protocol.version import PROTOCOL
from scenarios import Editor, snapshot


@pytest.mark.parametrize("minor", [0, 1, PROTOCOL[1] + 7])
def test_a_job_at_a_server_of_another_minor_version(
    tmp_path: Path, minor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FakeServer(tmp_path)
    info = wire.ServerInfo("fake", "0", "none")
    monkeypatch.setattr(server, "_welcome", lambda: wire.Welcome((PROTOCOL[0], minor), info, server.limits, server.rev))
    server.start()
    editor = Editor(tmp_path)
    try:
        editor.connected()
        editor.runner.submit("job", "inpaint", {}, snapshot(256, 256))
        assert editor.ended("job").state == "finished"
        sent = {message.TYPE for message in server.received}
        assert ("put_new" in sent) is (minor >= 2)
    finally:
        editor.close()
        server.stop()
