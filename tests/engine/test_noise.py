"""Noise by seed: recorded vectors, streams, batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from impasto_server.engine.noise import NoiseSource, noise_for_batch, philox_normal
from impasto_server.engine.params_common import NOISE_SOURCES

CUDA_SEED_0 = [
    -0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797, -0.6229, -0.3284,
    -1.0745, -0.3631, -1.6711, 2.2655, 0.3117, -0.1842, 1.2866, 1.1820,
]  # fmt: skip


def test_philox_gives_what_torch_gives_on_a_card():
    np.testing.assert_allclose(philox_normal(0, 0, 16), CUDA_SEED_0, atol=5.1e-5)


def test_philox_is_normal():
    values = philox_normal(1234567, 3, 200_000)
    assert abs(values.mean()) < 0.01 and abs(values.std() - 1) < 0.01
    assert np.isfinite(values).all() and np.abs(values).max() < 7


def test_torch_cpu_is_torch():
    expected = torch.randn(1, 4, 8, 8, generator=torch.Generator("cpu").manual_seed(42))
    assert torch.equal(NoiseSource("torch-cpu", 42).draw(4, 8, 8), expected)


@pytest.mark.parametrize("kind", NOISE_SOURCES)
def test_streams_are_per_picture_at_any_batch_size(kind):
    like = torch.zeros(3, 4, 6, 5, dtype=torch.float64)
    batch = noise_for_batch([NoiseSource(kind, s) for s in (7, 8, 2**40)])
    first, second = batch(like), batch(like)
    assert first.dtype == torch.float64 and first.shape == like.shape
    assert not torch.equal(first, second)
    for row, seed in enumerate((7, 8, 2**40)):
        alone = noise_for_batch([NoiseSource(kind, seed)])
        assert torch.equal(alone(like[:1])[0], first[row])
        assert torch.equal(alone(like[:1])[0], second[row])


@pytest.mark.parametrize("kind", NOISE_SOURCES)
def test_seed_decides(kind):
    assert torch.equal(NoiseSource(kind, 5).draw(4, 4, 4), NoiseSource(kind, 5).draw(4, 4, 4))
    assert not torch.equal(NoiseSource(kind, 5).draw(4, 4, 4), NoiseSource(kind, 6).draw(4, 4, 4))


def test_bad_arguments():
    with pytest.raises(ValueError):
        NoiseSource("philox", -1)
    with pytest.raises(ValueError):
        NoiseSource("dice", 1)
