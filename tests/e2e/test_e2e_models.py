"""Every kind of model file over a real socket, with the real engine in the worker process and no network."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from impasto_protocol.geometry import Box, Size
from impasto_protocol.messages import Cancel, Cancelled, Error, Failed, Finished, InputPicture, Output, Plan, PlanOk
from impasto_protocol.messages import Progress as ProgressMessage
from impasto_server.engine.modes import Upscale
from impasto_server.service import facts
from PIL import Image

from tests.e2e import guard
from tests.e2e.test_e2e_actions import one, sent, settings_of
from tests.e2e.test_e2e_serve import impasto
from tests.service.fakes import Peer, ask_submit, connected, running
from tests.tiny import write_tiny_checkpoint, write_tiny_folder, write_tiny_pickle
from tests.upscalers import compact, rrdb, save

CANVAS, SELECTED = Size(120, 90), Box(40, 30, 30, 20)


@pytest.fixture(autouse=True)
def no_network() -> Any:
    guard.watch()
    yield
    guard.watching[0] = False


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def picture(width: int, height: int) -> Any:
    pixels = np.random.default_rng(4).integers(0, 256, (height, width, 4), np.uint8)
    pixels[..., 3] = 255
    return pixels


def test_the_same_picture_from_every_kind_of_file(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_tiny_checkpoint(models / "safe.safetensors", half=False)
    write_tiny_pickle(models / "archive.ckpt", half=False)
    write_tiny_pickle(models / "plain.ckpt", half=False, zipped=False)
    write_tiny_folder(models / "folder-v1.5")
    torch.save({"state_dict": {"a": Hostile()}}, models / "hostile.ckpt")
    whole = (models / "archive.ckpt").read_bytes()
    (models / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    (models / "broken" / "unet").mkdir(parents=True)
    (models / "broken" / "unet" / "config.json").write_text("{}")
    names = ("safe", "archive", "plain", "folder-v1.5")

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (server, endpoint),
            connected(endpoint) as peer,
        ):
            entries = {m.id: m.to_wire() for m in server.catalogue.models}
            assert {name for name, entry in entries.items() if entry["usable"]} == set(names)
            pictures = []
            for index, name in enumerate(names):
                params = {"model": name, "prompt": "an apple", "steps": 2, "seed": 5}
                output, pixels, end = await one(peer, f"j{index}", "txt2img", params, {}, CANVAS)
                pictures.append(pixels)
                assert output.info["model"]["file"] == name and end.ran["steps"] == 2
            assert all((pixels == pictures[0]).all() for pixels in pictures[1:])

            for name, code, said in (
                ("hostile", "model.unsafe", f"{os.name}.system"),
                ("cut", "model.corrupt", "cut.ckpt"),
                ("broken", "model.corrupt", "weights in unet/ are missing"),
            ):
                assert said in entries[name]["reason"]
                answer = await ask_submit(peer, name, "txt2img", params={"model": name}, canvas=CANVAS)
                assert isinstance(answer, Error) and (answer.code, said in answer.message) == (code, True)
            assert not (tmp_path / "pwned").exists() and not Path("pwned").exists()

    asyncio.run(scenario())


async def inpainted(peer: Peer, job: str, params: Any, document: Any) -> tuple[Output, Any, Finished, PlanOk]:
    planned = await peer.ask(Plan, "inpaint", params, CANVAS, SELECTED)
    assert isinstance(planned, PlanOk), planned
    box = planned.box
    mask = np.zeros((CANVAS.height, CANVAS.width), np.uint8)
    mask[SELECTED.y : SELECTED.bottom, SELECTED.x : SELECTED.right] = 255
    crop = (slice(box.y, box.bottom), slice(box.x, box.right))
    inputs = {
        "image": await sent(peer, np.ascontiguousarray(document[crop]), box),
        "mask": InputPicture(await peer.put(mask[crop].tobytes()), box.width, box.height, "l8", box.x, box.y),
    }
    output, pixels, end = await one(peer, job, "inpaint", params, inputs, CANVAS)
    return output, pixels, end, planned


def test_inpainting_by_the_partner(tmp_path: Path) -> None:
    """What the partner paints is what it paints when it is asked for by its own name."""
    models = tmp_path / "models"
    write_tiny_checkpoint(models / "dream_v2.safetensors", metadata=None)
    write_tiny_checkpoint(models / "dream_v2-inpainting.safetensors", channels=9, seed=3)
    document = picture(*CANVAS)

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (server, endpoint),
            connected(endpoint) as peer,
        ):
            entries = {m.id: m.to_wire() for m in server.catalogue.models}
            assert entries["dream_v2"]["partner"] == "dream_v2-inpainting"
            common = {"prompt": "a pear", "steps": 3, "seed": 9}
            asked = {**common, "model": "dream_v2"}
            output, by_partner, end, planned = await inpainted(peer, "i1", asked, document)
            assert planned.warnings[-1] == "Inpaints with dream_v2-inpainting, the inpainting partner of dream_v2."
            assert end.ran["partner_of"] == "dream_v2"
            assert output.info["model"] == {
                "title": "Tiny test model",
                "file": "dream_v2-inpainting",
                "partner_of": "dream_v2",
            }
            assert output.info["params"]["model"] == "dream_v2", "so that it is made again the same way"
            assert "Model: dream_v2-inpainting" in output.info["parameters"]

            named = {**common, "model": "dream_v2-inpainting"}
            _, by_name, end, planned = await inpainted(peer, "i2", named, document)
            assert (by_name == by_partner).all() and "partner_of" not in end.ran and not planned.warnings

            _, by_itself, end, planned = await inpainted(peer, "i3", {**asked, "use_partner": False}, document)
            assert (by_itself != by_partner).any() and "partner_of" not in end.ran and not planned.warnings

            # From its recipe the picture is made again.
            _, again, _, _ = await inpainted(peer, "i4", output.info["params"], document)
            assert (again == by_partner).all()

    asyncio.run(scenario())


def test_upscaler_models(tmp_path: Path) -> None:
    models = tmp_path / "models"
    save(models / "ESRGAN" / "sharp_x4.pth", rrdb(), "params_ema")
    save(models / "quick.safetensors", compact())
    save(models / "ESRGAN" / "odd.pth", {"a": torch.ones(2)})
    torch.save({"params": {"a": Hostile()}}, models / "hostile.pth")
    document = picture(90, 60)

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (server, endpoint),
            connected(endpoint) as peer,
        ):
            kinds = {m.id: (m.facts.kind, m.facts.usable) for m in server.catalogue.models}
            assert kinds["sharp_x4"] == kinds["quick"] == kinds["odd"] == ("upscaler", True)
            assert kinds["hostile"] == ("unknown", False)
            whole = Box(0, 0, 90, 60)
            inputs = {"image": await sent(peer, document, whole)}
            for name, scale, ran in (("sharp_x4", 4, "ESRGAN"), ("quick", 3, "RealESRGAN Compact")):
                params = {"scale": scale, "upscaler": name}
                planned = await peer.ask(Plan, "upscale", params, whole.size)
                assert isinstance(planned, PlanOk) and planned.working == Size(90 * scale, 60 * scale)
                output, pixels, end = await one(peer, name, "upscale", params, inputs, whole.size)
                assert pixels.shape == (60 * scale, 90 * scale, 4) and (pixels[..., 3] == 255).all()
                assert (end.ran["method"], end.ran["architecture"]) == (name, ran)
                assert output.info["params"] == asdict(Upscale(**params)) and output.info["upscaler"] == name
                planned = await peer.ask(Plan, "upscale", params, whole.size)
                assert isinstance(planned, PlanOk) and planned.seconds is not None

            for name, code in (("hostile", "model.unsafe"), ("shrap", "model.unknown")):
                answer = await ask_submit(
                    peer, name, "upscale", params={"upscaler": name}, canvas=whole.size, inputs=inputs
                )
                assert isinstance(answer, Error) and (answer.code, answer.path) == (code, "params.upscaler")
            await ask_submit(peer, "odd", "upscale", params={"upscaler": "odd"}, canvas=whole.size, inputs=inputs)
            ended = await peer.end("odd")
            assert isinstance(ended, Failed) and ended.error.code == "model.unidentified"

            # A cancel is heard within a tile: this one would take minutes.
            large = Box(0, 0, 600, 600)
            inputs = {"image": await sent(peer, picture(600, 600), large)}
            params = {"upscaler": "sharp_x4", "scale": 8}
            await ask_submit(peer, "c", "upscale", params=params, canvas=large.size, inputs=inputs)
            await peer.until(ProgressMessage, "c")
            await peer.ask(Cancel, "c")
            assert isinstance(await peer.end("c"), Cancelled)

    asyncio.run(scenario())


def test_on_the_command_line(tmp_path: Path) -> None:
    write_tiny_folder(tmp_path / "elsewhere" / "folder-v1.5")
    write_tiny_checkpoint(tmp_path / "models" / "dream.safetensors")
    write_tiny_checkpoint(tmp_path / "models" / "dream-inpainting.safetensors", channels=9)
    save(tmp_path / "models" / "quick.safetensors", compact())
    save(tmp_path / "elsewhere" / "other.pth", compact(scale=4))
    listed = impasto(tmp_path, "models", "list")
    assert listed.returncode == 0, listed.stderr
    lines = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert lines["dream"].split()[1:4] == ["checkpoint", "sd1", "normal"]
    assert lines["dream"].endswith("inpaints with dream-inpainting")
    assert lines["quick"].split()[1:] == ["upscaler", "esrgan", "compact"]
    Image.fromarray(picture(40, 30)).save(tmp_path / "in.png")
    made = impasto(tmp_path, "txt2img", "--model", "elsewhere/folder-v1.5", "--steps", "2", "-o", "made.png")
    assert made.returncode == 0, made.stderr
    for name in ("quick", "elsewhere/other.pth"):
        larger = impasto(tmp_path, "upscale", "--image", "in.png", "--upscaler", name, "-o", "larger.png")
        assert larger.returncode == 0, larger.stderr
        with Image.open(tmp_path / "larger.png") as image:
            assert image.size == (80, 60)
    wrong = impasto(tmp_path, "upscale", "--image", "in.png", "--upscaler", "quik")
    assert wrong.returncode == 2 and "'quick'" in wrong.stderr
    check = impasto(tmp_path, "models", "check", "elsewhere/folder-v1.5", "elsewhere/other.pth")
    assert check.returncode == 0, check.stdout
