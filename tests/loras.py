"""Small LoRAs and embeddings for the tiny checkpoint (tests/tiny.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

LAYERS = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (16, 16),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (16, 32),
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": (32, 32),
    "up_blocks.2.resnets.0.conv1": (16, 48, 3, 3),
}
"""Some layers of its UNet by diffusers' names, with the shapes of their weights."""

TEXT_LAYERS = {
    "encoder.layers.0.self_attn.q_proj": (32, 32),
    "encoder.layers.1.mlp.fc1": (64, 32),
}


def numbers(*shape: int, seed: int = 0) -> Any:
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.5


def kohya_tensors(*, seed: int = 0, rank: int = 2, text: bool = True) -> dict[str, Any]:
    """A LoRA of kohya's names over LAYERS and, with `text`, TEXT_LAYERS; alpha is 1."""
    import torch

    layers = {f"lora_unet_{name}": shape for name, shape in LAYERS.items()}
    if text:
        layers |= {f"lora_te_text_model_{name}": shape for name, shape in TEXT_LAYERS.items()}
    tensors: dict[str, Any] = {}
    for at, (name, (outputs, inputs, *kernel)) in enumerate(layers.items()):
        key = name.replace(".", "_")
        tensors[f"{key}.lora_down.weight"] = numbers(rank, inputs, *kernel, seed=100 * seed + 2 * at)
        tensors[f"{key}.lora_up.weight"] = numbers(outputs, rank, *[1] * len(kernel), seed=100 * seed + 2 * at + 1)
        tensors[f"{key}.alpha"] = torch.tensor(1.0)
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> Path:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, str(path), dict(metadata or {}) or None)
    return path


def write_lora(path: Path, *, seed: int = 0, text: bool = True) -> Path:
    """A LoRA that changes the tiny checkpoint's pictures and, with `text`, its text encoder."""
    return write_tensors(path, kohya_tensors(seed=seed, text=text))


def write_embedding(path: Path, *, vectors: int = 2, width: int = 32, seed: int = 0) -> Path:
    return write_tensors(path, {"emb_params": numbers(vectors, width, seed=seed)})
