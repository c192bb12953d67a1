"""The trained values of a network, gathered by shape, so that a step of training is a few large operations.

A GPU spends most of a step of a small network on starting its hundreds of small operations. Here all matrices of one
shape are one tensor [k, rows, columns]; the network's parameters and gradients are views of what is computed with,
which may be of lower precision than what is kept.

Values that are to be packed as a coarse difference to a start (`starter.pack.stepped`) can be trained in view of that:
the network then sees the start and the rounded difference, and the gradient passes through the rounding as if it were
not there (the straight-through estimator, Bengio et al. 2013).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from starter.pack import MOST, SMALLEST

MOMENTUM = 0.95
BETAS = (0.9, 0.99)


@dataclass
class Stack:
    """Matrices of one shape [k, rows, columns], or all that is small as one row [1, 1, n]. All of it float32 but what
    the network computes with."""

    names: list[str]
    shapes: list[torch.Size]
    master: torch.Tensor
    start: torch.Tensor | None
    """What a coarse difference is taken to; None where values are packed otherwise."""
    muon: bool
    work: torch.Tensor
    grad: torch.Tensor
    average: torch.Tensor
    moments: list[torch.Tensor] = field(default_factory=list)

    def value(self, average: bool, coarse: float) -> torch.Tensor:
        """Master or average, rounded in steps of `coarse` root mean squares of the row's difference where it is > 0."""
        value = self.average if average else self.master
        if not coarse or self.start is None:
            return value
        difference = value - self.start
        width = difference.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-8) * coarse
        return self.start + (difference / width).round().clamp(-MOST, MOST) * width

    def parts(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Views of a tensor of the stack's shape, one for each parameter, in the parameter's shape."""
        flat, found, at = values.view(-1), [], 0
        for shape in self.shapes:
            found.append(flat[at : at + shape.numel()].view(shape))
            at += shape.numel()
        return found


def orthogonal(x: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Matrices [k, rows, columns] with their singular values brought near 1 (Newton-Schulz, Muon's coefficients)."""
    y = x.mT if x.shape[1] > x.shape[2] else x
    y = y / (y.norm(dim=(1, 2), keepdim=True) + 1e-7)
    y = y.bfloat16() if x.is_cuda else y
    for _ in range(steps):
        gram = y @ y.mT
        y = 3.4445 * y + (-4.7750 * gram + 2.0315 * gram @ gram) @ y
    return (y.mT if x.shape[1] > x.shape[2] else y).float()


class Stacks:
    """All trained values of some named parameters, whose data and gradients become views of the stacks.

    Matrices and convolutions inside a network are trained by Muon (Jordan et al. 2024), the rest and its ends by Adam.
    `start` has the values that what is large is packed as a difference to.
    """

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        start: Mapping[str, torch.Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
        muon: bool = True,
    ):
        groups: dict[tuple, list[str]] = {}
        for name, p in named.items():
            coarse = start is not None and name in start and p.ndim > 1 and p.numel() >= SMALLEST
            inner = muon and p.ndim > 1 and min(p[0].numel(), len(p)) >= 16 and not name.startswith("conv_")
            shape = (len(p), p[0].numel()) if inner or coarse else ()
            groups.setdefault((inner, coarse, shape), []).append(name)
        self.stacks = []
        for (inner, coarse, shape), names in groups.items():
            size = (len(names), *shape) if shape else (1, 1, -1)
            flat = torch.cat([named[n].detach().float().reshape(-1) for n in names]).view(size)
            begin = None
            if coarse and start is not None:
                begin = torch.cat([start[n].detach().to(flat.device).float().reshape(-1) for n in names]).view(size)
            work = flat.to(dtype).clone()
            shapes = [named[n].shape for n in names]
            stack = Stack(names, shapes, flat, begin, inner, work, torch.zeros_like(work), flat.clone())
            stack.moments = [torch.zeros_like(flat) for _ in range(1 if inner else 2)]
            self.stacks.append(stack)
            for n, value, grad in zip(names, stack.parts(work), stack.parts(stack.grad), strict=True):
                named[n].data = value
                named[n].grad = grad
        self.steps = 0

    @torch.no_grad()
    def step(self, rate: float, coarse: float = 0.0, decay: float = 0.998, clip: float = 1.0) -> None:
        """Trains by the gradients, which are zero then; `coarse` as in `Stack.value`."""
        self.steps += 1
        grads = [s.grad.float() for s in self.stacks]
        norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
        shrink = (clip / (norm + 1e-6)).clamp(max=1)
        keep = min(decay, self.steps / (self.steps + 9))
        for s, g in zip(self.stacks, grads, strict=True):
            g = g * shrink
            if s.muon:
                s.moments[0].lerp_(g, 1 - MOMENTUM)
                change = orthogonal(g.lerp(s.moments[0], MOMENTUM)) * 0.2 * max(g.shape[1:]) ** 0.5
            else:
                first, second = s.moments
                first.lerp_(g, 1 - BETAS[0])
                second.lerp_(g.square(), 1 - BETAS[1])
                lift = [1 - b**self.steps for b in BETAS]
                change = (first / lift[0]) / ((second / lift[1]).sqrt() + 1e-8)
            s.master.add_(change, alpha=-rate)
            s.average.lerp_(s.master, 1 - keep)
            s.grad.zero_()
        self.settle(coarse)

    @torch.no_grad()
    def settle(self, coarse: float = 0.0, average: bool = False) -> None:
        """Makes the network compute with the masters or their averages, rounded or not."""
        for s in self.stacks:
            s.work.copy_(s.value(average, coarse))

    def values(self, average: bool = True) -> dict[str, torch.Tensor]:
        """Name -> what is kept, float32, not rounded."""
        return {
            n: v for s in self.stacks for n, v in zip(s.names, s.parts(s.average if average else s.master), strict=True)
        }
