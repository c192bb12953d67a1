"""Noise by seed: recorded vectors, streams, batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from impasto_server.engine.modes import Txt2Img
from impasto_server.engine.noise import NoiseSource, noise_for_batch, noise_sources, philox_normal
from impasto_server.engine.params_common import NOISE_SOURCES
from impasto_server.engine.seeds import drawn_seeds, picture_seeds, seeds_of

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


def a1111_slerp(part, low, high):
    """Shoemake's formula over [channels, h, w], a vector being a column of a channel, in float64."""
    low, high = low.astype(np.float64), high.astype(np.float64)
    norms = [np.linalg.norm(v, axis=1, keepdims=True) for v in (low, high)]
    angle = np.arccos((low / norms[0] * high / norms[1]).sum(1, keepdims=True))
    return (np.sin((1 - part) * angle) * low + np.sin(part * angle) * high) / np.sin(angle)


@pytest.mark.parametrize("kind", NOISE_SOURCES)
def test_variation(kind):
    first, other = (NoiseSource(kind, seed).draw(4, 6, 5) for seed in (5, 77))

    def varied(strength: float) -> NoiseSource:
        return NoiseSource(kind, 5, variation_seed=77, variation_strength=strength)

    assert torch.equal(varied(0.0).draw(4, 6, 5), first)
    np.testing.assert_allclose(varied(1.0).draw(4, 6, 5), other, atol=1e-5)
    found = varied(0.3).draw(4, 6, 5)
    np.testing.assert_allclose(found[0], a1111_slerp(0.3, first[0].numpy(), other[0].numpy()), atol=1e-5)
    assert float(found.std()) == pytest.approx(1, abs=0.15)  # along great circles noise stays noise
    # What is drawn later comes from the stream of the seed.
    source, plain = varied(0.3), NoiseSource(kind, 5)
    assert not torch.equal(source.draw(4, 6, 5), plain.draw(4, 6, 5))
    assert torch.equal(source.draw(4, 6, 5), plain.draw(4, 6, 5))


def test_variation_of_a_seed_with_itself():
    same = NoiseSource("philox", 5, variation_seed=5, variation_strength=0.5).draw(4, 6, 5)
    torch.testing.assert_close(same, NoiseSource("philox", 5).draw(4, 6, 5))


def test_eta_noise_seed_delta():
    source, plain, other = NoiseSource("philox", 5, delta=31337), NoiseSource("philox", 5), NoiseSource("philox", 31342)
    assert torch.equal(source.draw(4, 6, 5), plain.draw(4, 6, 5))
    for _ in range(2):
        assert torch.equal(source.draw(4, 6, 5), other.draw(4, 6, 5))
    wrapped = NoiseSource("philox", 5, delta=-6)
    wrapped.draw(1, 1, 1)
    assert torch.equal(wrapped.draw(1, 2, 2), NoiseSource("philox", 2**64 - 1).draw(1, 2, 2))


@pytest.mark.parametrize("kind", NOISE_SOURCES)
def test_noise_of_another_size_in_the_middle(kind):
    small, whole = NoiseSource(kind, 5).draw(4, 6, 4), NoiseSource(kind, 5).draw(4, 8, 9)
    found = NoiseSource(kind, 5, first_size=(6, 4)).draw(4, 8, 9)
    assert torch.equal(found[:, :, 1:7, 2:6], small)
    found[:, :, 1:7, 2:6] = whole[:, :, 1:7, 2:6]
    assert torch.equal(found, whole)
    # A larger one is cut to its middle.
    large = NoiseSource(kind, 5).draw(4, 8, 8)
    cut = NoiseSource(kind, 5, first_size=(8, 8)).draw(4, 6, 4)
    assert torch.equal(cut, large[:, :, 1:7, 2:6])
    assert torch.equal(NoiseSource(kind, 5, first_size=(6, 4)).draw(4, 6, 4), small)


def test_sources_of_a_job():
    params = Txt2Img(
        seed=3, variation_seed=2**32 - 1, variation_strength=0.5, ensd=7, seed_resize_width=48, seed_resize_height=40
    )
    found = [source.draw(4, 8, 8) for source in noise_sources(params, (3, 3), 8)]
    for noise, variation in zip(found, (2**32 - 1, 0), strict=True):
        options = {"variation_strength": 0.5, "delta": 7, "first_size": (5, 6)}
        assert torch.equal(noise, NoiseSource("philox", 3, variation_seed=variation, **options).draw(4, 8, 8))
    plain = noise_sources(Txt2Img(seed=3, noise="torch-cpu"), (3,), 8)[0]
    assert torch.equal(plain.draw(4, 8, 8), NoiseSource("torch-cpu", 3).draw(4, 8, 8))


def test_seeds_of_a_batch():
    assert seeds_of(Txt2Img(seed=2**32 - 1, batch=3)) == (2**32 - 1, 0, 1)
    varied = Txt2Img(seed=9, batch=3, variation_seed=4, variation_strength=0.1)
    assert seeds_of(varied) == (9, 9, 9)
    alone = picture_seeds(varied, 2)
    assert (alone.seed, alone.variation_seed, alone.batch) == (9, 6, 1)
    assert picture_seeds(Txt2Img(seed=9, batch=3, variation_seed=4), 2).variation_seed == 4
    drawn = drawn_seeds(Txt2Img(variation_strength=0.2))
    assert 0 <= drawn.seed < 2**32 and 0 <= drawn.variation_seed < 2**32 and drawn.seed != drawn.variation_seed
    assert drawn_seeds(Txt2Img(seed=3)) == Txt2Img(seed=3)


def test_bad_arguments():
    with pytest.raises(ValueError):
        NoiseSource("philox", -1)
    with pytest.raises(ValueError):
        NoiseSource("dice", 1)
