"""Sketch and upscale over a real socket, with the real engine in the worker process and no network."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_protocol.geometry import Box, Size
from impasto_protocol.messages import Cancel, Cancelled, Error, Finished, InputPicture, Output, Plan, PlanOk, Progress
from impasto_server.service import facts
from PIL import Image

from tests.e2e import guard
from tests.e2e.test_e2e_serve import impasto
from tests.service.fakes import Peer, ask_submit, connected, running, settings_for
from tests.tiny import write_tiny_checkpoint

CANVAS, BOX = Size(160, 120), Box(32, 16, 96, 80)


@pytest.fixture(autouse=True)
def no_network() -> Any:
    guard.watch()
    yield
    guard.watching[0] = False


def settings_of(home: Path) -> Any:
    return settings_for(home, worker="process", engine="tests.e2e.guard:engine", precision="fp32")


async def sent(peer: Peer, pixels: Any, box: Box) -> InputPicture:
    return InputPicture(await peer.put(pixels.tobytes()), box.width, box.height, "rgba8", box.x, box.y)


async def one(peer: Peer, job: str, mode: str, params: Any, inputs: Any, canvas: Size) -> tuple[Output, Any, Finished]:
    await ask_submit(peer, job, mode, params=params, canvas=canvas, inputs=inputs)
    end = await peer.end(job)
    assert isinstance(end, Finished), end
    output = await peer.until(Output, job)
    return output, np.frombuffer(await peer.fetch(output), np.uint8).reshape(output.height, output.width, 4), end


def test_sketch(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "models" / "tiny.safetensors")
    sketch = np.zeros((BOX.height, BOX.width, 4), np.uint8)
    sketch[20:60, 30:70] = (220, 20, 30, 255)
    under = np.random.default_rng(0).integers(0, 256, (BOX.height, BOX.width, 4), np.uint8)
    under[..., 3] = 255

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (_, endpoint),
            connected(endpoint) as peer,
        ):
            params = {"prompt": "an apple", "steps": 3, "seed": 5}
            planned = await peer.ask(Plan, "sketch", params, CANVAS, BOX)
            assert isinstance(planned, PlanOk) and planned.box == BOX and planned.steps == 3
            image = await sent(peer, sketch, BOX)
            output, white, _ = await one(peer, "s1", "sketch", params, {"image": image}, CANVAS)
            assert output.placement == BOX and output.alpha == "opaque" and (white[..., 3] == 255).all()
            assert output.info["mode"] == "sketch"
            over = {**params, "background": "document"}
            both = {"image": image, "backdrop": await sent(peer, under, BOX)}
            _, document, _ = await one(peer, "s2", "sketch", over, both, CANVAS)
            assert (white != document).any()

            answer = await ask_submit(peer, "s3", "sketch", params=over, canvas=CANVAS, inputs={"image": image})
            assert isinstance(answer, Error) and answer.code == "request.missing_input"
            assert answer.path == "inputs.backdrop"
            beside = {"image": image, "backdrop": await sent(peer, under, Box(0, 0, *BOX.size))}
            answer = await ask_submit(peer, "s4", "sketch", params=over, canvas=CANVAS, inputs=beside)
            assert isinstance(answer, Error) and answer.code == "request.bad_geometry"
            assert answer.path == "inputs.backdrop"

    asyncio.run(scenario())


def test_both_on_the_command_line(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "models" / "tiny.safetensors")
    strokes = Image.new("RGBA", (96, 64))
    strokes.paste((200, 0, 0, 255), (20, 20, 60, 50))
    strokes.save(tmp_path / "sketch.png")
    made = impasto(
        tmp_path, "sketch", "--image", "sketch.png", "--steps", "2", "--prompt", "an apple", "-o", "made.png"
    )
    assert made.returncode == 0, made.stderr
    larger = impasto(tmp_path, "upscale", "--image", "sketch.png", "--scale", "1.5", "-o", "larger.png")
    assert larger.returncode == 0, larger.stderr
    with Image.open(tmp_path / "made.png") as image:
        assert image.size == (96, 64) and image.mode == "RGB"
    with Image.open(tmp_path / "larger.png") as image:
        assert image.size == (144, 96) and image.mode == "RGBA" and image.getpixel((60, 52)) == (200, 0, 0, 255)
        assert image.getpixel((3, 3))[3] == 0


def test_upscale_without_any_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (CANVAS.height, CANVAS.width, 4), np.uint8)

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (server, endpoint),
            connected(endpoint) as peer,
        ):
            available = {mode.name: mode.available for mode in server.catalogue.modes()}
            assert available["upscale"] and not available["sketch"]
            whole = Box.of_size(CANVAS)
            planned = await peer.ask(Plan, "upscale", {"scale": 2.5}, CANVAS)
            assert isinstance(planned, PlanOk) and planned.box == whole and planned.working == Size(400, 300)
            inputs = {"image": await sent(peer, picture, whole)}
            output, pixels, end = await one(peer, "u1", "upscale", {"scale": 2.5}, inputs, CANVAS)
            assert output.placement == Box(0, 0, 400, 300) and output.stage == "upscale"
            assert (output.width, output.height) == (400, 300) and pixels.std() > 20
            assert end.seeds == () and end.ran["method"] == "lanczos"
            _, same, _ = await one(peer, "u2", "upscale", {"scale": 1}, inputs, CANVAS)
            assert (same == picture).all()

            for params, code, path in (
                ({"scale": 9}, "request.invalid_param", "params.scale"),
                ({"upscaler": "magic"}, "model.unknown", "params.upscaler"),
                ({"model": "tiny"}, "request.invalid_param", "params.model"),
            ):
                answer = await ask_submit(peer, "bad", "upscale", params=params, canvas=CANVAS, inputs=inputs)
                assert isinstance(answer, Error) and (answer.code, answer.path) == (code, path)
            answer = await peer.ask(Plan, "upscale", {"scale": 8}, Size(16_384, 16_384))
            assert isinstance(answer, Error) and answer.code == "request.bad_geometry"
            assert answer.path == "params.scale"

            # A cancel is heard within one band.
            large = Box(0, 0, 1024, 1024)
            inputs = {"image": await sent(peer, np.zeros((1024, 1024, 4), np.uint8), large)}
            await ask_submit(peer, "c", "upscale", params={"scale": 8}, canvas=large.size, inputs=inputs)
            await peer.until(Progress, "c")
            await peer.ask(Cancel, "c")
            assert isinstance(await peer.end("c"), Cancelled)

    asyncio.run(scenario())
