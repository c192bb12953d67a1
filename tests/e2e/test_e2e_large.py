"""Large pictures over a real socket, with the real engine in the worker process and no network."""

from __future__ import annotations

import asyncio
import json
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


def test_a_chain_on_the_command_line(tmp_path: Path) -> None:
    """Variants, one of them enlarged and refined: every link's pictures as files; what is left of it gone on with."""
    write_tiny_checkpoint(tmp_path / "models" / "tiny.safetensors")
    start = ["txt2img", "--prompt", "hills", "--steps", "2", "--batch", "2", "--seed", "5", "-o", "out.png"]
    up = ["--then", "upscale", "--scale", "1.5", "--pick", "1"]
    fine = ["--then", "refine", "--prompt", "hills", "--steps", "2", "--seed", "5"]
    made = impasto(tmp_path, *start, *up, *fine, "--tiling", "pixel")
    assert made.returncode == 0, made.stderr
    names = ["out-1-generate-1.png", "out-1-generate-2.png", "out-2-upscale.png", "out.png"]
    assert made.stdout.split() == names
    sizes = [Image.open(tmp_path / name).size for name in names]
    assert sizes == [(64, 64), (64, 64), (96, 96), (96, 96)]
    assert Image.open(tmp_path / names[2]).tobytes() != Image.open(tmp_path / names[3]).tobytes()

    refused = impasto(tmp_path, *start, "--then", "refine", "--tile", "3")
    assert (refused.returncode == 2 and "then[0].params.tile" in refused.stderr) or "64" in refused.stderr
    refused = impasto(tmp_path, *start, "--then", "inpaint")
    assert refused.returncode == 2 and "inpaint" in refused.stderr
    (tmp_path / "chain.json").write_text('[{"mode": "upscale", "params": {"scale": 2}}]')
    made = impasto(tmp_path, "upscale", "--image", names[0], "--chain", "chain.json", "-o", "large.png")
    assert made.returncode == 0, made.stderr
    assert Image.open(tmp_path / "large.png").size == (256, 256)
    (tmp_path / "chain.json").write_text("{")
    assert impasto(tmp_path, "upscale", "--image", names[0], "--chain", "chain.json").returncode == 2


def test_going_on_with_a_chain_from_its_last_finished_picture(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "models" / "tiny.safetensors")
    chain = ["--then", "upscale", "--scale", "1.5", "--then", "refine", "--steps", "2", "--seed", "5"]
    made = impasto(tmp_path, "txt2img", "--steps", "2", "--seed", "5", "-o", "out.png", *chain)
    assert made.returncode == 0, made.stderr
    listed = [json.loads(line) for line in impasto(tmp_path, "history", "--json").stdout.splitlines()]
    assert [len(entry["recipe"].get("then", ())) for entry in listed] == [0, 1, 2]
    # As if it had been cut off in the last link.
    for file in (tmp_path / "history").glob(f"{Path(listed[0]['file']).stem}*"):
        file.unlink()
    again = impasto(tmp_path, "history", "--resume", listed[0]["job"][:8], "-o", "again.png")
    assert again.returncode == 0, again.stderr
    with Image.open(tmp_path / "out.png") as one, Image.open(tmp_path / "again.png") as other:
        assert one.tobytes() == other.tobytes()
    done = impasto(tmp_path, "history", "--json").stdout.splitlines()
    refused = impasto(tmp_path, "history", "--resume", json.loads(done[0])["job"][:8])
    assert refused.returncode == 2 and "Nothing is left" in refused.stderr
