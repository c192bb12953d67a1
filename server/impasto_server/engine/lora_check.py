"""Whether a LoRA fits a checkpoint, from the headers of both: told before a job is accepted. No torch here.

Every name must mean a layer; of plain LoRAs, which most are, the shapes are compared too. What the rarer kinds do to a
shape is checked when they are loaded (`lora.fit`), by their own formulas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

from impasto_protocol.errors import ModelError

from . import layout
from .families import Misfit, Shapes, text_prefix, unet_config
from .lora_names import BUNDLED, second_text_names, split_key, text_names, unet_names
from .modelfile import header_of
from .openclip import openclip_shapes

__all__ = ["check_lora", "layer_shapes", "unet_layers"]

LATENT_CHANNELS = 4


def check_lora(lora: Path, checkpoint: Path, *, name: str, model: str, family: str) -> None:
    """Raise ModelError `model.unsupported` with `need` and `got` where the LoRA does not fit the whole checkpoint.
    What else is wrong with either file is left to who loads it."""
    try:
        known = layer_shapes(header_of(checkpoint).shapes)
        tensors = header_of(lora).shapes
    except (ModelError, Misfit):
        return
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    keys: dict[str, list[str]] = {}
    for key, shape in tensors.items():
        layer, role = split_key(key)
        if role and not key.startswith(BUNDLED):
            layers.setdefault(layer, {})[role] = shape
            keys.setdefault(layer, []).append(key)
    foreign = [key for layer in layers if layer not in known for key in keys[layer]]
    if foreign:
        count = sum(map(len, keys.values()))
        some = ", ".join(key[:100] for key in foreign[:3])
        raise ModelError(
            "model.unsupported",
            f"The LoRA {name!r} does not fit the checkpoint {model!r}: {len(foreign)} of its {count} tensors are for "
            f"layers that it does not have ({some}).",
            data={"model": name, "need": family, "got": foreign[0]},
        )
    for layer, roles in layers.items():
        weight = known[layer]
        if "down" in roles and "up" in roles and "mid" not in roles and not _fits(roles, weight):
            down, up = roles["down"], roles["up"]
            raise ModelError(
                "model.unsupported",
                f"The LoRA {name!r} was made for a checkpoint of another size than {model!r}: its {layer} goes from "
                f"{_dims(down[1:])} to {up[0] if up else 0}, where the weight is {_dims(weight)}.",
                data={"model": name, "need": list(weight), "got": [up[0] if up else 0, *down[1:]]},
            )


def _fits(roles: Mapping[str, tuple[int, ...]], weight: tuple[int, ...]) -> bool:
    down, up = roles["down"], roles["up"]
    if len(down) < 2 or len(up) < 2 or prod(up[1:]) != down[0]:
        return False
    wanted = [weight]
    if len(weight) == 4 and weight[1] > LATENT_CHANNELS:
        wanted.append((weight[0], LATENT_CHANNELS, *weight[2:]))  # the first layer of an inpainting checkpoint
    return any(up[0] == each[0] and prod(down[1:]) == prod(each[1:]) for each in wanted)


def layer_shapes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Every name by which a LoRA may call a layer of the checkpoint -> the shape of its weight. Raises Misfit."""
    prefix = layout.UNET_PREFIX
    found: dict[str, tuple[int, ...]] = {}
    config = unet_config(shapes, heads=1, norm_groups=1, prefix=prefix)
    attention = tuple("CrossAttn" in name for name in config["down_block_types"])
    layers, depth = config["layers_per_block"], config["transformer_layers_per_block"]
    for layer in unet_layers(layers, attention, depth):
        in_file = layout.unet_to_file(f"{layer}.weight", layers_per_block=layers, attention=attention)
        if prefix + in_file in shapes:
            for name in unet_names(layer, in_file.rpartition(".")[0]):
                found[name] = shapes[prefix + in_file]
    second = openclip_shapes(shapes)
    start = layout.XL_TEXT_PREFIX + "text_model." if second else text_prefix(shapes)
    if start is None:
        raise Misfit("no text encoder")
    for key, shape in shapes.items():
        if key.startswith(start) and key.endswith(".weight"):
            for name in text_names(key[len(start) : -len(".weight")]):
                found[name] = shape
    for key, shape in second.items():
        if key.endswith(".weight"):
            for name in second_text_names(key.removesuffix(".weight").removeprefix("text_model.")):
                found[name] = shape
    return found


def unet_layers(layers: int, attention: tuple[bool, ...], depth: int | tuple[int, ...]) -> Iterator[str]:
    """diffusers' names of all layers with a weight that a UNet of that build may have; `depth` by level, or one."""
    yield from ("conv_in", "conv_norm_out", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")
    yield from ("add_embedding.linear_1", "add_embedding.linear_2")
    last = len(attention) - 1
    depths = (depth,) * len(attention) if isinstance(depth, int) else depth
    for level, has in enumerate(attention):
        yield from _block(f"down_blocks.{level}", layers, has, depths[level])
        if level < last:
            yield f"down_blocks.{level}.downsamplers.0.conv"
        yield from _block(f"up_blocks.{level}", layers + 1, attention[last - level], depths[last - level])
        if level < last:
            yield f"up_blocks.{level}.upsamplers.0.conv"
    yield from _block("mid_block", 2, False, depths[-1])
    yield from _attention("mid_block.attentions.0", depths[-1])


def _block(stem: str, count: int, attention: bool, depth: int) -> Iterator[str]:
    for index in range(count):
        for part in ("norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut"):
            yield f"{stem}.resnets.{index}.{part}"
        if attention:
            yield from _attention(f"{stem}.attentions.{index}", depth)


def _attention(stem: str, depth: int) -> Iterator[str]:
    yield from (f"{stem}.norm", f"{stem}.proj_in", f"{stem}.proj_out")
    for index in range(depth):
        block = f"{stem}.transformer_blocks.{index}"
        yield from (f"{block}.norm{n}" for n in (1, 2, 3))
        yield from (f"{block}.attn{n}.{part}" for n in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0"))
        yield from (f"{block}.ff.net.0.proj", f"{block}.ff.net.2")


def _dims(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "nothing"
