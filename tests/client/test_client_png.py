"""A saved result: every pixel, and what other programs read of how it was made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from impasto_client.document import ResultLayer
from impasto_client.png import png_of, save_png
from impasto_protocol.geometry import Box
from PIL import Image


def result(width: int, height: int, format: str = "rgba8", **recipe: object) -> ResultLayer:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 4), np.uint8)
    return ResultLayer("j", 0, Box(3, 4, width, height), pixels.tobytes(), format, "n", "inpaint", "soft", 5, recipe)


@pytest.mark.parametrize("size", [(1, 1), (33, 17), (1, 700), (700, 900)])
@pytest.mark.parametrize("format", ["rgba8", "bgra8"])
def test_every_pixel_is_kept(size: tuple[int, int], format: str, tmp_path: Path) -> None:
    made = result(*size, format)
    save_png(made, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGBA" and image.size == size
        assert image.tobytes() == made.in_format("rgba8").pixels
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("prompt", ["a cat", "ein Mädchen, 猫"])
def test_it_says_how_it_was_made(prompt: str, tmp_path: Path) -> None:
    parameters = f"{prompt}\nSteps: 20, Sampler: Euler"
    made = result(8, 8, mode="inpaint", parameters=parameters, digital_source_type="trainedAlgorithmicMedia")
    (tmp_path / "a.png").write_bytes(png_of(made))
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.info["parameters"] == parameters
        assert json.loads(image.info["impasto"])["mode"] == "inpaint"
        assert "digitalsourcetype/trainedAlgorithmicMedia" in image.info["XML:com.adobe.xmp"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        save_png(result(4, 4), tmp_path / "nowhere" / "a.png")
