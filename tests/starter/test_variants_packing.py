"""The packed variants: each unpacks to the file that its kind has, the engine knows it, and damage is told."""

from __future__ import annotations

import json
import shutil

import pytest
from impasto_server.service.catalogue import Catalogue
from impasto_server.service.facts import identify

from starter.unpack import NAME, WEIGHTS, StarterDamaged
from starter.unpack_variants import MANIFEST, PARTS, install, packed_name, remove

KINDS = {
    "inpainting": ("checkpoint", "sd1", "inpaint"),
    "canny": ("controlnet", "sd1", ""),
    "scribble": ("controlnet", "sd1", ""),
    "lora": ("lora", "", ""),
    "embedding": ("embedding", "", ""),
    "preview": ("vae", "sd1", "taesd"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    install(folder)
    return folder


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_everything_is_unpacked_into_its_place(folder):
    assert files(folder) == sorted([NAME, *PARTS.values()])


@pytest.mark.parametrize("part", PARTS)
def test_each_is_known_as_its_kind(folder, part):
    facts = identify(folder / PARTS[part])
    assert (facts.kind, facts.family, facts.variant) == KINDS[part]
    assert facts.usable, facts.reason


def test_the_catalogue_pairs_the_checkpoint_and_keeps_its_decoder_to_it(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "all")
    other = tmp_path / "all" / "other.safetensors"
    shutil.copy(folder / NAME, other)
    catalogue = Catalogue([tmp_path / "all"], identify)
    catalogue.scan()
    starter = catalogue.checkpoint("impasto-starter")
    partner = catalogue.partner_of(starter)
    assert partner is not None and partner.id == "impasto-starter-inpainting"
    decoder = catalogue.preview_decoder(starter)
    assert decoder is not None and decoder.id == "taesd-impasto-starter"
    assert catalogue.preview_decoder(catalogue.checkpoint("other")) is None


def test_right_files_are_reused_and_wrong_ones_replaced(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "again", copy_function=shutil.copy2)
    lora, preview = (tmp_path / "again" / PARTS[p] for p in ("lora", "preview"))
    stamp, good = lora.stat().st_mtime_ns, preview.read_bytes()
    preview.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    install(tmp_path / "again")
    assert lora.stat().st_mtime_ns == stamp
    assert preview.read_bytes() == good
    remove(tmp_path / "again")
    assert files(tmp_path / "again") == [NAME]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def wrong_result(path):
    beside = path.with_name(MANIFEST)
    told = json.loads(beside.read_text())
    told["lora"]["result_sha256"] = "0" * 64
    beside.write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda p: p.unlink(), "is missing"),
        (flip, "checksum is wrong"),
        (lambda p: p.write_bytes(p.read_bytes()[:-10]), "bytes instead of"),
        (wrong_result, "did not unpack"),
    ],
)
def test_a_damaged_part_is_named_and_the_others_are_there(tmp_path, harm, words):
    shutil.copytree(WEIGHTS, tmp_path / "weights")
    harm(tmp_path / "weights" / packed_name("lora"))
    with pytest.raises(StarterDamaged, match=words) as caught:
        install(tmp_path / "models", tmp_path / "weights")
    assert packed_name("lora") in str(caught.value)
    assert "impasto models starter --repair" in str(caught.value)
    assert files(tmp_path / "models") == sorted([NAME, *(v for k, v in PARTS.items() if k != "lora")])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda p: p.unlink(), "is missing"),
        (lambda p: p.write_text("{"), "cannot be read"),
        (lambda p: p.write_text("[]"), "cannot be read"),
    ],
)
def test_a_damaged_manifest_is_told_and_nothing_is_written(tmp_path, harm, words):
    shutil.copytree(WEIGHTS, tmp_path / "weights")
    harm(tmp_path / "weights" / MANIFEST)
    with pytest.raises(StarterDamaged, match=words):
        install(tmp_path / "models", tmp_path / "weights")
    assert not (tmp_path / "models").exists()
