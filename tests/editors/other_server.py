"""A second server in a folder of its own, as another computer's would be, with a code to pair by."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from impasto_client.client import Client
from impasto_client.endpoint import read_endpoint
from impasto_protocol.messages import ClientInfo
from impasto_protocol.pairing import PairOpen, PairOpened

__all__ = ["OtherServer", "other_server"]


class OtherServer:
    """Where it is, a code, and what it did."""

    def __init__(self, home: Path) -> None:
        endpoint = read_endpoint(home)
        assert endpoint is not None
        self._endpoint = endpoint
        self.address = endpoint.address

    @contextlib.contextmanager
    def _client(self) -> Iterator[Client]:
        client = Client.connect(self._endpoint, ClientInfo("tests", "0", "pytest"), lambda _: None, lambda _: None)
        try:
            yield client
        finally:
            client.close()

    def code(self) -> str:
        """A new pairing code."""
        with self._client() as client:
            return client.ask(PairOpen, PairOpened).code

    def jobs(self) -> list[str]:
        """The states of its jobs."""
        with self._client() as client:
            return [job.state for job in client.jobs()]


@contextlib.contextmanager
def other_server(launch: list[str], home: Path) -> Iterator[OtherServer]:
    """Run it."""
    home.mkdir(mode=0o700)
    with open(home / "server.out", "wb") as log:
        server = subprocess.Popen(launch, env={**os.environ, "IMPASTO_HOME": str(home)}, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while read_endpoint(home) is None:
            assert server.poll() is None and time.monotonic() < deadline, (home / "server.out").read_text()
            time.sleep(0.05)
        yield OtherServer(home)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)
