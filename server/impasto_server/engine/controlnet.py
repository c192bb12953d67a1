"""ControlNets: loading them beside a checkpoint, and their part in each call of its network.

Zhang, Rao, Agrawala, "Adding conditional control to text-to-image diffusion models", 2023. A copy of the network's way
down reads the noisy picture and the hint, and what it says is added to the skip connections of the network.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from impasto_protocol.errors import ModelError
from torch import nn

from .adapters import Adapter, NetworkCall, Step
from .control_layout import control_prefix, control_to_file, hint_widths
from .control_lora import fill_control_lora, is_control_lora
from .control_union import TYPE_NUMBERS, is_union, type_number, union_config
from .coverage import masked
from .jobs import ControlUnit, Job
from .load import Components, Filler, open_pristine
from .memory import placed
from .modelfile import header_of, open_model
from .modelpath import stamp_of
from .t2i import T2IAdapter, is_t2i, load_t2i

__all__ = ["ControlAdapter", "ControlModel", "Controls", "injection_weights", "load_controlnet"]

SOFT = 0.825
"""A1111's factor from one injection to the next shallower one where the prompt or the control is to lead."""


@dataclass(frozen=True, eq=False)
class ControlModel:
    """A loaded ControlNet, or with `t2i` a T2I-Adapter.

    `pooled`: what it says is the same everywhere, and said with the prompt only (shuffle). `types` is how many kinds of
    hints a union ControlNet tells apart, 0 for others.
    """

    network: Any
    path: Path
    pooled: bool = False
    t2i: bool = False
    kind: str = "controlnet"
    types: int = 0

    def adapter(self, unit: ControlUnit, hint: torch.Tensor, mask: torch.Tensor | None = None) -> Adapter:
        """The network at work for one unit; `hint` and `mask` as `ControlAdapter` takes them."""
        return T2IAdapter(self.network, unit, hint, mask) if self.t2i else ControlAdapter(self, unit, hint, mask)

    @property
    def told(self) -> dict[str, Any]:
        """What it is, as plain values."""
        return {"kind": "t2i" if self.t2i else self.kind, **({"pooled": True} if self.pooled else {})}

    def told_of(self, unit: ControlUnit) -> dict[str, Any]:
        """What it is and, of a union one, as what it took the unit's hint."""
        if not self.types:
            return self.told
        number = type_number(unit, self.types)
        return {**self.told, "control_type": next(name for name, row in TYPE_NUMBERS.items() if row == number)}

    @property
    def size_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.network.parameters())


def load_controlnet(path: str | Path, components: Components, device: torch.device | None = None) -> ControlModel:
    """The ControlNet or T2I-Adapter at `path`, in the original or diffusers' layout, for a checkpoint; on `device`,
    None is that of the checkpoint.

    Also a control-LoRA. It is a copy of a part of the checkpoint's network, so heads, groups and widths are the
    checkpoint's. Raises ModelError `model.unsupported` where it was made for another network, with `need` and `got`,
    and `model.corrupt`, `model.unknown`, `model.unsafe` as `load_checkpoint` does.
    """
    from diffusers import ControlNetModel, ControlNetUnionModel

    path = Path(path)
    base, header = components.unet.config, header_of(path)
    shapes = {name: tuple(entry.shape) for name, entry in header.tensors.items()}
    if is_t2i(shapes):
        return ControlModel(load_t2i(path, shapes, components), path, t2i=True)
    prefix, thin, union = control_prefix(shapes), is_control_lora(shapes), is_union(shapes)
    if union and base.addition_embed_type != "text_time":
        raise _misfit(path, "a ControlNet for SD 1.x", "a union one for SDXL")
    try:
        channels, widths = hint_widths(shapes, prefix)
        more = union_config(shapes) if union else {}
    except KeyError as error:
        raise _misfit(path, "a hint block as ControlNets have it", f"none ({error.args[0]} is missing)") from error
    _check_width(path, shapes, prefix, int(base.cross_attention_dim), int(base.block_out_channels[0]))
    with torch.device("meta"):
        network = (ControlNetUnionModel if union else ControlNetModel)(
            in_channels=base.out_channels,
            conditioning_channels=channels,
            conditioning_embedding_out_channels=widths,
            block_out_channels=base.block_out_channels,
            down_block_types=base.down_block_types,
            layers_per_block=base.layers_per_block,
            transformer_layers_per_block=base.transformer_layers_per_block,
            cross_attention_dim=base.cross_attention_dim,
            attention_head_dim=base.attention_head_dim,
            norm_num_groups=base.norm_num_groups,
            use_linear_projection=base.use_linear_projection,
            addition_embed_type=base.addition_embed_type,
            addition_time_embed_dim=base.addition_time_embed_dim,
            projection_class_embeddings_input_dim=base.projection_class_embeddings_input_dim,
            **more,
        )
    attention = tuple("CrossAttn" in name for name in base.down_block_types)
    blocks = len(network.controlnet_cond_embedding.blocks)

    def name_of(name: str) -> str:
        if prefix is None:
            return name
        told = control_to_file(name, layers_per_block=base.layers_per_block, attention=attention, hint_blocks=blocks)
        return prefix + told

    with open_model(path) as tensors:
        filler = Filler(path, tensors, device or components.device, what="ControlNet")
        marker = "difference" in filler.names
        filler.names.discard("difference")
        if thin:
            fill_control_lora(filler, network, name_of, components)
        else:
            filler.fill(network, prefix or "", name_of, components.dtype)
    if marker:
        _add_base(network, components)
    kind = "control-lora" if thin else "union" if union else "controlnet"
    pooled = "shuffle" in path.stem.casefold()
    return ControlModel(network, path, pooled=pooled, kind=kind, types=more.get("num_control_type", 0))


def _check_width(path: Path, shapes: Mapping[str, tuple[int, ...]], prefix: str | None, text: int, first: int) -> None:
    """Both sides by their numbers before anything is loaded."""
    stem = "conv_in" if prefix is None else f"{prefix}input_blocks.0.0"
    conv = shapes.get(f"{stem}.weight") or shapes.get(f"{stem}.up", ())
    keys = [name for name in shapes if name.endswith(("attn2.to_k.weight", "attn2.to_k.down"))]
    got = shapes[keys[0]][1] if keys else 0
    if got != text or not conv or conv[0] != first:
        need = f"a network of width {first} that reads texts of width {text}"
        raise _misfit(path, need, f"one of width {conv[0] if conv else '?'} for texts of width {got}")


def _misfit(path: Path, need: str, got: str) -> ModelError:
    return ModelError(
        "model.unsupported",
        f"The ControlNet {path.name} does not fit the checkpoint: needed is {need}, this is {got}. Choose a ControlNet "
        "of the checkpoint's family.",
        data={"file": path.name, "need": need, "got": got},
    )


def _add_base(network: nn.Module, components: Components) -> None:
    """A file with the marker `difference` holds what is to be added to the checkpoint's own weights."""
    shared = dict(components.unet.named_parameters())
    with open_pristine(components) as read:
        for name, held in list(network.named_parameters()):
            # A 9-channel checkpoint's first layer is not the one that the difference was taken from.
            if name in shared and shared[name].shape == held.shape:
                owner, _, leaf = name.rpartition(".")
                whole = nn.Parameter(held + read("unet", name, True).to(held), requires_grad=False)
                setattr(network.get_submodule(owner), leaf, whole)


def injection_weights(weight: float, mode: str, count: int) -> list[float]:
    """The weight of each of `count` injections, from the shallowest to the middle: all the same in mode "balanced",
    else falling by SOFT from the middle on (A1111's rule)."""
    if mode == "balanced":
        return [weight] * count
    return [weight * SOFT ** (count - 1 - i) for i in range(count)]


class ControlAdapter:
    """One unit at work: adds to the skip connections within its part of the steps.

    `hint` [1, channels, h, w] in 0..1 (below 0 where an inpainting ControlNet is to paint), of the picture's size. In
    mode "control", and for pooled networks, it speaks with the prompt only, not with the negative one. `mask`
    [1, 1, h, w] at latent size, 0..1, is where it counts (None: everywhere).
    """

    def __init__(
        self, model: ControlModel, unit: ControlUnit, hint: torch.Tensor, mask: torch.Tensor | None = None
    ) -> None:
        self.model, self.unit, self.hint, self.mask = model, unit, hint, mask
        self._type = type_number(unit, model.types) if model.types else None

    def attach(self, network: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def prepare(self, call: NetworkCall, step: Step) -> None:
        unit = self.unit
        # A1111's rule: the part of the steps that is done, and both ends belong to it.
        if unit.weight == 0 or not unit.start <= step.fraction <= unit.end:
            return
        conditional = unit.mode == "control" or self.model.pooled
        rows = [i for i, label in enumerate(call.rows) if label.kind == "cond" or not conditional]
        if not rows:
            return
        down, mid = self._residuals(call, rows)
        weights = injection_weights(unit.weight, unit.mode, len(down) + 1)
        scaled = [self._spread(r * w, rows, call) for r, w in zip((*down, mid), weights, strict=True)]
        call.add_residuals(scaled[:-1], scaled[-1])

    def extra_pass(self, call: NetworkCall, step: Step) -> NetworkCall | None:
        return None

    def _residuals(self, call: NetworkCall, rows: list[int]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        network, pooled = self.model.network, self.model.pooled
        device, dtype = call.sample.device, placed(network)[1]
        pick: Callable[[torch.Tensor], torch.Tensor] = lambda t: t if len(rows) == len(call.rows) else t[rows]  # noqa: E731
        hint: Any = self.hint.to(device, dtype).expand(len(rows), -1, -1, -1)
        told: dict[str, Any] = {}
        if self._type is not None:
            marks = torch.zeros(len(rows), self.model.types, device=device, dtype=dtype)
            marks[:, self._type] = 1
            hint, told = [hint], {"control_type": marks, "control_type_idx": [self._type]}
        with _brought(network, device):
            down, mid = network(
                pick(call.sample).to(device, dtype),
                call.timestep.to(device),
                pick(call.encoder_hidden_states).to(device, dtype),
                hint,
                **told,
                added_cond_kwargs={name: pick(value).to(device, dtype) for name, value in call.added.items()} or None,
                return_dict=False,
            )

        def said(residual: torch.Tensor) -> torch.Tensor:
            if pooled:
                mean = residual.mean((2, 3), keepdim=True)
                # The network adds it everywhere by itself where no mask says otherwise.
                residual = mean if self.mask is None else mean.expand_as(residual)
            return masked(residual, self.mask)

        return tuple(said(d) for d in down), said(mid)

    def _spread(self, residual: torch.Tensor, rows: list[int], call: NetworkCall) -> torch.Tensor:
        """The rows of the whole call, 0 for those that it does not speak to."""
        if len(rows) == len(call.rows):
            return residual
        whole = residual.new_zeros(len(call.rows), *residual.shape[1:])
        whole[rows] = residual
        return whole


class Controls:
    """The ControlNets that were used last, within a budget in bytes; at least those of one job."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held: OrderedDict[Hashable, ControlModel] = OrderedDict()

    def of(self, job: Job, components: Components) -> tuple[tuple[ControlUnit, ControlModel], ...]:
        """The units of a job with their networks, loaded for a checkpoint; a unit without a picture of its own gets the
        job's."""
        found = []
        for unit in job.control:
            with _told_of(unit), torch.inference_mode(False):
                found.append(
                    (unit if unit.image is not None else replace(unit, image=job.image), self._get(unit, components))
                )
        return tuple(found)

    def clear(self) -> None:
        """Let go of all."""
        self._held.clear()

    def _get(self, unit: ControlUnit, components: Components) -> ControlModel:
        waits = torch.device("cpu") if unit.low_memory else components.device
        key = (unit.model, stamp_of(unit.model), components.identity, str(waits))
        model = self._held.pop(key, None) or load_controlnet(unit.model, components, waits)
        self._held[key] = model
        # The last one stays, whatever its size.
        while len(self._held) > 1 and sum(held.size_bytes for held in self._held.values()) > self._budget:
            self._held.popitem(last=False)
        return model


@contextmanager
def _brought(network: nn.Module, device: torch.device) -> Iterator[None]:
    """The network on the device for the block, where it waits elsewhere to save memory."""
    waits, _ = placed(network)
    if waits == device:
        yield
        return
    # Its parameters stay, only what they hold moves; what was made in inference mode could not move again.
    held = {name: value.data for name, value in network.named_parameters()}
    with torch.inference_mode(False):
        for _, value in network.named_parameters():
            value.data = value.data.to(device)
    try:
        yield
    finally:
        for name, value in network.named_parameters():
            value.data = held[name]


@contextmanager
def _told_of(unit: ControlUnit) -> Iterator[None]:
    """An error of the block is about this unit."""
    try:
        yield
    except ModelError as error:
        error.path = f"{unit.path}.model"
        raise
