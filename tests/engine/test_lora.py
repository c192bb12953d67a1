"""LoRA files: every name of every program means its layer, and what does not fit is refused with both sides named."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from impasto_protocol.errors import ModelError
from impasto_server.engine.load import Components, load_checkpoint
from impasto_server.engine.lora import TEXT, UNET, Change, LayerNames, fit, lora_hash, read_lora
from impasto_server.engine.patch import LoraSource, Patcher

from tests.loras import LAYERS, TEXT_LAYERS, kohya_tensors, numbers, write_lora, write_tensors
from tests.tiny import write_tiny_checkpoint

TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
TO_OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
Q_PROJ = "encoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Components:
    path = write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors", half=False)
    return load_checkpoint(path, device=torch.device("cpu"), dtype=torch.float32)


def fitted(tiny: Components, path: Path) -> tuple[Change, ...]:
    names = LayerNames(tiny.unet, tiny.text_encoder, tiny.source.to_file[UNET])
    parts = {UNET: tiny.unet, TEXT: tiny.text_encoder}
    return fit(read_lora(path), names, parts, checkpoint="tiny", family="sd1")


def refusal(tiny: Components, path: Path, tensors: Mapping[str, Any]) -> ModelError:
    with pytest.raises(ModelError) as caught:
        fitted(tiny, write_tensors(path, tensors))
    assert caught.value.code == "model.unsupported"
    assert path.stem in caught.value.message and "mat1" not in caught.value.message
    return caught.value


def test_kohya_names(tiny: Components, tmp_path: Path) -> None:
    changes = fitted(tiny, write_lora(tmp_path / "a.safetensors"))
    assert {(change.part, change.layer) for change in changes} == {
        *((UNET, layer) for layer in LAYERS),
        *((TEXT, layer) for layer in TEXT_LAYERS),
    }
    assert all(change.parts.alpha == 1.0 for change in changes)


def test_every_layer_has_its_names(tiny: Components) -> None:
    """kohya's two spellings and the dotted ones mean the same layer, for all layers with parameters."""
    names = LayerNames(tiny.unet, tiny.text_encoder, tiny.source.to_file[UNET])
    count = 0
    for name, _ in tiny.unet.named_parameters():
        layer = name.rpartition(".")[0]
        in_file = tiny.source.to_file[UNET](name).rpartition(".")[0].removeprefix("model.diffusion_model.")
        for spelled in (f"unet.{layer}", f"diffusion_model.{in_file}", f"base_model.model.{layer}"):
            assert names.get(spelled) == (UNET, layer)
        for spelled in (layer, in_file):
            assert names.get("lora_unet_" + spelled.replace(".", "_")) == (UNET, layer)
            assert names.get("lycoris_" + spelled.replace(".", "_")) == (UNET, layer)
        count += 1
    for name, _ in tiny.text_encoder.named_parameters():
        layer = name.rpartition(".")[0]
        bare = layer.removeprefix("text_model.")
        assert names.get("lora_te_text_model_" + bare.replace(".", "_")) == (TEXT, layer)
        assert names.get(f"text_encoder.text_model.{bare}") == (TEXT, layer)
    assert count > 100


SPELLINGS = {
    "single-file names": {
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight": (UNET, TO_Q, "down"),
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_up.weight": (UNET, TO_Q, "up"),
    },
    "peft": {
        f"unet.{TO_Q}.lora_A.weight": (UNET, TO_Q, "down"),
        f"unet.{TO_Q}.lora_B.weight": (UNET, TO_Q, "up"),
        f"unet.{TO_Q}.lora_magnitude_vector": (UNET, TO_Q, "magnitude"),
    },
    "peft with an adapter's name": {
        f"base_model.model.{TO_Q}.lora_A.default.weight": (UNET, TO_Q, "down"),
        f"base_model.model.{TO_Q}.lora_B.default.weight": (UNET, TO_Q, "up"),
        f"base_model.model.{TO_Q}.lora_magnitude_vector.default.weight": (UNET, TO_Q, "magnitude"),
    },
    "attention processors": {
        f"{TO_OUT[: -len('to_out.0')]}processor.to_out_lora.down.weight": (UNET, TO_OUT, "down"),
        f"{TO_OUT[: -len('to_out.0')]}processor.to_out_lora.up.weight": (UNET, TO_OUT, "up"),
    },
    "attention processors of a pipeline": {
        f"unet.{TO_Q[: -len('to_q')]}processor.to_q_lora.down.weight": (UNET, TO_Q, "down"),
        f"unet.{TO_Q[: -len('to_q')]}processor.to_q_lora.up.weight": (UNET, TO_Q, "up"),
    },
    "diffusers": {
        f"unet.{TO_OUT}.lora.down.weight": (UNET, TO_OUT, "down"),
        f"unet.{TO_OUT}.lora.up.weight": (UNET, TO_OUT, "up"),
    },
    "diffusers, text": {
        f"text_encoder.text_model.{Q_PROJ}.lora_linear_layer.down.weight": (TEXT, Q_PROJ, "down"),
        f"text_encoder.text_model.{Q_PROJ}.lora_linear_layer.up.weight": (TEXT, Q_PROJ, "up"),
    },
    "diffusers, older text": {
        "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight": (TEXT, Q_PROJ, "down"),
        "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.up.weight": (TEXT, Q_PROJ, "up"),
    },
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_names_of_other_programs(tiny: Components, tmp_path: Path, spelling: str) -> None:
    tensors, expected = {}, {}
    for at, (key, (part, layer, role)) in enumerate(SPELLINGS[spelling].items()):
        module = {UNET: tiny.unet, TEXT: tiny.text_encoder}[part].get_submodule(layer)
        outputs, inputs = module.weight.shape
        shape = {"down": (2, inputs), "up": (outputs, 2), "magnitude": (outputs,)}[role]
        tensors[key] = numbers(*shape, seed=at)
        expected[role] = tensors[key]
    (change,) = fitted(tiny, write_tensors(tmp_path / "a.safetensors", tensors))
    assert (change.part, change.layer) == (part, layer)
    assert change.parts.tensors.keys() == expected.keys()
    assert all(torch.equal(change.parts[role], value) for role, value in expected.items())


def test_the_alpha_that_peft_writes_beside(tiny: Components, tmp_path: Path) -> None:
    tensors = {f"unet.{TO_Q}.lora_A.weight": numbers(4, 16), f"unet.{TO_Q}.lora_B.weight": numbers(16, 4)}
    for said, alpha in (
        ({}, None),
        ({"unet.lora_alpha": 8}, 8.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2}}, 2.0),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 16.0),
        ({"text_encoder.lora_alpha": 8}, None),
    ):
        path = write_tensors(tmp_path / "a.safetensors", tensors, {"lora_adapter_metadata": json.dumps(said)})
        (change,) = fitted(tiny, path)
        assert change.parts.alpha == alpha


def test_a_pickled_lora_is_the_same(tiny: Components, tmp_path: Path) -> None:
    torch.save(kohya_tensors(), tmp_path / "a.pt")
    one = {change.layer: change for change in fitted(tiny, tmp_path / "a.pt")}
    other = {change.layer: change for change in fitted(tiny, write_lora(tmp_path / "b.safetensors"))}
    assert one.keys() == other.keys()
    assert all(torch.equal(one[layer].parts["up"], other[layer].parts["up"]) for layer in one)


def test_bundled_embeddings_are_no_layers(tiny: Components, tmp_path: Path) -> None:
    tensors = {**kohya_tensors(), "bundle_emb.mine.string_to_param.*": numbers(2, 32)}
    path = write_tensors(tmp_path / "a.safetensors", tensors)
    assert len(fitted(tiny, path)) == 6
    assert read_lora(path).bundled["mine"]["string_to_param.*"].shape == (2, 32)


def test_the_first_layer_of_an_inpainting_checkpoint(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "inpaint.safetensors", channels=9)
    nine = load_checkpoint(path, device=torch.device("cpu"), dtype=torch.float32)
    down = {4: numbers(2, 4, 3, 3), 9: numbers(2, 9, 3, 3)}
    for channels, known in ((4, 4), (9, 0)):
        tensors = {
            "lora_unet_conv_in.lora_down.weight": down[channels],
            "lora_unet_conv_in.lora_up.weight": numbers(16, 2, 1, 1),
        }
        (change,) = fitted(nine, write_tensors(tmp_path / "a.safetensors", tensors))
        assert (change.layer, change.channels) == ("conv_in", known)


def test_a_lora_of_another_family(tiny: Components, tmp_path: Path) -> None:
    key = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    tensors = {f"{key}.lora_down.weight": numbers(2, 2048), f"{key}.lora_up.weight": numbers(640, 2)}
    error = refusal(tiny, tmp_path / "big.safetensors", tensors)
    assert error.data == {"model": "big", "need": "sd1", "got": "sdxl"}
    assert "'big' is for sdxl, the checkpoint 'tiny' is sd1" in error.message


def test_a_lora_of_another_width(tiny: Components, tmp_path: Path) -> None:
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{key}.lora_down.weight": numbers(4, 768), f"{key}.lora_up.weight": numbers(320, 4)}
    error = refusal(tiny, tmp_path / "wide.safetensors", tensors)
    assert error.data["need"] == [16, 32] and "320 x 768" in error.message and "16 x 32" in error.message


def test_every_name_is_accounted_for(tiny: Components, tmp_path: Path) -> None:
    foreign = {
        "lora_unet_down_blocks_7_resnets_0_conv1.lora_down.weight": numbers(2, 16, 3, 3),
        "lora_unet_down_blocks_7_resnets_0_conv1.lora_up.weight": numbers(16, 2, 1, 1),
    }
    error = refusal(tiny, tmp_path / "deep.safetensors", {**kohya_tensors(), **foreign})
    assert "2 of its 20 tensors" in error.message and "down_blocks_7" in error.message
    error = refusal(tiny, tmp_path / "odd.safetensors", {**kohya_tensors(), "something.else": numbers(2)})
    assert "something.else" in error.message
    tensors = kohya_tensors()
    del tensors["lora_te_text_model_encoder_layers_1_mlp_fc1.lora_up.weight"]
    assert "not complete" in refusal(tiny, tmp_path / "half.safetensors", tensors).message
    key = "lora_unet_conv_in"
    whole = {**kohya_tensors(), f"{key}.diff": torch.zeros(16, 4, 3, 3, dtype=torch.int64)}
    assert "conv_in" in refusal(tiny, tmp_path / "integers.safetensors", whole).message
    assert refusal(tiny, tmp_path / "weights.safetensors", {f"unet.{TO_Q}.weight": numbers(16, 16)})


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_lora(tmp_path / "gone.safetensors")
    assert caught.value.code == "model.unknown"


def test_the_hash_is_that_of_the_numbers(tmp_path: Path) -> None:
    """As A1111's: other metadata, same hash."""
    one = write_tensors(tmp_path / "a.safetensors", kohya_tensors())
    other = write_tensors(tmp_path / "b.safetensors", kohya_tensors(), {"ss_output_name": "other"})
    assert lora_hash(one) == lora_hash(other) and len(lora_hash(one)) == 12
    assert lora_hash(write_tensors(tmp_path / "c.safetensors", {}, {"sshs_model_hash": "ab" * 32})) == "ab" * 6
    torch.save(kohya_tensors(), tmp_path / "d.pt")
    assert lora_hash(tmp_path / "d.pt") == hashlib.sha256((tmp_path / "d.pt").read_bytes()).hexdigest()[:12]


def test_whatever_is_wrong_with_a_file_is_a_typed_error(tiny: Components, tmp_path: Path) -> None:
    """Tensors that are missing, of another shape or under another name: it fits, or it says why; never a traceback."""
    chance = random.Random(7)
    refused = 0
    for round in range(60):
        tensors = {**kohya_tensors(), **{"lora_unet_conv_in.oft_blocks": numbers(4, 4, 4)}}
        for _ in range(chance.randrange(1, 3)):
            name = chance.choice(sorted(tensors))
            shape = list(tensors.pop(name).shape)
            what = chance.randrange(4)
            if what == 1:  # another size, or another number of dimensions
                shape = [chance.choice((0, 1, 2, size, 3 * size)) for size in shape] + [1] * chance.randrange(2)
            elif what == 2:
                shape = shape[: len(shape) // 2]
            elif what == 3:
                ends = (".lora_mid.weight", ".dora_scale", ".lokr_w1", ".on_input", ".diff_b", ".rescale")
                name = name.partition(".")[0] + chance.choice(ends)
            if what:
                tensors[name] = numbers(*shape)
        path = write_tensors(tmp_path / f"{round}.safetensors", tensors)
        before = {name: value.clone() for name, value in tiny.unet.named_parameters()}
        patcher = Patcher(tiny)
        try:
            patcher.apply([LoraSource(str(path))])
        except ModelError as error:
            refused += 1
            assert error.code in ("model.unsupported", "model.corrupt") and str(round) in error.message
            assert patcher.replaced == 0
        patcher.apply([])
        assert all(torch.equal(before[name], value) for name, value in tiny.unet.named_parameters())
    assert 20 < refused < 60
