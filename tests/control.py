"""Tiny ControlNets with random weights for the tiny checkpoint, in the layouts that files come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny import UNET

HINT_WIDTHS = (8, 8, 16, 16)


def tiny_controlnet(seed: int = 0, **changes: Any) -> Any:
    """A ControlNet for `tests.tiny`'s UNet, fp32, in eval mode; its outputs are not 0 as those of an untrained one."""
    import torch
    from diffusers import ControlNetModel

    names = ("block_out_channels", "layers_per_block", "down_block_types", "cross_attention_dim", "norm_num_groups")
    config = {name: UNET[name] for name in names} | {"attention_head_dim": UNET["attention_head_dim"]} | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ControlNetModel(in_channels=4, conditioning_embedding_out_channels=HINT_WIDTHS, **config)
        for part in (*network.controlnet_down_blocks, network.controlnet_mid_block):
            torch.nn.init.normal_(part.weight, 0, 0.2)
        torch.nn.init.normal_(network.controlnet_cond_embedding.conv_out.weight, 0, 0.2)
    return network.eval().requires_grad_(False)


def write_tiny_controlnet(
    path: str | Path,
    *,
    layout: str = "ldm",
    prefix: str = "control_model.",
    seed: int = 0,
    less: Any = None,
    rank: int = 0,
    **changes: Any,
) -> Path:
    """Write it as "ldm" (the single-file layout) or "diffusers"; `less` is a UNet whose weights are taken away, which
    makes it a difference; with `rank` the file says thinly how it differs from that UNet. The path."""
    from impasto_server.engine.control_layout import control_to_file
    from safetensors.torch import save_file

    network = tiny_controlnet(seed, **changes)
    state = network.state_dict()
    marker = {}
    if rank:
        return _write_control_lora(Path(path), less, rank)
    if less is not None:
        import torch

        base = less.state_dict()
        state = {name: value - base[name] if name in base else value for name, value in state.items()}
        marker = {"difference": torch.zeros(1)}
    attention = tuple("CrossAttn" in name for name in network.config.down_block_types)
    blocks = len(network.controlnet_cond_embedding.blocks)

    def name_of(name: str) -> str:
        if layout == "diffusers":
            return name
        layers = network.config.layers_per_block
        return prefix + control_to_file(name, layers_per_block=layers, attention=attention, hint_blocks=blocks)

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name_of(name): value.contiguous() for name, value in state.items()} | marker, str(path))
    return path


def write_tiny_union(path: str | Path, *, types: int = 6, seed: int = 0, **changes: Any) -> Path:
    """A union ControlNet for a network of SDXL's structure, whose configuration `changes` tell; nothing of it is 0."""
    import torch
    from diffusers import ControlNetUnionModel
    from safetensors.torch import save_file

    width = changes["block_out_channels"][0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ControlNetUnionModel(
            conditioning_embedding_out_channels=HINT_WIDTHS, num_control_type=types, num_trans_channel=width,
            num_proj_channel=width, num_trans_head=8, **changes,
        )  # fmt: skip
        silent = (*network.controlnet_down_blocks, network.controlnet_mid_block, network.spatial_ch_projs)
        for part in (*silent, network.controlnet_cond_embedding.conv_out):
            torch.nn.init.normal_(part.weight, 0, 0.2)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, str(path))
    return Path(path)


def thin_control(base: Any, rank: int, seed: int = 0) -> tuple[Any, dict[str, tuple[Any, Any]]]:
    """A ControlNet whose shared weights are the UNet's and a product of thin matrices, and those by name."""
    import torch

    network, generator = tiny_controlnet(seed), torch.Generator().manual_seed(seed)
    state, own, parts = network.state_dict(), base.state_dict(), {}
    for name, value in own.items():
        if name not in state or state[name].shape != value.shape:
            continue
        state[name] = value.clone()
        if name.endswith(".weight") and value.dim() > 1:
            up = torch.randn(value.shape[0], rank, generator=generator) * 0.1
            down = torch.randn(rank, *value.shape[1:], generator=generator) * 0.1
            parts[name] = (up, down)
            state[name] = value + (up @ down.flatten(1)).reshape(value.shape)
    network.load_state_dict(state)
    return network, parts


def _write_control_lora(path: Path, base: Any, rank: int) -> Path:
    """Weights as two thin ones; norms, the hint block and the outputs whole; other biases left to the checkpoint."""
    import torch
    from impasto_server.engine.control_layout import control_to_file
    from safetensors.torch import save_file

    network, parts = thin_control(base, rank)
    attention = tuple("CrossAttn" in name for name in network.config.down_block_types)
    blocks = len(network.controlnet_cond_embedding.blocks)
    layers = network.config.layers_per_block
    own, tensors = base.state_dict(), {"lora_controlnet": torch.zeros(0)}
    for name, value in network.state_dict().items():
        file = control_to_file(name, layers_per_block=layers, attention=attention, hint_blocks=blocks)
        if name in parts:
            up, down = parts[name]
            tensors[file.removesuffix("weight") + "up"] = up.reshape(*up.shape, *[1] * (value.dim() - 2))
            tensors[file.removesuffix("weight") + "down"] = down
        elif name not in own or "norm" in name:
            tensors[file] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, str(path))
    return path
