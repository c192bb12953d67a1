"""Packing and unpacking: round trip, reuse, and every way in which the packed file can be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from starter import stfile
from starter.pack import pack, pack_refinement
from starter.unpack import NAME, PACKED, REFINEMENT, StarterDamaged, install, unpacked


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


@pytest.fixture
def finer(tmp_path, tensors, weights):
    """What the tensors became, whose refinement lies beside the base in `weights`."""
    rng = np.random.default_rng(1)
    changed = {n: v.astype(np.float32) for n, v in unpacked(weights)[0].items()}
    for name in changed:
        if name.startswith("model.diffusion_model."):
            changed[name] = changed[name] + rng.normal(size=changed[name].shape).astype(np.float32) * np.float32(0.1)
    source = tmp_path / "finer.safetensors"
    stfile.write(source, changed, {})
    pack_refinement(source, weights, 0.5)
    return changed


def test_a_refinement_brings_what_changed_and_leaves_the_rest(tmp_path, weights, finer):
    base, metadata = unpacked(weights, refine=False)
    found, told = stfile.read(install(tmp_path / "models", weights).read_bytes())
    assert told == metadata
    for name, wanted in finer.items():
        if name.endswith("out.2.bias"):  # small: stored whole
            assert np.array_equal(found[name], wanted.astype(np.float16))
        elif name.startswith("model.diffusion_model."):
            assert np.abs(found[name] - wanted).max() < 0.6 * np.abs(base[name] - wanted).max()
            assert np.sqrt(((found[name] - wanted) ** 2).mean()) < 0.1 * 0.5 * 0.3  # a step is half of 0.1 wide
        else:
            assert np.array_equal(found[name], base[name])


def test_a_checkpoint_of_before_the_refinement_is_replaced(tmp_path, weights, tensors, finer):
    source = tmp_path / "in.safetensors"
    pack(source, tmp_path / "plain")
    old = install(tmp_path / "models", tmp_path / "plain").read_bytes()
    assert install(tmp_path / "models", weights).read_bytes() != old


def test_a_base_that_is_packed_anew_has_no_refinement(tmp_path, weights, finer):
    pack(tmp_path / "in.safetensors", weights)
    assert leftovers(weights) == [PACKED, PACKED + ".json"]
    assert install(tmp_path / "models", weights).exists()


def test_a_refinement_of_other_tensors_is_refused(tmp_path, weights, finer):
    source = tmp_path / "other.safetensors"
    stfile.write(source, dict(list(finer.items())[1:]), {})
    before = (weights / REFINEMENT).read_bytes()
    with pytest.raises(ValueError, match="the tensors of its base"):
        pack_refinement(source, weights)
    assert (weights / REFINEMENT).read_bytes() == before


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda p: p.unlink(), "is missing"),
        (flip, "checksum is wrong"),
        (lambda p: p.write_bytes(p.read_bytes()[:-10]), "bytes instead of"),
    ],
)
def test_a_damaged_refinement_is_named_with_its_repair(tmp_path, weights, finer, harm, words):
    harm(weights / REFINEMENT)
    with pytest.raises(StarterDamaged, match=words) as caught:
        install(tmp_path / "models", weights)
    assert str(weights / REFINEMENT) in str(caught.value)
    assert "impasto models starter --repair" in str(caught.value)
    assert leftovers(tmp_path / "models") == []
