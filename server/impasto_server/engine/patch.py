"""LoRAs on a loaded checkpoint: parameters are replaced, never written to, and read again from the file to undo that.

No copy of what was replaced is kept: on the CPU the original is a view of the mapped file, on a card it would take the
room that LoRAs are used to save. On, then off, is bit-identical, because the same cast of the same bytes is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from .load import Components, open_pristine
from .lora import TEXT, TEXT_2, UNET, Change, LayerNames, LoraFile, fit, read_lora
from .lora_kinds import add_delta, bias_delta, needs_weight
from .modelpath import model_name, stamp_of

__all__ = ["LoraSource", "Patcher"]


@dataclass(frozen=True)
class LoraSource:
    """A LoRA file and its strengths on the network and on the text encoder; 0 leaves that part as it is."""

    path: str
    unet: float = 1.0
    text: float = 1.0

    def strength(self, part: str) -> float:
        """On "unet", "text_encoder" or "text_encoder_2"."""
        return self.unet if part == UNET else self.text


@dataclass(frozen=True)
class _Open:
    """A file that is in use, and what it does to this checkpoint."""

    file: LoraFile
    changes: tuple[Change, ...]


_Key = tuple[tuple[Hashable, float], ...]
"""What is on a parameter: (identity of the file, strength) of each LoRA that changes it, in order."""


class Patcher:
    """The LoRAs on one checkpoint. For one thread."""

    def __init__(self, components: Components) -> None:
        self._components = components
        self._open: dict[Hashable, _Open] = {}
        self._names: LayerNames | None = None
        self._on: dict[tuple[str, str], _Key] = {}
        self._last: tuple[tuple[Hashable, ...], Components] | None = ((), components)
        self._scratch: torch.Tensor | None = None
        self.replaced = 0
        """Parameters that the last `apply` replaced."""

    def apply(self, loras: Sequence[LoraSource]) -> Components:
        """Put exactly these LoRAs on; gives the components to run with.

        They share their modules with the pristine ones; their identity says what is on the text encoder. Every delta
        is computed in fp32 over the weight as the file has it and they are added, so that their order does not matter;
        the sum is cast to the parameter's format. The same set again costs nothing, another one touches only parameters
        whose LoRAs or strengths differ. All files are checked before the first parameter is replaced.

        Raises ModelError as `read_lora` and `fit` do.
        """
        self.replaced = 0
        used = sorted(((self._opened(lora), lora) for lora in loras), key=_order)
        this = tuple((opened.file.identity, lora.unet, lora.text) for opened, lora in used)
        if self._last is not None and self._last[0] == this:
            return self._last[1]
        self._last = None
        wanted: dict[tuple[str, str], list[tuple[_Open, Change, float]]] = {}
        for opened, lora in used:
            for change in opened.changes:
                strength = lora.strength(change.part)
                if strength:
                    for leaf in _leaves(change):
                        name = f"{change.layer}.{leaf}"
                        wanted.setdefault((change.part, name), []).append((opened, change, strength))
        keys: dict[tuple[str, str], _Key] = {
            place: tuple((opened.file.identity, strength) for opened, _, strength in changes)
            for place, changes in wanted.items()
        }
        stale = [place for place in {**self._on, **keys} if self._on.get(place, ()) != keys.get(place, ())]
        if stale:
            with open_pristine(self._components) as read, torch.no_grad():
                for place in stale:
                    changes = [(change, strength) for _, change, strength in wanted.get(place, ())]
                    self._replace(place, changes, read)
                    # At once, so that an error half-way leaves no doubt what is on.
                    if place in keys:
                        self._on[place] = keys[place]
                    else:
                        del self._on[place]
                    self.replaced += 1
            self._scratch = None
        self._open = {opened.file.identity: opened for opened, _ in used}
        on_text = frozenset(key for (part, _), key in keys.items() if part in (TEXT, TEXT_2))
        patched = self._components
        if on_text:
            patched = replace(patched, identity=(patched.identity, on_text))
        self._last = (this, patched)
        return patched

    @property
    def components(self) -> Components:
        """The checkpoint, with what is on it."""
        return self._components

    @property
    def size_bytes(self) -> int:
        """Bytes of the checkpoint."""
        return self._components.size_bytes

    def bundled(self) -> dict[str, dict[str, torch.Tensor]]:
        """The embeddings inside the files that are on: name -> tensors by name."""
        found: dict[str, dict[str, torch.Tensor]] = {}
        for opened in self._open.values():
            found.update({name: dict(tensors) for name, tensors in opened.file.bundled.items()})
        return found

    def _opened(self, lora: LoraSource) -> _Open:
        path = Path(lora.path)
        try:
            held = self._open.get((str(path.resolve()), *stamp_of(path)))
        except OSError:
            held = None  # reading it says what is wrong
        if held is not None:
            return held
        file = read_lora(path)
        components = self._components
        if self._names is None:
            self._names = LayerNames(
                components.unet, components.text_encoder, components.source.to_file[UNET], components.text_encoder_2
            )
        parts = {UNET: components.unet, TEXT: components.text_encoder}
        if components.text_encoder_2 is not None:
            parts[TEXT_2] = components.text_encoder_2
        changes = fit(
            file,
            self._names,
            parts,
            checkpoint=model_name(components.source.path),
            family=components.family.id,
        )
        return _Open(file, changes)

    def _replace(
        self,
        place: tuple[str, str],
        changes: Sequence[tuple[Change, float]],
        read: Callable[[str, str, bool], torch.Tensor],
    ) -> None:
        part, name = place
        layer, _, leaf = name.rpartition(".")
        module: nn.Module = getattr(self._components, part).get_submodule(layer)
        if changes:
            dtype = module.get_parameter(leaf).dtype
            total = self._copied(read(part, name, False), keep=dtype == torch.float32)
            base = total.clone() if any(needs_weight(change.parts) for change, _ in changes) else total
            for change, strength in changes:
                _add(total, base, change, leaf, strength)
            value = total.to(dtype)
        else:
            value = read(part, name, True)
        module.register_parameter(leaf, nn.Parameter(value, requires_grad=False))

    def _copied(self, pristine: torch.Tensor, *, keep: bool) -> torch.Tensor:
        """The numbers in fp32, to be added to; what is not kept lies in memory that is used again."""
        if keep:
            return pristine.to(torch.float32, copy=True)
        if self._scratch is None or self._scratch.numel() < pristine.numel():
            self._scratch = torch.empty(pristine.numel(), device=pristine.device)
        return self._scratch[: pristine.numel()].view(pristine.shape).copy_(pristine)


def _order(used: tuple[_Open, LoraSource]) -> tuple[str, float, float]:
    opened, lora = used
    return str(opened.file.identity), lora.unet, lora.text


def _leaves(change: Change) -> tuple[str, ...]:
    """The parameters of the layer that it changes: "weight", "bias" or both."""
    bias = [role for role in ("diff_b", "b_norm") if role in change.parts]
    only_bias = len(bias) == len(change.parts.tensors)
    return (() if only_bias else ("weight",)) + (("bias",) if bias else ())


def _add(total: torch.Tensor, base: torch.Tensor, change: Change, leaf: str, strength: float) -> None:
    parts = change.parts.to(base.device)
    if leaf == "bias":
        delta = bias_delta(parts, base)
        assert delta is not None
        total.add_(delta, alpha=strength)
    elif change.channels:
        add_delta(total[:, : change.channels], base[:, : change.channels], parts, strength)
    else:
        add_delta(total, base, parts, strength)
