"""A result of the history made again by its recipe, over the wire and on the command line: the same to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_client.client import Client
from impasto_protocol.geometry import Box, Size
from impasto_protocol.messages import Failed, Finished, InputPicture
from impasto_server.cli.connect import local_server
from impasto_server.cli.generate import client_info
from impasto_server.cli.main import main
from PIL import Image

from tests.service.fakes import settings_for
from tests.tiny import write_tiny_checkpoint

CANVAS = Size(96, 80)
BOX = Box(16, 8, 64, 64)


@pytest.fixture(scope="module")
def home(tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("home")
    write_tiny_checkpoint(folder / "models" / "tiny.safetensors")
    return folder


def test_over_the_wire(home: Path) -> None:
    import queue

    inbox: Any = queue.SimpleQueue()

    def follow(job: str) -> None:
        while True:
            message = inbox.get(timeout=120)
            assert not isinstance(message, (Failed, Exception)), message
            if isinstance(message, Finished) and message.job == job:
                return

    settings = settings_for(home, engine="impasto_server.engine.run:Engine", precision="fp32")
    image = np.random.default_rng(0).integers(0, 256, (BOX.height, BOX.width, 4), np.uint8)
    image[..., 3] = 255
    mask = np.zeros((BOX.height, BOX.width), np.uint8)
    mask[20:40, 20:44] = 255
    with local_server(settings) as (_, endpoint):
        client = Client.connect(endpoint, client_info(), inbox.put, inbox.put)
        try:
            place = (BOX.width, BOX.height)
            inputs = {
                "image": InputPicture(client.upload(image.tobytes()), *place, "rgba8", BOX.x, BOX.y),
                "mask": InputPicture(client.upload(mask.tobytes()), *place, "l8", BOX.x, BOX.y),
            }
            client.submit("first", "inpaint", {"prompt": "a fox", "steps": 2}, CANVAS, inputs)
            follow("first")
            (entry,) = client.history(job="first", info=True)
            assert entry.info is not None and entry.info["params"]["seed"] == entry.seed >= 0  # it was drawn
            client.submit("again", str(entry.info["mode"]), dict(entry.info["params"]), CANVAS, inputs)
            follow("again")
            (other,) = client.history(job="again", info=True)
        finally:
            client.close()
    assert (other.digest, other.placement, other.info) == (entry.digest, entry.placement, entry.info)


@pytest.mark.parametrize("mode", ["txt2img", "inpaint", "upscale"])
def test_on_the_command_line(home: Path, mode: str, monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setenv("IMPASTO_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:44] = 255
    Image.fromarray(picture).save("in.png")
    Image.fromarray(mask).save("mask.png")
    words = {
        "txt2img": ["--prompt", "a fox", "--steps", "2"],
        "inpaint": ["--image", "in.png", "--mask", "mask.png", "--prompt", "a hare", "--steps", "2"],
        "upscale": ["--image", "in.png", "--scale", "1.5"],
    }[mode]
    pictures = words[: 4 if mode == "inpaint" else 2] if mode != "txt2img" else []
    machine = ["--precision", "fp32"]
    assert main([mode, *words, *machine, "-o", "first.png"]) == 0
    capsys.readouterr()
    assert main(["history", "-n", "1", "--json"]) == 0
    job = json.loads(capsys.readouterr().out)["job"]
    assert main(["history", "--again", job, *pictures, *machine, "-o", "again.png", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["mode"] == mode and len(told["outputs"]) == 1
    with Image.open("first.png") as one, Image.open("again.png") as other:
        assert one.size == other.size and one.tobytes() == other.tobytes()
