"""A tiny SD 1.x checkpoint with random weights in the single-file layout, for tests end to end.

It has the structure of the real thing (conv projections, cross attention on the upper levels, CLIP text encoder with
the full vocabulary, KL autoencoder of factor 8) with small widths: about 4 MB, written in well under a second.
Pictures are 64 x 64 natively; what they show is noise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NATIVE_SIZE = 64

UNET: dict[str, Any] = dict(
    sample_size=NATIVE_SIZE // 8,
    in_channels=4,
    out_channels=4,
    block_out_channels=(16, 32, 32),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    cross_attention_dim=32,
    attention_head_dim=2,
    norm_num_groups=8,
)
VAE: dict[str, Any] = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    block_out_channels=(8, 8, 16, 16),
    layers_per_block=1,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    norm_num_groups=4,
    sample_size=NATIVE_SIZE,
    scaling_factor=0.18215,
)
TEXT: dict[str, Any] = dict(
    vocab_size=49408,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=77,
    hidden_act="quick_gelu",
    projection_dim=32,
    bos_token_id=49406,
    eos_token_id=49407,
    pad_token_id=49407,
)
FACTS: dict[str, Any] = dict(
    unet_heads=2,
    unet_norm_groups=8,
    vae_norm_groups=4,
    text_heads=2,
    native_size=NATIVE_SIZE,
    vae_scaling_factor=0.18215,
    prediction_type="epsilon",
)
"""What shapes cannot tell, as `impasto.config` in the file's metadata says it."""


def tiny_metadata(**changes: Any) -> dict[str, str]:
    """The metadata of the tiny checkpoint; `changes` replace or add facts, None takes one away."""
    facts = {key: value for key, value in {**FACTS, **changes}.items() if value is not None}
    return {
        "impasto.config": json.dumps(facts),
        "modelspec.title": "Tiny test model",
        "modelspec.license": "CC0-1.0",
    }


def tiny_modules(*, seed: int = 0, channels: int = 4) -> tuple[Any, Any, Any]:
    """(unet, vae, text encoder) with random weights, fp32, in eval mode: the same for the same seed."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = (
            UNet2DConditionModel(**{**UNET, "in_channels": channels}),
            AutoencoderKL(**VAE),
            CLIPTextModel(CLIPTextConfig(**TEXT)),
        )
        # A trained CLIP's last norm has a bias, so that its embedding has a mean; attention weights rely on it.
        torch.nn.init.normal_(modules[2].final_layer_norm.bias, -0.1, 0.05)
    for module in modules:
        module.eval().requires_grad_(False)
    return modules


def tiny_tensors(*, seed: int = 0, channels: int = 4, half: bool = True) -> dict[str, Any]:
    """The tensors of the tiny checkpoint by their names in the file; fp16 as most files have it, or fp32."""
    import torch
    from impasto_server.engine import layout

    unet, vae, text = tiny_modules(seed=seed, channels=channels)
    dtype = torch.float16 if half else torch.float32
    tensors = {}
    for name, value in unet.state_dict().items():
        key = layout.unet_to_file(name, layers_per_block=1, attention=(True, True, False))
        tensors[layout.UNET_PREFIX + key] = value
    for name, value in vae.state_dict().items():
        shaped = value[:, :, None, None] if layout.is_squeezed(name) else value
        tensors[layout.VAE_PREFIX + layout.vae_to_file(name, levels=4)] = shaped
    for name, value in text.state_dict().items():
        tensors[layout.TEXT_PREFIX + layout.text_to_file(name, nested=True)] = value
    return {key: value.to(dtype).contiguous() for key, value in tensors.items()}


def write_tiny_checkpoint(
    path: str | Path,
    *,
    seed: int = 0,
    channels: int = 4,
    metadata: Mapping[str, str] | None = None,
    half: bool = True,
) -> Path:
    """Write the tiny checkpoint and give its path; `channels` 4 is an ordinary one, 9 inpaints, 8 is pix2pix.

    Without `metadata` the file says what the loader must know (`tiny_metadata()`); {} gives a file without metadata.
    """
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    said = dict(tiny_metadata() if metadata is None else metadata)
    save_file(tiny_tensors(seed=seed, channels=channels, half=half), str(path), metadata=said or None)
    return path


def write_tiny_pickle(
    path: str | Path, *, seed: int = 0, channels: int = 4, half: bool = True, zipped: bool = True
) -> Path:
    """The same as a pickle (.ckpt) of PyTorch's archive format, or of the older one; its facts lie beside it."""
    import torch

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = tiny_tensors(seed=seed, channels=channels, half=half)
    torch.save({"state_dict": tensors, "global_step": 7}, path, _use_new_zipfile_serialization=zipped)
    path.with_suffix(".json").write_text(json.dumps({"impasto.config": FACTS}))
    return path


SCHEDULER: dict[str, Any] = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    num_train_timesteps=1000,
    prediction_type="epsilon",
)


def write_tiny_folder(path: str | Path, *, seed: int = 0, channels: int = 4, **save: Any) -> Path:
    """The tiny checkpoint as a folder in diffusers' layout, as diffusers itself writes it.

    `save` goes to `save_pretrained`: variant, max_shard_size, safe_serialization (with False the weights are .bin).
    """
    from diffusers import PNDMScheduler

    path = Path(path)
    unet, vae, text = tiny_modules(seed=seed, channels=channels)
    unet.save_pretrained(path / "unet", **save)
    vae.save_pretrained(path / "vae", **save)
    text.save_pretrained(path / "text_encoder", **{k: v for k, v in save.items() if k != "safe_serialization"})
    PNDMScheduler(**SCHEDULER).save_pretrained(path / "scheduler")
    (path / "tokenizer").mkdir()
    (path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (path / "model_index.json").write_text(json.dumps(index))
    return path
