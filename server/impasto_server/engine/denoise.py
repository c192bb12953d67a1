"""From a network to `denoise(x, sigma) -> x0`: input scaling, rows of the batch, guidance, parameterisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch

from .adapters import Adapter, NetworkCall, RowLabel, Step
from .attention import AttentionControl, install
from .conditioning import Conditioning, active, blend_entries, compose, is_composed
from .memory import placed

__all__ = ["Denoiser", "call_network", "to_denoised"]


def to_denoised(prediction: str, x: torch.Tensor, output: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """x0 from what the network predicts.

    epsilon: the noise (Ho et al., 2020); v_prediction: the velocity (Salimans, Ho, "Progressive distillation", 2022).
    """
    if prediction == "epsilon":
        return x - sigma * output
    if prediction == "v_prediction":
        return x / (sigma**2 + 1) - output * (sigma / (sigma**2 + 1) ** 0.5)
    raise ValueError(f"unknown prediction type {prediction!r}")


def call_network(network: Any, call: NetworkCall) -> torch.Tensor:
    """Run a diffusers UNet in its own dtype; the output is float32 [rows, channels, h, w]."""
    _, dtype = placed(network)
    sample = call.sample if call.concat is None else torch.cat([call.sample, call.concat.to(call.sample)], 1)

    def cast(tensors: tuple[torch.Tensor, ...] | None) -> list[torch.Tensor] | None:
        return None if tensors is None else [t.to(dtype) for t in tensors]

    output = network(
        sample.to(dtype),
        call.timestep.to(sample.device),
        call.encoder_hidden_states.to(sample.device, dtype),
        added_cond_kwargs={k: v.to(sample.device, dtype) for k, v in call.added.items()} or None,
        down_block_additional_residuals=cast(call.down_residuals),
        mid_block_additional_residual=None if call.mid_residual is None else call.mid_residual.to(dtype),
        down_intrablock_additional_residuals=cast(call.down_intrablock),
        return_dict=False,
    )[0]
    predicted: torch.Tensor = output.float()
    return predicted


@dataclass(frozen=True)
class _Row:
    label: RowLabel
    entry: Conditioning
    x: torch.Tensor


@dataclass(frozen=True)
class Denoiser:
    """denoise(x, sigma) -> x0 for a batch of pictures that share their conditioning.

    Guidance runs in one batch ordered [negative, positive] (bit-equal to stock pipelines), or row by row with
    `sequential`, which needs half the memory. At cfg 1 the negative side is skipped. Entries whose texts differ in
    length go in separate calls, as in A1111. `sigmas` are the levels of the run: the step's index is read off them,
    so that samplers which look twice at a step need not count. `fractions` gives, call by call, where the run is for
    prompts that change by calls; without it that is the step.
    """

    network: Any
    prediction: str
    positive: tuple[Conditioning, ...]
    negative: tuple[Conditioning, ...]
    cfg: float
    sigmas: torch.Tensor
    timestep_of: Callable[[torch.Tensor], torch.Tensor]
    adapters: tuple[Adapter, ...] = ()
    sequential: bool = False
    fractions: Iterator[float] | None = None

    @cached_property
    def _control(self) -> AttentionControl:
        return install(self.network)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """All adapters attached, for the time of a run."""
        with ExitStack() as stack:
            for adapter in self.adapters:
                stack.enter_context(adapter.attach(self.network))
            yield

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        step = self._step(sigma)
        fraction = step.fraction if self.fractions is None else next(self.fractions)
        positive = active(self.positive, fraction)
        composed = bool(positive) and is_composed(positive)
        negative = active(self.negative, fraction) if self.cfg != 1.0 or composed else ()
        if not positive:
            raise ValueError(f"no conditioning is active at step {step.index + 1} of {step.steps}")
        # Division, not multiplication with the reciprocal: so do the stock schedulers, to the last bit.
        scaled = x / (sigma**2 + 1) ** 0.5
        outputs = self._predict(scaled, negative, positive, step)
        if composed:
            uncond = blend_entries(negative, outputs[: len(negative)])
            cond = compose(positive, outputs[len(negative) :], uncond, self.cfg)
            return to_denoised(self.prediction, x, cond, sigma)
        cond = blend_entries(positive, outputs[len(negative) :])
        if negative:
            uncond = blend_entries(negative, outputs[: len(negative)])
            cond = uncond + self.cfg * (cond - uncond)
        return to_denoised(self.prediction, x, cond, sigma)

    def _step(self, sigma: torch.Tensor) -> Step:
        steps = len(self.sigmas) - 1
        # The level itself or one between it and the next belongs to its step.
        index = int((self.sigmas[:-1] >= float(sigma)).sum()) - 1
        return Step(min(max(index, 0), steps - 1), steps, sigma, self.timestep_of(sigma))

    def _predict(
        self,
        scaled: torch.Tensor,
        negative: tuple[Conditioning, ...],
        positive: tuple[Conditioning, ...],
        step: Step,
    ) -> list[torch.Tensor]:
        """Outputs [pictures, channels, h, w] of the negative, then of the positive entries."""
        count = scaled.shape[0]
        rows = _rows("uncond", negative, scaled) + _rows("cond", positive, scaled)
        done: dict[RowLabel, torch.Tensor] = {}
        for group in _groups(rows, self.sequential):
            output = self._call(group, step)
            done.update({row.label: output[i : i + 1] for i, row in enumerate(group)})
        ordered = [done[row.label] for row in rows]
        return [torch.cat(ordered[i : i + count]) for i in range(0, len(ordered), count)]

    def _call(self, rows: list[_Row], step: Step) -> torch.Tensor:
        control, names = self._control, rows[0].entry.added
        call = NetworkCall(
            sample=torch.cat([r.x for r in rows]),
            timestep=step.timestep,
            encoder_hidden_states=torch.cat([r.entry.tokens for r in rows]),
            rows=tuple(r.label for r in rows),
            added={name: torch.cat([r.entry.added[name] for r in rows]) for name in names},
        )
        for adapter in self.adapters:
            adapter.prepare(call, step)
        control.step = step
        for adapter in self.adapters:
            extra = adapter.extra_pass(call, step)
            if extra is not None:
                control.rows = extra.rows
                call_network(self.network, extra)
        control.rows = call.rows
        try:
            return call_network(self.network, call)
        finally:
            control.rows, control.step = (), None


def _rows(kind: Literal["cond", "uncond"], entries: tuple[Conditioning, ...], x: torch.Tensor) -> list[_Row]:
    return [
        _Row(RowLabel(kind, region, picture), entry, x[picture : picture + 1])
        for region, entry in enumerate(entries)
        for picture in range(x.shape[0])
    ]


def _groups(rows: list[_Row], sequential: bool) -> list[list[_Row]]:
    """Rows that can share a call: equally long texts, in their order; one each with `sequential`."""
    if sequential:
        return [[row] for row in rows]
    groups: dict[tuple[int, ...], list[_Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.entry.tokens.shape), []).append(row)
    return list(groups.values())
