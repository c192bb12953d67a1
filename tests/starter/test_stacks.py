"""Stacked training: views, rounding as the packer rounds, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from starter.pack import stepped
from starter.stacks import Stacks, orthogonal


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))


@pytest.mark.parametrize("shape", [(2, 32, 96), (2, 96, 32)])
def test_orthogonal_brings_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape), steps=5))
    assert values.min() > 0.5 and values.max() < 1.3


def test_a_network_learns_through_its_stacks_and_stays_coarse() -> None:
    net, x = network(), torch.randn(256, 64)
    y = x[:, :3].sin()
    start = {n: p.detach().clone() for n, p in net.named_parameters()}
    stacks = Stacks(dict(net.named_parameters()), start)
    losses = []
    for _ in range(150):
        loss = (net(x) - y).square().mean()
        loss.backward()
        losses.append(loss.item())
        stacks.step(5e-3, coarse=1.0)
    assert losses[-1] < 0.3 * losses[0]
    kept = stacks.values(average=False)
    assert kept.keys() == start.keys()
    for name, shown in net.named_parameters():
        if shown.ndim > 1 and shown.numel() >= 2048:
            steps, width = stepped((kept[name] - start[name]).numpy(), 1.0)
            wanted = start[name].numpy() + steps * width[:, None]
            assert np.allclose(shown.detach().numpy(), wanted, atol=1e-5), name
        else:
            assert torch.equal(shown, kept[name]), name


def test_what_is_computed_with_may_be_of_lower_precision() -> None:
    net = network()
    stacks = Stacks(dict(net.named_parameters()), dtype=torch.bfloat16)
    net(torch.randn(8, 64).bfloat16()).square().mean().backward()
    stacks.step(1e-3)
    assert all(p.dtype == torch.bfloat16 and not p.grad.any() for p in net.parameters())
    assert all(v.dtype == torch.float32 for v in stacks.values().values())
