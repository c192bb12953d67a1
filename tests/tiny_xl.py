"""A tiny SDXL checkpoint with random weights in the single-file layout: two text encoders, of which the second has
OpenCLIP's names, a pooled text, sizes; levels of unlike depth, none of attention on the first. Natively 64 x 64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tiny import NATIVE_SIZE, TEXT, VAE

POOLED, SIZES = 24, 8
UNET: dict[str, Any] = dict(
    sample_size=NATIVE_SIZE // 8,
    in_channels=4,
    out_channels=4,
    block_out_channels=(16, 32, 48),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=(1, 2, 3),
    cross_attention_dim=80,
    attention_head_dim=(2, 4, 6),
    norm_num_groups=8,
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=SIZES,
    projection_class_embeddings_input_dim=POOLED + 6 * SIZES,
)
FIRST: dict[str, Any] = {**TEXT, "num_hidden_layers": 3}
SECOND: dict[str, Any] = {
    **TEXT,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "projection_dim": POOLED,
}
FACTS: dict[str, Any] = dict(
    unet_head_width=8,
    unet_norm_groups=8,
    vae_norm_groups=4,
    text_heads=2,
    text_2_heads=4,
    native_size=NATIVE_SIZE,
    vae_scaling_factor=0.13025,
)


def tiny_xl_modules(*, seed: int = 0, channels: int = 4) -> tuple[Any, Any, Any, Any]:
    """(unet, vae, first text encoder, second one) with random weights, fp32, in eval mode."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(300 + seed)
        modules = (
            UNet2DConditionModel(**{**UNET, "in_channels": channels}),
            AutoencoderKL(**{**VAE, "scaling_factor": FACTS["vae_scaling_factor"]}),
            CLIPTextModel(CLIPTextConfig(**FIRST)),
            CLIPTextModelWithProjection(CLIPTextConfig(**SECOND)),
        )
        torch.nn.init.normal_(modules[3].text_projection.weight, 0, 0.3)
    for module in modules:
        module.eval().requires_grad_(False)
    return modules


def openclip_tensors(text: Any) -> dict[str, Any]:
    """The second text encoder as OpenCLIP writes it."""
    import torch

    state = text.state_dict()
    tensors = {
        "positional_embedding": state.pop("text_model.embeddings.position_embedding.weight"),
        "token_embedding.weight": state.pop("text_model.embeddings.token_embedding.weight"),
        "text_projection": state.pop("text_projection.weight").T,
        "logit_scale": torch.tensor(4.6),
    }
    for leaf in ("weight", "bias"):
        tensors[f"ln_final.{leaf}"] = state.pop(f"text_model.final_layer_norm.{leaf}")
        for layer in range(text.config.num_hidden_layers):
            own, theirs = f"transformer.resblocks.{layer}", f"text_model.encoder.layers.{layer}"
            parts = [state.pop(f"{theirs}.self_attn.{part}_proj.{leaf}") for part in "qkv"]
            tensors[f"{own}.attn.in_proj_{leaf}"] = torch.cat(parts)
            tensors[f"{own}.attn.out_proj.{leaf}"] = state.pop(f"{theirs}.self_attn.out_proj.{leaf}")
            for ours, name in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"),
                               ("mlp.c_proj", "mlp.fc2")):  # fmt: skip
                tensors[f"{own}.{ours}.{leaf}"] = state.pop(f"{theirs}.{name}.{leaf}")
    assert not state, state.keys()
    return tensors


def tiny_xl_tensors(*, seed: int = 0, channels: int = 4, half: bool = False) -> dict[str, Any]:
    """The tensors by their names in the file."""
    import torch
    from impasto_server.engine import layout

    unet, vae, first, second = tiny_xl_modules(seed=seed, channels=channels)
    tensors = {}
    for name, value in unet.state_dict().items():
        key = layout.unet_to_file(name, layers_per_block=1, attention=(False, True, True))
        tensors["model.diffusion_model." + key] = value
    for name, value in vae.state_dict().items():
        shaped = value[:, :, None, None] if layout.is_squeezed(name) else value
        tensors["first_stage_model." + layout.vae_to_file(name, levels=4)] = shaped
    for name, value in first.state_dict().items():
        bare = name.removeprefix("text_model.")
        tensors["conditioner.embedders.0.transformer.text_model." + bare] = value
    for name, value in openclip_tensors(second).items():
        tensors["conditioner.embedders.1.model." + name] = value
    dtype = torch.float16 if half else torch.float32
    return {key: value.to(dtype).contiguous() for key, value in tensors.items()}


def write_tiny_xl(
    path: str | Path, *, seed: int = 0, channels: int = 4, half: bool = False, more: Any = None, **facts: Any
) -> Path:
    """Write it and give its path; `channels` 9 inpaints, `more` are further tensors, `facts` replace some (None: take
    away)."""
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {key: value for key, value in {**FACTS, **facts}.items() if value is not None}
    tensors = {**tiny_xl_tensors(seed=seed, channels=channels, half=half), **(more or {})}
    save_file(tensors, str(path), metadata={"impasto.config": json.dumps(said), "modelspec.title": "Tiny XL"})
    return path
