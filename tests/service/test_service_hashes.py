"""A1111's hashes of whole files: worked out while nobody waits, kept, and used to find what has another name here."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest
import torch
from impasto_server.engine.infotext import Match
from impasto_server.engine.lora import lora_hash
from impasto_server.engine.prompt_words import WordSources
from impasto_server.service.catalogue import Catalogue
from impasto_server.service.facts import Identify
from impasto_server.service.file_hashes import FileHashes
from impasto_server.service.reading import CatalogueNames, read_parameters
from safetensors.torch import save_file

from tests.service.fakes import running, settings_for
from tests.tiny import write_tiny_checkpoint


def idle() -> bool:
    return False


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lora(path: Path) -> Path:
    stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{stem}.lora_down.weight": torch.ones(2, 768), f"{stem}.lora_up.weight": torch.ones(8, 2)}
    save_file(tensors, str(path), metadata={"made": "by hand"})
    return path


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    write_tiny_checkpoint(folder / "renamed.safetensors")
    lora(folder / "ink2.safetensors")
    return folder


def catalogue_of(folder: Path, hashes: FileHashes) -> Catalogue:
    catalogue = Catalogue((folder,), Identify(), hashes=hashes)
    catalogue.scan()
    return catalogue


def test_an_old_text_finds_what_has_another_name(models: Path, tmp_path: Path) -> None:
    kept = tmp_path / "hashes.json"
    catalogue = catalogue_of(models, FileHashes(kept))
    names = CatalogueNames(catalogue, WordSources())
    checkpoint, ink = digest(models / "renamed.safetensors")[:10], lora_hash(models / "ink2.safetensors")
    text = (
        f"a cat <lora:ink:0.8> <lora:inks:1>\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512, "
        f'Model hash: {checkpoint}, Model: deliberate_v2, Lora hashes: "ink: {ink}, inks: 0123456789ab"'
    )
    before = read_parameters(text, names)
    assert before.params["model"] == "deliberate_v2" and {note.kind for note in before.notes} >= {"missing"}
    catalogue.hash_files(idle)
    for found in (names, CatalogueNames(catalogue_of(models, FileHashes(kept)), WordSources())):
        read = read_parameters(text, found)
        assert read.params["model"] == "renamed"
        assert read.params["prompt"] == "a cat <lora:ink2:0.8> <lora:inks:1>"
        told = {note.value: note.kind for note in read.notes}
        assert told["<lora:ink>"] == "changed" and told["<lora:inks>"] == "missing"
        assert found.find("checkpoint", "gone", checkpoint) == Match("renamed")
        assert found.find("checkpoint", "gone", ink).id == "", "a LoRA is no checkpoint"


def test_a_file_that_changed_has_no_hash_until_it_is_looked_at_again(models: Path) -> None:
    path, hashes = models / "renamed.safetensors", FileHashes()
    hashes.look([(path, False)], idle)
    assert hashes.of(path) == (digest(path),)
    os.utime(path, ns=(1, 1))
    assert hashes.of(path) == () and hashes.of(models / "gone") == ()
    hashes.look([(path, False), (models / "gone", False)], idle)
    assert hashes.of(path) == (digest(path),)


def test_a_damaged_file_of_hashes_is_made_anew(models: Path, tmp_path: Path) -> None:
    kept, path = tmp_path / "hashes.json", models / "renamed.safetensors"
    for said in ("", "{", "[1]", '{"version": 1, "files": {"a": 1}}', '{"version": 99}', "[" * 5000):
        kept.write_text(said)
        assert FileHashes(kept).of(path) == ()
    FileHashes(kept).look([(path, False)], idle)
    assert list(json.loads(kept.read_text())["files"]) == [str(path)]


def test_what_only_looks_like_a_model_is_hashed_without_harm(tmp_path: Path) -> None:
    for name, data in (("short", b"123"), ("long", b"\xff" * 16), ("none", b"")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        hashes = FileHashes()
        hashes.look([(path, True)], idle)
        assert hashes.of(path) == (digest(path),)


def test_it_waits_while_a_job_runs_and_stops_at_once(models: Path) -> None:
    path, hashes, asked = models / "renamed.safetensors", FileHashes(), threading.Event()

    def busy() -> bool:
        asked.set()
        return True

    thread = threading.Thread(target=hashes.look, args=([(path, False)], busy))
    thread.start()
    assert asked.wait(20)
    assert hashes.of(path) == () and thread.is_alive()
    hashes.stop()
    thread.join(20)
    assert not thread.is_alive() and hashes.of(path) == ()


def test_a_server_with_nothing_to_do_hashes_its_models(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path, hash_after=0.05)) as (server, _):
            path = next(m.path for m in server.catalogue.models if m.facts.kind == "checkpoint")
            async with asyncio.timeout(60):
                while not server.catalogue.hashes.of(path):
                    await asyncio.sleep(0.02)
            assert server.catalogue.hashes.of(path) == (digest(path),)

    asyncio.run(scenario())
