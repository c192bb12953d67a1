"""The noise of SDE samplers as A1111 draws it: a Brownian motion in sigma, worked out by halving (a Brownian tree).

A1111 takes it from torchsde's BrownianTree (Li et al., "Scalable gradients for stochastic differential equations",
2020, section 4), one for each picture, with the picture's seed. Any point of the motion is found by halving the whole
interval: the value at the middle is normal around the mean of both ends (Levy's construction), and where it lies in
the tree gives the seed of its noise (numpy's SeedSequence). So the motion depends on the seed and on the ends alone,
whatever points are asked for. A1111 replaces the generator of the tree by its own, so that its setting RNG counts here
as well: `philox` is its GPU and NV, `torch-cpu` its CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .noise import Noise, NoiseSource, noise_at, noise_for_batch
from .params_sampling import Sampled
from .sampler_names import SAMPLER_INFO

__all__ = ["BrownianPath", "BrownianTree", "step_noise"]

_DIGITS = 6
"""Places after the point to which levels are told apart."""

_POOL = 24
"""The size of the pool of the SeedSequence; torchsde's choice, which the numbers depend on."""


@dataclass(frozen=True)
class _Part:
    """An interval of the tree and what the motion gains in it. `depth` 0 is the whole, of `key` 0; the halves of a part
    have the keys 2 key and 2 key + 1."""

    start: float
    end: float
    depth: int
    key: int
    gain: torch.Tensor


class BrownianTree:
    """One motion over the levels `low` to `high`. `draw` gives standard normal noise of always the same shape for a
    seed of 32 bits. Equal to torchsde's BrownianTree (0.2.6) of that entropy to the last bit."""

    def __init__(self, draw: Callable[[int], torch.Tensor], entropy: int, low: float, high: float) -> None:
        self._draw, self._entropy = draw, entropy
        (seed, *_) = np.random.SeedSequence(entropy, pool_size=_POOL).generate_state(3)
        gain = draw(int(seed)) * math.sqrt(high - low)
        self._whole = _Part(round(low, _DIGITS), round(high, _DIGITS), 0, 0, gain)
        self._kept: dict[tuple[int, int], tuple[_Part, _Part]] = {}

    def __call__(self, start: float, end: float) -> torch.Tensor:
        """What the motion gains from the level `start` to the higher one `end`; beyond the ends it stands still."""
        start, end = (round(min(max(v, self._whole.start), self._whole.end), _DIGITS) for v in (start, end))
        if start >= end:
            return torch.zeros_like(self._whole.gain)
        used: dict[tuple[int, int], tuple[_Part, _Part]] = {}
        first, *others = self._cover(self._whole, start, end, used)
        self._kept = used  # the next question begins where this one ended
        gain = first.gain
        for part in others:
            gain = gain + part.gain
        return gain

    def _cover(
        self, part: _Part, start: float, end: float, used: dict[tuple[int, int], tuple[_Part, _Part]]
    ) -> list[_Part]:
        """The largest parts that make up the interval, from its start on."""
        found, open_parts = list[_Part](), [(part, start, end)]
        while open_parts:
            part, start, end = open_parts.pop()
            if (start, end) == (part.start, part.end):
                found.append(part)
                continue
            where = part.depth, part.key
            left, right = used[where] = self._kept.get(where) or self._halves(part)
            if end > left.end:
                open_parts.append((right, max(start, right.start), end))
            if start < left.end:
                open_parts.append((left, start, min(end, left.end)))
        return found

    def _halves(self, part: _Part) -> tuple[_Part, _Part]:
        middle = round(0.5 * (part.end + part.start), _DIGITS)
        seeds = np.random.SeedSequence(self._entropy, spawn_key=(part.key, part.depth), pool_size=_POOL)
        left, right, share = middle - part.start, part.end - middle, 1 / (part.end - part.start)
        noise = self._draw(int(seeds.generate_state(4)[0]))
        gain = left * part.gain * share + math.sqrt(left * right * share) * noise
        return (
            _Part(part.start, middle, part.depth + 1, 2 * part.key, gain),
            _Part(middle, part.end, part.depth + 1, 2 * part.key + 1, part.gain - gain),
        )


class BrownianPath:
    """The noise of a batch, each picture from a tree of its own. Also a `Noise`, for what is no increment."""

    def __init__(self, trees: Sequence[BrownianTree], stream: Noise) -> None:
        self._trees, self._stream = trees, stream

    def __call__(self, like: torch.Tensor) -> torch.Tensor:
        return self._stream(like)

    def between(self, like: torch.Tensor, now: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Standard normal noise of the shape of `like`: the increment from the level `now` down to `after`, both 0-d,
        over the root of its length."""
        low, high = float(after), float(now)
        gains = torch.stack([tree(low, high) for tree in self._trees])
        # The motion is run against its direction, hence the sign.
        return (-gains / (now - after).abs().sqrt().cpu()).to(like.device, like.dtype)


def step_noise(
    params: Sampled, sources: Sequence[NoiseSource], like: torch.Tensor, sigmas: torch.Tensor, highest: float
) -> Noise:
    """What the steps of a run draw from, a picture each of `like` [batch, channels, h, w]: the pictures' streams, or
    their trees where the parameters say so and the sampler has a use for them.

    A tree spans the whole schedule: from `highest` to the smallest level above 0, also where `sigmas`, the levels of
    the run, begin further down.
    """
    stream = noise_for_batch(sources)
    if params.sde_noise != "tree" or not SAMPLER_INFO[params.sampler].brownian:
        return stream
    shape, low = tuple(like.shape[1:]), float(sigmas[sigmas > 0].min())

    def tree(source: NoiseSource) -> BrownianTree:
        return BrownianTree(lambda seed: noise_at(source.kind, seed, shape), source.seed, low, highest)

    return BrownianPath([tree(source) for source in sources], stream)
