"""VAEs in files of their own, and TAESD: loaded beside a checkpoint, in place of its own.

TAESD (github.com/madebyollin/taesd) is a small decoder of the same latents: good for previews, quick and a little soft
for results. Only its decoder is used; pictures are always encoded by a whole VAE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from impasto_protocol.errors import ModelError

from . import layout
from .checkpoint import Tensors
from .identify import ModelInfo, Unknown, identify_file
from .load import Components, Filler, refused
from .modelfile import header_of, open_model
from .vae_layout import taesd_decoder, taesd_name, vae_names

__all__ = ["LoadedVae", "load_vae", "with_vae"]


@dataclass(frozen=True, eq=False)
class LoadedVae:
    """diffusers' autoencoder, or with `tiny` TAESD's decoder, in eval mode. `latent_channels`, and `factor` pixels by
    latent pixel on each side, are what it reads; `scale` is what its file says of its latents, 0 for nothing."""

    name: str
    module: Any
    latent_channels: int
    factor: int
    scale: float = 0.0
    tiny: bool = False

    @property
    def size_bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(value.numel() * value.element_size() for value in self.module.parameters())


def load_vae(path: Path, *, device: torch.device, dtype: torch.dtype) -> LoadedVae:
    """Load a VAE: of a file of its own in either layout, the one inside a checkpoint, or TAESD's decoder.

    Raises ModelError as `load_checkpoint` does.
    """
    info = identify_file(path)
    if isinstance(info, Unknown):
        raise refused(path, info)
    if info.kind == "taesd" and info.variant == "decoder":
        return _tiny(path, device, dtype)
    if info.config is None or "vae" not in info.config:
        raise ModelError(
            "model.unsupported",
            f"{path.name} is {info.described}; a VAE, a TAESD decoder or a checkpoint is needed here.",
            data={"file": path.name, "kind": info.kind, "family": info.family},
        )
    return _kl(path, info, device, dtype)


def _kl(path: Path, info: ModelInfo, device: torch.device, dtype: torch.dtype) -> LoadedVae:
    from diffusers import AutoencoderKL

    assert info.config is not None
    config = info.config["vae"]
    with torch.device("meta"):
        module = AutoencoderKL(**config)
    levels = len(config["block_out_channels"])
    names = vae_names(header_of(path).shapes)
    with open_model(path) as tensors:
        filler = Filler(path, _Renamed(tensors, names), device, what="VAE")
        filler.fill(module, "", lambda name: layout.vae_to_file(name, levels=levels), dtype)
    scale = info.vae_scaling_factor
    return LoadedVae(path.stem, module, config["latent_channels"], 2 ** (levels - 1), scale)


def _tiny(path: Path, device: torch.device, dtype: torch.dtype) -> LoadedVae:
    from diffusers.models.autoencoders.vae import DecoderTiny

    shapes = header_of(path).shapes
    prefix = taesd_decoder(shapes)
    assert prefix is not None
    own = {name for name in shapes if name.startswith(prefix)}
    names = {name: taesd_name(name, prefix) for name in _tiny_names(own, prefix)}
    width, channels = shapes[names["layers.0.weight"]][:2]
    with torch.device("meta"):
        module = DecoderTiny(
            in_channels=channels,
            out_channels=3,
            num_blocks=(3, 3, 3, 1),
            block_out_channels=(width,) * 4,
            upsampling_scaling_factor=2,
            act_fn="relu",
            upsample_fn="nearest",
        )
    with open_model(path) as tensors:
        filler = Filler(path, _Renamed(tensors, names), device, what="TAESD decoder")
        filler.fill(module, "", lambda name: name, dtype)
    return LoadedVae(path.stem, module, channels, 8, tiny=True)


def _tiny_names(own: set[str], prefix: str) -> list[str]:
    """diffusers' names of the tensors that are there."""
    less = 0 if taesd_name("layers.0.weight", prefix) == f"{prefix}0.weight" else 1
    found = (name.removeprefix(prefix).split(".", 1) for name in own)
    return [f"layers.{int(number) - less}.{rest}" for number, rest in found if number.isdecimal()]


def with_vae(components: Components, loaded: LoadedVae) -> Components:
    """The components with another VAE; they share everything else.

    Raises ModelError `model.unsupported` with `need` and `got` for one of other latents.
    """
    need = (components.unet.config.out_channels, components.latent_factor)
    got = (loaded.latent_channels, loaded.factor)
    scale = components.info.vae_scaling_factor
    if need != got or (loaded.scale and abs(loaded.scale - scale) > 1e-6):
        asked, there = (_latents(*pair) for pair in ((*need, scale), (*got, loaded.scale)))
        raise ModelError(
            "model.unsupported",
            f"The VAE {loaded.name!r} is for {there}, the checkpoint {components.source.path.stem!r} has {asked}; "
            "choose another VAE, or vae none.",
            path="params.vae",
            data={"model": loaded.name, "need": asked, "got": there},
        )
    return replace(components, **{"decoder" if loaded.tiny else "vae": loaded.module})


def _latents(channels: int, factor: int, scale: float) -> str:
    return f"latents of {channels} channels at 1/{factor}" + (f" and scale {scale:g}" if scale else "")


class _Renamed:
    """The tensors of an open file by other names."""

    def __init__(self, tensors: Tensors, names: Mapping[str, str]) -> None:
        self._tensors, self._names = tensors, names

    def keys(self) -> list[str]:
        return list(self._names)

    def get_tensor(self, name: str) -> torch.Tensor:
        return self._tensors.get_tensor(self._names[name])
