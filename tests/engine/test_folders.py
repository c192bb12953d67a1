"""Checkpoints in diffusers' folder layout: as diffusers itself writes them, in all their variants, and broken ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from impasto_protocol.errors import ModelError
from impasto_server.engine.identify import ModelInfo, Unknown, identify_file
from impasto_server.engine.load import Components, load_checkpoint
from impasto_server.engine.modelpath import is_model_folder, model_name, stamp_of
from safetensors.torch import load_file, save_file

from tests.tiny import TEXT, UNET, VAE, tiny_modules, write_tiny_folder

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("models") / "tiny-v1.5")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / made.name))


def load(path: Path) -> Components:
    return load_checkpoint(path, device=CPU, dtype=torch.float32)


@torch.no_grad()
def computes_the_same(components: Components, **kind: Any) -> None:
    for ours, original in zip(
        (components.unet, components.vae, components.text_encoder), tiny_modules(**kind), strict=True
    ):
        state, expected = ours.state_dict(), original.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_it_is_described_in_full(made: Path) -> None:
    found = identify_file(made)
    assert isinstance(found, ModelInfo), found
    assert (found.kind, found.family, found.variant, found.layout) == ("checkpoint", "sd1", "normal", "diffusers")
    assert (found.native_size, found.vae_scaling_factor, found.prediction_type) == (64, 0.18215, "epsilon")
    assert found.config is not None
    for part, made_from in (("unet", UNET), ("vae", VAE), ("text", TEXT)):
        shared = found.config[part].keys() & made_from.keys()
        assert {key: found.config[part][key] for key in shared} == {key: made_from[key] for key in shared}


def test_its_networks_compute_what_they_computed_before(made: Path) -> None:
    computes_the_same(load(made))


@pytest.mark.parametrize(
    "save",
    [{"variant": "fp16"}, {"max_shard_size": "100KB"}, {"max_shard_size": "100KB", "variant": "fp16"}],
    ids=["variant", "shards", "shards of a variant"],
)
def test_variants_and_shards(tmp_path: Path, save: dict[str, Any]) -> None:
    path = write_tiny_folder(tmp_path / "m", **save)
    if "max_shard_size" in save:
        assert len(list((path / "unet").glob("*-of-*.safetensors"))) > 1
    computes_the_same(load(path))


def test_bin_files_go_through_the_restricted_reader(tmp_path: Path) -> None:
    path = write_tiny_folder(tmp_path / "m", safe_serialization=False)
    text = path / "text_encoder"
    torch.save(load_file(text / "model.safetensors"), text / "pytorch_model.bin")
    (text / "model.safetensors").unlink()
    assert not list(path.rglob("*.safetensors"))
    computes_the_same(load(path))

    class Hostile:
        def __reduce__(self) -> Any:
            return os.system, ("touch pwned",)

    torch.save({"a": Hostile()}, path / "vae" / "diffusion_pytorch_model.bin")
    found = identify_file(path)
    assert isinstance(found, Unknown) and found.code == "model.unsafe" and f"{os.name}.system" in found.reason
    with pytest.raises(ModelError) as caught:
        load(path)
    assert caught.value.code == "model.unsafe" and caught.value.data["global"] == f"{os.name}.system"


def test_safetensors_go_before_bin_and_full_precision_before_variants(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not looked at")
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not looked at")
    (folder / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors").write_bytes(b"not looked at")
    computes_the_same(load(folder))


def test_old_names_of_the_autoencoders_attention(folder: Path) -> None:
    file = folder / "vae" / WEIGHTS
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, value in load_file(file).items():
        for new, old in names.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        tensors[name] = value
    assert sum(".query." in name for name in tensors) == 4
    save_file(tensors, file)
    computes_the_same(load(folder))


def test_text_encoders_with_and_without_the_inner_prefix(folder: Path) -> None:
    file = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    nested = all(name.startswith("text_model.") for name in tensors)
    other = {name.removeprefix("text_model.") if nested else f"text_model.{name}": v for name, v in tensors.items()}
    other["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(other, file)
    computes_the_same(load(folder))


def test_nine_channels(tmp_path: Path) -> None:
    path = write_tiny_folder(tmp_path / "m-inpainting", channels=9)
    found = identify_file(path)
    assert isinstance(found, ModelInfo) and found.variant == "inpaint"
    computes_the_same(load(path), channels=9)


def test_without_an_index_or_facts_the_structure_decides(folder: Path) -> None:
    (folder / "model_index.json").unlink()
    shutil.rmtree(folder / "scheduler")
    shutil.rmtree(folder / "tokenizer")
    assert is_model_folder(folder)
    computes_the_same(load(folder))


def changed(name: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


def removed(name: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def written(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100]) and None


def index_of(places: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "unet" / WEIGHTS).unlink()
        (folder / "unet" / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": places}))

    return change


BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no unet": (removed("unet"), "model.corrupt", "unet/ is missing"),
    "no vae": (removed("vae"), "model.corrupt", "vae/ is missing"),
    "no text encoder": (removed("text_encoder"), "model.corrupt", "text_encoder/ is missing"),
    "no weights": (removed("unet/" + WEIGHTS), "model.corrupt", "weights in unet/ are missing"),
    "no configuration": (removed("vae/config.json"), "model.corrupt", "vae/config.json is missing"),
    "no JSON": (written("unet/config.json", "{nonsense"), "model.corrupt", "unet/config.json is not valid JSON"),
    "deep JSON": (written("unet/config.json", "[" * 100_000), "model.corrupt", "unet/config.json"),
    "no object": (written("model_index.json", "[]"), "model.corrupt", "model_index.json is not a JSON object"),
    "cut weights": (cut("unet/" + WEIGHTS), "model.corrupt", "end of the file is missing"),
    "no shards": (index_of({}), "model.corrupt", "not an index of shards"),
    "a shard is missing": (index_of({"a": "x.safetensors"}), "model.corrupt", "unet/x.safetensors is missing"),
    "a shard elsewhere": (index_of({"a": "../vae/" + WEIGHTS}), "model.corrupt", "outside its folder"),
    "a shard by a drive": (index_of({"a": "c:\\x.safetensors"}), "model.corrupt", "outside its folder"),
    "other heads": (changed("unet/config.json", attention_head_dim=[2, 2, 4]), "model.unsupported", "heads"),
    "impossible heads": (changed("unet/config.json", attention_head_dim=5), "model.unidentified", "heads"),
    "heads of text": (changed("unet/config.json", attention_head_dim="x"), "model.unidentified", "unet_heads"),
    "no heads": (changed("unet/config.json", attention_head_dim=[]), "model.unsupported", "heads"),
    "class labels": (changed("unet/config.json", class_embed_type="timestep"), "model.unsupported", "class_embed_type"),
    "shifted latents": (changed("vae/config.json", shift_factor=0.1), "model.unsupported", "shift_factor"),
    "another schedule": (
        changed("scheduler/scheduler_config.json", beta_schedule="linear"),
        "model.unsupported",
        "beta_schedule = linear",
    ),
    "another prediction": (
        changed("scheduler/scheduler_config.json", prediction_type="sample"),
        "model.unidentified",
        "prediction_type",
    ),
    "another tokenizer": (
        changed("tokenizer/tokenizer_config.json", tokenizer_class="T5Tokenizer"),
        "model.unsupported",
        "T5Tokenizer",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_say_what_is_wrong(folder: Path, name: str) -> None:
    change, code, reason = BROKEN[name]
    change(folder)
    found = identify_file(folder)
    assert isinstance(found, Unknown) and (found.code, reason in found.reason) == (code, True), found
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert caught.value.code == code and reason in caught.value.message and folder.name in caught.value.message


def test_a_tensor_that_is_missing_or_too_many(folder: Path) -> None:
    file = folder / "unet" / WEIGHTS
    tensors = load_file(file)
    save_file({name: value for name, value in tensors.items() if name != "conv_norm_out.weight"}, file)
    with pytest.raises(ModelError, match=r"out\.0\.weight") as caught:
        load(folder)
    assert caught.value.code == "model.corrupt"
    save_file(tensors | {"encoder_hid_proj.weight": torch.ones(2, 2)}, file)
    found = identify_file(folder)
    assert isinstance(found, Unknown) and "encoder_hid_proj.weight" in found.reason


def test_v_prediction_comes_from_the_scheduler(folder: Path) -> None:
    changed("scheduler/scheduler_config.json", prediction_type="v_prediction")(folder)
    found = identify_file(folder)
    assert isinstance(found, ModelInfo) and found.prediction_type == "v_prediction"


def test_a_sidecar_beside_the_folder_overrides_it(folder: Path) -> None:
    before = stamp_of(folder)
    (folder.parent / f"{folder.name}.json").write_text('{"impasto.config": {"native_size": 128}}')
    found = identify_file(folder)
    assert isinstance(found, ModelInfo) and found.native_size == 128
    assert stamp_of(folder) != before


def test_other_families_are_named_and_not_loaded(folder: Path, tmp_path: Path) -> None:
    file = folder / "unet" / WEIGHTS
    tensors = load_file(file)
    save_file(tensors | {"add_embedding.linear_1.weight": torch.ones(2, 2)}, file)
    found = identify_file(folder)
    assert isinstance(found, ModelInfo) and (found.kind, found.family) == ("checkpoint", "sdxl")
    with pytest.raises(ModelError, match="a checkpoint for sdxl") as caught:
        load(folder)
    assert caught.value.code == "model.unsupported"
    flux = tmp_path / "flux"
    (flux / "transformer").mkdir(parents=True)
    (flux / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    other = identify_file(flux)
    assert isinstance(other, Unknown) and other.code == "model.unsupported" and "FluxPipeline" in other.reason


def test_the_stamp_changes_with_any_part(folder: Path) -> None:
    stamps = {stamp_of(folder)}
    for name in ("model_index.json", "unet/config.json", "text_encoder/model.safetensors"):
        file = folder / name
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**12 * (len(stamps) + 1)))
        stamps.add(stamp_of(folder))
    assert len(stamps) == 4


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("models/deliberate_v2.safetensors", "deliberate_v2"),
        ("models/v1.5.ckpt", "v1.5"),
        ("models/sd-v1.5", "sd-v1.5"),
        ("hub/models--some--model-v1.5/snapshots/0123abc", "model-v1.5"),
    ],
)
def test_names(path: str, name: str) -> None:
    assert model_name(path) == name
