"""Names in LoRA files: which tensor of which layer, in the spellings of all programs that write them. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["BUNDLED", "second_text_names", "split_key", "text_names", "unet_names"]

_ROLES = (
    (r"[._]lora_down\.weight|\.lora_A(?:\.\w+)?\.weight|[._]lora(?:_linear_layer)?\.down\.weight", "down"),
    (r"[._]lora_up\.weight|\.lora_B(?:\.\w+)?\.weight|[._]lora(?:_linear_layer)?\.up\.weight", "up"),
    (r"\.lora_mid\.weight", "mid"),
    (r"\.lora_magnitude_vector(?:\.\w+)*", "magnitude"),
    (r"\.([ab][12])\.weight", ""),
    (
        r"\.(alpha|dora_scale|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)|oft_blocks|oft_diag|rescale"
        r"|diff|diff_b|w_norm|b_norm|on_input|weight)",
        "",
    ),
)
"""End of a tensor's name -> its role for the layer that the rest names; "" is the first group."""

_ENDS = tuple((re.compile(rf"(?:{pattern})\Z"), role) for pattern, role in _ROLES)
BUNDLED = "bundle_emb."
"""How the names of embeddings inside a LoRA begin."""


def split_key(key: str) -> tuple[str, str]:
    """The layer's name and the tensor's role; ("", "") where the end is none that is known."""
    for pattern, role in _ENDS:
        found = pattern.search(key)
        if found is not None and found.start():
            return key[: found.start()], role or found.group(1)
    return "", ""


_PROCESSED = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out.0": "to_out"}
_TEXT_PROCESSED = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


def unet_names(layer: str, in_file: str) -> Iterable[str]:
    """How files call a layer of the UNet: `layer` in diffusers' names, `in_file` in those of the single-file layout."""
    for prefix in ("", "unet.", "base_model.model.", "base_model.model.unet."):
        yield prefix + layer
        for end, old in _PROCESSED.items():
            if layer.endswith("." + end):
                stem = layer[: -len(end)]
                yield from (f"{prefix}{stem}processor.{old}", f"{prefix}{stem}{old}")
    for prefix in ("", "diffusion_model.", "model.diffusion_model."):
        yield prefix + in_file
    for prefix in ("lora_unet_", "lycoris_", "unet_"):
        yield prefix + layer.replace(".", "_")
        yield prefix + in_file.replace(".", "_")


def text_names(layer: str) -> Iterable[str]:
    """How files call a layer of the text encoder, named without `text_model.`."""
    for one in _spelled(layer):
        for prefix in ("text_encoder.", "base_model.model.", "text_encoders.clip_l.transformer.", ""):
            yield f"{prefix}text_model.{one}"
        yield from (f"text_encoder.{one}", f"base_model.model.{one}")
    for prefix in ("lora_te_", "lora_te1_", "lycoris_"):
        yield f"{prefix}text_model_{layer}".replace(".", "_")


def second_text_names(layer: str) -> Iterable[str]:
    """How files call a layer of SDXL's second text encoder, named without `text_model.`."""
    if layer == "text_projection":
        yield from ("text_encoder_2.text_projection", "text_encoders.clip_g.transformer.text_projection")
        yield "lora_te2_text_projection"
        return
    for one in _spelled(layer):
        yield from (f"text_encoder_2.text_model.{one}", f"text_encoders.clip_g.transformer.text_model.{one}")
        yield f"text_encoder_2.{one}"
    yield f"lora_te2_text_model_{layer}".replace(".", "_")


def _spelled(layer: str) -> list[str]:
    """The layer as it is called now, and as older versions of diffusers did."""
    spelled = [layer]
    for end, old in _TEXT_PROCESSED.items():
        if layer.endswith(".self_attn." + end):
            spelled.append(layer[: -len(end)] + old)
    return spelled
