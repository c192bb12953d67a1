"""Packing and unpacking: round trip, reuse, and every way in which the packed file can be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from starter import stfile
from starter.pack import pack
from starter.unpack import NAME, PACKED, StarterDamaged, install


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    words = np.zeros((300, 16), np.float16)
    words[[3, 50, 299]] = rng.normal(size=(3, 16)).astype(np.float16)
    return {
        "model.diffusion_model.middle_block.0.in_layers.2.weight": rng.normal(size=(32, 16, 3, 3)).astype(np.float16),
        "model.diffusion_model.out.2.bias": rng.normal(size=(4,)).astype(np.float16),
        "first_stage_model.quant_conv.weight": rng.normal(size=(8, 8, 1, 1)).astype(np.float16),
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": words,
    }


@pytest.fixture
def weights(tmp_path, tensors):
    source = tmp_path / "in.safetensors"
    stfile.write(source, tensors, {"modelspec.title": "test", "impasto.config": "{}"})
    pack(source, tmp_path / "weights")
    return tmp_path / "weights"


def leftovers(folder):
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_round_trip_keeps_every_tensor_close(tmp_path, weights, tensors):
    out = install(tmp_path / "models", weights)
    assert out == tmp_path / "models" / NAME
    found, metadata = stfile.read(out.read_bytes())
    assert metadata == {"modelspec.title": "test", "impasto.config": "{}"}
    assert found.keys() == tensors.keys()
    for name, wanted in tensors.items():
        assert found[name].dtype == np.float16
        scale = np.abs(wanted.astype(np.float32)).max()
        assert np.abs(found[name].astype(np.float32) - wanted).max() <= scale / 127, name
    assert leftovers(tmp_path / "models") == [NAME]


def test_small_tensors_and_the_latent_scale_are_exact(tmp_path, weights, tensors):
    found, _ = stfile.read(install(tmp_path, weights).read_bytes())
    for name in ("model.diffusion_model.out.2.bias", "first_stage_model.quant_conv.weight"):
        assert np.array_equal(found[name], tensors[name])


def test_unused_token_rows_stay_zero(tmp_path, weights, tensors):
    name = next(n for n in tensors if n.endswith("token_embedding.weight"))
    found, _ = stfile.read(install(tmp_path, weights).read_bytes())
    assert np.flatnonzero(np.abs(found[name]).max(1)).tolist() == [3, 50, 299]


def test_result_is_a_safetensors_file(tmp_path, weights):
    from safetensors import safe_open

    with safe_open(install(tmp_path, weights), "np") as f:
        assert f.metadata()["modelspec.title"] == "test"
        assert len(list(f.keys())) == 4


def test_a_right_file_is_reused_and_a_wrong_one_replaced(tmp_path, weights):
    out = install(tmp_path / "models", weights)
    stamp = out.stat().st_mtime_ns
    assert install(tmp_path / "models", weights).stat().st_mtime_ns == stamp
    good = out.read_bytes()
    out.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert install(tmp_path / "models", weights).read_bytes() == good


def test_a_right_file_needs_no_packed_one(tmp_path, weights):
    install(tmp_path / "models", weights)
    (weights / PACKED).unlink()
    assert install(tmp_path / "models", weights).exists()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def wrong_result(path):
    beside = path.with_name(PACKED + ".json")
    beside.write_text(json.dumps({**json.loads(beside.read_text()), "result_sha256": "0" * 64}))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda p: p.unlink(), "is missing"),
        (flip, "checksum is wrong"),
        (lambda p: p.write_bytes(p.read_bytes()[:-10]), "bytes instead of"),
        (lambda p: p.write_bytes(b""), "0 bytes instead of"),
        (lambda p: p.with_name(PACKED + ".json").unlink(), "is missing"),
        (lambda p: p.with_name(PACKED + ".json").write_text("{"), "cannot be read"),
        (lambda p: p.with_name(PACKED + ".json").write_text("[]"), "cannot be read"),
        (wrong_result, "did not unpack"),
    ],
)
def test_damage_names_the_file_and_the_repair_and_leaves_nothing(tmp_path, weights, harm, words):
    harm(weights / PACKED)
    with pytest.raises(StarterDamaged, match=words) as caught:
        install(tmp_path / "models", weights)
    assert str(weights) in str(caught.value)
    assert PACKED in str(caught.value)
    assert "impasto models starter --repair" in str(caught.value)
    assert leftovers(tmp_path / "models") == []


def test_damage_leaves_a_former_checkpoint_alone(tmp_path, weights):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / NAME).write_bytes(b"older")
    flip(weights / PACKED)
    with pytest.raises(StarterDamaged):
        install(folder, weights)
    assert (folder / NAME).read_bytes() == b"older"
    assert leftovers(folder) == [NAME]
