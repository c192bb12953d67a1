"""Pictures to latents and back; half precision that overflows."""

from __future__ import annotations

import pytest
import torch
from impasto_protocol.errors import ModelError
from impasto_server.engine import vae as vae_
from impasto_server.engine.noise import NoiseSource, noise_for_batch

from tests.golden.tiny import seeded, tiny_vae

SCALE = 0.18215


@pytest.fixture(scope="module")
def vae():
    return tiny_vae()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def pictures(batch=1):
    return torch.rand(batch, 3, 64, 48, generator=seeded(1)) * 2 - 1


def test_images_there_and_back():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    values = vae_.from_images(images)
    assert values.shape == (1, 3, 16, 16) and float(values.min()) == -1 and float(values.max()) == 1
    assert torch.equal(vae_.to_images(values), images)
    assert vae_.to_images(torch.full((1, 3, 2, 2), 7.0)).max() == 255


def test_encoding_is_the_mode_and_contiguous(vae):
    latents = vae_.encode(vae, pictures(), SCALE)
    assert latents.shape == (1, 4, 8, 6) and latents.is_contiguous() and latents.dtype == torch.float32
    assert torch.equal(latents, vae.encode(pictures()).latent_dist.mode() * SCALE)
    assert vae_.factor_of(vae) == 8


def test_sampling_takes_the_noise(vae):
    expected = vae.encode(pictures()).latent_dist.sample(seeded(9)) * SCALE
    drawn = vae_.encode(vae, pictures(), SCALE, noise_for_batch([NoiseSource("torch-cpu", 9)]))
    torch.testing.assert_close(drawn, expected)


def test_decoding(vae):
    latents = torch.randn(2, 4, 8, 6, generator=seeded(2))
    decoded = vae_.decode(vae, latents, SCALE)
    assert torch.equal(decoded.images, vae.decode(latents / SCALE).sample) and decoded.dtype == torch.float32


def test_overflow_is_done_again_in_fp32(vae):
    half = tiny_vae().half()

    class Overflows(type(half)):
        def decode(self, z, return_dict=True):
            out = super().decode(z, return_dict=False)[0]
            return (out * torch.inf if self.dtype == torch.float16 else out,)

    half.__class__ = Overflows
    latents = torch.randn(1, 4, 4, 4, generator=seeded(2))
    decoded = vae_.decode(half, latents, SCALE)
    assert decoded.dtype == torch.float32 and torch.isfinite(decoded.images).all()
    assert half.dtype == torch.float16  # the shared module is as it was
    torch.testing.assert_close(decoded.images, vae_.decode(vae, latents, SCALE).images, rtol=0.05, atol=0.05)


def test_not_a_number_for_good(vae):
    with pytest.raises(ModelError, match="not numbers"):
        vae_.decode(vae, torch.full((1, 4, 4, 4), torch.nan), SCALE)
