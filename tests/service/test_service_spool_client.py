"""The client and the server's files: used by themselves where both see them, and the socket wherever anything fails."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import impasto_client.pictures
import pytest
from impasto_client.client import Client
from impasto_client.document import Snapshot
from impasto_client.endpoint import Endpoint
from impasto_client.spool import SpoolFolder
from impasto_client.transfers import fetch_result, send_job
from impasto_protocol.errors import AssetError, JobError, RequestError, ResourceError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.home import spool_folder
from impasto_protocol.images import digest_of
from impasto_protocol.messages import ClientInfo, Finished, GetFile, InputPicture, Message, Output, Put, Room
from impasto_server.service.server import Server

from tests.service.fakes import TOKEN, disc, picture, running, settings_for

CANVAS, BOX = Size(256, 192), Box(8, 16, 64, 48)
SHOT = Snapshot(CANVAS, BOX, picture(), "rgba8", disc())


@pytest.fixture(autouse=True)
def small_pictures_go_by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impasto_client.pictures, "SPOOL_FROM", 1024)


SOCKET = {"have", "put", "put_new", "get"}
"""What moves pixels through the socket."""


class Desk:
    """A client with what it said and what it heard."""

    def __init__(self, endpoint: Any, files: bool = True) -> None:
        self.heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.said: list[Message] = []
        there = Endpoint(endpoint.host, endpoint.port, TOKEN, os.getpid(), "0", (1, 1))
        info = ClientInfo("test", "0")
        self.client = Client.connect(there, info, self.heard.put, lambda error: None, files=files)
        send = self.client._connection.send

        def noted(message: Message) -> bytes:
            self.said.append(message)
            return send(message)

        self.client._connection.send = noted  # type: ignore[method-assign]

    def types(self) -> set[str]:
        return {message.TYPE for message in self.said}

    def job(self, job: str = "j", sent: dict[str, InputPicture] | None = None) -> bytes:
        """Send, wait, fetch; the result's pixels."""
        send_job(self.client, job, "inpaint", {"steps": 2}, SHOT, None, threading.Event(), {} if sent is None else sent)
        return self.result(job)

    def result(self, job: str) -> bytes:
        got = b""
        while True:
            message: Any = self.heard.get(timeout=60)
            if isinstance(message, Output) and message.job == job:
                got = fetch_result(self.client, message).pixels
            if isinstance(message, Finished) and message.job == job:
                return got


def at_a_server(tmp_path: Path, use: Callable[[Server, Any], None], **changes: Any) -> None:
    """`use` in a thread, with a server that listens."""

    async def scenario() -> None:
        async with running(settings_for(tmp_path, **changes)) as (server, endpoint):
            await asyncio.to_thread(use, server, endpoint)

    asyncio.run(scenario())


@pytest.fixture
def expected() -> Iterator[bytes]:
    pixels = bytearray(picture())
    pixels[3::4] = disc()
    yield bytes(pixels)


def test_pictures_go_by_file_by_themselves(tmp_path: Path, expected: bytes) -> None:
    def use(server: Server, endpoint: Any) -> None:
        desk = Desk(endpoint)
        assert desk.client.through_files
        assert desk.job() == expected
        assert {"room", "filled", "get_file", "release"} <= desk.types() and not SOCKET & desk.types()
        # The next job's pictures go through the same files.
        used = {file.name for file in server.spool.folder.iterdir()}  # type: ignore[union-attr]
        assert desk.job("k") == expected
        assert {file.name for file in server.spool.folder.iterdir()} == used  # type: ignore[union-attr]
        assert {m.generation for m in desk.said if m.TYPE == "release"} == {1, 2} or len(used) > 1  # type: ignore[attr-defined]
        desk.client.close()

    at_a_server(tmp_path, use)
    assert not list(spool_folder(tmp_path).iterdir())


def test_a_client_that_cannot_see_the_files_uses_the_socket(
    tmp_path: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(server: Server, endpoint: Any) -> None:
        with monkeypatch.context() as m:
            # The folder of that name is another one here, as in a sandbox.
            other = tmp_path / "sandbox"
            other.mkdir()
            real = SpoolFolder.__init__
            m.setattr(SpoolFolder, "__init__", lambda self, folder: real(self, other))
            desk = Desk(endpoint)
            assert not desk.client.through_files and desk.job("a") == expected
            # And where even a probe of that name lies there.
            share = SpoolFolder.prove

            def planted(info: Any, share_: Any) -> Any:
                (other / info.probe).write_bytes(bytes(64))
                return share(info, share_)

            m.setattr(SpoolFolder, "prove", staticmethod(planted))
            assert not Desk(endpoint).client.through_files
        desk = Desk(endpoint, files=False)
        assert not desk.client.through_files and desk.job("b") == expected
        assert "put_new" in desk.types() and "room" not in desk.types()

    at_a_server(tmp_path, use)


@pytest.mark.parametrize("where", ["no room", "no write", "spoilt", "no read", "no lend"])
def test_what_does_not_go_by_file_goes_by_socket(
    tmp_path: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def no_room(self: Any, *args: Any) -> Any:
        raise ResourceError("resource.no_spool", "The spool is full.")

    def full(*args: Any) -> Any:
        raise OSError(28, "No space left on device")

    def cut(self: SpoolFolder, name: str, data: Any, stop: Any) -> None:
        os.truncate(self._folder / name, 7)

    def use(server: Server, endpoint: Any) -> None:
        desk = Desk(endpoint)
        if where == "no room":
            monkeypatch.setattr(server.spool, "make", no_room)
        elif where == "no lend":
            monkeypatch.setattr("impasto_server.service.spool.SpoolFile.write", no_room)
        elif where == "spoilt":
            monkeypatch.setattr(SpoolFolder, "write", cut)
        else:
            monkeypatch.setattr(SpoolFolder, "write" if where == "no write" else "read", full)
        assert desk.job() == expected
        assert ("put_new" if where in ("no room", "no write", "spoilt") else "get") in desk.types()
        desk.client.close()

    at_a_server(tmp_path, use)
    assert not list(spool_folder(tmp_path).iterdir())


def test_an_upload_that_is_given_up_gives_back_its_room(tmp_path: Path) -> None:
    def use(server: Server, endpoint: Any) -> None:
        desk, stop = Desk(endpoint), threading.Event()
        stop.set()
        with pytest.raises(JobError) as caught:
            desk.client.upload(picture(), stop)
        assert caught.value.code == "job.cancelled" and "release" in desk.types()
        assert not any(line._files for line in server.spool._lines)

    at_a_server(tmp_path, use)


def test_pictures_of_a_job_that_is_refused_are_given_back(tmp_path: Path) -> None:
    def use(server: Server, endpoint: Any) -> None:
        desk, sent = Desk(endpoint), dict[str, InputPicture]()
        with pytest.raises(RequestError):
            send_job(desk.client, "j", "inpaint", {"steps": 0}, SHOT, None, threading.Event(), sent)
        assert not sent and not any(line._files for line in server.spool._lines) and not server.blobs.byte_count
        # One that a job needs is not given back by its client.
        send_job(desk.client, "k", "inpaint", {"prompt": "slow", "steps": 20}, SHOT, None, threading.Event(), sent)
        for part in sent.values():
            desk.client.give_back(part.digest)
        for name in ("image", "mask"):
            assert sent[name].digest not in desk.client._pictures._filled
        assert desk.result("k")

    at_a_server(tmp_path, use)


def test_the_same_submit_after_a_lost_connection_is_the_same_job(tmp_path: Path, expected: bytes) -> None:
    """The name of a file's bytes is another one each time: a client that sends anew must not send another job."""

    def use(server: Server, endpoint: Any) -> None:
        first, sent = Desk(endpoint), dict[str, InputPicture]()
        params: dict[str, Any] = {"steps": 2}
        send_job(first.client, "j", "inpaint", params, SHOT, None, threading.Event(), sent)
        first.client.close()
        second = Desk(endpoint)
        send_job(second.client, "j", "inpaint", params, SHOT, None, threading.Event(), sent)
        assert second.result("j") == expected and "room" not in second.types()
        # Where the first submit never arrived the pictures are gone, and are sent again.
        third = Desk(endpoint)
        kept = {"image": InputPicture(third.client.upload(SHOT.pixels), 64, 48, "rgba8", 8, 16)}
        kept["mask"] = InputPicture(third.client.upload(disc()), 64, 48, "l8", 8, 16)
        gone = kept["image"].digest
        third.client.close()
        fourth = Desk(endpoint)
        while fourth.client.have((gone,)) == ():
            pass
        assert fourth.job("k", kept) == expected and kept["image"].digest != gone
        assert [message.TYPE for message in fourth.said].count("submit") == 2

    at_a_server(tmp_path, use)


def test_a_result_that_is_gone_is_told_and_one_that_is_cut_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(server: Server, endpoint: Any) -> None:
        desk = Desk(endpoint)
        with pytest.raises(AssetError) as caught:
            desk.client.fetch("0" * 32, 4096)
        assert caught.value.code == "asset.missing"
        data = picture()
        digest = Desk(endpoint, files=False).client.upload(data)
        with pytest.raises(AssetError) as caught:
            desk.client.fetch(digest, len(data) + 4)
        assert caught.value.code == "asset.bad_image"
        real = SpoolFolder.read

        def cut(self: SpoolFolder, name: str, size: int) -> bytes:
            os.truncate(self._folder / name, 100)
            return real(self, name, size)

        with monkeypatch.context() as m:
            m.setattr(SpoolFolder, "read", cut)
            assert desk.client.fetch(digest, len(data)) == data  # by the socket
        assert desk.client.fetch(digest, len(data)) == data
        assert [m.TYPE for m in desk.said].count("get_file") == 4
        assert {type(m) for m in desk.said} >= {GetFile} and not {type(m) for m in desk.said} & {Put, Room}

    at_a_server(tmp_path, use)


def test_the_client_opens_nothing_but_the_servers_files(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4096))
    (folder / "link").symlink_to(secret)
    (folder / "small").write_bytes(b"x")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    spool = SpoolFolder(folder)
    for name in ("../secret", "link", "small", "folder", "pipe", "gone", "", "A", str(secret)):
        for use in (
            lambda name=name: spool.read(name, 100),
            lambda name=name: spool.write(name, bytes(100), threading.Event()),
        ):
            with pytest.raises(OSError):
                use()
    assert secret.read_bytes() == bytes(4096)
    (folder / "good").write_bytes(bytes(100))
    spool.write("good", b"y" * 60, threading.Event())
    assert spool.read("good", 100) == b"y" * 60 + bytes(40) and digest_of(spool.read("good", 60)) == digest_of(
        b"y" * 60
    )
