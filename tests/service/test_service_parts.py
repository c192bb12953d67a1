"""Blobs, journal, home, catalogue and outbox by themselves."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from impasto_protocol.errors import AuthError, ImpastoError, ResourceError
from impasto_protocol.home import endpoint_file, models_folder, read_endpoint, token_file
from impasto_protocol.images import digest_of
from impasto_protocol.messages import Finished, Ok, Preview, Progress
from impasto_server.service.blobs import Blobs
from impasto_server.service.catalogue import Catalogue
from impasto_server.service.home import ensure_home, ensure_token, single_instance
from impasto_server.service.journal import Journal
from impasto_server.service.outbox import Outbox
from impasto_server.service.pixels import to_wire
from PIL import Image

from tests.service.fakes import add_model, identify


def test_blobs_drop_the_least_recently_used_and_keep_pins() -> None:
    blobs = Blobs(30)
    a, b, c = (blobs.add(bytes([i]) * 10) for i in range(3))
    blobs.get(a)
    blobs.pin([c])
    d = blobs.add(b"d" * 10)
    assert a in blobs and b not in blobs and c in blobs and d in blobs
    blobs.pin([a, d])
    with pytest.raises(ResourceError):
        blobs.add(b"e" * 10)
    blobs.unpin([a])
    blobs.add(b"e" * 10)
    assert a not in blobs and blobs.byte_count == 30
    with pytest.raises(ImpastoError) as e:
        blobs.get(a)
    assert e.value.code == "asset.missing" and e.value.data == {"digests": [a]}


def write(journal: Journal, seed: int = 1, side: int = 8):  # type: ignore[no-untyped-def]
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 4), np.uint8)
    data = to_wire(pixels, "bgra8")
    recipe = {"params": {"prompt": "a fox"}, "seed": seed, "parameters": "a fox\nSteps: 4"}
    entry = journal.write(
        job="j",
        index=0,
        mode="inpaint",
        pixels=pixels,
        format="bgra8",
        digest=digest_of(data),
        box=(1, 2, side, side),
        layer="A fox",
        alpha="soft",
        seed=seed,
        recipe=recipe,
    )
    return entry, data


def test_journal_keeps_the_exact_bytes_raw_and_as_png(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "history", 1 << 20)
    entry, data = write(journal)
    assert journal.read(entry.digest) == data
    journal.finish(entry)
    path = journal.path(entry)
    assert path is not None and path.suffix == ".png"
    assert journal.read(entry.digest) == data
    assert list(journal.entries()) == [entry]
    with Image.open(path) as image:
        assert image.info["parameters"] == "a fox\nSteps: 4"
        assert "/trainedAlgorithmicMedia" in image.info["XML:com.adobe.xmp"]
        assert json.loads(image.info["impasto"])["seed"] == 1


def test_journal_keeps_to_its_quota_and_skips_damage(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 3000)
    entries = [write(journal, seed)[0] for seed in range(6)]
    for entry in entries:
        journal.finish(entry)
    left = [entry.seed for entry in journal.entries()]
    assert left and left[0] == 5 and len(left) < 6 and left == sorted(left, reverse=True)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 3000
    (tmp_path / "20990101-000000-x-0.json").write_text("{")
    assert [entry.seed for entry in journal.entries()] == left


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "history").write_text("a file where the folder should be")
    with pytest.raises(ResourceError) as e:
        write(Journal(tmp_path / "history", 1000))
    assert e.value.code == "resource.disk_full"


@pytest.mark.skipif(sys.platform == "win32", reason="file modes are POSIX")
def test_token_is_private(tmp_path: Path) -> None:
    ensure_home(tmp_path)
    token = ensure_token(tmp_path)
    assert stat.S_IMODE(token_file(tmp_path).stat().st_mode) == 0o600
    assert ensure_token(tmp_path) == token and len(token) >= 32
    token_file(tmp_path).chmod(0o644)
    with pytest.raises(AuthError, match="chmod 600"):
        ensure_token(tmp_path)
    token_file(tmp_path).chmod(0o600)
    token_file(tmp_path).write_text("")
    with pytest.raises(AuthError, match="delete it"):
        ensure_token(tmp_path)


def test_one_server_a_folder(tmp_path: Path) -> None:
    with single_instance(tmp_path):
        with pytest.raises(ResourceError) as e, single_instance(tmp_path):
            pass
        assert e.value.code == "resource.already_running"
    with single_instance(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"port": 3}', '{"protocol": 3}'])
def test_a_damaged_endpoint_record_counts_as_none(tmp_path: Path, text: str) -> None:
    endpoint_file(tmp_path).write_text(text)
    assert read_endpoint(tmp_path) is None


def test_catalogue_names_are_unique_and_files_are_read_once(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "dream.safetensors").write_bytes(folder.name.encode())
    (first / "notes.txt").write_text("not a model")
    os.symlink(first, first / "sub" / "circle")
    asked: list[Path] = []

    def counted(path: Path):  # type: ignore[no-untyped-def]
        asked.append(path)
        return identify(path)

    index = tmp_path / "models.json"
    catalogue = Catalogue([first, second], counted, index)
    assert catalogue.scan() and not catalogue.scan()
    names = [m.id for m in catalogue.models]
    assert names[0] == "dream" and names[1].startswith("dream~") and len(asked) == 2
    assert all("path" not in m.to_wire() for m in catalogue.models)
    again = Catalogue([first, second], counted, index)
    again.scan()
    assert len(asked) == 2 and again.rev == catalogue.rev
    (second / "sub" / "dream.safetensors").write_bytes(b"changed now")
    assert again.scan() and len(asked) == 3
    index.write_text("{")
    assert Catalogue([first], counted, index).scan()


def test_the_starter_goes_last(tmp_path: Path) -> None:
    for name in ("impasto-starter.safetensors", "zebra.safetensors"):
        add_model(tmp_path, name)
    catalogue = Catalogue([models_folder(tmp_path)], identify)
    catalogue.scan()
    assert catalogue.checkpoint("").id == "zebra"


def test_outbox_drops_previews_and_never_lasting_messages() -> None:
    async def scenario() -> list[bytes]:
        box = Outbox(100)
        for step in range(5):
            box.put(Preview("j", b"", 1, 1, step), f"preview {step}".encode())
            box.put(Progress("j", "denoise", step, 5, step / 5), f"progress {step}".encode())
            box.put(Ok(step), f"ok {step}".encode())
        got = [await box.get() for _ in range(7)]
        assert box.empty
        box.put(Preview("j", b"", 1, 1, 9), b"late")
        box.put(Finished("j", 3), b"finished")
        assert await box.get() == b"finished" and box.empty
        return got

    assert asyncio.run(scenario()) == [b"ok %d" % i for i in range(5)] + [b"progress 4", b"preview 4"]


def test_outbox_makes_requests_wait() -> None:
    async def scenario() -> None:
        box = Outbox(10)
        box.put(Ok(1), b"x" * 20)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await box.has_room()
        await box.get()
        await box.has_room()

    asyncio.run(scenario())
