"""OpenCLIP's text encoder as it lies in SDXL checkpoints: its tensors by transformers' names.

OpenCLIP keeps query, key and value in one matrix, the projection of the pooled text the other way round, and names its
layers in its own way. Tensors that are read through `OpenClip` look as if the file had been written by transformers. A
file that has those names already is read as it is. No torch to list them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .layout import XL_TEXT_2_PREFIX

if TYPE_CHECKING:
    import torch

    from .checkpoint import Tensors

__all__ = ["OpenClip", "openclip_shapes"]

_PLAIN = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
}
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(ln_1|ln_2|attn\.out_proj|mlp\.c_fc|mlp\.c_proj)\.(weight|bias)")
_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_TOGETHER = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")


def _names(own: str) -> tuple[str, ...]:
    """transformers' names for a tensor of OpenCLIP: three of what is kept together, else one; its own if none fits."""
    if own in _PLAIN:
        return (_PLAIN[own],)
    if found := _LAYER.fullmatch(own):
        return (f"text_model.encoder.layers.{found[1]}.{_PARTS[found[2]]}.{found[3]}",)
    if found := _TOGETHER.fullmatch(own):
        stem = f"text_model.encoder.layers.{found[1]}.self_attn"
        return tuple(f"{stem}.{part}_proj.{found[2]}" for part in "qkv")
    return (own,)


def _sources(names: Iterable[str]) -> dict[str, tuple[str, int | None]]:
    """Name as read, with the prefix -> the name in the file, and which third of it."""
    found: dict[str, tuple[str, int | None]] = {}
    for name in names:
        if not name.startswith(XL_TEXT_2_PREFIX):
            found[name] = (name, None)
            continue
        own = _names(name.removeprefix(XL_TEXT_2_PREFIX))
        for third, one in enumerate(own):
            found[XL_TEXT_2_PREFIX + one] = (name, third if len(own) == 3 else None)
    return found


def openclip_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of the second text encoder of a checkpoint by transformers' names, without the prefix."""
    found = {}
    for name, (own, third) in _sources(shapes).items():
        if name.startswith(XL_TEXT_2_PREFIX):
            shape = shapes[own]
            if third is not None and shape:
                shape = (shape[0] // 3, *shape[1:])
            elif own == XL_TEXT_2_PREFIX + "text_projection":
                shape = shape[::-1]
            found[name.removeprefix(XL_TEXT_2_PREFIX)] = shape
    return found


class OpenClip:
    """The tensors of an open checkpoint, those of its second text encoder by transformers' names."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._sources = _sources(tensors.keys())

    def keys(self) -> list[str]:
        return list(self._sources)

    def get_tensor(self, name: str) -> torch.Tensor:
        own, third = self._sources[name]
        value = self._tensors.get_tensor(own)
        if third is not None:
            part = value.shape[0] // 3 if value.dim() else 0
            return value[third * part : (third + 1) * part]
        turned = own == XL_TEXT_2_PREFIX + "text_projection" and value.dim() == 2
        return value.T.contiguous() if turned else value
