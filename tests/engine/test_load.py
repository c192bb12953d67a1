"""A checkpoint becomes modules that compute exactly what they computed before they were saved; bad ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from impasto_protocol.errors import ModelError
from impasto_server.engine.load import Components, load_checkpoint
from safetensors.torch import save_file

from tests.tiny import tiny_metadata, tiny_modules, tiny_tensors, write_tiny_checkpoint

CPU = torch.device("cpu")
TEXT = "cond_stage_model.transformer."
Tensors = dict[str, torch.Tensor]


def load(path: Path, dtype: torch.dtype = torch.float32) -> Components:
    return load_checkpoint(path, device=CPU, dtype=dtype)


def save(path: Path, tensors: Tensors, **facts: Any) -> Path:
    save_file(tensors, str(path), metadata=tiny_metadata(**facts))
    return path


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return tiny_tensors(half=False)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Components:
    return load(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors", half=False))


@torch.no_grad()
def test_the_modules_compute_what_they_computed_before(loaded: Components) -> None:
    unet, vae, text = tiny_modules()
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
    assert torch.equal(loaded.unet(x, 500, context).sample, unet(x, 500, context).sample)
    picture = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded.vae.encode(picture).latent_dist.mean, vae.encode(picture).latent_dist.mean)
    assert torch.equal(loaded.vae.decode(x).sample, vae.decode(x).sample)
    ids = torch.tensor([[49406, 320, 1125, 539, 320, 2368, *[49407] * 71]])
    assert torch.equal(loaded.text_encoder(ids).last_hidden_state, text(ids).last_hidden_state)


def test_they_are_ready_to_run(loaded: Components) -> None:
    for module in (loaded.unet, loaded.vae, loaded.text_encoder):
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not any(t.is_meta for t in (*module.parameters(), *module.buffers()))
    assert loaded.latent_factor == 8
    assert loaded.family.id == "sd1"
    assert 7_000_000 < loaded.size_bytes < 10_000_000
    assert loaded.vae.config.scaling_factor == 0.18215


def test_precision_on_the_cpu(tmp_path: Path) -> None:
    components = load(write_tiny_checkpoint(tmp_path / "t.safetensors"), torch.bfloat16)
    assert {p.dtype for p in components.unet.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in components.vae.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in components.text_encoder.parameters()} == {torch.float32}


def test_the_identity_tells_files_and_precisions_apart(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "a.safetensors")
    other = write_tiny_checkpoint(tmp_path / "b.safetensors", seed=1)
    assert load(path).identity == load(path).identity
    assert len({load(path).identity, load(other).identity, load(path, torch.bfloat16).identity}) == 3


def test_an_inpainting_checkpoint_has_nine_channels(tmp_path: Path) -> None:
    components = load(write_tiny_checkpoint(tmp_path / "t.safetensors", channels=9))
    assert components.info.variant == "inpaint" and components.unet.config.in_channels == 9


def test_the_oldest_files_lack_the_inner_text_prefix(tmp_path: Path, tensors: Tensors, loaded: Components) -> None:
    flat = {name.replace(TEXT + "text_model.", TEXT): value for name, value in tensors.items()}
    ids = torch.arange(77)[None]
    components = load(save(tmp_path / "old.safetensors", flat))
    assert torch.equal(components.text_encoder(ids)[0], loaded.text_encoder(ids)[0])


def test_what_trainers_leave_behind_is_ignored(tmp_path: Path, tensors: Tensors, loaded: Components) -> None:
    junk = {
        TEXT + "text_model.embeddings.position_ids": torch.full((1, 77), 5.0),  # merged models have wrong ones
        "cond_stage_model.logit_scale": torch.ones(1),
        "model_ema.decay": torch.ones(1),
        "model_ema.diffusion_modelinput_blocks00weight": torch.ones(1),
        "first_stage_model.loss.logvar": torch.ones(1),
        "first_stage_model.model_ema.decay": torch.ones(1),
        "alphas_cumprod": torch.ones(1000),
    }
    ids = torch.arange(77)[None]
    components = load(save(tmp_path / "junk.safetensors", tensors | junk))
    assert torch.equal(components.text_encoder(ids)[0], loaded.text_encoder(ids)[0])


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def replaced(name: str, value: torch.Tensor) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: value}


UNET = "model.diffusion_model."
DAMAGE = {
    "a tensor of the UNet is missing": without(UNET + "output_blocks.1.0.in_layers.2.weight"),
    "a tensor of the VAE is missing": without("first_stage_model.post_quant_conv.weight"),
    "a tensor of the text encoder is missing": without(TEXT + "text_model.final_layer_norm.bias"),
    "a tensor too many": replaced(UNET + "input_blocks.1.2.weight", torch.ones(1)),
    "a tensor of another shape": replaced(UNET + "time_embed.0.weight", torch.ones(64, 17)),
    "a tensor of whole numbers": replaced(UNET + "time_embed.0.weight", torch.ones(64, 16, dtype=torch.int32)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_an_incomplete_checkpoint_is_refused(tmp_path: Path, tensors: Tensors, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(save(tmp_path / "broken.safetensors", DAMAGE[name](tensors)))
    assert caught.value.code == "model.corrupt"
    assert "broken.safetensors" in caught.value.message
    assert any(word in caught.value.message for word in ("weight", "bias")), "it names a tensor"


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "cut.safetensors")
    whole = path.read_bytes()
    for length in (0, 4, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError) as caught:
            load(path)
        assert caught.value.code == "model.corrupt"


def test_a_file_of_another_kind_is_told_for_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.ones(4, 8)}, str(path))
    with pytest.raises(ModelError, match="is a LoRA") as caught:
        load(path)
    assert caught.value.code == "model.unsupported"


def test_a_unet_alone_is_no_checkpoint(tmp_path: Path, tensors: Tensors) -> None:
    alone = {name: value for name, value in tensors.items() if name.startswith(UNET)}
    with pytest.raises(ModelError, match="without text encoder") as caught:
        load(save(tmp_path / "unet.safetensors", alone))
    assert caught.value.code == "model.unsupported"


def test_an_unknown_file_and_a_missing_one(tmp_path: Path) -> None:
    save_file({"foo": torch.ones(1)}, str(tmp_path / "foo.safetensors"))
    for name, code in (("foo.safetensors", "model.unidentified"), ("absent.safetensors", "model.unknown")):
        with pytest.raises(ModelError, match=name.split(".")[0]) as caught:
            load(tmp_path / name)
        assert caught.value.code == code


def test_pickles_of_something_else_are_refused_and_hostile_ones_by_name(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}}, tmp_path / "plain.ckpt")
    torch.save({"state_dict": {"a": torch.nn.Linear(1, 1)}}, tmp_path / "hostile.ckpt")
    for name, code in (("plain.ckpt", "model.unidentified"), ("hostile.ckpt", "model.unsafe")):
        with pytest.raises(ModelError, match=name.split(".")[0]) as caught:
            load(tmp_path / name)
        assert caught.value.code == code
    assert caught.value.data["global"] == "torch.nn.modules.linear.Linear"


def test_a_loaded_model_outlives_a_file_replaced_by_renaming(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "t.safetensors", half=False)
    components = load(path)
    before = components.unet.conv_in.weight.clone()
    write_tiny_checkpoint(tmp_path / "new.safetensors", seed=1, half=False).replace(path)
    assert torch.equal(components.unet.conv_in.weight, before)
