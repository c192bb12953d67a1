"""Random numbers for networks of the true shapes: the same wherever they are made."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

__all__ = ["random_state"]


def random_state(network: Any, seed: int = 0, gain: float = 1.0) -> dict[str, Any]:
    """A state for a torch module, by numpy's generator: He's spread for weights, times `gain` (deep networks want less,
    or rounding grows through them), small biases, sane statistics."""
    import torch

    state = {}
    for name, value in network.state_dict().items():
        shape = tuple(value.shape)
        random = np.random.default_rng([seed, zlib.crc32(name.encode())])  # whatever their order is
        if not value.is_floating_point():
            state[name] = value.clone()
        elif name.endswith("running_var"):
            state[name] = torch.from_numpy(random.uniform(0.5, 1.5, shape).astype(np.float32))
        elif len(shape) > 1:
            spread = gain * (2 / max(int(np.prod(shape[1:])), 1)) ** 0.5
            state[name] = torch.from_numpy((random.standard_normal(shape) * spread).astype(np.float32))
        else:
            middle = 1.0 if name.endswith("weight") else 0.0
            state[name] = torch.from_numpy((middle + random.standard_normal(shape) * 0.05).astype(np.float32))
    return state
