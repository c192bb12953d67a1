"""What each kind of LoRA does to a weight: one plain formula a kind.

A kind is told by the names of the tensors that a file holds for one layer. Every formula gives a delta over the
pristine weight, at strength 1; the strength multiplies it. All numbers are fp32.

Papers: LoRA arXiv:2106.09685; LoHa (FedPara) arXiv:2108.06098; LoKr and LoCon (LyCORIS) arXiv:2309.14859; DoRA
arXiv:2402.09353; IA3 arXiv:2205.05638; GLoRA arXiv:2306.07967; OFT arXiv:2306.07280; BOFT arXiv:2311.06243.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

import torch

__all__ = ["KINDS", "Misfit", "Parts", "add_delta", "bias_delta", "check", "kind_of", "needs_weight", "weight_delta"]


class Misfit(Exception):
    """The shapes do not fit; the text completes 'NAME ...'."""


@dataclass(frozen=True)
class Parts:
    """What a file holds for one layer: tensors by the name of their role, and its two plain values.

    `alpha` is None where the file gives none, which means a scale of 1 (for OFT: no constraint). `on_input` is IA3's:
    whether it scales what goes in. `keys` are the names in the file, for messages.
    """

    tensors: Mapping[str, torch.Tensor]
    alpha: float | None = None
    on_input: bool = False
    keys: tuple[str, ...] = field(default=(), compare=False)

    def __getitem__(self, role: str) -> torch.Tensor:
        return self.tensors[role]

    def __contains__(self, role: str) -> bool:
        return role in self.tensors

    def to(self, device: torch.device) -> Parts:
        """The same on `device` in fp32."""
        moved = {role: value.to(device, torch.float32) for role, value in self.tensors.items()}
        return Parts(moved, self.alpha, self.on_input, self.keys)


def _lora(parts: Parts, weight: torch.Tensor) -> torch.Tensor:
    """LoRA, and LoCon on convolutions: up @ down, with `mid` in the Tucker form."""
    up, down = parts["up"].flatten(1), parts["down"]
    if "mid" in parts:
        delta = torch.einsum("om,mnkl,ni->oikl", up, parts["mid"], down.flatten(1))
    else:
        delta = up @ down.flatten(1)
    return delta * _scale(parts, down.shape[0])


def _loha(parts: Parts, weight: torch.Tensor) -> torch.Tensor:
    """The elementwise product of two low-rank matrices."""
    one, other = (
        _tucker(parts[f"hada_t{n}"], parts[f"hada_w{n}_a"], parts[f"hada_w{n}_b"])
        if f"hada_t{n}" in parts
        else parts[f"hada_w{n}_a"] @ parts[f"hada_w{n}_b"].flatten(1)
        for n in (1, 2)
    )
    return one * other * _scale(parts, parts["hada_w1_b"].shape[0])


def _lokr(parts: Parts, weight: torch.Tensor) -> torch.Tensor:
    """The Kronecker product of two matrices, each whole or of low rank; whole ones have no rank, so alpha is unused."""
    factors = []
    rank = 0
    for n in (1, 2):
        if f"lokr_w{n}" in parts:
            factors.append(parts[f"lokr_w{n}"])
            continue
        a, b = parts[f"lokr_w{n}_a"], parts[f"lokr_w{n}_b"]
        rank = b.shape[0]
        factors.append(_tucker(parts["lokr_t2"], a, b) if n == 2 and "lokr_t2" in parts else a @ b.flatten(1))
    product = torch.kron(factors[0].flatten(1), factors[1].flatten(1))
    return product * (_scale(parts, rank) if rank else 1.0)


def _diff(parts: Parts, weight: torch.Tensor) -> torch.Tensor:
    return parts["diff"]


def _norm(parts: Parts, weight: torch.Tensor) -> torch.Tensor:
    return parts["w_norm"]


def _ia3(parts: Parts, weight: torch.Tensor) -> torch.Tensor:
    """Each row (or, on the input, each column) of the weight by a factor."""
    factor = parts["weight"].flatten()
    if factor.numel() != weight.shape[int(parts.on_input)]:
        raise Misfit(f"of {factor.numel()} factors where the weight is {_dims(tuple(weight.shape))}")
    ones = [1] * (weight.dim() - 2)
    return weight * (factor.view(1, -1, *ones) if parts.on_input else factor.view(-1, 1, *ones))


def _glora(parts: Parts, weight: torch.Tensor) -> torch.Tensor:
    """W A + B, both of low rank. Two spellings exist: a2 @ a1 with b2 @ b1 (LyCORIS), and a1 @ a2 with b1 @ b2."""
    first_a, second_a, first_b, second_b = (parts[role] for role in ("a1", "a2", "b1", "b2"))
    if first_a.shape[0] == weight.shape[1] and first_a.shape[1] == second_a.shape[0] != weight.shape[1]:
        first_a, second_a, first_b, second_b = second_a, first_a, second_b, first_b
    rank = first_a.shape[0]
    through = second_a.flatten(1) @ first_a.flatten(1)
    delta = torch.einsum("oi...,ij->oj...", weight, through).flatten(1) + second_b.flatten(1) @ first_b.flatten(1)
    return delta * _scale(parts, rank)


def _oft(parts: Parts, weight: torch.Tensor) -> torch.Tensor:
    """Blocks of output channels turned by orthogonal matrices; of a BOFT file several such turns, butterfly-wise."""
    if "oft_diag" in parts:
        turns = parts["oft_diag"]  # older files hold the matrices themselves
    else:
        blocks = parts["oft_blocks"]
        skew = blocks - blocks.transpose(-1, -2)
        if parts.alpha:
            limit = parts.alpha * weight.shape[0]
            norm = skew.flatten().norm()
            skew = skew * ((norm.clamp(max=limit) + 1e-8) / (norm + 1e-8))
        eye = torch.eye(skew.shape[-1], device=skew.device)
        turns = (eye + skew) @ torch.linalg.inv(eye - skew)  # the Cayley transform
    size = turns.shape[-1]
    if turns.shape[-3] * size != weight.shape[0]:
        raise Misfit(f"of {turns.shape[-3]} blocks of {size} where the weight is {_dims(tuple(weight.shape))}")
    turned = weight
    if turns.dim() == 4:
        for level, matrices in enumerate(turns):
            # At level n a block takes its rows from two stretches of 2^n half blocks each.
            half = 2**level * (size // 2)
            mixed = turned.reshape(-1, 2, half, *weight.shape[1:]).transpose(1, 2)
            moved = matrices @ mixed.reshape(-1, size, prod(weight.shape[1:]))
            turned = moved.reshape(-1, half, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
    else:
        turned = (turns.transpose(-1, -2) @ weight.reshape(-1, size, prod(weight.shape[1:]))).reshape(weight.shape)
    if "rescale" in parts:
        turned = turned * parts["rescale"].reshape(-1, *[1] * (weight.dim() - 1))
    return turned - weight


@dataclass(frozen=True)
class _Kind:
    """`needs`: one of each group must be there; whatever is in no group and not in `may` does not belong."""

    name: str
    needs: tuple[tuple[tuple[str, ...], ...], ...]
    may: tuple[str, ...]
    formula: Callable[[Parts, torch.Tensor], torch.Tensor]

    def takes(self, roles: set[str]) -> bool:
        known = set(self.may)
        for choices in self.needs:
            if not any(set(choice) <= roles for choice in choices):
                return False
            known.update(*choices)
        return roles <= known


_DORA = ("dora_scale", "magnitude")

KINDS: tuple[_Kind, ...] = (
    _Kind("lora", ((("down", "up"),),), ("mid", *_DORA), _lora),
    _Kind("loha", ((("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),),), ("hada_t1", "hada_t2", *_DORA), _loha),
    _Kind(
        "lokr",
        ((("lokr_w1",), ("lokr_w1_a", "lokr_w1_b")), (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))),
        ("lokr_t2", *_DORA),
        _lokr,
    ),
    _Kind("diff", ((("diff",), ("diff_b",)),), (), _diff),
    _Kind("norm", ((("w_norm",), ("b_norm",)),), (), _norm),
    _Kind("ia3", ((("weight",),),), (), _ia3),
    _Kind("glora", ((("a1", "a2", "b1", "b2"),),), (), _glora),
    _Kind("oft", ((("oft_blocks",), ("oft_diag",)),), ("rescale",), _oft),
)

_WHOLE = {"diff": "diff", "norm": "w_norm"}
_BIAS = {"diff": "diff_b", "norm": "b_norm"}


def kind_of(parts: Parts) -> str | None:
    """The name of the kind whose tensors these are, or None where they are not complete or of several kinds."""
    found = _kind(parts)
    return found.name if found is not None else None


def _kind(parts: Parts) -> _Kind | None:
    return next((kind for kind in KINDS if kind.takes(set(parts.tensors))), None)


def weight_delta(parts: Parts, weight: torch.Tensor) -> torch.Tensor | None:
    """What to add to `weight` (fp32, pristine) at strength 1: a tensor of its shape, or None where there is nothing.

    With a DoRA scale m the new weight is m (W + dW) / |W + dW|, the norm taken for each output channel, or for each
    input channel where m is laid out so. Raises Misfit.
    """
    kind = _kind(parts)
    if kind is None or (kind.name in _WHOLE and _WHOLE[kind.name] not in parts):
        return None
    delta = _shaped(kind.formula(parts, weight), weight)
    if "dora_scale" in parts or "magnitude" in parts:
        delta = _decomposed(parts, weight + delta) - weight
    return delta


def needs_weight(parts: Parts) -> bool:
    """Whether what it adds depends on the weight that is there."""
    kind = _kind(parts)
    return "dora_scale" in parts or "magnitude" in parts or (kind is not None and kind.name in ("ia3", "glora", "oft"))


def add_delta(target: torch.Tensor, base: torch.Tensor, parts: Parts, strength: float) -> None:
    """Add `strength` times `weight_delta(parts, base)` to `target` in place.

    Of a plain LoRA the delta is never made: that is most of what is added, and memory is what takes the time.
    """
    kind = _kind(parts)
    if kind is not None and kind.name == "lora" and parts.tensors.keys() == {"up", "down"} and target.is_contiguous():
        up, down = parts["up"].flatten(1), parts["down"]
        scale = strength * _scale(parts, down.shape[0])
        target.view(target.shape[0], -1).addmm_(up, down.flatten(1), alpha=scale)
        return
    delta = weight_delta(parts, base)
    assert delta is not None
    target.add_(delta, alpha=strength)


def bias_delta(parts: Parts, bias: torch.Tensor) -> torch.Tensor | None:
    """What to add to the layer's bias at strength 1, or None. Raises Misfit."""
    kind = _kind(parts)
    role = _BIAS.get(kind.name, "") if kind is not None else ""
    return _shaped(parts[role], bias) if role in parts else None


def check(parts: Parts, shape: tuple[int, ...], bias: tuple[int, ...] | None) -> None:
    """Raise Misfit unless the parts fit a weight and a bias of these shapes. Computes shapes only, no numbers."""
    moved = parts.to(torch.device("meta"))
    try:
        weight_delta(moved, torch.empty(shape, device="meta"))
        if bias is not None:
            bias_delta(moved, torch.empty(bias, device="meta"))
    except (RuntimeError, IndexError, ValueError, ZeroDivisionError) as error:
        raise Misfit(f"of {_shapes(parts)} where the weight is {_dims(shape)}") from error
    if bias is None and any(role in parts for role in _BIAS.values()):
        raise Misfit("for a bias, which that layer does not have")


def _scale(parts: Parts, rank: int) -> float:
    return 1.0 if parts.alpha is None else parts.alpha / rank


def _tucker(core: torch.Tensor, out: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
    """core [p, q, kh, kw], out [p, outputs], into [q, inputs] -> [outputs, inputs, kh, kw], flattened to a matrix."""
    return torch.einsum("pqkl,po,qi->oikl", core, out, into).flatten(1)


def _decomposed(parts: Parts, weight: torch.Tensor) -> torch.Tensor:
    magnitude = parts["magnitude"] if "magnitude" in parts else parts["dora_scale"]
    ones = [1] * (weight.dim() - 2)
    # PEFT's vector is always of the outputs, in whatever layout; LyCORIS's says it by its first dimension.
    by_output = "magnitude" in parts or magnitude.shape[0] == weight.shape[0]
    norm: torch.Tensor
    if by_output:
        norm = weight.flatten(1).norm(dim=1).view(-1, 1, *ones)
    else:
        norm = weight.transpose(0, 1).flatten(1).norm(dim=1).view(1, -1, *ones)
    if magnitude.numel() != norm.numel():
        raise Misfit(f"of {magnitude.numel()} magnitudes where the weight is {_dims(tuple(weight.shape))}")
    factor: torch.Tensor = magnitude.reshape(norm.shape) / norm.clamp(min=torch.finfo(torch.float32).tiny)
    return weight * factor


def _shaped(delta: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The delta in the layer's layout: 1 x 1 convolutions are linear layers in some files, kernels lie flat."""
    if delta.shape[0] != like.shape[0] or delta.numel() != like.numel():
        raise Misfit(f"for a weight of {_dims(tuple(delta.shape))} where it is {_dims(tuple(like.shape))}")
    return delta.reshape(like.shape)


def _dims(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _shapes(parts: Parts) -> str:
    return ", ".join(f"{role} {_dims(tuple(value.shape))}" for role, value in sorted(parts.tensors.items()))
