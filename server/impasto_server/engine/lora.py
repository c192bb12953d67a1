"""LoRA files: their tensors by layer, and the layers of a loaded checkpoint that their names mean.

Three programs named the layers of the same network: kohya's scripts with underscores (after diffusers' or after the
single-file names), diffusers and PEFT with dots, older diffusers by attention processors. Every name in a file must
mean a layer of the checkpoint and fit it; one that does not is an error that says what is needed and what there is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from impasto_protocol.errors import ModelError
from torch import nn

from .layout import UNET_PREFIX
from .lora_kinds import Misfit, Parts, check, kind_of
from .lora_names import BUNDLED, second_text_names, split_key, text_names, unet_names
from .modelfile import header_of, open_model
from .modelpath import PICKLES, model_name, stamp_of
from .rules import lora as lora_rule

__all__ = ["Change", "LayerNames", "LoraFile", "fit", "lora_hash", "read_lora"]

TEXT, TEXT_2, UNET = "text_encoder", "text_encoder_2", "unet"


@dataclass(frozen=True)
class LoraFile:
    """A LoRA as it lies in its file: the tensors of each layer by the layer's name there, views of the mapped file.

    `bundled` are the embeddings in it: name -> tensors by name. `family` is "" where the file does not tell.
    `identity` is that of the file's state.
    """

    name: str
    identity: Hashable
    layers: Mapping[str, Parts]
    bundled: Mapping[str, Mapping[str, torch.Tensor]]
    family: str = ""


@dataclass(frozen=True)
class Change:
    """What a file does to one layer: `part` is "unet", "text_encoder" or "text_encoder_2", `layer` the module's name.

    `channels` is how many input channels of the layer it knows, 0 for all.
    """

    part: str
    layer: str
    parts: Parts
    channels: int = 0


def read_lora(path: str | Path) -> LoraFile:
    """Read a LoRA's names; its numbers stay in the mapped file until they are used.

    Raises ModelError: `model.unknown`, `model.corrupt`, `model.unsafe`, and `model.unsupported` for a file that holds
    something else or a kind of change that is not known.
    """
    path = Path(path)
    name = model_name(path)
    try:
        identity = (str(path.resolve()), *stamp_of(path))
    except OSError as error:
        raise ModelError(
            "model.unknown",
            f"The LoRA {path.name} cannot be opened: {error.strerror or error}.",
            data={"file": path.name},
        ) from error
    header = header_of(path)
    found = lora_rule(header.shapes)
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    keys: dict[str, list[str]] = {}
    bundled: dict[str, dict[str, torch.Tensor]] = {}
    foreign = []
    with open_model(path) as file:
        names = file.keys()
        for key in names:
            if key.startswith(BUNDLED):
                embedding, _, inner = key[len(BUNDLED) :].partition(".")
                bundled.setdefault(embedding, {})[inner] = file.get_tensor(key)
                continue
            layer, role = split_key(key)
            if not role or role in tensors.get(layer, {}):
                foreign.append(key)
                continue
            tensors.setdefault(layer, {})[role] = file.get_tensor(key)
            keys.setdefault(layer, []).append(key)
    if foreign:
        raise _unsupported(name, f"holds {_some(foreign)}, which belongs to no kind of LoRA that is known")
    alphas = _peft_alphas(header.metadata)
    layers = {}
    for layer, roles in tensors.items():
        layers[layer] = _parts(name, layer, roles, tuple(keys[layer]), alphas)
    if not layers and not bundled:
        raise _unsupported(name, "is empty")
    return LoraFile(name, identity, layers, bundled, found.family if found is not None else "")


def _parts(
    name: str, layer: str, roles: dict[str, torch.Tensor], keys: tuple[str, ...], alphas: Mapping[str, Any]
) -> Parts:
    alpha, on_input = roles.pop("alpha", None), roles.pop("on_input", None)
    if alpha is not None and alpha.numel() != 1:
        raise _unsupported(name, f"is damaged: {layer}.alpha is not one number")
    value = float(alpha) if alpha is not None else None
    if value is None and alphas and "down" in roles:
        value = _peft_alpha(layer, roles["down"].shape[0], alphas)
    parts = Parts(roles, value, bool(on_input.flatten()[0]) if on_input is not None else False, keys)
    if (
        (on_input is not None) != ("weight" in roles)
        or kind_of(parts) is None
        or not all(value.is_floating_point() for value in roles.values())
    ):
        raise _unsupported(name, f"is not complete or of an unknown kind: of {layer} it holds {_some(sorted(keys))}")
    return parts


def _peft_alphas(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    """PEFT's settings, which newer versions of diffusers write into the file: "unet.lora_alpha", ..."""
    try:
        said = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _peft_alpha(layer: str, rank: int, said: Mapping[str, Any]) -> float | None:
    part, _, path = layer.partition(".")
    alpha: Any = said.get(f"{part}.lora_alpha")
    patterns: Any = said.get(f"{part}.alpha_pattern")
    if isinstance(patterns, dict):
        alpha = next((value for end, value in patterns.items() if path == end or path.endswith("." + end)), alpha)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        return None
    return alpha * rank**0.5 if said.get(f"{part}.use_rslora") is True else float(alpha)


class LayerNames:
    """All names by which files mean the layers of a UNet and of CLIP's text encoders, one or two."""

    def __init__(
        self,
        unet: nn.Module,
        text_encoder: nn.Module,
        to_file: Callable[[str], str],
        text_encoder_2: nn.Module | None = None,
    ) -> None:
        """`to_file` gives for a parameter's name in the UNet that in the single-file layout."""
        self._names: dict[str, tuple[str, str]] = {}
        for layer in _layers(unet):
            for name in unet_names(layer, _in_file(layer, unet, to_file)):
                self._names[name] = (UNET, layer)
        for layer in _layers(text_encoder):
            for name in text_names(layer.removeprefix("text_model.")):
                self._names[name] = (TEXT, layer)
        for layer in _layers(text_encoder_2) if text_encoder_2 is not None else ():
            for name in second_text_names(layer.removeprefix("text_model.")):
                self._names[name] = (TEXT_2, layer)

    def get(self, name: str) -> tuple[str, str] | None:
        """("unet", "text_encoder" or "text_encoder_2", the module's name in it)."""
        return self._names.get(name)


def _layers(module: nn.Module) -> list[str]:
    return [name for name, inner in module.named_modules() if any(True for _ in inner.parameters(recurse=False))]


def _in_file(layer: str, unet: nn.Module, to_file: Callable[[str], str]) -> str:
    leaf = next(name for name, _ in unet.get_submodule(layer).named_parameters(recurse=False))
    return to_file(f"{layer}.{leaf}").rpartition(".")[0].removeprefix(UNET_PREFIX)


def fit(
    file: LoraFile, names: LayerNames, parts: Mapping[str, nn.Module], *, checkpoint: str, family: str
) -> tuple[Change, ...]:
    """What the file does to the layers of a checkpoint; `parts` are its modules, "unet" and its text encoders.

    Raises ModelError `model.unsupported` with `data["need"]` and `data["got"]` for a file of another family, a name
    that means no layer, and a shape that fits none.
    """
    if file.family and file.family != family:
        raise ModelError(
            "model.unsupported",
            f"The LoRA {file.name!r} is for {file.family}, the checkpoint {checkpoint!r} is {family}; choose a LoRA "
            f"for {family}, or a checkpoint of {file.family}.",
            data={"model": file.name, "need": family, "got": file.family},
        )
    foreign = [key for layer, held in file.layers.items() if names.get(layer) is None for key in held.keys]
    if foreign:
        count = sum(len(held.keys) for held in file.layers.values())
        raise ModelError(
            "model.unsupported",
            f"The LoRA {file.name!r} does not fit the checkpoint {checkpoint!r}: {len(foreign)} of its {count} tensors "
            f"are for layers that {family} does not have ({_some(foreign)}).",
            data={"model": file.name, "need": family, "got": foreign[0]},
        )
    changes = []
    for layer, held in file.layers.items():
        found = names.get(layer)
        assert found is not None
        module = parts[found[0]].get_submodule(found[1])
        weight, bias = _shape(module, "weight"), _shape(module, "bias")
        channels = 0
        try:
            check(held, weight or (), bias)
        except Misfit as error:
            channels = _fewer_channels(found[1], held, weight, bias)
            if not channels:
                raise ModelError(
                    "model.unsupported",
                    f"The LoRA {file.name!r} was made for a checkpoint of another size than {checkpoint!r}: its "
                    f"{layer} is {error}.",
                    data={"model": file.name, "need": list(weight or ()), "got": str(error)},
                ) from None
        changes.append(Change(*found, held, channels))
    return tuple(changes)


LATENT_CHANNELS = 4


def _fewer_channels(layer: str, held: Parts, weight: tuple[int, ...] | None, bias: tuple[int, ...] | None) -> int:
    """4 where a LoRA of an ordinary checkpoint meets the first layer of an inpainting one, whose further input channels
    (mask and masked picture) it does not know; else 0."""
    if layer != "conv_in" or weight is None or weight[1] <= LATENT_CHANNELS:
        return 0
    try:
        check(held, (weight[0], LATENT_CHANNELS, *weight[2:]), bias)
    except Misfit:
        return 0
    return LATENT_CHANNELS


def _shape(module: nn.Module, leaf: str) -> tuple[int, ...] | None:
    found = getattr(module, leaf, None)
    return tuple(found.shape) if isinstance(found, torch.Tensor) else None


def lora_hash(path: str | Path) -> str:
    """The 12 digits by which AUTOMATIC1111 names a LoRA: of the sha256 of the file, of safetensors without the header.

    Reads the whole file where its metadata do not hold the number, as kohya's scripts write it.
    """
    said = header_of(path).metadata.get("sshs_model_hash", "")
    if re.fullmatch(r"[0-9a-f]{64}", said):
        return said[:12]
    with open(path, "rb") as file:
        if Path(path).suffix.lower() not in PICKLES:
            length = int.from_bytes(file.read(8), "little")
            file.seek(8 + length)
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _unsupported(name: str, reason: str) -> ModelError:
    return ModelError(
        "model.unsupported", f"The LoRA {name!r} cannot be used: it {reason}.", data={"model": name, "reason": reason}
    )


def _some(keys: list[str]) -> str:
    shown = ", ".join(key[:100] for key in keys[:3])
    return f"{shown} and {len(keys) - 3} more" if len(keys) > 3 else shown
