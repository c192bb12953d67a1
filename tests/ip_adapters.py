"""Tiny IP-Adapters and vision towers with random weights, in the layouts that files come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WIDTH, PROJECTION, SIDE, PATCH = 64, 48, 32, 8
"""Of the tiny tower: one head of 64 numbers, pictures of 32 pixels."""


def tiny_tower(seed: int = 0) -> Any:
    """transformers' tower with its projection, fp32, in eval mode."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=3, num_attention_heads=1, image_size=SIDE,
        patch_size=PATCH, projection_dim=PROJECTION, hidden_act="quick_gelu",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(100 + seed)
        network = CLIPVisionModelWithProjection(config)
        # Untrained ones say next to the same of any picture.
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, 0, 0.15)
    return network.eval().requires_grad_(False)


def write_tiny_tower(path: str | Path, seed: int = 0) -> Path:
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tiny_tower(seed).state_dict().items()}, str(path))
    return path


def ip_tensors(unet: Any, kind: str, seed: int = 0) -> dict[str, dict[str, Any]]:
    """The two tables of a file of the kind "base", "plus", "full-face" or "faceid", under the original names."""
    import torch

    text = unet.config.cross_attention_dim
    generator = torch.Generator().manual_seed(200 + seed)

    def weight(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator) * 0.3

    def norm(name: str, width: int) -> dict[str, Any]:
        return {f"{name}.weight": 1 + weight(width), f"{name}.bias": weight(width)}

    def linear(name: str, out: int, into: int) -> dict[str, Any]:
        return {f"{name}.weight": weight(out, into), f"{name}.bias": weight(out)}

    if kind == "base":
        projection = {**linear("proj", 4 * text, PROJECTION), **norm("norm", text)}
    elif kind == "full-face":
        projection = {**linear("proj.0", WIDTH, WIDTH), **linear("proj.2", text, WIDTH), **norm("proj.3", text)}
    elif kind == "faceid":
        projection = {**linear("proj.0", 1024, 512), **linear("proj.2", 4 * text, 1024), **norm("norm", text)}
    else:
        hidden = 64
        projection = {"latents": weight(1, 4, hidden), **linear("proj_in", hidden, WIDTH)}
        projection |= {**linear("proj_out", text, hidden), **norm("norm_out", text)}
        for layer in range(4):  # diffusers takes four for granted
            at = f"layers.{layer}"
            projection |= {**norm(f"{at}.0.norm1", hidden), **norm(f"{at}.0.norm2", hidden)}
            projection |= {
                f"{at}.0.to_q.weight": weight(hidden, hidden),
                f"{at}.0.to_kv.weight": weight(2 * hidden, hidden),
                f"{at}.0.to_out.weight": weight(hidden, hidden),
                **norm(f"{at}.1.0", hidden),
                f"{at}.1.1.weight": weight(4 * hidden, hidden),
                f"{at}.1.3.weight": weight(hidden, 4 * hidden),
            }
    layers = {}
    names = [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith("attn2.processor")]
    for index, name in enumerate(names):
        out = unet.get_submodule(name).to_k.out_features
        for side in ("to_k_ip", "to_v_ip"):
            layers[f"{2 * index + 1}.{side}.weight"] = weight(out, text)
    return {"image_proj": projection, "ip_adapter": layers}


def write_tiny_ip_adapter(path: str | Path, unet: Any, kind: str, seed: int = 0) -> Path:
    """As .bin (tables in a table) or .safetensors (one table), by the ending."""
    import torch
    from safetensors.torch import save_file

    path, tables = Path(path), ip_tensors(unet, kind, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".bin":
        torch.save(tables, path)
    else:
        flat = {f"{table}.{name}": value for table, values in tables.items() for name, value in values.items()}
        save_file(flat, str(path))
    return path
