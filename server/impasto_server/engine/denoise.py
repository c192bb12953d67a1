"""From a network to `denoise(x, sigma) -> x0`: input scaling, rows of the batch, guidance, parameterisation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from .adapters import Adapter, NetworkCall, RowLabel, Step
from .attention import AttentionControl, install
from .conditioning import Conditioning, active, blend_entries, compose, is_composed
from .memory import placed

__all__ = ["Denoiser", "call_network", "rescaled", "to_denoised"]


def to_denoised(prediction: str, x: torch.Tensor, output: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """x0 from what the network predicts.

    epsilon: the noise (Ho et al., 2020); v_prediction: the velocity (Salimans, Ho, "Progressive distillation", 2022).
    """
    if prediction == "epsilon":
        return x - sigma * output
    if prediction == "v_prediction":
        return x / (sigma**2 + 1) - output * (sigma / (sigma**2 + 1) ** 0.5)
    raise ValueError(f"unknown prediction type {prediction!r}")


def rescaled(guided: torch.Tensor, cond: torch.Tensor, part: float) -> torch.Tensor:
    """`guided` with the standard deviation of `cond`, picture by picture, and `part` (0..1) of that.

    Lin et al., "Common diffusion noise schedules and sample steps are flawed", 2023, section 3.4; both are outputs of
    the network, [pictures, channels, h, w].
    """
    axes = list(range(1, guided.ndim))
    factor = cond.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return part * (guided * factor) + (1 - part) * guided


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

    `cfg_rescale` is that of `rescaled`. Below the level `ngms` (A1111's negative guidance minimum sigma) the negative
    side is skipped in every other call, with `ngms_all` in each. With `keep_unguided` it never is, and `unguided` gives
    its x0 of the last call.

    With `image_cfg` other than 1 the negative side is asked once more without the picture that is changed, in blind
    rows, and the guided prediction goes away from that: + (image_cfg - 1) * (negative - blind), which is equation 3 of
    Brooks, Holynski, Efros, "InstructPix2Pix: learning to follow image editing instructions", 2023.
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
    cfg_rescale: float = 0.0
    ngms: float = 0.0
    ngms_all: bool = False
    keep_unguided: bool = False
    image_cfg: float = 1.0
    _calls: Iterator[int] = field(default_factory=itertools.count, repr=False)
    _unguided: list[torch.Tensor] = field(default_factory=list, repr=False)
    _tokens: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict, repr=False)

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
        asked = self.cfg != 1.0 or composed or self.keep_unguided or self.image_cfg != 1.0
        guided = self._guides(sigma, next(self._calls)) and asked
        negative = active(self.negative, fraction) if guided else ()
        if not positive:
            raise ValueError(f"no conditioning is active at step {step.index + 1} of {step.steps}")
        # Division, not multiplication with the reciprocal: so do the stock schedulers, to the last bit.
        scaled = x / (sigma**2 + 1) ** 0.5
        blind = negative if self.image_cfg != 1.0 else ()
        outputs = self._predict(scaled, blind, negative, positive, step)
        hidden, outputs = outputs[: len(blind)], outputs[len(blind) :]
        away, towards = outputs[: len(negative)], outputs[len(negative) :]
        output = self._guided(negative, away, positive, towards, composed)
        if blind:
            unseen = blend_entries(blind, hidden)
            output = output + (self.image_cfg - 1.0) * (blend_entries(negative, away) - unseen)
        if self.keep_unguided:
            self._unguided[:] = [to_denoised(self.prediction, x, blend_entries(negative, away), sigma)]
        return to_denoised(self.prediction, x, output, sigma)

    def unguided(self) -> torch.Tensor:
        """The x0 of the negative side in the last call; only with `keep_unguided`."""
        return self._unguided[0]

    def _guides(self, sigma: torch.Tensor, call: int) -> bool:
        """Whether this call has a negative side."""
        skips = (self.ngms_all or call % 2 == 1) and float(sigma) < self.ngms
        return self.keep_unguided or not skips

    def _guided(
        self,
        negative: tuple[Conditioning, ...],
        away: list[torch.Tensor],
        positive: tuple[Conditioning, ...],
        towards: list[torch.Tensor],
        composed: bool,
    ) -> torch.Tensor:
        """The network's output with guidance."""
        if composed:
            # Without a negative side the first part stands for it, and the scale is 1, as in A1111.
            uncond, cfg = (blend_entries(negative, away), self.cfg) if negative else (towards[0], 1.0)
            guided = compose(positive, towards, uncond, cfg)
            if not (negative and self.cfg_rescale):
                return guided
            return rescaled(guided, compose(positive, towards, uncond, 1.0), self.cfg_rescale)
        cond = blend_entries(positive, towards)
        if not negative:
            return cond
        uncond = blend_entries(negative, away)
        guided = uncond + self.cfg * (cond - uncond)
        return rescaled(guided, cond, self.cfg_rescale) if self.cfg_rescale else guided

    def _step(self, sigma: torch.Tensor) -> Step:
        steps = len(self.sigmas) - 1
        # The level itself or one between it and the next belongs to its step.
        level = float(sigma)
        index = sum(known >= level for known in self._levels) - 1
        return Step(min(max(index, 0), steps - 1), steps, sigma, self.timestep_of(sigma))

    @cached_property
    def _levels(self) -> list[float]:
        levels: list[float] = self.sigmas[:-1].tolist()
        return levels

    def _predict(
        self,
        scaled: torch.Tensor,
        blind: tuple[Conditioning, ...],
        negative: tuple[Conditioning, ...],
        positive: tuple[Conditioning, ...],
        step: Step,
    ) -> list[torch.Tensor]:
        """Outputs [pictures, channels, h, w] of the blind, then of the negative, then of the positive entries."""
        count = scaled.shape[0]
        rows = _rows("uncond", blind, scaled, blind=True) + _rows("uncond", negative, scaled)
        rows += _rows("cond", positive, scaled)
        done: dict[RowLabel, torch.Tensor] = {}
        for group in _groups(rows, self.sequential):
            output = self._call(group, step)
            done.update({row.label: output[i : i + 1] for i, row in enumerate(group)})
        ordered = [done[row.label] for row in rows]
        return [_joined(ordered[i : i + count]) for i in range(0, len(ordered), count)]

    def _tokens_of(self, rows: list[_Row]) -> torch.Tensor:
        """The texts of the rows as the network takes them: joined and cast once for all steps that have the same."""
        key = tuple(id(row.entry) for row in rows)
        if key not in self._tokens:
            device, dtype = placed(self.network)
            self._tokens[key] = _joined([row.entry.tokens for row in rows]).to(device, dtype)
        return self._tokens[key]

    def _call(self, rows: list[_Row], step: Step) -> torch.Tensor:
        control, names = self._control, rows[0].entry.added
        call = NetworkCall(
            sample=_joined([r.x for r in rows]),
            timestep=step.timestep,
            encoder_hidden_states=self._tokens_of(rows),
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


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _rows(
    kind: Literal["cond", "uncond"], entries: tuple[Conditioning, ...], x: torch.Tensor, *, blind: bool = False
) -> list[_Row]:
    return [
        _Row(RowLabel(kind, region, picture, blind), entry, x[picture : picture + 1])
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
