"""A second job does no work twice, and what was loaded can be let go."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from impasto_protocol.geometry import Box, Size
from impasto_server.engine import run as run_module
from impasto_server.engine import vae as vae_module
from impasto_server.engine.jobs import Job, Layer, VaeFiles
from impasto_server.engine.latents import LatentCache
from impasto_server.engine.modes import Img2Img, Inpaint
from impasto_server.engine.run import Engine
from transformers import CLIPTextModel

from tests.engine.device import DEVICE
from tests.tiny import write_tiny_checkpoint
from tests.vaes import kl, write_vae

SIZE = Size(64, 64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors", channels=9))


def job(checkpoint: str, seed: int, picture: int = 0, mode: str = "inpaint", **changes: Any) -> Job:
    pixels = np.random.default_rng(picture).integers(0, 256, (64, 64, 4), np.uint8)
    pixels[..., 3] = 255
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    made = {"inpaint": Inpaint, "img2img": Img2Img}[mode]
    params = made(prompt="a pear", steps=2, seed=seed, **({"area": "whole"} if mode == "inpaint" else {}))
    masks = {"mask": mask} if mode == "inpaint" else {}
    return Job("j", mode, params, SIZE, Box.of_size(SIZE), checkpoint, pixels, **masks, **changes)


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    counts = {"load": 0, "text": 0, "encode": 0}

    def count(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **named: Any) -> Any:
            counts[name] += 1
            return function(*args, **named)

        return called

    monkeypatch.setattr(run_module, "load_checkpoint", count("load", run_module.load_checkpoint))
    monkeypatch.setattr(CLIPTextModel, "forward", count("text", CLIPTextModel.forward))
    monkeypatch.setattr(vae_module, "encode", count("encode", vae_module.encode))
    return counts


def pixels_of(engine: Engine, asked: Job) -> Any:
    events: list[Any] = []
    engine.run(asked, events.append, lambda: False)
    return next(event.pixels for event in events if isinstance(event, Layer))


def test_another_seed_does_no_work_twice(checkpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine, counts = Engine(DEVICE, "fp32"), counted(monkeypatch)
    first = pixels_of(engine, job(checkpoint, 1))
    once = dict(counts)
    assert once["load"] == 1 and once["text"] > 0 and once["encode"] > 0
    second = pixels_of(engine, job(checkpoint, 2))
    assert counts == once and (second != first).any()
    assert (pixels_of(engine, job(checkpoint, 1)) == first).all(), "to the last bit what was made without"
    pixels_of(engine, job(checkpoint, 1, picture=7))
    assert counts["encode"] > once["encode"] and counts["load"] == 1 and counts["text"] == once["text"]
    # Another VAE encodes for itself; the checkpoint stays.
    before = counts["encode"]
    other = VaeFiles(vae=str(write_vae(tmp_path / "other.safetensors", kl(seed=4))))
    pixels_of(engine, job(checkpoint, 1, vaes=other))
    assert counts["encode"] > before and counts["load"] == 1


def test_what_was_loaded_is_let_go(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, counts = Engine(DEVICE, "fp32"), counted(monkeypatch)
    first = pixels_of(engine, job(checkpoint, 1, mode="img2img"))
    assert len(engine._components) == 1
    encoded = counts["encode"]
    engine.free()
    assert len(engine._components) == len(engine._vaes) == 0
    assert (pixels_of(engine, job(checkpoint, 1, mode="img2img")) == first).all() and counts["load"] == 2
    assert counts["encode"] == encoded, "what small things are kept needs no model"


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the size")
def test_the_memory_goes_back_to_the_system(tmp_path: Path) -> None:
    """Of a checkpoint that is converted (fp16 on the disk), so that its weights are anonymous memory."""
    path = str(write_tiny_checkpoint(tmp_path / "half.safetensors", half=True))

    def anonymous() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) << 10
        return 0

    engine = Engine(DEVICE, "fp32")
    pixels_of(engine, job(path, 1, mode="img2img"))
    held, before = engine._components.size_bytes, anonymous()
    engine.free()
    assert held > 4 << 20 and before - anonymous() > held // 2


def test_latents_are_kept_within_their_budget() -> None:
    cache, made = LatentCache(3 * 256), []

    def encode(picture: Any) -> torch.Tensor:
        made.append(int(picture[0, 0, 0]))
        return torch.full((1, 4, 4, 4), float(picture[0, 0, 0]))

    pictures = [np.full((8, 8, 3), value, np.uint8) for value in range(5)]
    for value in (0, 1, 2, 0, 3, 0, 1):
        assert cache.get("vae", pictures[value], encode).mean() == value
    assert made == [0, 1, 2, 3, 1] and cache.size_bytes == 3 * 256
    cache.get("other", pictures[0], encode)
    cache.get("other", pictures[0][:, :4], encode)
    assert made[-2:] == [0, 0], "another VAE and another shape are others"
    changed = cache.get("other", pictures[0][:, :4], encode)
    changed.add_(9)
    assert cache.get("other", pictures[0][:, :4], encode).mean() == 0
