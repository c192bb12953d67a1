"""Large pictures over a real socket, with the real engine in the worker process and no network."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_protocol.geometry import Box, Size
from impasto_protocol.messages import Cancel, Cancelled, Error, Plan, PlanOk, Progress
from impasto_server.service import facts
from PIL import Image

from tests.e2e import guard
from tests.e2e.test_e2e_actions import one, sent, settings_of
from tests.e2e.test_e2e_serve import impasto
from tests.service.fakes import ask_submit, connected, running
from tests.tiny import write_tiny_checkpoint
from tests.upscalers import compact, save

CANVAS = Size(152, 100)


@pytest.fixture(autouse=True)
def no_network() -> Any:
    guard.watch()
    yield
    guard.watching[0] = False


def photo(size: Size) -> np.ndarray:
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 4), np.uint8))
    pixels = np.array(small.resize(tuple(size), Image.Resampling.BICUBIC))
    pixels[..., 3] = 255
    return pixels


def test_refine_in_tiles(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "models" / "tiny.safetensors")
    image = photo(CANVAS)

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (_, endpoint),
            connected(endpoint) as peer,
        ):
            params = {"prompt": "hills", "steps": 4, "seed": 5, "strength": 0.5}
            planned = await peer.ask(Plan, "refine", params, CANVAS)
            assert isinstance(planned, PlanOk)
            assert planned.box == Box.of_size(CANVAS) and planned.working == Size(152, 104)
            inputs = {"image": await sent(peer, image, Box.of_size(CANVAS))}
            made = []
            for tiling in ("latent", "pixel"):
                asked = {**params, "tiling": tiling}
                output, pixels, end = await one(peer, tiling, "refine", asked, inputs, CANVAS)
                assert output.placement == Box.of_size(CANVAS) and output.stage == "refine"
                assert end.ran["tiling"] == tiling and (pixels != image).any()
                made.append(pixels)
            assert (made[0] != made[1]).any()
            for bad, path in (({"tile": 3}, "params.tile"), ({"tiling": "x"}, "params.tiling")):
                answer = await ask_submit(peer, "bad", "refine", params=bad, canvas=CANVAS, inputs=inputs)
                assert isinstance(answer, Error) and (answer.code, answer.path) == ("request.invalid_param", path)
            await ask_submit(
                peer, "c", "refine", params={**params, "steps": 150, "strength": 1}, canvas=CANVAS, inputs=inputs
            )
            await peer.until(Progress, "c")
            await peer.ask(Cancel, "c")
            assert isinstance(await peer.end("c"), Cancelled)

    asyncio.run(scenario())


def test_on_the_command_line(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "models" / "tiny.safetensors")
    folder = tmp_path / "models" / "upscale_models"
    folder.mkdir()
    save(folder / "one.pth", compact())
    Image.fromarray(photo(Size(64, 48))).save(tmp_path / "in.png")
    blended = ["--upscaler", "one", "--second-share", "0.5", "--size", "100x0"]
    made = impasto(tmp_path, "upscale", "--image", "in.png", *blended, "-o", "larger.png")
    assert made.returncode == 0, made.stderr
    made = impasto(tmp_path, "refine", "--image", "larger.png", "--steps", "2", "--tile", "64", "-o", "fine.png")
    assert made.returncode == 0, made.stderr
    with Image.open(tmp_path / "fine.png") as image:
        assert image.size == (100, 75) and image.mode == "RGB"
    refused = impasto(tmp_path, "upscale", "--image", "in.png", "--size", "0x0")
    assert refused.returncode == 2 and "2048x0" in refused.stderr
