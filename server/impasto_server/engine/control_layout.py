"""Names of a ControlNet's tensors: diffusers' module <-> the single-file ("LDM") layout. No torch here."""

from __future__ import annotations

import re
from collections.abc import Collection

from .layout import unet_to_file

__all__ = ["CONTROL_PREFIXES", "control_prefix", "control_to_file", "hint_widths"]

CONTROL_PREFIXES = ("control_model.", "")
_HINT = "input_hint_block."
_EMBEDDING = "controlnet_cond_embedding."


def control_prefix(names: Collection[str]) -> str | None:
    """Where the tensors of the single-file layout begin; None where the file is in diffusers' layout."""
    return next((prefix for prefix in CONTROL_PREFIXES if prefix + _HINT + "0.weight" in names), None)


def hint_widths(shapes: dict[str, tuple[int, ...]], prefix: str | None) -> tuple[int, tuple[int, ...]]:
    """Channels of the hint, and the widths of diffusers' `conditioning_embedding_out_channels`, from the shapes.

    The block is conv_in, then pairs that keep and that halve, then conv_out: in the file every second number.
    Raises KeyError for a file that has another one.
    """
    if prefix is None:
        first = shapes[_EMBEDDING + "conv_in.weight"]
        count = sum(1 for name in shapes if re.fullmatch(re.escape(_EMBEDDING) + r"blocks\.\d+\.weight", name))
        keeping = [shapes[f"{_EMBEDDING}blocks.{i}.weight"][0] for i in range(1, count, 2)]
    else:
        first = shapes[f"{prefix}{_HINT}0.weight"]
        blocks = sum(1 for name in shapes if re.fullmatch(re.escape(prefix + _HINT) + r"\d+\.weight", name)) - 2
        keeping = [shapes[f"{prefix}{_HINT}{2 * (i + 1)}.weight"][0] for i in range(1, blocks, 2)]
    return first[1], (first[0], *keeping)


def control_to_file(name: str, *, layers_per_block: int, attention: tuple[bool, ...], hint_blocks: int) -> str:
    """File name, without the prefix, of the ControlNet parameter `name`; `hint_blocks` are those between the ends.

    What a ControlNet has of the UNet is called as there. Raises KeyError for a name that has no counterpart.
    """
    stem, _, leaf = name.rpartition(".")
    if name.startswith(_EMBEDDING):
        part = stem.removeprefix(_EMBEDDING)
        if part == "conv_in":
            return f"{_HINT}0.{leaf}"
        if part == "conv_out":
            return f"{_HINT}{2 * (hint_blocks + 1)}.{leaf}"
        return f"{_HINT}{2 * (int(part.removeprefix('blocks.')) + 1)}.{leaf}"
    if name.startswith("controlnet_down_blocks."):
        return f"zero_convs.{int(stem.removeprefix('controlnet_down_blocks.'))}.0.{leaf}"
    if stem == "controlnet_mid_block":
        return f"middle_block_out.0.{leaf}"
    return unet_to_file(name, layers_per_block=layers_per_block, attention=attention)
