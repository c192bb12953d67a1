"""Autoencoders by themselves: the names in their files, in the single-file layout's terms. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import layout
from .families import Misfit, Shapes

__all__ = ["TAESD_PREFIXES", "diffusers_vae_names", "taesd_decoder", "taesd_name", "vae_names", "vae_prefix"]

_PREFIXES = ("", layout.VAE_PREFIX, "vae.")
_DIFFUSERS = "decoder.up_blocks.0.resnets.0.norm1.weight"
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""What diffusers called the parts of the autoencoder's attention before 0.18."""


def vae_prefix(shapes: Shapes) -> str | None:
    """What the names of a KL autoencoder begin with in a file; None where there is none."""
    for prefix in _PREFIXES:
        if f"{prefix}decoder.conv_in.weight" in shapes and f"{prefix}encoder.conv_in.weight" in shapes:
            return prefix
    return None


def vae_names(shapes: Shapes) -> dict[str, str]:
    """Name in the single-file layout, without prefix -> name in this file, whichever of the two layouts it has.

    Raises Misfit where there is no autoencoder, or something else stands among its names.
    """
    prefix = vae_prefix(shapes)
    if prefix is None:
        raise Misfit("no autoencoder")
    bare = {name.removeprefix(prefix): name for name in shapes if name.startswith(prefix)}
    kept = {own: name for own, name in bare.items() if not any(part in own for part in layout.LEFT_BEHIND)}
    if prefix + _DIFFUSERS not in shapes:
        return kept
    to_file = diffusers_vae_names({own: shapes[name] for own, name in kept.items()})
    try:
        return {to_file(own): name for own, name in kept.items()}
    except KeyError as error:
        raise Misfit(f"a tensor that no autoencoder has ({str(error)[:80]})") from None


def diffusers_vae_names(shapes: Shapes) -> Callable[[str], str]:
    """A function from diffusers' names of this autoencoder, older ones too, to those of the single-file layout."""
    levels = 0
    while f"encoder.down_blocks.{levels}.resnets.0.conv1.weight" in shapes:
        levels += 1

    def to_file(name: str) -> str:
        for old, new in _OLD_ATTENTION.items():
            name = name.replace(old, new)
        return layout.vae_to_file(name, levels=levels)

    return to_file


TAESD_PREFIXES: Mapping[str, int] = {"": 0, "taesd_decoder.": 0, "decoder.layers.": 1}
"""How the names of TAESD's decoder begin -> by how much its layers are counted less: diffusers leaves out the first."""


def taesd_decoder(shapes: Shapes) -> str | None:
    """What the names of a TAESD decoder begin with in a file; None where there is none."""
    for prefix, less in TAESD_PREFIXES.items():
        first, last = shapes.get(f"{prefix}{1 - less}.weight"), shapes.get(f"{prefix}{19 - less}.weight")
        if first is None or last is None or f"{prefix}{3 - less}.conv.0.weight" not in shapes:
            continue
        if len(first) == len(last) == 4 and last[0] == 3:
            return prefix
    return None


def taesd_name(name: str, prefix: str) -> str:
    """Name in the file of diffusers' `layers.N...` of the decoder."""
    _, number, rest = name.split(".", 2)
    return f"{prefix}{int(number) + 1 - TAESD_PREFIXES[prefix]}.{rest}"
