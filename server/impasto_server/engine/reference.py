"""Reference pictures: a result in the manner of another picture, without any weights of its own.

At each step the network sees the reference, too, as noisy as the picture is by then. "attention": what each
self-attention reads of the reference is offered to the picture as further keys and values (the ControlNet extension's
"reference-only", 2023). "adain": the mean and the spread of each channel
of the blocks are brought to those of the reference (Huang, Belongie, "Arbitrary style transfer in real-time with
adaptive instance normalization", 2017). "both" does both. The network runs twice a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn

from .adapters import NetworkCall, RowLabel, Step
from .attention import AttentionCall, AttentionControl, install
from .jobs import ReferenceUnit

__all__ = ["Reference", "attention_ranks", "block_ranks"]


class Reference:
    """One reference at work. latent, noise [1, channels, h, w] of the size of the picture's latents.

    `inpaints` where the network has the further inputs of an inpainting checkpoint: nothing of the reference is masked.
    `shown` is what one sees that changes a picture by an instruction: the reference itself, not scaled.
    """

    def __init__(
        self,
        unit: ReferenceUnit,
        latent: torch.Tensor,
        noise: torch.Tensor,
        *,
        inpaints: bool,
        shown: torch.Tensor | None = None,
    ) -> None:
        self.shown = shown
        self.unit, self.latent, self.noise, self.inpaints = unit, latent, noise, inpaints
        self._control: AttentionControl | None = None
        self._written: tuple[RowLabel, ...] | None = None
        """The rows of our own pass, and those of the call that reads: told apart by identity from other passes."""
        self._reads: tuple[RowLabel, ...] | None = None
        self._bank: dict[str, torch.Tensor] = {}
        self._plain: dict[str, torch.Tensor] = {}
        self._statistics: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._ranks: dict[str, float] = {}

    @contextmanager
    def attach(self, network: nn.Module) -> Iterator[None]:
        self._control = install(network)
        kind = self.unit.kind
        with ExitStack() as stack:
            if kind in ("attention", "both"):
                self._ranks = attention_ranks(network)
                stack.enter_context(self._control.contributing(self))
            if kind in ("adain", "both"):
                for name, rank in block_ranks(network).items():
                    if self.unit.weight > rank:
                        handle = network.get_submodule(name).register_forward_hook(self._hook(name))
                        stack.callback(handle.remove)
            try:
                yield
            finally:
                self._forget()

    def prepare(self, call: NetworkCall, step: Step) -> None:
        """Nothing is added to the call itself."""

    def extra_pass(self, call: NetworkCall, step: Step) -> NetworkCall | None:
        unit = self.unit
        self._forget()
        if unit.weight == 0 or not unit.start <= step.fraction <= unit.end:
            return None
        count = len(call.rows)
        sigma = step.sigma.to(self.latent)
        sample = ((self.latent + sigma * self.noise) / (sigma**2 + 1) ** 0.5).to(call.sample)
        # A tuple of its own, which is known again.
        self._written, self._reads = (*call.rows[:1], *call.rows[1:]), call.rows
        concat = None if self.shown is None else self.shown.to(call.sample).expand(count, -1, -1, -1)
        if self.inpaints:
            concat = torch.cat([self.latent.new_zeros(1, 1, *self.latent.shape[2:]), self.latent], 1)
            concat = concat.to(call.sample).expand(count, -1, -1, -1)
        return NetworkCall(
            sample=sample.expand(count, -1, -1, -1),
            timestep=call.timestep,
            encoder_hidden_states=call.encoder_hidden_states,
            rows=self._written,
            added=call.added,
            concat=concat,
        )

    # ---- attention

    def before(self, call: AttentionCall) -> None:
        if call.cross or self.unit.weight <= self._ranks.get(call.layer, 0.0):
            return
        if call.rows is self._written:
            self._bank[call.layer] = call.hidden
        elif call.rows is self._reads and call.layer in self._bank:
            held, module = self._bank[call.layer], call.module
            uncond = _uncond(call.rows)
            if uncond and self.unit.fidelity > 0:
                own = call.query.shape[2]
                query, key, value = (t[uncond] for t in (call.query, call.key[:, :, :own], call.value[:, :, :own]))
                self._plain[call.layer] = functional.scaled_dot_product_attention(query, key, value)
            call.append(call.split_heads(module.to_k(held)), call.split_heads(module.to_v(held)))  # type: ignore[operator]

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        plain = self._plain.pop(call.layer, None)
        if plain is None:
            return output
        return _mixed(output, plain, _uncond(call.rows), self.unit.fidelity)

    # ---- statistics

    def _hook(self, name: str) -> Any:
        def changed(module: nn.Module, args: Any, output: Any) -> Any:
            value = output[0] if isinstance(output, tuple) else output
            rows = self._control.rows if self._control is not None else ()
            mean, spread = value.mean((2, 3), keepdim=True), value.std((2, 3), keepdim=True, correction=0) + 1e-6
            if rows is self._written:
                self._statistics[name] = (mean, spread)
                return None
            if rows is not self._reads or name not in self._statistics:
                return None
            their_mean, their_spread = self._statistics[name]
            moved = (value - mean) / spread * their_spread + their_mean
            moved = _mixed(moved, value[_uncond(rows)], _uncond(rows), self.unit.fidelity)
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        return changed

    def _forget(self) -> None:
        self._written = self._reads = None
        for held in (self._bank, self._plain, self._statistics):
            held.clear()


def _uncond(rows: tuple[RowLabel, ...]) -> list[int]:
    return [i for i, label in enumerate(rows) if label.kind == "uncond"]


def _mixed(guided: torch.Tensor, plain: torch.Tensor, rows: list[int], fidelity: float) -> torch.Tensor:
    """`guided`, but on the negative side the more of `plain` (those rows only) the greater the fidelity to the style:
    guidance then leads away from what has nothing of the reference."""
    if not rows or fidelity == 0:
        return guided
    out = guided.clone()
    out[rows] = fidelity * plain + (1 - fidelity) * guided[rows]
    return out


def attention_ranks(network: nn.Module) -> dict[str, float]:
    """Self-attention layer -> from 0 (widest) to below 1: a weight reaches the layers above whose rank it is."""
    widths = {name: int(module.to_q.in_features) for name, module in network.named_modules() if name.endswith(".attn1")}
    ordered = sorted(widths, key=lambda name: -widths[name])
    return {name: index / len(ordered) for index, name in enumerate(ordered)}


def block_ranks(network: Any) -> dict[str, float]:
    """Blocks whose statistics are looked at -> from 0 (the middle) to below 1, the farther from it the higher.

    On the way down those below full size, on the way up all but those at full size, each layer's last part.
    """
    down, up = len(network.down_blocks), len(network.up_blocks)
    names = [(0, "mid_block")]
    for distance in range(1, down):
        for side, index in (("down_blocks", down - distance), ("up_blocks", distance - 1)):
            if side == "up_blocks" and index >= up - 1:
                continue
            block = getattr(network, side)[index]
            parts = "attentions" if getattr(block, "attentions", None) else "resnets"
            names += [(distance, f"{side}.{index}.{parts}.{layer}") for layer in range(len(getattr(block, parts)))]
    ordered = [name for _, name in sorted(names, key=lambda entry: entry[0])]
    return {name: index / len(ordered) for index, name in enumerate(ordered)}
