"""VAEs in files of their own and TAESD decoders, with random weights, in every layout that users have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tiny import VAE, tiny_modules

FACTS = {"impasto.config": json.dumps({"vae_norm_groups": VAE["norm_num_groups"]})}


def kl(seed: int = 0, **changes: Any) -> Any:
    """diffusers' module."""
    import torch
    from diffusers import AutoencoderKL

    if not changes:
        return tiny_modules(seed=seed)[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(**{**VAE, **changes}).eval()


def write_vae(path: Path, module: Any, layout: str = "ldm", prefix: str = "", facts: Any = FACTS) -> Path:
    """Write it in the single-file layout (with `prefix`) or in diffusers'."""
    import torch
    from impasto_server.engine import layout as names
    from safetensors.torch import save_file

    levels = len(module.config.block_out_channels)
    tensors = {}
    for name, value in module.state_dict().items():
        if layout == "diffusers":
            tensors[name] = value.contiguous()
            continue
        value = value[..., None, None] if names.is_squeezed(name) else value
        tensors[prefix + names.vae_to_file(name, levels=levels)] = value.contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors, str(path), metadata=facts)
    else:
        torch.save({"state_dict": {**tensors, "loss.logvar": torch.zeros(())}}, path)
        if facts:
            path.with_suffix(".json").write_text(json.dumps({k: json.loads(v) for k, v in facts.items()}))
    return path


def tiny_decoder(seed: int = 0, channels: int = 4) -> Any:
    """TAESD's decoder."""
    import torch
    from diffusers.models.autoencoders.vae import DecoderTiny

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DecoderTiny(channels, 3, (3, 3, 3, 1), (64,) * 4, 2, "relu", "nearest").eval()


def write_taesd(path: Path, module: Any, prefix: str = "") -> Path:
    """In the original's layout, or with `prefix` "decoder." in diffusers'."""
    from safetensors.torch import save_file

    tensors = {}
    for name, value in module.state_dict().items():
        _, number, rest = name.split(".", 2)
        key = f"decoder.{name}" if prefix == "decoder." else f"{prefix}{int(number) + 1}.{rest}"
        tensors[key] = value.contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path))
    return path
