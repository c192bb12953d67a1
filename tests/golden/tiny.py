"""Tiny random networks of diffusers' own classes, for tests on the CPU in fp32."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

BETAS = dict(
    num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny_unet(in_channels: int = 4, **changes: Any) -> Any:
    torch.manual_seed(1)
    config: dict[str, Any] = dict(
        sample_size=16,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        norm_num_groups=8,
        attention_head_dim=8,
    )
    return UNet2DConditionModel(**{**config, **changes}).eval()


def tiny_vae() -> Any:
    torch.manual_seed(2)
    return AutoencoderKL(
        block_out_channels=(32,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=128,
    ).eval()


def tiny_text() -> tuple[torch.Tensor, torch.Tensor]:
    """Positive and negative embeddings, [1, 77, 32] each."""
    return torch.randn(1, 77, 32, generator=seeded(3)), torch.randn(1, 77, 32, generator=seeded(4))
