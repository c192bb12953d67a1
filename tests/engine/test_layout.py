"""The names of the single-file layout, against diffusers' own converters as the oracle."""

from __future__ import annotations

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from impasto_server.engine import layout

from tests.tiny import tiny_modules, tiny_tensors


def test_unet_and_vae_names_agree_with_diffusers() -> None:
    tensors = tiny_tensors(half=False)
    unet, vae, _ = tiny_modules()
    for module, convert in ((unet, convert_ldm_unet_checkpoint), (vae, convert_ldm_vae_checkpoint)):
        converted = convert(dict(tensors), module.config)
        own = module.state_dict()
        assert set(converted) == set(own)
        assert all(torch.equal(converted[key], own[key]) for key in own)


def test_no_two_parameters_share_a_name() -> None:
    unet, vae, text = tiny_modules()
    assert len(tiny_tensors()) == sum(len(module.state_dict()) for module in (unet, vae, text))


@pytest.mark.parametrize("name", ["conv_out", "down_blocks.7.resnets.0.conv1.weight", "nonsense.weight", ""])
def test_a_name_without_counterpart_is_refused(name: str) -> None:
    with pytest.raises(KeyError):
        layout.unet_to_file(name, layers_per_block=2, attention=(True, True, True, False))
    with pytest.raises(KeyError):
        layout.vae_to_file("x." + name, levels=4)


def test_text_names_with_and_without_the_inner_prefix() -> None:
    for name in ("text_model.final_layer_norm.weight", "final_layer_norm.weight"):
        assert layout.text_to_file(name, nested=True) == "text_model.final_layer_norm.weight"
        assert layout.text_to_file(name, nested=False) == "final_layer_norm.weight"
