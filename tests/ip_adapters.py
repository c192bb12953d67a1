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

    def resampler(start: str, hidden: int) -> dict[str, Any]:
        """Four layers: diffusers takes so many for granted."""
        found: dict[str, Any] = {}
        for layer in range(4):
            at = f"{start}.{layer}"
            found |= {**norm(f"{at}.0.norm1", hidden), **norm(f"{at}.0.norm2", hidden)}
            found |= {
                f"{at}.0.to_q.weight": weight(64, hidden),
                f"{at}.0.to_kv.weight": weight(2 * 64, hidden),
                f"{at}.0.to_out.weight": weight(hidden, 64),
                **norm(f"{at}.1.0", hidden),
                f"{at}.1.1.weight": weight(4 * hidden, hidden),
                f"{at}.1.3.weight": weight(hidden, 4 * hidden),
            }
        return found

    if kind == "base":
        projection = {**linear("proj", 4 * text, PROJECTION), **norm("norm", text)}
    elif kind == "full-face":
        projection = {**linear("proj.0", WIDTH, WIDTH), **linear("proj.2", text, WIDTH), **norm("proj.3", text)}
    elif kind == "faceid":
        projection = {**linear("proj.0", 1024, 512), **linear("proj.2", 4 * text, 1024), **norm("norm", text)}
    elif kind == "faceid-plus":
        hidden, start = text, "perceiver_resampler."
        projection = {**linear("proj.0", 1024, 512), **linear("proj.2", 4 * hidden, 1024), **norm("norm", hidden)}
        projection |= {**linear(f"{start}proj_in", hidden, WIDTH), **linear(f"{start}proj_out", text, hidden)}
        projection |= {**norm(f"{start}norm_out", text), **resampler(f"{start}layers", hidden)}
    else:
        hidden = 64
        projection = {"latents": weight(1, 4, hidden), **linear("proj_in", hidden, WIDTH)}
        projection |= {**linear("proj_out", text, hidden), **norm("norm_out", text)}
        projection |= resampler("layers", hidden)
    layers = {}
    names = [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith("attn2.processor")]
    for index, name in enumerate(names):
        out = unet.get_submodule(name).to_k.out_features
        for side in ("to_k_ip", "to_v_ip"):
            layers[f"{2 * index + 1}.{side}.weight"] = weight(out, text)
    if kind.startswith("faceid"):
        for number, name in enumerate(unet.attn_processors):
            attention = unet.get_submodule(name.removesuffix(".processor"))
            for side, layer in (
                ("q", attention.to_q),
                ("k", attention.to_k),
                ("v", attention.to_v),
                ("out", attention.to_out[0]),
            ):
                layers[f"{number}.to_{side}_lora.down.weight"] = weight(4, layer.in_features)
                layers[f"{number}.to_{side}_lora.up.weight"] = weight(layer.out_features, 4) * 0.3
    return {"image_proj": projection, "ip_adapter": layers}


def write_tiny_identity(path: str | Path, seed: int = 0) -> Path:
    """A network in the shape of ArcFace's, [1, 3, 112, 112] -> [1, 512]: means over 8 x 8 pixels, and one matrix."""
    import numpy as np

    from starter.kit.onnxfile import Graph

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    matrix = np.random.default_rng(300 + seed).standard_normal((3 * 14 * 14, 512)).astype(np.float32)
    graph = Graph("arcface")
    pooled = graph.add("AveragePool", graph.input("input.1", (1, 3, 112, 112)), kernel_shape=(8, 8), strides=(8, 8))
    flat = graph.add("Reshape", pooled, graph.constant(np.array([1, -1], np.int64)))
    graph.output(graph.add("MatMul", flat, graph.constant(matrix)), "683", (1, 512))
    path.write_bytes(graph.encoded())
    return path


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
