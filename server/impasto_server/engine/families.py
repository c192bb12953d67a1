"""Families of models as data, and network configurations derived from the shapes in a file. No torch here.

A configuration is a plain dict as diffusers' and transformers' constructors take it. What shapes cannot tell (heads,
norm groups) comes as an argument. A structure that does not fit raises `Misfit` with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .layout import TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX
from .tokenizer import BOS, EOS, VOCABULARY

__all__ = ["FAMILIES", "SD1", "Family", "Misfit", "Shapes", "text_config", "text_prefix", "unet_config", "vae_config"]

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape in torch's order (out, in, ...)."""


class Misfit(ValueError):
    """The shapes are not those of the structure that was looked for; the text completes 'it has ...'."""


@dataclass(frozen=True)
class Family:
    """The facts of a family that its files do not carry, as the original of the family has them.

    `native_size` is in pixels. The noise schedule has `train_steps` betas between `beta_start` and `beta_end`, spaced
    evenly in their square roots ("scaled linear", Rombach et al. 2022). `token_pad` fills a chunk of the prompt.
    The widths tell whether a file is of the original's size, so that the numbers of heads and groups may be assumed.
    """

    id: str
    title: str
    native_size: int
    prediction_type: str
    vae_scaling_factor: float
    unet_heads: int
    unet_norm_groups: int
    vae_norm_groups: int
    text_heads: int
    text_activation: str
    token_pad: int
    unet_widths: tuple[int, ...]
    vae_widths: tuple[int, ...]
    text_width: int
    train_steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012


SD1 = Family(
    id="sd1",
    title="Stable Diffusion 1.x",
    native_size=512,
    prediction_type="epsilon",
    vae_scaling_factor=0.18215,
    unet_heads=8,
    unet_norm_groups=32,
    vae_norm_groups=32,
    text_heads=12,
    text_activation="quick_gelu",
    token_pad=EOS,
    unet_widths=(320, 640, 1280, 1280),
    vae_widths=(128, 256, 512, 512),
    text_width=768,
)
FAMILIES: Mapping[str, Family] = {SD1.id: SD1}
"""The families that can be loaded, by the id that `identify` gives."""


def _shape(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None:
        raise Misfit(f"no tensor {name}")
    if len(shape) != dimensions:
        raise Misfit(f"{len(shape)} dimensions instead of {dimensions} in {name}")
    return shape


def _divisible(what: str, widths: tuple[int, ...], by: int) -> None:
    if by < 1 or any(width % by for width in widths):
        raise Misfit(f"widths {list(widths)} that {what} {by} does not divide")


def unet_config(shapes: Shapes, *, heads: int, norm_groups: int, prefix: str = UNET_PREFIX) -> dict[str, Any]:
    """The configuration of a UNet in the single-file layout: widths, depth, which levels have attention."""
    channels = _shape(shapes, prefix + "input_blocks.0.0.weight", 4)
    levels = _levels(shapes, prefix)
    layers = {len(level) for level in levels}
    if len(layers) != 1 or any(len({has for _, has in level}) != 1 for level in levels):
        raise Misfit("a UNet whose levels are not built alike")
    widths = tuple(level[0][0] for level in levels)
    attention = tuple(level[0][1] for level in levels)
    if prefix + "middle_block.1.proj_in.weight" not in shapes or not any(attention):
        raise Misfit("no attention in the middle of its UNet")
    depths = _depths(shapes, prefix)
    if len(depths) != 1:
        raise Misfit(f"transformers of different depths {sorted(depths)}")
    _divisible("the number of norm groups", widths, norm_groups)
    attended = [width for width, has in zip(widths, attention, strict=True) if has]
    _divisible("the number of heads", (*attended, widths[-1]), heads)
    down = ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention]
    up = ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)]
    return {
        "in_channels": channels[1],
        "out_channels": _shape(shapes, prefix + "out.2.weight", 4)[0],
        "block_out_channels": widths,
        "layers_per_block": layers.pop(),
        "down_block_types": tuple(down),
        "up_block_types": tuple(up),
        "transformer_layers_per_block": depths.pop(),
        "cross_attention_dim": context_width(shapes, prefix),
        # The name is a historical mistake of diffusers: it is the number of heads.
        "attention_head_dim": heads,
        "norm_num_groups": norm_groups,
        "use_linear_projection": len(shapes[prefix + "middle_block.1.proj_in.weight"]) == 2,
    }


def _levels(shapes: Shapes, prefix: str) -> list[list[tuple[int, bool]]]:
    """Per level of the UNet's way down, from full size: (width, whether it has attention) of each residual block."""
    levels: list[list[tuple[int, bool]]] = []
    blocks: list[tuple[int, bool]] = []
    n = 1
    while True:
        block = f"{prefix}input_blocks.{n}."
        if block + "0.in_layers.2.weight" in shapes:
            width = _shape(shapes, block + "0.in_layers.2.weight", 4)[0]
            blocks.append((width, block + "1.proj_in.weight" in shapes))
        else:
            if blocks:
                levels.append(blocks)
            if not blocks or block + "0.op.weight" not in shapes:
                return levels
            blocks = []  # the next level begins behind this halving
        n += 1


def context_width(shapes: Shapes, prefix: str) -> int:
    """Width of the text embedding that the cross attention reads."""
    return _shape(shapes, prefix + "middle_block.1.transformer_blocks.0.attn2.to_k.weight", 2)[1]


def _depths(shapes: Shapes, prefix: str) -> set[int]:
    pattern = re.compile(re.escape(prefix) + r"(.+\.1)\.transformer_blocks\.(\d+)\.norm1\.weight")
    depths: dict[str, int] = {}
    for name in shapes:
        if found := pattern.fullmatch(name):
            depths[found.group(1)] = max(depths.get(found.group(1), 0), int(found.group(2)) + 1)
    return set(depths.values())


def vae_config(shapes: Shapes, *, norm_groups: int, scaling_factor: float, prefix: str = VAE_PREFIX) -> dict[str, Any]:
    """The configuration of a KL autoencoder; it shrinks by 2 ** (number of widths - 1) on each side."""
    widths: list[int] = []
    while (name := f"{prefix}encoder.down.{len(widths)}.block.0.conv1.weight") in shapes:
        widths.append(_shape(shapes, name, 4)[0])
    if not widths:
        raise Misfit("no autoencoder")
    layers = _count(shapes, f"{prefix}encoder.down.0.block.{{}}.conv1.weight")
    if _count(shapes, f"{prefix}decoder.up.0.block.{{}}.conv1.weight") != layers + 1:
        raise Misfit("an autoencoder whose two halves differ in depth")
    _divisible("the number of norm groups", tuple(widths), norm_groups)
    return {
        "in_channels": _shape(shapes, prefix + "encoder.conv_in.weight", 4)[1],
        "out_channels": _shape(shapes, prefix + "decoder.conv_out.weight", 4)[0],
        "latent_channels": _shape(shapes, prefix + "decoder.conv_in.weight", 4)[1],
        "block_out_channels": tuple(widths),
        "layers_per_block": layers,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "norm_num_groups": norm_groups,
        "scaling_factor": scaling_factor,
    }


def text_prefix(shapes: Shapes) -> str | None:
    """Where the CLIP text encoder's tensors begin; None where there is none. The oldest files lack `text_model.`."""
    for prefix in (TEXT_PREFIX + "text_model.", TEXT_PREFIX):
        if prefix + "embeddings.token_embedding.weight" in shapes:
            return prefix
    return None


def text_config(shapes: Shapes, *, heads: int, activation: str) -> dict[str, Any]:
    """The configuration of a CLIP text encoder that reads CLIP's own vocabulary in chunks of 77."""
    prefix = text_prefix(shapes)
    if prefix is None:
        raise Misfit("no CLIP text encoder")
    vocabulary, width = _shape(shapes, prefix + "embeddings.token_embedding.weight", 2)
    positions = _shape(shapes, prefix + "embeddings.position_embedding.weight", 2)[0]
    layers = _count(shapes, prefix + "encoder.layers.{}.layer_norm1.weight")
    if vocabulary < VOCABULARY or positions < 77 or not layers:
        raise Misfit(f"a text encoder of {vocabulary} words, {positions} places and {layers} layers")
    _divisible("the number of heads", (width,), heads)
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": _shape(shapes, prefix + "encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": positions,
        "hidden_act": activation,
        "projection_dim": width,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
    }


def _count(shapes: Shapes, pattern: str) -> int:
    count = 0
    while pattern.format(count) in shapes:
        count += 1
    return count
