"""Names of tensors: diffusers' and transformers' modules <-> the single-file ("LDM") layout of A1111 checkpoints.

Every function takes a parameter name of a module's state dict and gives the name of the same tensor in the file,
without the file's prefix. They are pure string functions that need the number of layers only; a name that has no
counterpart raises KeyError. No torch here.
"""

from __future__ import annotations

import re

__all__ = [
    "LEFT_BEHIND",
    "TEXT_PREFIX",
    "UNET_PREFIX",
    "VAE_PREFIX",
    "XL_TEXT_2_PREFIX",
    "XL_TEXT_PREFIX",
    "is_squeezed",
    "text_to_file",
    "unet_to_file",
    "vae_to_file",
]

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer."
XL_TEXT_PREFIX = "conditioner.embedders.0.transformer."
XL_TEXT_2_PREFIX = "conditioner.embedders.1.model."

LEFT_BEHIND = ("model_ema.", "loss.", "position_ids", "text_projection", "logit_scale")
"""Parts of names under a module's prefix that trainers leave behind and inference has no use for."""

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_MID = {"resnets.0": "middle_block.0", "attentions.0": "middle_block.1", "resnets.1": "middle_block.2"}
_BLOCK = re.compile(
    r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)\.(weight|bias)"
)
_MID_BLOCK = re.compile(r"mid_block\.((?:resnets|attentions)\.\d+)\.(.+)\.(weight|bias)")


def unet_to_file(name: str, *, layers_per_block: int, attention: tuple[bool, ...]) -> str:
    """File name of the UNet parameter `name`; `attention[i]` says whether level i (0 = full size) has attention."""
    if found := _BLOCK.fullmatch(name):
        side, level, part, index, rest, leaf = found.groups()
        i, j, levels = int(level), int(index), len(attention)
        if i >= levels:
            raise KeyError(name)
        if side == "down":
            # Each level is its residual blocks and then one block that halves the size; block 0 is conv_in.
            first = 1 + i * (layers_per_block + 1)
            if part == "downsamplers":
                return f"input_blocks.{first + layers_per_block}.0.{_exactly(rest, 'conv', 'op')}.{leaf}"
            stem = f"input_blocks.{first + j}"
        else:
            first = i * (layers_per_block + 1)
            if part == "upsamplers":
                after = 2 if attention[levels - 1 - i] else 1
                return f"output_blocks.{first + layers_per_block}.{after}.{_exactly(rest, 'conv', 'conv')}.{leaf}"
            stem = f"output_blocks.{first + j}"
        return f"{stem}.0.{_RESNET[rest]}.{leaf}" if part == "resnets" else f"{stem}.1.{rest}.{leaf}"
    if found := _MID_BLOCK.fullmatch(name):
        part, rest, leaf = found.groups()
        return f"{_MID[part]}.{_RESNET[rest] if part.startswith('resnets') else rest}.{leaf}"
    stem, _, leaf = name.rpartition(".")
    return f"{_UNET_ENDS[stem]}.{leaf}"


_VAE_MID = {"resnets.0": "mid.block_1", "attentions.0": "mid.attn_1", "resnets.1": "mid.block_2"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_VAE_RESNET = {part: part for part in ("norm1", "conv1", "norm2", "conv2")} | {"conv_shortcut": "nin_shortcut"}
_VAE_BLOCK = re.compile(
    r"(encoder|decoder)\.(?:down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)\.(weight|bias)"
)
_VAE_MID_BLOCK = re.compile(r"(encoder|decoder)\.mid_block\.((?:resnets|attentions)\.\d)\.(.+)\.(weight|bias)")
_VAE_END = re.compile(r"(encoder|decoder)\.(conv_in|conv_norm_out|conv_out)\.(weight|bias)")


def vae_to_file(name: str, *, levels: int) -> str:
    """File name of the VAE parameter `name`; the decoder's levels are counted from the other end in the file."""
    if found := _VAE_BLOCK.fullmatch(name):
        side, level, part, index, rest, leaf = found.groups()
        stem = f"encoder.down.{level}" if side == "encoder" else f"decoder.up.{levels - 1 - int(level)}"
        if part == "resnets":
            return f"{stem}.block.{index}.{_VAE_RESNET[rest]}.{leaf}"
        return f"{stem}.{part[:-2]}.{_exactly(rest, 'conv', 'conv')}.{leaf}"
    if found := _VAE_MID_BLOCK.fullmatch(name):
        side, part, rest, leaf = found.groups()
        names = _VAE_ATTENTION if part.startswith("attentions") else _VAE_RESNET
        return f"{side}.{_VAE_MID[part]}.{names[rest]}.{leaf}"
    if found := _VAE_END.fullmatch(name):
        side, part, leaf = found.groups()
        return f"{side}.{'norm_out' if part == 'conv_norm_out' else part}.{leaf}"
    if name.startswith(("quant_conv.", "post_quant_conv.")):
        return name
    raise KeyError(name)


def is_squeezed(name: str) -> bool:
    """Whether this VAE weight is a 1 x 1 convolution in the file and a linear layer in the module."""
    return bool(re.search(r"mid_block\.attentions\.0\.to_(q|k|v|out\.0)\.weight$", name))


def text_to_file(name: str, *, nested: bool) -> str:
    """File name of the text encoder's parameter; `nested` files spell `text_model.` in front, the oldest do not."""
    bare = name.removeprefix("text_model.")
    return f"text_model.{bare}" if nested else bare


def _exactly(part: str, expected: str, becomes: str) -> str:
    if part != expected:
        raise KeyError(part)
    return becomes
