"""Configurations derived from shapes build networks of exactly those shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from impasto_server.engine import layout
from impasto_server.engine.families import FAMILIES, SD1, Misfit, text_config, unet_config, vae_config
from transformers import CLIPTextConfig, CLIPTextModel

UNETS: dict[str, dict[str, Any]] = {
    "sd 1.5": dict(),
    "attention on the small levels only": dict(
        block_out_channels=(32, 64, 96),
        layers_per_block=3,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
        attention_head_dim=4,
    ),
    "attention on every level": dict(
        block_out_channels=(64, 128, 176),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        norm_num_groups=16,
        attention_head_dim=4,
        cross_attention_dim=128,
    ),
    "one level": dict(
        block_out_channels=(64,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
    ),
    "sd 2 with linear projections": dict(
        cross_attention_dim=1024, use_linear_projection=True, in_channels=9, layers_per_block=2
    ),
}


@pytest.mark.parametrize("name", UNETS)
def test_unet(name: str) -> None:
    defaults: dict[str, Any] = dict(cross_attention_dim=768, layers_per_block=2, attention_head_dim=8)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**(defaults | UNETS[name]))
    attention = tuple("CrossAttn" in kind for kind in unet.config.down_block_types)
    layers = unet.config.layers_per_block
    shapes = {
        layout.UNET_PREFIX + layout.unet_to_file(key, layers_per_block=layers, attention=attention): tuple(value.shape)
        for key, value in unet.state_dict().items()
    }
    config = unet_config(shapes, heads=unet.config.attention_head_dim, norm_groups=unet.config.norm_num_groups)
    for key, value in config.items():
        assert getattr(unet.config, key) == value, key
    with torch.device("meta"):
        again = UNet2DConditionModel(**config)
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in unet.state_dict().items()
    }


@pytest.mark.parametrize("widths", [(128, 256, 512, 512), (32, 64, 64), (32, 32)])
def test_vae(widths: tuple[int, ...]) -> None:
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=widths,
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            latent_channels=4,
            norm_num_groups=16,
        )
    shapes = {
        layout.VAE_PREFIX + layout.vae_to_file(key, levels=len(widths)): tuple(value.shape)
        for key, value in vae.state_dict().items()
    }
    config = vae_config(shapes, norm_groups=16, scaling_factor=0.18215)
    for key, value in config.items():
        assert getattr(vae.config, key) == value, key


@pytest.mark.parametrize("nested", [True, False])
def test_text(nested: bool) -> None:
    made_from = dict(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
    )
    with torch.device("meta"):
        text = CLIPTextModel(CLIPTextConfig(**made_from))
    shapes = {
        layout.TEXT_PREFIX + layout.text_to_file(key, nested=nested): tuple(value.shape)
        for key, value in text.state_dict().items()
    }
    config = text_config(shapes, heads=12, activation="quick_gelu")
    assert {key: config[key] for key in made_from} == made_from


def test_nothing_is_made_of_nothing() -> None:
    with pytest.raises(Misfit):
        unet_config({}, heads=8, norm_groups=32)
    with pytest.raises(Misfit):
        vae_config({}, norm_groups=32, scaling_factor=1.0)
    with pytest.raises(Misfit):
        text_config({}, heads=12, activation="quick_gelu")


def test_families_are_found_by_their_own_id() -> None:
    assert all(family.id == name for name, family in FAMILIES.items())
    assert SD1.native_size == 512 and len(SD1.unet_widths) == 4
