"""Writes the trained networks as one A1111/LDM single file: fp16 safetensors with everything that shapes
cannot tell.

    python -m starter.export OUT.safetensors

The measured latent scale is folded into the VAE's two 1x1 convolutions, so that the file has SD 1.x's own
vae_scaling_factor of .18215 and any loader's default is right.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from pathlib import Path

import torch

from starter import models
from starter.data import SIZE
from starter.sample import Networks
from starter.stfile import write
from starter.vocabulary import END

SCALING = 0.18215
CLIP = "cond_stage_model.transformer.text_model."
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_FIXED = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def _inner(kind: str, rest: str) -> str:
    """The name inside one LDM block: 0 the resnet with renamed parts, 1 the attention as it is."""
    if kind == "attentions":
        return f"1.{rest}"
    part, tail = rest.split(".", 1)
    return f"0.{_RESNET[part]}.{tail}"


def unet_name(name: str, levels: int, layers: int) -> str:
    """A diffusers UNet key as its LDM key."""
    for old, new in _FIXED.items():
        if name.startswith(old + "."):
            return new + name[len(old) :]
    if name.startswith("mid_block."):
        _, kind, number, rest = name.split(".", 3)
        place = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{_inner(kind, rest)[2:]}"
    side, level, kind, number, rest = name.split(".", 4)
    level, number = int(level), int(number)
    if side == "down_blocks":
        block = 1 + level * (layers + 1) + (layers if kind == "downsamplers" else number)
        return f"input_blocks.{block}." + (f"0.op.{rest[5:]}" if kind == "downsamplers" else _inner(kind, rest))
    block = level * (layers + 1) + (layers if kind == "upsamplers" else number)
    return f"output_blocks.{block}." + (f"2.{rest}" if kind == "upsamplers" else _inner(kind, rest))


def vae_name(name: str, levels: int) -> str:
    """A diffusers VAE key as its LDM key."""
    name = name.replace("mid_block.attentions.0.", "mid.attn_1.").replace("group_norm.", "norm.")
    name = re.sub(r"attn_1\.to_(q|k|v)\.", r"attn_1.\1.", name).replace("to_out.0.", "proj_out.")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    return name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")


def fold_scale(vae: dict[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    """The same VAE with latents times scale / .18215, so that .18215 brings them to the scale of training."""
    k = scale / SCALING
    out = dict(vae)
    out["quant_conv.weight"], out["quant_conv.bias"] = (vae[f"quant_conv.{n}"].clone() for n in ("weight", "bias"))
    out["quant_conv.weight"][:4] *= k
    out["quant_conv.bias"][:4] *= k
    out["quant_conv.bias"][4:] += 2 * math.log(k)
    out["post_quant_conv.weight"] = vae["post_quant_conv.weight"] / k
    return out


def single_file(
    net: Networks, shape: models.Shape, used: torch.Tensor | None = None, exact: bool = False
) -> dict[str, torch.Tensor]:
    """All tensors under their LDM names, fp16 or float32 (`exact`). `used` are the token ids whose vectors are kept
    (others zero)."""
    out = {}
    for name, value in net.unet.state_dict().items():
        out["model.diffusion_model." + unet_name(name, len(shape.unet_channels), shape.unet_layers)] = value
    for name, value in fold_scale(net.vae.state_dict(), net.scale).items():
        new = vae_name(name, len(shape.vae_channels))
        if "attn_1" in new and value.dim() == 2:
            value = value[..., None, None]
        out["first_stage_model." + new] = value
    for name, value in net.text.state_dict().items():
        name = name.removeprefix("text_model.")
        if name.endswith("position_ids"):
            continue
        if name == "embeddings.token_embedding.weight" and used is not None:
            kept = torch.zeros_like(value)
            kept[used] = value[used]
            value = kept
        out[CLIP + name] = value
    return {k: (v.detach().float() if exact else v.detach().half()).contiguous() for k, v in out.items()}


def metadata(shape: models.Shape, hints: dict) -> dict[str, str]:
    config = {
        "unet_heads": shape.unet_heads,
        "unet_norm_groups": shape.unet_groups,
        "vae_norm_groups": shape.vae_groups,
        "text_heads": shape.text_heads,
        "native_size": SIZE,
        "vae_scaling_factor": SCALING,
        "prediction_type": "v_prediction",
        "text_activation": "quick_gelu",
        "hints": hints,
    }
    return {
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.title": "Impasto starter",
        "modelspec.license": "MIT (trained on Fluent Emoji, MIT, Microsoft Corporation)",
        "modelspec.resolution": f"{SIZE}x{SIZE}",
        "impasto.config": json.dumps(config),
    }


HINTS = {"steps": 20, "cfg": 4.0, "sampler": "dpmpp_2m", "schedule": "karras"}


def used_tokens() -> torch.Tensor:
    """The token ids that any caption or word of training has, sorted."""
    from starter.train_text import corpus
    from starter.vocabulary import encode

    return torch.unique(torch.cat([encode(corpus(12000, 30000)).flatten(), torch.tensor([END])]))


def export(
    out: Path,
    net: Networks,
    shape: models.Shape = models.SHAPE,
    used: torch.Tensor | None = None,
    hints: dict | None = None,
    exact: bool = False,
) -> Path:
    """Writes the single file atomically; `exact`: float32, for `starter.pack --refinement`."""
    temporary = out.with_name(out.name + ".part")
    out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.numpy() for k, v in single_file(net, shape, used, exact).items()}
    write(temporary, tensors, metadata(shape, hints or HINTS))
    os.replace(temporary, out)
    return out


def main() -> None:
    from starter.train_unet import load_networks

    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=Path)
    p.add_argument("--exact", action="store_true", help="float32 and all words, for starter.pack --refinement")
    a = p.parse_args()
    export(a.out, load_networks(), used=None if a.exact else used_tokens(), exact=a.exact)
    print(f"{a.out.name}: {a.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
