"""Pixels in files: proved before use, bounded, and gone afterwards, whatever becomes of the client or the file."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.home import spool_folder
from impasto_protocol.images import digest_of
from impasto_protocol.messages import (
    PROOF_BYTES,
    Accepted,
    Cancel,
    Data,
    Error,
    Failed,
    File,
    Filled,
    Finished,
    Get,
    GetFile,
    InputPicture,
    Ok,
    Output,
    Progress,
    Release,
    Room,
    RoomOk,
    Share,
)
from impasto_protocol.version import Limits
from impasto_server.service.spool import Spool, SpoolFile

from tests.service.fakes import Peer, ask_submit, connected, disc, missing, picture, running, settings_for, share

SIZE = 64 * 48 * 4


def names(home: Path) -> list[str]:
    return sorted(os.listdir(spool_folder(home)))


async def room(peer: Peer, size: int = SIZE) -> RoomOk:
    answer = await peer.ask(Room, size)
    assert isinstance(answer, RoomOk), answer
    return answer


async def hand_over(peer: Peer, folder: Path, data: bytes) -> RoomOk:
    place = await room(peer, len(data))
    with open(folder / place.name, "r+b") as file:
        file.write(data)
    answer = await peer.ask(Filled, place.name, place.generation)
    assert isinstance(answer, Ok), answer
    return place


async def inputs_of(peer: Peer, folder: Path) -> dict[str, InputPicture]:
    image, mask = await hand_over(peer, folder, picture()), await hand_over(peer, folder, disc())
    return {
        "image": InputPicture(image.digest, 64, 48, "rgba8"),
        "mask": InputPicture(mask.digest, 64, 48, "l8"),
    }


def refused(answer: Any, code: str) -> Error:
    assert isinstance(answer, Error) and answer.code == code, answer
    return answer


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_a_job_through_files_and_nothing_of_it_left(tmp_path: Path, worker: str) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path, worker=worker)) as (server, endpoint):
            async with connected(endpoint) as peer:
                folder = await share(peer)
                assert folder == spool_folder(tmp_path) and folder.stat().st_mode & 0o777 == 0o700
                inputs = await inputs_of(peer, folder)
                assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
                await ask_submit(peer, "j", "inpaint", inputs=inputs)
                assert isinstance(await peer.end("j"), Finished)
                output = await peer.until(Output)
                lent = await peer.ask(GetFile, output.digest)
                assert isinstance(lent, File) and (lent.size, lent.digest) == (SIZE, output.digest)
                got = (folder / lent.name).read_bytes()[: lent.size]
                assert got == await peer.fetch(output) and digest_of(got) == output.digest
                assert got[::4] == picture()[::4] and got[3::4] == disc()
                for _ in range(2):  # again is no error
                    assert isinstance(await peer.ask(Release, lent.name, lent.generation), Ok)
                # The job needs its pictures no more, and what is left is a file or two for the next.
                assert await missing(peer, inputs["image"].digest) == (inputs["image"].digest,)
                again = await room(peer)
                assert again.name in (lent.name, *names(tmp_path)) and again.generation > 1
            while names(tmp_path):
                await asyncio.sleep(0.01)
            assert not server.spool.byte_count

    asyncio.run(scenario())
    assert names(tmp_path) == []


def test_who_does_not_see_the_files_gets_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint):
            async with connected(endpoint) as peer:
                refused(await peer.ask(Room, SIZE), "resource.no_spool")
                refused(await peer.ask(GetFile, await peer.put(picture())), "resource.no_spool")
                # One that reads, and writes into a copy (the overlay of a sandbox).
                probe = spool_folder(tmp_path) / peer.welcome.spool.probe
                secret = probe.read_bytes()[:PROOF_BYTES]
                refused(await peer.ask(Share, secret, os.urandom(PROOF_BYTES)), "resource.no_spool")
                assert not probe.exists()
                # There is one try: the probe is gone, and no guess helps.
                refused(await peer.ask(Share, secret, bytes(PROOF_BYTES)), "resource.no_spool")
                refused(await peer.ask(Room, SIZE), "resource.no_spool")
            for read, wrote in ((bytes(PROOF_BYTES), bytes(PROOF_BYTES)), (b"", b"")):
                async with connected(endpoint) as peer:
                    refused(await peer.ask(Share, read, wrote), "resource.no_spool")
            async with connected(endpoint) as peer:
                probe = spool_folder(tmp_path) / peer.welcome.spool.probe
                secret = probe.read_bytes()[:PROOF_BYTES]
                # Written nothing: the zeros that were there prove nothing.
                refused(await peer.ask(Share, secret, bytes(PROOF_BYTES)), "resource.no_spool")
            async with connected(endpoint) as peer, connected(endpoint) as other:
                await share(peer)
                # Proved is one connection, and not another one.
                refused(await other.ask(Room, SIZE), "resource.no_spool")

    asyncio.run(scenario())
    assert names(tmp_path) == []


def test_names_are_looked_up_and_never_opened(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running(settings_for(tmp_path)) as (_, endpoint),
            connected(endpoint) as peer,
            connected(endpoint) as other,
        ):
            folder = await share(peer)
            await share(other)
            place = await room(peer)
            (folder / "planted").write_bytes(picture())
            for name in ("planted", "token", "0" * 16):
                refused(await peer.ask(Filled, name, 1), "asset.missing")
            for name in ("../token", "/etc/passwd", "a/b", "..", "", "x" * 65, "a\x00b"):
                refused(await peer.ask(Filled, name, 1), "protocol.bad_message")
            refused(await peer.ask(Filled, place.name, place.generation + 1), "asset.missing")
            refused(await other.ask(Filled, place.name, place.generation), "asset.missing")
            assert isinstance(await other.ask(Release, place.name, place.generation), Ok)
            assert isinstance(await peer.ask(Filled, place.name, place.generation), Ok)
            refused(await peer.ask(Filled, place.name, place.generation), "asset.missing")
            refused(await peer.ask(GetFile, "0" * 32), "asset.missing")

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["cut", "gone", "linked", "hard link"])
def test_a_file_that_was_spoilt_before_it_was_handed_over(tmp_path: Path, how: str) -> None:
    async def scenario() -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(bytes(SIZE))
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            folder = await share(peer)
            place = await room(peer)
            path = folder / place.name
            if how == "cut":
                os.truncate(path, SIZE - 1)
            else:
                path.unlink()
            if how == "linked":
                path.symlink_to(secret)
            if how == "hard link":
                path.hardlink_to(secret)
            error = refused(await peer.ask(Filled, place.name, place.generation), "asset.missing")
            assert error.retryable and error.data == {"digests": [place.digest]}
            # It is not used again, and the connection goes on.
            assert (await room(peer)).name != place.name
        assert secret.read_bytes() == bytes(SIZE)

    asyncio.run(scenario())


def test_a_file_that_is_cut_while_its_job_waits_fails_that_job_alone(tmp_path: Path) -> None:
    """With a mapping this would be the death of the server (SIGBUS)."""

    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            folder = await share(peer)
            await ask_submit(peer, "runs", params={"steps": 150, "prompt": "slow"})
            image, mask = await hand_over(peer, folder, picture()), await hand_over(peer, folder, disc())
            inputs = {
                "image": InputPicture(image.digest, 64, 48, "rgba8"),
                "mask": InputPicture(mask.digest, 64, 48, "l8"),
            }
            assert isinstance(await ask_submit(peer, "waits", "inpaint", inputs=inputs), Accepted)
            os.truncate(folder / image.name, 100)
            await peer.ask(Cancel, "runs")
            end = await peer.end("waits")
            assert isinstance(end, Failed) and end.error.code == "asset.missing" and end.error.retryable
            # And where it is cut before the submit is looked at.
            mask = await hand_over(peer, folder, disc())
            os.truncate(folder / mask.name, 0)
            inputs["image"] = InputPicture((await hand_over(peer, folder, picture())).digest, 64, 48, "rgba8")
            inputs["mask"] = InputPicture(mask.digest, 64, 48, "l8")
            refused(await ask_submit(peer, "third", "inpaint", inputs=inputs), "asset.missing")
            await ask_submit(peer, "next", "inpaint", inputs=await inputs_of(peer, folder))
            assert isinstance(await peer.end("next"), Finished)

    asyncio.run(scenario())


def test_a_picture_of_a_file_outlives_its_connection_as_long_as_its_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (server, endpoint), connected(endpoint) as watcher:
            async with connected(endpoint) as peer:
                folder = await share(peer)
                await room(peer)  # never filled
                await hand_over(peer, folder, picture(seed=9))  # never used
                await ask_submit(peer, "long", params={"steps": 150, "prompt": "slow"})
                await peer.until(Progress)
                inputs = await inputs_of(peer, folder)
                await ask_submit(peer, "j", "inpaint", inputs=inputs)
                held: Any = server.blobs.get(inputs["image"].digest)
                assert isinstance(await peer.ask(Release, held.name, held.generation), Ok)
                assert inputs["image"].digest in server.blobs, "what a job needs is not released"
            while len(names(tmp_path)) != 3:  # the job's two, and the watcher's probe
                await asyncio.sleep(0.01)
            # The same submit again is the same job, also from elsewhere.
            assert isinstance(await ask_submit(watcher, "j", "inpaint", inputs=inputs), Accepted)
            await watcher.ask(Cancel, "long")
            assert isinstance(await watcher.end("j"), Finished)
            while len(names(tmp_path)) != 1:
                await asyncio.sleep(0.01)
            assert not server.spool.byte_count and inputs["image"].digest not in server.blobs

    asyncio.run(scenario())


def test_a_picture_of_a_file_can_be_had_over_the_socket(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            place = await hand_over(peer, await share(peer), picture())
            piece = await peer.ask(Get, place.digest, 0, SIZE)
            assert isinstance(piece, Data) and bytes(piece.data) == picture()

    asyncio.run(scenario())


def test_limits(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = settings_for(tmp_path, limits=Limits(upload_bytes=4 * SIZE), blob_bytes=6 * SIZE)
        async with running(settings) as (server, endpoint), connected(endpoint) as peer, connected(endpoint) as other:
            await share(peer)
            await share(other)
            error = refused(await peer.ask(Room, 4 * SIZE + 1), "asset.too_large")
            assert error.data == {"limit": 4 * SIZE}
            refused(await peer.ask(Room, 0), "protocol.bad_message")
            places = [await room(peer) for _ in range(4)]
            refused(await peer.ask(Room, 1), "resource.no_spool")
            # All connections together have a limit too.
            for _ in range(2):
                await room(other)
            refused(await other.ask(Room, 1), "resource.no_spool")
            for place in places:
                await peer.ask(Release, place.name, place.generation)
            # What nobody uses is given up for those who need it.
            await room(other, 2 * SIZE)
            assert server.spool.byte_count <= 6 * SIZE
            small = [await room(peer, 1) for _ in range(20)]
            assert len({place.name for place in small}) == 20

    asyncio.run(scenario())
    assert names(tmp_path) == []


def test_pinned_pictures_leave_no_room_for_a_file_either(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running(settings_for(tmp_path, blob_bytes=2 * SIZE)) as (server, endpoint),
            connected(endpoint) as peer,
        ):
            folder = await share(peer)
            server.blobs.pin([await peer.put(picture(seed=n)) for n in range(2)])
            place = await room(peer)
            error = refused(await peer.ask(Filled, place.name, place.generation), "resource.out_of_memory")
            assert error.retryable and folder.exists()
            assert (await room(peer)).generation == 2

    asyncio.run(scenario())


def test_a_full_disk_at_each_write(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*args: Any, **rest: Any) -> Any:
        raise OSError(28, "No space left on device")

    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            await share(peer)
            digest = await peer.put(picture())
            with monkeypatch.context() as m:
                m.setattr("impasto_server.service.spool.os.open", full)
                refused(await peer.ask(Room, SIZE), "resource.disk_full")
                refused(await peer.ask(GetFile, digest), "resource.disk_full")
                async with connected(endpoint) as other:  # no probe could be made
                    assert other.welcome.spool is None
            before = names(tmp_path)

            def short(self: SpoolFile, data: bytes) -> None:
                self.file.close()
                real(self, data)

            real = SpoolFile.write
            monkeypatch.setattr(SpoolFile, "write", short)
            refused(await peer.ask(GetFile, digest), "resource.disk_full")
            assert names(tmp_path) == before
            # By the socket it still comes.
            assert isinstance(await peer.ask(Get, digest, 0, SIZE), Data)

    asyncio.run(scenario())


def test_what_a_killed_server_left_is_cleared_at_the_next_start(tmp_path: Path) -> None:
    folder = spool_folder(tmp_path)
    folder.mkdir(mode=0o755)
    treasure = tmp_path / "treasure"
    treasure.write_text("dear")
    (folder / "0123456789abcdef").write_bytes(picture())
    (folder / "link").symlink_to(treasure)
    (folder / "folder").mkdir()

    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            await share(peer)
            assert names(tmp_path) == ["folder"] and folder.stat().st_mode & 0o777 == 0o700

    asyncio.run(scenario())
    assert treasure.read_text() == "dear"


def test_a_folder_that_is_somewhere_else_is_not_used(tmp_path: Path, caplog: Any) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("dear")
    spool_folder(tmp_path).symlink_to(elsewhere)

    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            assert peer.welcome.spool is None
            refused(await peer.ask(Room, SIZE), "resource.no_spool")

    asyncio.run(scenario())
    assert (elsewhere / "precious").exists() and "cannot be used" in caplog.text


def test_a_second_server_in_the_folder_leaves_the_first_ones_files_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = settings_for(tmp_path)
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            folder = await share(peer)
            place = await hand_over(peer, folder, picture())
            async with running(replace(settings, owns_home=False)) as (_, second), connected(second) as other:
                assert other.welcome.spool is None
            assert place.name in names(tmp_path)

    asyncio.run(scenario())


def test_files_that_nobody_uses_are_dropped_after_a_while(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("impasto_server.service.spool._KEPT_SECONDS", 0.05)

    async def scenario() -> None:
        spool = Spool(tmp_path / "spool", 1 << 20)
        spool.open()
        line = spool.line(1 << 20)
        line.proved = True
        file = line.room(100)
        line.release(file.name, file.generation)
        assert len(names(tmp_path)) == 1
        while names(tmp_path):
            await asyncio.sleep(0.01)
        line.close()
        assert not spool.byte_count and not spool._lines

    asyncio.run(scenario())
