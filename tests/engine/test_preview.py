"""Small pictures of latents."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from impasto_server.engine.preview import LatentColors, colors_of, fit_colors, preview_jpeg
from PIL import Image

MIX = torch.tensor([[0.5, 0.1, -0.2], [0.1, 0.6, 0.2], [-0.3, 0.2, 0.7], [0.2, 0.2, 0.1]])


class LinearVae(torch.nn.Module):
    """Latents that depend linearly on the mean colour under them: the fit must find the way back."""

    config = SimpleNamespace(block_out_channels=(8, 8, 8, 8))

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def _encode(self, pixels):
        means = torch.nn.functional.avg_pool2d(pixels, 8)
        latents = torch.einsum("bchw,lc->blhw", means, MIX) + 0.3
        return torch.cat([latents, torch.zeros_like(latents)], 1)


def test_fit_finds_the_colours():
    colors = fit_colors(LinearVae(), 0.5)
    red = torch.tensor([1.0, -1.0, -1.0])
    latent = ((MIX @ red + 0.3) * 0.5)[None, :, None, None].expand(1, 4, 4, 4)
    preview = preview_jpeg(latent, colors, 8, 64, 3)
    pixels = np.asarray(Image.open(io.BytesIO(preview.jpeg)))
    np.testing.assert_allclose(pixels.reshape(-1, 3).mean(axis=0), [255, 0, 0], atol=6)
    assert preview.step == 3


def test_the_known_matrix_for_the_known_vae():
    known = SimpleNamespace(config=SimpleNamespace(block_out_channels=(128, 256, 512, 512)))
    colors = colors_of(known, 0.18215)
    assert float(colors.matrix[0, 0]) == pytest.approx(0.149) and float(colors.bias[0]) == 0.5


@pytest.mark.parametrize(
    ("latent", "max_size", "size"),
    [((16, 16), 256, (128, 128)), ((64, 48), 256, (192, 256)), ((1, 1), 4, (4, 4)), ((100, 1), 8, (1, 8))],
)
def test_size(latent, max_size, size):
    colors = LatentColors(torch.zeros(4, 3), torch.full((3,), 0.5))
    preview = preview_jpeg(torch.zeros(1, 4, *latent), colors, 8, max_size, 1)
    assert (preview.width, preview.height) == size == Image.open(io.BytesIO(preview.jpeg)).size


def test_not_a_number_still_shows():
    colors = LatentColors(torch.ones(4, 3), torch.zeros(3))
    assert preview_jpeg(torch.full((1, 4, 2, 2), torch.nan), colors, 8, 64, 1).jpeg.startswith(b"\xff\xd8")
