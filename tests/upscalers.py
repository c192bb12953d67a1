"""Small random upscalers in the true layouts of their kinds, for tests: what they draw is nearly the picture itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

GROW = 32
"""Channels that each layer of a dense block adds: spandrel takes them for granted."""


def _conv(generator: torch.Generator, name: str, into: int, out: int, gain: float = 0.5) -> dict[str, torch.Tensor]:
    weight = torch.randn(out, into, 3, 3, generator=generator) * gain / (9 * into) ** 0.5
    return {f"{name}.weight": weight, f"{name}.bias": torch.randn(out, generator=generator) * 0.02}


def rrdb(*, scale: int = 4, features: int = 8, blocks: int = 1, channels: int = 3, seed: int = 0) -> Any:
    """Real-ESRGAN's names (RRDBNet): conv_first, body.N.rdbN.convN, conv_body, conv_upN, conv_hr, conv_last."""
    random = torch.Generator().manual_seed(seed)
    tensors = _conv(random, "conv_first", channels, features)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for layer in range(1, 6):
                out = features if layer == 5 else GROW
                name = f"body.{block}.rdb{dense}.conv{layer}"
                tensors |= _conv(random, name, features + (layer - 1) * GROW, out)
    for name in ("conv_body", *(f"conv_up{i + 1}" for i in range(scale.bit_length() - 1)), "conv_hr"):
        tensors |= _conv(random, name, features, features, 1.0)
    tensors |= _conv(random, "conv_last", features, channels, 1.0)
    tensors["conv_last.bias"] += 0.5
    return tensors


def old_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same network by ESRGAN's first names: model.0, model.1.sub.N.RDBN.convN.0, model.3, ..."""
    blocks = len({name.split(".")[1] for name in tensors if name.startswith("body.")})
    ups = sum(name.startswith("conv_up") and name.endswith("weight") for name in tensors)
    ends = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}"}
    ends |= {f"conv_up{i + 1}": f"model.{3 * (i + 1)}" for i in range(ups)}
    ends |= {"conv_hr": f"model.{3 * ups + 2}", "conv_last": f"model.{3 * ups + 4}"}
    renamed = {}
    for name, value in tensors.items():
        stem, leaf = name.rsplit(".", 1)
        if stem in ends:
            renamed[f"{ends[stem]}.{leaf}"] = value
        else:
            _, block, dense, layer = stem.split(".")
            renamed[f"model.1.sub.{block}.{dense.upper()}.{layer}.0.{leaf}"] = value
    return renamed


def compact(*, scale: int = 2, features: int = 16, convs: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Real-ESRGAN's compact kind (SRVGGNet): body.N, convolutions and slopes in turn."""
    random = torch.Generator().manual_seed(seed)
    tensors = _conv(random, "body.0", 3, features)
    tensors["body.1.weight"] = torch.full((features,), 0.2)
    for index in range(convs):
        tensors |= _conv(random, f"body.{2 * index + 2}", features, features)
        tensors[f"body.{2 * index + 3}.weight"] = torch.full((features,), 0.2)
    return tensors | _conv(random, f"body.{2 * convs + 2}", features, 3 * scale**2, 0.3)


def swinir(*, scale: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """A SwinIR of one group, from spandrel's own class."""
    from impasto_server.engine.upscaler import _spandrel

    _spandrel(Path("x"))
    from spandrel.architectures.SwinIR import SwinIR

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SwinIR(
            img_size=16,
            window_size=8,
            depths=[2],
            num_heads=[2],
            embed_dim=12,
            mlp_ratio=2,
            upscale=scale,
            upsampler="pixelshuffledirect",
        )
    return dict(network.state_dict())


def save(path: Path, tensors: dict[str, torch.Tensor], wrapper: str = "") -> Path:
    """By the ending a safetensors file, or a pickle with the tensors under `wrapper`, if one is named."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in tensors.items()}, str(path))
    else:
        torch.save({wrapper: tensors} if wrapper else tensors, path)
    return path
