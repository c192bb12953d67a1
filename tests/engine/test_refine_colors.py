"""A full tiled refine does not shift colours: flat grey and a gradient, with the starter model at a strength of 0.3."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.jobs import Job, Layer
from impasto_server.engine.modes import Refine
from impasto_server.engine.run import Engine

from starter.unpack import install

WIDTH, HEIGHT = 224, 160
CELL = 32


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(install(Path(tmp_path_factory.mktemp("models"))))


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB in 0..255."""
    v = rgb / 255
    v = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    matrix = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = v @ matrix.T / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def de2000(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """CIEDE2000 (Sharma, Wu, Dalal, 2005) of two fields of CIELAB."""
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0)
    middle = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    more = 1 + 0.5 * (1 - np.sqrt(middle**7 / (middle**7 + 25.0**7)))
    c1, c2 = np.hypot(a1 * more, b1), np.hypot(a2 * more, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1 * more)) % 360, np.degrees(np.arctan2(b2, a2 * more)) % 360
    grey = c1 * c2 == 0
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2)
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    mean = np.where(grey, h1 + h2, (h1 + turn / 2) % 360)
    cosines = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    t = 1 + sum(weight * np.cos(np.radians(times * mean + shift)) for weight, times, shift in cosines)
    sl = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    sc, sh = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    rt = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * np.sin(np.radians(60 * np.exp(-(((mean - 275) / 25) ** 2))))
    dl, dc, dh = (l2 - l1) / sl, (c2 - c1) / sc, hue / sh
    return np.sqrt(np.maximum(dl**2 + dc**2 + dh**2 + rt * dc * dh, 0))


def test_the_formula() -> None:
    # Pairs 1, 7 and 25 of the paper's table.
    pairs = np.array(
        [
            [[50, 2.6772, -79.7751], [50, 0, -82.7485]],
            [[50, 0, 0], [50, -1, 2]],
            [[60.2574, -34.0099, 36.2677], [60.4626, -34.1751, 39.4387]],
        ]
    )
    np.testing.assert_allclose(de2000(pairs[:, 0], pairs[:, 1]), [2.0425, 2.3669, 1.2644], atol=1e-4)


def coarse(rgb: np.ndarray) -> np.ndarray:
    """The mean colours of cells: what is finer is detail, and no shift."""
    return rgb.reshape(HEIGHT // CELL, CELL, WIDTH // CELL, CELL, 3).mean((1, 3))


FLAT = np.full((HEIGHT, WIDTH, 3), 128.0)
GRADIENT = np.dstack(
    [
        np.tile(np.linspace(20, 230, WIDTH), (HEIGHT, 1)),
        np.tile(np.linspace(230, 60, HEIGHT)[:, None], (1, WIDTH)),
        np.full((HEIGHT, WIDTH), 120.0),
    ]
)


@pytest.mark.parametrize("tiling", ["latent", "pixel"])
@pytest.mark.parametrize("picture", [FLAT, GRADIENT], ids=["flat", "gradient"])
def test_colours_are_held(starter: str, picture: np.ndarray, tiling: str) -> None:
    image = np.dstack([np.rint(picture), np.full(picture.shape[:2], 255)]).astype(np.uint8)
    params = Refine(seed=3, steps=8, strength=0.3, tiling=tiling)
    size, layers = Size(WIDTH, HEIGHT), list[Layer]()
    job = Job("x", "refine", params, size, Box.of_size(size), starter, image=image)
    Engine("cpu", "fp32").run(job, lambda e: layers.append(e) if isinstance(e, Layer) else None, lambda: False)
    made, asked = layers[0].pixels[..., :3].astype(float), image[..., :3].astype(float)
    assert (made != asked).any()
    assert de2000(lab(made).mean((0, 1)), lab(asked).mean((0, 1))) < 0.5
    assert de2000(lab(coarse(made)), lab(coarse(asked))).mean() < 0.5
