"""The plain sampler computes in bf16 only where that is quicker."""

from __future__ import annotations

import pytest
import torch

from starter.sample import quick


@pytest.mark.parametrize("able", [False, True])
def test_bf16_is_used_on_processors_that_compute_in_it(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    a = torch.ones(4, 4)
    with quick(torch.device("cpu")):
        assert (a @ a).dtype == (torch.bfloat16 if able else torch.float32)
