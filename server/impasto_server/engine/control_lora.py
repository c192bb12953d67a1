"""Control-LoRAs: ControlNets that say of each weight how it differs from the checkpoint's own, by two thin matrices.

Files have the names of the single-file layout, `.up` and `.down` in place of `.weight` (weight = base + up x down), the
marker `lora_controlnet`, and whole what the checkpoint has no counterpart of: the hint block and the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from impasto_protocol.errors import ModelError

from .load import Components, Filler, open_pristine

__all__ = ["MARKER", "fill_control_lora", "is_control_lora"]

MARKER = "lora_controlnet"


def is_control_lora(names: Collection[str]) -> bool:
    """By the names of the tensors."""
    return any(name in names for name in (MARKER, f"control_model.{MARKER}"))


def fill_control_lora(filler: Filler, network: Any, to_file: Callable[[str], str], components: Components) -> None:
    """Give every parameter of `network` its tensor, of the file, of the checkpoint, or of both.

    Raises ModelError `model.corrupt` for a file with tensors missing, too many or of a wrong shape, and
    `model.unsupported` for a checkpoint whose first layer has further inputs.
    """
    names = filler.names - {name for name in filler.names if name.endswith(MARKER)}
    shared = {name: tuple(value.shape) for name, value in components.unet.named_parameters()}
    state: dict[str, torch.Tensor] = {}
    used: set[str] = set()
    with open_pristine(components) as read:
        for name, wanted in network.state_dict().items():
            source, shape = to_file(name), tuple(wanted.shape)
            stem = source.removesuffix(".weight")
            thin = (stem + ".up", stem + ".down") if source.endswith(".weight") else ()
            if source in names:
                state[name] = filler.tensor(source, wanted.shape, components.dtype)
                used.add(source)
                continue
            if name not in shared:
                raise _corrupt(filler.path, f"{source} is missing")
            if shared[name] != shape:
                raise ModelError(
                    "model.unsupported",
                    f"The control-LoRA {filler.path.name} builds on a checkpoint that sees noise alone, this one has "
                    "further inputs; choose a whole ControlNet, or an ordinary checkpoint.",
                    data={"file": filler.path.name, "need": f"{name} {shape}", "got": f"{shared[name]}"},
                )
            base = read("unet", name, True).to(filler.device)
            if thin and set(thin) <= names:
                up, down = (filler.tensors.get_tensor(part).to(filler.device) for part in thin)
                base = _added(base, up, down, filler.path, stem)
                used.update(thin)
            state[name] = base
    surplus = sorted(names - used)
    if surplus:
        raise _corrupt(filler.path, f"{len(surplus)} tensors do not belong there ({', '.join(surplus[:3])})")
    network.load_state_dict(state, strict=True, assign=True)
    network.eval().requires_grad_(False)


def _added(base: torch.Tensor, up: torch.Tensor, down: torch.Tensor, path: Path, stem: str) -> torch.Tensor:
    wide, thin = up.flatten(1).float(), down.flatten(1).float()
    if wide.shape[1] != thin.shape[0] or wide.shape[0] * thin.shape[1] != base.numel():
        raise _corrupt(
            path, f"{stem}.up {tuple(up.shape)} and .down {tuple(down.shape)} do not give {tuple(base.shape)}"
        )
    return (base.float() + (wide @ thin).reshape(base.shape)).to(base.dtype)


def _corrupt(path: Path, reason: str) -> ModelError:
    return ModelError(
        "model.corrupt",
        f"{path.name} is not a complete control-LoRA: {reason}. Download it again.",
        data={"file": path.name},
    )
