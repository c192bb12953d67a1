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
from .openclip import openclip_shapes
from .tokenizer import BOS, EOS, VOCABULARY

__all__ = [
    "FAMILIES",
    "SD1",
    "SDXL",
    "Family",
    "Misfit",
    "SecondText",
    "Shapes",
    "second_text_config",
    "text_config",
    "text_prefix",
    "unet_config",
    "vae_config",
]

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape in torch's order (out, in, ...)."""


class Misfit(ValueError):
    """The shapes are not those of the structure that was looked for; the text completes 'it has ...'."""


@dataclass(frozen=True)
class SecondText:
    """The second text encoder of a family: OpenCLIP's, which also gives one vector for the whole text ("pooled")."""

    heads: int
    activation: str
    token_pad: int
    width: int


@dataclass(frozen=True)
class Family:
    """The facts of a family that its files do not carry, as the original of the family has them.

    `native_size` is in pixels. The noise schedule has `train_steps` betas between `beta_start` and `beta_end`, spaced
    evenly in their square roots ("scaled linear", Rombach et al. 2022). `token_pad` fills a chunk of the prompt.
    The widths tell whether a file is of the original's size, so that the numbers of heads and groups may be assumed.
    Attention has `unet_heads` on every level, or with `unet_head_width` as many as that width allows. With
    `second_text` the network reads both encoders, each from its last layer but one, the pooled text and the sizes of
    the picture.
    `vae_overflows` says that the original's VAE gives no numbers in fp16.
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
    unet_head_width: int = 0
    second_text: SecondText | None = None
    vae_overflows: bool = False


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
SDXL = Family(
    id="sdxl",
    title="Stable Diffusion XL",
    native_size=1024,
    prediction_type="epsilon",
    vae_scaling_factor=0.13025,
    unet_heads=0,
    unet_head_width=64,
    unet_norm_groups=32,
    vae_norm_groups=32,
    text_heads=12,
    text_activation="quick_gelu",
    token_pad=EOS,
    unet_widths=(320, 640, 1280),
    vae_widths=(128, 256, 512, 512),
    text_width=768,
    second_text=SecondText(heads=20, activation="gelu", token_pad=0, width=1280),
    vae_overflows=True,
)
"""Podell et al., "SDXL: improving latent diffusion models for high-resolution image synthesis", 2023; the base."""

FAMILIES: Mapping[str, Family] = {SD1.id: SD1, SDXL.id: SDXL}
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


def unet_config(
    shapes: Shapes, *, heads: int, norm_groups: int, head_width: int = 0, prefix: str = UNET_PREFIX
) -> dict[str, Any]:
    """The configuration of a UNet in the single-file layout: widths, depth, which levels have attention.

    With `head_width` each level has as many heads as its width holds, in place of `heads`.
    """
    channels = _shape(shapes, prefix + "input_blocks.0.0.weight", 4)
    levels = _levels(shapes, prefix)
    layers = {len(level) for level in levels}
    if len(layers) != 1 or any(len({has for _, has in level}) != 1 for level in levels):
        raise Misfit("a UNet whose levels are not built alike")
    widths = tuple(level[0][0] for level in levels)
    attention = tuple(level[0][1] for level in levels)
    if prefix + "middle_block.1.proj_in.weight" not in shapes or not any(attention):
        raise Misfit("no attention in the middle of its UNet")
    _divisible("the number of norm groups", widths, norm_groups)
    attended = [width for width, has in zip(widths, attention, strict=True) if has]
    if head_width:
        _divisible("the width of a head", (*attended, widths[-1]), head_width)
    else:
        _divisible("the number of heads", (*attended, widths[-1]), heads)
    down = ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention]
    up = ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)]
    config = {
        "in_channels": channels[1],
        "out_channels": _shape(shapes, prefix + "out.2.weight", 4)[0],
        "block_out_channels": widths,
        "layers_per_block": layers.pop(),
        "down_block_types": tuple(down),
        "up_block_types": tuple(up),
        "transformer_layers_per_block": _depths_by_level(shapes, prefix, attention, len(levels[0])),
        "cross_attention_dim": context_width(shapes, prefix),
        # The name is a historical mistake of diffusers: it is the number of heads.
        "attention_head_dim": tuple(max(width // head_width, 1) for width in widths) if head_width else heads,
        "norm_num_groups": norm_groups,
        "use_linear_projection": len(shapes[prefix + "middle_block.1.proj_in.weight"]) == 2,
    }
    if prefix + "label_emb.0.0.weight" in shapes:
        config["addition_embed_type"] = "text_time"
        config["projection_class_embeddings_input_dim"] = _shape(shapes, prefix + "label_emb.0.0.weight", 2)[1]
    return config


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


def _depths_by_level(shapes: Shapes, prefix: str, attention: tuple[bool, ...], layers: int) -> int | tuple[int, ...]:
    """Transformer blocks in each attention, by level where they differ: on the way up and in the middle as down."""
    pattern = re.compile(re.escape(prefix) + r"(.+\.1)\.transformer_blocks\.(\d+)\.norm1\.weight")
    found: dict[str, int] = {}
    for name in shapes:
        if match := pattern.fullmatch(name):
            found[match.group(1)] = max(found.get(match.group(1), 0), int(match.group(2)) + 1)
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    last, depths = len(attention) - 1, []
    for level, has in enumerate(attention):
        down = [f"input_blocks.{1 + level * (layers + 1) + j}.1" for j in range(layers)]
        up = [f"output_blocks.{(last - level) * (layers + 1) + j}.1" for j in range(layers + 1)]
        middle = ["middle_block.1"] if level == last else []
        own = {found.get(block, 0) for block in (*down, *up, *middle)} if has else {1}
        if len(own) != 1:
            raise Misfit(f"transformers of different depths {sorted(own)} on one level")
        depths.append(own.pop())
    return tuple(depths)


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


def second_text_config(shapes: Shapes, *, heads: int, activation: str) -> dict[str, Any]:
    """The same of SDXL's second text encoder, which has OpenCLIP's names; also the width of the pooled text."""
    named = openclip_shapes(shapes)
    config = text_config(named, heads=heads, activation=activation, prefix="text_model.")
    config["projection_dim"] = _shape(named, "text_projection.weight", 2)[0]
    return config


def text_config(shapes: Shapes, *, heads: int, activation: str, prefix: str | None = None) -> dict[str, Any]:
    """The configuration of a CLIP text encoder that reads CLIP's own vocabulary in chunks of 77; `prefix` where its
    names begin otherwise than in SD 1.x."""
    prefix = text_prefix(shapes) if prefix is None else prefix
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
