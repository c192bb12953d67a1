"""Whether a LoRA fits is told from two headers as loading tells it: the same names and shapes, both sides named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from impasto_protocol.errors import ModelError
from impasto_server.engine.load import Components, load_checkpoint
from impasto_server.engine.lora import UNET, LayerNames
from impasto_server.engine.lora_check import check_lora, layer_shapes
from impasto_server.engine.modelfile import header_of

from tests.loras import write_lora, write_tensors
from tests.tiny import write_tiny_checkpoint, write_tiny_folder

TO_K = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors")


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Components:
    return load_checkpoint(checkpoint, device=torch.device("cpu"), dtype=torch.float32)


def checked(lora: Path, checkpoint: Path) -> None:
    check_lora(lora, checkpoint, name=lora.stem, model=checkpoint.stem, family="sd1")


def test_names_and_shapes_are_those_of_the_loaded_networks(checkpoint: Path, tiny: Components, tmp_path: Path) -> None:
    names = LayerNames(tiny.unet, tiny.text_encoder, tiny.source.to_file[UNET])
    parts: dict[str, Any] = {"unet": tiny.unet, "text_encoder": tiny.text_encoder}
    loaded = {}
    for name, (part, layer) in names._names.items():
        shape = tuple(parts[part].get_submodule(layer).weight.shape)
        loaded[name] = shape
    found = layer_shapes(header_of(checkpoint).shapes)
    assert found.keys() == loaded.keys()
    for name, shape in loaded.items():
        squeezed = found[name] if len(found[name]) == len(shape) else found[name][:2]
        assert squeezed == shape, name
    folder = write_tiny_folder(tmp_path / "folder")
    assert layer_shapes(header_of(folder).shapes).keys() == found.keys()


def test_what_fits_is_let_through(checkpoint: Path, tmp_path: Path) -> None:
    checked(write_lora(tmp_path / "fits.safetensors"), checkpoint)
    inpainting = write_tiny_checkpoint(tmp_path / "inpainting.safetensors", channels=9)
    tensors = {"lora_unet_conv_in.lora_down.weight": torch.zeros(2, 4, 3, 3)}
    tensors["lora_unet_conv_in.lora_up.weight"] = torch.zeros(16, 2, 1, 1)
    for place in (checkpoint, inpainting):
        checked(write_tensors(tmp_path / "conv.safetensors", tensors), place)


@pytest.mark.parametrize(("down", "up"), [((2, 768), (320, 2)), ((2, 32), (320, 2)), ((2, 32), (32, 3))])
def test_another_size_is_refused(checkpoint: Path, tmp_path: Path, down: Any, up: Any) -> None:
    tensors = {f"{TO_K}.lora_down.weight": torch.zeros(down), f"{TO_K}.lora_up.weight": torch.zeros(up)}
    with pytest.raises(ModelError) as caught:
        checked(write_tensors(tmp_path / "other.safetensors", tensors), checkpoint)
    error = caught.value
    assert (
        error.code == "model.unsupported" and error.data["need"] == [32, 32] and error.data["got"] == [up[0], down[1]]
    )
    assert "'other'" in error.message and "'tiny'" in error.message and "32 x 32" in error.message


def test_layers_that_are_not_there_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    stem = "lora_unet_up_blocks_7_attentions_0_proj_in"
    tensors = {f"{stem}.lora_down.weight": torch.zeros(2, 32), f"{stem}.lora_up.weight": torch.zeros(32, 2)}
    with pytest.raises(ModelError, match="2 of its 2 tensors are for layers that it does not have"):
        checked(write_tensors(tmp_path / "foreign.safetensors", tensors), checkpoint)


def test_what_is_wrong_otherwise_is_told_in_loading(checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no header")
    checked(broken, checkpoint)
    checked(write_lora(tmp_path / "fits.safetensors"), broken)
