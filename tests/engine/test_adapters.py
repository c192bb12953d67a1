"""What several adapters do to one call adds up."""

from __future__ import annotations

import torch
from impasto_server.engine.adapters import NetworkCall, RowLabel, Step


def call() -> NetworkCall:
    return NetworkCall(
        sample=torch.zeros(1, 4, 8, 8),
        timestep=torch.tensor(1.0),
        encoder_hidden_states=torch.zeros(1, 77, 8),
        rows=(RowLabel("cond", 0, 0),),
    )


def test_residuals_of_two_adapters_add_up():
    c = call()
    down, mid = [torch.ones(1, 2), torch.full((1, 3), 2.0)], torch.ones(1, 4)
    c.add_residuals(down, mid)
    c.add_residuals(down, mid * 3)
    assert c.down_residuals is not None and c.mid_residual is not None
    assert [float(t.flatten()[0]) for t in c.down_residuals] == [2.0, 4.0]
    assert float(c.mid_residual[0, 0]) == 4.0


def test_channels_are_appended_in_order():
    c = call()
    c.add_channels(torch.ones(1, 1, 8, 8))
    c.add_channels(torch.zeros(1, 4, 8, 8))
    assert c.concat is not None and c.concat.shape == (1, 5, 8, 8) and float(c.concat[0, 0, 0, 0]) == 1


def test_fraction_of_a_step():
    step = Step(5, 20, torch.tensor(1.0), torch.tensor(500.0))
    assert step.fraction == 0.25
