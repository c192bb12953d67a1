"""A checkpoint, file or folder -> network modules, without a hub: built on the meta device, filled from the mapping.

diffusers and transformers are imported when the first checkpoint is loaded, not before: that costs seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from impasto_protocol.errors import InternalError, ModelError
from torch import nn

from . import layout
from .checkpoint import Tensors, unreadable
from .families import FAMILIES, Family
from .identify import ModelInfo, Unknown, identify_file, identify_header
from .joined import Parts, join
from .modelfile import open_model, open_sources
from .modelpath import stamp_of
from .openclip import OpenClip
from .tokenizer import Tokenizer, load_tokenizer

__all__ = ["Components", "Filler", "Source", "load_checkpoint", "open_pristine", "refused"]


@dataclass(frozen=True)
class Source:
    """Where components came from: the file or folder, the states then of all files, and for the names "unet",
    "text_encoder" and "text_encoder_2" of the parts what their parameters are called in the single-file layout, with
    its prefix. `sources` say in which file a name lies and what it is called there, where the parts come from several.
    """

    path: Path
    stamps: Mapping[Path, tuple[int, int]]
    to_file: Mapping[str, Callable[[str], str]]
    sources: Mapping[str, tuple[Path, str]] | None = None

    @contextmanager
    def open(self) -> Iterator[Tensors]:
        """The tensors by the names of the single-file layout, those of a second text encoder by transformers'."""
        with open_model(self.path) if self.sources is None else open_sources(self.sources) as tensors:
            yield OpenClip(tensors) if "text_encoder_2" in self.to_file else tensors


@dataclass(frozen=True, eq=False)
class Components:
    """A loaded checkpoint: diffusers' UNet and autoencoder, transformers' CLIP text encoder, all in eval mode.

    `unet` is on `device` in `dtype`; so is the VAE, except in fp32 where its family's gives no numbers in fp16; the
    text encoders are, too, except on the CPU, where they stay fp32 (they run once a prompt). `text_encoder_2` is
    SDXL's second one, with the projection of the pooled text; None for others. Parameters on the CPU may be views of
    the mapped file: replace them, never write to them. `identity` is equal for components of the same file in the same
    precision on the same device.
    """

    info: ModelInfo
    family: Family
    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Tokenizer
    identity: Hashable
    device: torch.device
    dtype: torch.dtype
    source: Source
    text_encoder_2: Any = None
    decoder: Any = None
    """What makes pictures of latents where that is not the VAE: TAESD's (`vae_files`)."""

    @property
    def latent_factor(self) -> int:
        """Pixels a side for one latent: 8 in all original models."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def size_bytes(self) -> int:
        """Bytes of all parameters and buffers."""
        second = () if self.text_encoder_2 is None else (self.text_encoder_2,)
        modules: tuple[nn.Module, ...] = (self.unet, self.vae, self.text_encoder, *second)
        return sum(
            tensor.numel() * tensor.element_size()
            for module in modules
            for tensor in (*module.parameters(), *module.buffers())
        )


def load_checkpoint(
    path: str | Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    text: Path | None = None,
    vae: Path | None = None,
) -> Components:
    """Load a whole checkpoint (UNet, VAE, text encoder) from a single file or a diffusers folder; asks no network.

    `text` and `vae` are files from which those parts come instead, as they must for a UNet by itself. Raises
    ModelError: `model.unknown` (no such file), `model.corrupt` (damaged, or tensors missing, too many or of the wrong
    shape), `model.unidentified`, `model.unsupported` (it is something else, or a family not loaded yet),
    `model.unsafe` (a pickle that wants to run code; `data["global"]` names it).
    """
    parts = Parts(Path(path), text, vae)
    path, sources = parts.unet, None
    stamps = {file: _stamp(file) for file in parts.files}
    if len(parts.files) == 1:
        info = identify_file(path)
    else:
        whole = join(parts)
        info, sources = identify_header(whole.header, whole.facts), whole.sources
    if isinstance(info, Unknown):
        raise refused(path, info)
    family = FAMILIES.get(info.family)
    if info.kind != "checkpoint" or family is None or info.config is None:
        named = info.kind == "checkpoint" and family is not None
        how = " in a single file that has all of it" if named else ""
        raise ModelError(
            "model.unsupported",
            f"{path.name} is {info.described}; a checkpoint of {_supported()}{how} is needed here.",
            data={"file": path.name, "kind": info.kind, "family": info.family},
        )
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config, second = info.config, None
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config["unet"])
        autoencoder = AutoencoderKL(**config["vae"])
        text_encoder = CLIPTextModel(CLIPTextConfig(**config["text"]))
        if "text_2" in config:
            second = CLIPTextModelWithProjection(CLIPTextConfig(**config["text_2"]))
    attention = tuple("CrossAttn" in name for name in config["unet"]["down_block_types"])
    layers, levels = config["unet"]["layers_per_block"], len(config["vae"]["block_out_channels"])

    def unet_name(name: str) -> str:
        return layout.UNET_PREFIX + layout.unet_to_file(name, layers_per_block=layers, attention=attention)

    def text_name(name: str) -> str:
        return text_prefix + layout.text_to_file(name, nested=nested)

    def text_2_name(name: str) -> str:
        return layout.XL_TEXT_2_PREFIX + name

    def vae_name(name: str) -> str:
        return layout.VAE_PREFIX + layout.vae_to_file(name, levels=levels)

    to_file: dict[str, Callable[[str], str]] = {"unet": unet_name, "text_encoder": text_name}
    if second is not None:
        to_file["text_encoder_2"] = text_2_name
    source = Source(path, stamps, to_file, sources)
    text_prefix = layout.TEXT_PREFIX if second is None else layout.XL_TEXT_PREFIX
    with source.open() as tensors:
        filler = Filler(path, tensors, device)
        nested = f"{text_prefix}text_model.final_layer_norm.weight" in filler.names
        filler.fill(unet, layout.UNET_PREFIX, unet_name, dtype)
        vae_dtype = torch.float32 if family.vae_overflows and dtype == torch.float16 else dtype
        filler.fill(autoencoder, layout.VAE_PREFIX, vae_name, vae_dtype)
        text_dtype = torch.float32 if device.type == "cpu" else dtype
        filler.fill(text_encoder, text_prefix, text_name, text_dtype)
        if second is not None:
            filler.fill(second, layout.XL_TEXT_2_PREFIX, text_2_name, text_dtype)
    return Components(
        info,
        family,
        unet,
        autoencoder,
        text_encoder,
        load_tokenizer(),
        identity=(*((str(file.resolve()), *stamp) for file, stamp in stamps.items()), str(device), str(dtype)),
        device=device,
        dtype=dtype,
        source=source,
        text_encoder_2=second,
    )


@contextmanager
def open_pristine(components: Components) -> Iterator[Callable[[str, str, bool], torch.Tensor]]:
    """Open the file again: `read(part, name, cast)` gives the parameter `name` of "unet", "text_encoder" or
    "text_encoder_2".

    With `cast` to the last bit what `load_checkpoint` put there, on the CPU again a view of the mapping where it was
    one; without, in the format of the file, never to be written to. Raises ModelError `model.unknown` where the file
    has changed since, and what `open_model` raises.
    """
    source = components.source
    for file, stamp in source.stamps.items():
        try:
            same = stamp_of(file) == stamp
        except OSError:
            same = False
        if not same:
            raise ModelError(
                "model.unknown",
                f"The checkpoint {file.name} was changed or removed while it was in use; run the job again.",
                retryable=True,
                data={"file": file.name},
            )
    with source.open() as tensors:
        filler = Filler(source.path, tensors, components.device)

        def read(part: str, name: str, cast: bool) -> torch.Tensor:
            held: torch.Tensor = getattr(components, part).get_parameter(name)
            return filler.tensor(source.to_file[part](name), held.shape, held.dtype if cast else None)

        yield read


def _stamp(path: Path) -> tuple[int, int]:
    try:
        return stamp_of(path)
    except OSError as error:
        raise unreadable(path, error) from error


def _supported() -> str:
    return ", ".join(family.title for family in FAMILIES.values())


def refused(path: Path, found: Unknown) -> ModelError:
    """The error for a file that could not be identified."""
    message = found.reason if path.name in found.reason else f"{path.name}: {found.reason}"
    return ModelError(found.code, message, data={"file": path.name, **found.data})


class Filler:
    """Fills modules from one open file; `what` names the kind of file in errors."""

    def __init__(self, path: Path, tensors: Tensors, device: torch.device, what: str = "checkpoint") -> None:
        self.path = path
        self.what = what
        self.tensors = tensors
        self.device = device
        self.names = set(tensors.keys())

    def fill(self, module: nn.Module, prefix: str, to_file: Callable[[str], str], dtype: torch.dtype) -> None:
        """Give every parameter of `module` its tensor from the file, cast one by one, and make it ready to run."""
        expected: dict[str, torch.Tensor] = module.state_dict()
        sources = {name: to_file(name) for name in expected}
        self._compare(set(sources.values()), prefix)
        state: dict[str, torch.Tensor] = {}
        for name, source in sources.items():
            state[name] = self.tensor(source, expected[name].shape, dtype)
        module.load_state_dict(state, strict=True, assign=True)
        _refill_positions(module, self.device)
        module.eval().requires_grad_(False)
        left = [name for name, value in (*module.named_parameters(), *module.named_buffers()) if value.is_meta]
        if left:
            raise InternalError("internal.failure", f"{type(module).__name__} was left without {left[0]}.")

    def tensor(self, source: str, wanted: torch.Size, dtype: torch.dtype | None) -> torch.Tensor:
        """The tensor called `source` in the file, of the shape `wanted`, on the device, cast to `dtype` if one is
        given."""
        tensor = self.tensors.get_tensor(source)
        if tensor.dim() == 4 and len(wanted) == 2 and tensor.shape[2:] == (1, 1):
            tensor = tensor[:, :, 0, 0]  # 1 x 1 convolutions of the file that are linear layers here
        if tensor.shape != wanted or not tensor.is_floating_point():
            raise self._corrupt(
                f"{source} is {tuple(tensor.shape)} {tensor.dtype} where {tuple(wanted)} numbers belong"
            )
        return tensor.to(self.device, dtype) if dtype is not None else tensor.to(self.device)

    def _compare(self, wanted: set[str], prefix: str) -> None:
        missing = sorted(wanted - self.names)
        found = {name for name in self.names if name.startswith(prefix)}
        surplus = sorted(name for name in found - wanted if not any(part in name for part in layout.LEFT_BEHIND))
        if missing or surplus:
            parts = []
            if missing:
                parts.append(f"{len(missing)} tensors are missing ({', '.join(missing[:3])})")
            if surplus:
                parts.append(f"{len(surplus)} do not belong there ({', '.join(surplus[:3])})")
            raise self._corrupt(" and ".join(parts))

    def _corrupt(self, reason: str) -> ModelError:
        return ModelError(
            "model.corrupt",
            f"{self.path.name} is not a complete {self.what}: {reason}. Download or convert it again.",
            data={"file": self.path.name},
        )


def _refill_positions(module: nn.Module, device: torch.device) -> None:
    """CLIP keeps 0, 1, 2, ... in a buffer that no file carries; left on meta, the output is wrong without an error."""
    for part in module.modules():
        held = part._buffers.get("position_ids")
        if held is not None:
            part._buffers["position_ids"] = torch.arange(held.shape[-1], device=device)[None]
