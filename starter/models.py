"""The three networks: SD 1.x in shape, small in every width. Plain diffusers and transformers classes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from starter.data import SIZE

TOKENS = 49408


@dataclass(frozen=True)
class Shape:
    """Everything that fixes the networks. Channels per level, heads per attention, norm groups."""

    vae_channels: tuple[int, ...] = (24, 48, 96, 128)
    vae_groups: int = 2
    unet_channels: tuple[int, ...] = (64, 128, 176)
    unet_layers: int = 1
    unet_groups: int = 16
    unet_heads: int = 4
    text_width: int = 128
    text_layers: int = 3
    text_heads: int = 4
    text_intermediate: int = 512
    latent: int = SIZE // 8


SHAPE = Shape()
TOY = Shape(
    vae_channels=(8, 8, 16, 16),
    unet_channels=(16, 32),
    unet_groups=8,
    unet_heads=2,
    text_width=32,
    text_layers=1,
    text_heads=2,
    text_intermediate=64,
)


def make_vae(shape: Shape = SHAPE) -> AutoencoderKL:
    """Pictures [n, 3, h, w] in -1..1 <-> latents [n, 4, h/8, w/8]. Factor 8 for any number of four levels."""
    levels = len(shape.vae_channels)
    return AutoencoderKL(
        3,
        3,
        ("DownEncoderBlock2D",) * levels,
        ("UpDecoderBlock2D",) * levels,
        shape.vae_channels,
        1,
        latent_channels=4,
        norm_num_groups=shape.vae_groups,
        sample_size=SIZE,
    )


def make_unet(shape: Shape = SHAPE) -> UNet2DConditionModel:
    """Latents [n, 4, 16, 16], step 0..999 and text [n, 77, text_width] -> prediction, as the latents."""
    levels = len(shape.unet_channels)
    return UNet2DConditionModel(
        sample_size=shape.latent,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        block_out_channels=shape.unet_channels,
        layers_per_block=shape.unet_layers,
        cross_attention_dim=shape.text_width,
        attention_head_dim=shape.unet_heads,
        norm_num_groups=shape.unet_groups,
        norm_eps=1e-5,
    )


def make_text(shape: Shape = SHAPE) -> CLIPTextModel:
    """Token ids [n, 77] -> last_hidden_state [n, 77, text_width], the final layer norm applied."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=TOKENS,
            hidden_size=shape.text_width,
            intermediate_size=shape.text_intermediate,
            num_hidden_layers=shape.text_layers,
            num_attention_heads=shape.text_heads,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            layer_norm_eps=1e-5,
            projection_dim=shape.text_width,
            bos_token_id=49406,
            eos_token_id=49407,
            pad_token_id=49407,
        )
    )


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def save(path: Path, state: dict) -> None:
    """Writes a checkpoint so that a crash leaves the former one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def log(path: Path, **values: float | int | str) -> None:
    """Appends one JSON line of figures and prints it."""
    line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as f:
        f.write(line + "\n")
    print(line, flush=True)


def describe(shape: Shape) -> dict:
    return asdict(shape)
