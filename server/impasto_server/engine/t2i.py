"""T2I-Adapters: a small network that reads the hint once and adds to the blocks of the network's way down.

Mou et al., "T2I-Adapter: learning adapters to dig out more controllable ability for text-to-image diffusion models",
2023. Full and light ones, in the original and in diffusers' layout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from impasto_protocol.errors import ModelError
from torch import nn

from .adapters import NetworkCall, Step
from .coverage import masked
from .jobs import ControlUnit
from .load import Components, Filler
from .memory import placed
from .modelfile import open_model

__all__ = ["SOFT_WEIGHTS", "T2IAdapter", "is_t2i", "load_t2i", "t2i_to_file"]

SOFT_WEIGHTS = (0.25, 0.62, 0.825, 1.0)
"""A1111's weights of the four injections where the prompt or the control is to lead."""

FACTOR = 8
"""Pixels by which the hint is unshuffled: those of a latent."""

_NAME = re.compile(r"body\.(\d+)\.resnets\.(\d+)\.(.+)")


def is_t2i(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether these are the tensors of a T2I-Adapter of SD 1.x; the style adapters are none."""
    names = {name.removeprefix("adapter.") for name in shapes}
    return ("conv_in.weight" in names or "body.0.in_conv.weight" in names) and any(
        re.fullmatch(r"body\.0\.(resnets\.0\.|body\.0\.)?block1\.weight", name) for name in names
    )


def t2i_to_file(name: str, *, light: bool, blocks: int) -> str:
    """The name in the original layout of the parameter `name` of diffusers' network, both without a prefix.

    The original counts the residual blocks of full adapters through; `blocks` of them make a level.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        if light or not name.endswith(("in_conv.weight", "in_conv.bias")):
            return name
        _, level, rest = name.split(".", 2)
        return f"body.{int(level) * blocks}.{rest}"
    at, block, rest = int(found[1]), int(found[2]), found[3]
    return f"body.{at}.body.{block}.{rest}" if light else f"body.{at * blocks + block}.{rest}"


def load_t2i(path: Path, shapes: Mapping[str, tuple[int, ...]], components: Components) -> Any:
    """The adapter at `path` for a checkpoint. Raises ModelError `model.unsupported` where it does not fit it, and as
    `load_controlnet` does."""
    from diffusers import T2IAdapter as Network

    prefix = "adapter." if any(name.startswith("adapter.") for name in shapes) else ""
    known = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    theirs = any(".resnets." in name for name in known)
    light = "body.0.in_conv.weight" in known and "conv_in.weight" not in known
    widths = tuple(components.unet.config.block_out_channels)
    first = known["body.0.in_conv.weight" if light else "conv_in.weight"]
    channels, rest = divmod(first[1], FACTOR**2)
    count = _levels(known, light, theirs, len(widths))
    # Full ones are of the blocks' widths; light ones end in them.
    got = known.get("body.0.out_conv.weight", (0,))[0] if light else first[0]
    fits = got == widths[0] and not (light and widths[-1] != widths[-2])
    if rest or channels not in (1, 3) or not fits or count == 0:
        need = f"one for a network of widths {list(widths)}"
        raise ModelError(
            "model.unsupported",
            f"The T2I-Adapter {path.name} does not fit the checkpoint: needed is {need}, this one begins with {got}. "
            "Choose one of the checkpoint's family.",
            data={"file": path.name, "need": need, "got": got},
        )
    with torch.device("meta"):
        network = Network(
            in_channels=channels,
            # diffusers' light ones have the last width once more by themselves.
            channels=widths[:-1] if light else widths,
            num_res_blocks=count,
            downscale_factor=FACTOR,
            adapter_type="light_adapter" if light else "full_adapter",
        )

    def name_of(name: str) -> str:
        bare = name.removeprefix("adapter.")
        return prefix + (bare if theirs else t2i_to_file(bare, light=light, blocks=count))

    with open_model(path) as tensors:
        filler = Filler(path, tensors, components.device, what="T2I-Adapter")
        filler.fill(network, prefix, name_of, components.dtype)
    return network


def _levels(names: Mapping[str, Any], light: bool, theirs: bool, levels: int) -> int:
    """How many residual blocks a level has; 0 where they cannot be dealt out evenly."""
    form = r"body\.\d+\.(resnets|body)\.\d+\.block1\.weight" if light or theirs else r"body\.\d+\.block1\.weight"
    blocks = sum(1 for name in names if re.fullmatch(form, name))
    return blocks // levels if blocks and blocks % levels == 0 else 0


class T2IAdapter:
    """One unit at work. What it adds does not depend on the step, so the network runs once."""

    def __init__(self, network: Any, unit: ControlUnit, hint: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        self.network, self.unit, self.hint, self.mask = network, unit, hint, mask
        self._added: tuple[torch.Tensor, ...] | None = None

    def attach(self, network: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def prepare(self, call: NetworkCall, step: Step) -> None:
        unit = self.unit
        if unit.weight == 0 or not unit.start <= step.fraction <= unit.end:
            return
        rows = [i for i, label in enumerate(call.rows) if label.kind == "cond" or unit.mode != "control"]
        if not rows:
            return
        added = self._features()
        soft = unit.mode != "balanced"
        weights = [unit.weight * (SOFT_WEIGHTS[i % len(SOFT_WEIGHTS)] if soft else 1.0) for i in range(len(added))]
        spread = tuple(_to_rows(a * w, rows, len(call.rows)) for a, w in zip(added, weights, strict=True))
        before = call.down_intrablock
        call.down_intrablock = spread if before is None else tuple(a + b for a, b in zip(before, spread, strict=True))

    def extra_pass(self, call: NetworkCall, step: Step) -> NetworkCall | None:
        return None

    def _features(self) -> tuple[torch.Tensor, ...]:
        if self._added is None:
            device, dtype = placed(self.network)
            hint = self.hint
            if self.network.config.in_channels == 1:
                hint = hint.mean(1, keepdim=True)
            self._added = tuple(masked(a, self.mask) for a in self.network(hint.to(device, dtype)))
        return self._added


def _to_rows(value: torch.Tensor, rows: list[int], count: int) -> torch.Tensor:
    whole = value.new_zeros(count, *value.shape[1:])
    whole[rows] = value
    return whole
