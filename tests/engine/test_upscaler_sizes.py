"""An upscaler that takes pictures of one size alone is told, also in the middle of a chain, whose pictures stay."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from impasto_protocol.errors import ModelError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine import run as run_module
from impasto_server.engine.jobs import Chain, Job, Layer, Link
from impasto_server.engine.modes import Refine, Upscale
from impasto_server.engine.run import Engine
from impasto_server.engine.upscaler import UpscalerModel, load_upscaler

from tests.engine.test_run import text_job
from tests.tiny import write_tiny_checkpoint
from tests.upscalers import compact, save

NOWHERE = Size(0, 0)


class OfOneSize(torch.nn.Module):
    """Enlarges pictures of `side` x `side` by a layer over all their pixels."""

    def __init__(self, side: int, scale: int) -> None:
        super().__init__()
        self.side, self.scale = side, scale
        self.all = torch.nn.Linear(side * side * 3, side * side * 3)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        made = self.all(picture.flatten(1)).view(1, 3, self.side, self.side)
        return torch.nn.functional.interpolate(made, scale_factor=self.scale)


class OfOneResult(torch.nn.Module):
    """Takes any picture and gives one size."""

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(picture, size=(64, 64))


class Descriptor:
    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.model(picture)
        return made


def with_network(monkeypatch: pytest.MonkeyPatch, network: torch.nn.Module) -> None:
    def load(path: str, *, device: torch.device, dtype: torch.dtype) -> UpscalerModel:
        return dataclasses.replace(load_upscaler(path, device=device, dtype=dtype), descriptor=Descriptor(network))

    monkeypatch.setattr(run_module, "load_upscaler", load)


@pytest.mark.parametrize("network", [OfOneSize(16, 2), OfOneResult()], ids=["input", "output"])
def test_a_network_of_one_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: torch.nn.Module
) -> None:
    with_network(monkeypatch, network)
    path = save(tmp_path / "fixed.pth", compact())
    image = np.full((40, 60, 4), 200, np.uint8)
    canvas = Size(60, 40)
    job = Job("u", "upscale", Upscale(upscaler="fixed"), canvas, Box.of_size(canvas), str(path), image=image)
    with pytest.raises(ModelError) as told:
        Engine("cpu", "fp32").run(job, lambda event: None, lambda: False)
    assert told.value.code == "model.unsupported" and "60 x 40 pixels" in told.value.message
    assert "Choose another upscaler" in told.value.message


def test_its_own_size_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_network(monkeypatch, OfOneSize(16, 2))
    path = save(tmp_path / "fixed.pth", compact())
    canvas = Size(16, 16)
    image = np.full((16, 16, 4), 200, np.uint8)
    layers: list[Layer] = []
    job = Job("u", "upscale", Upscale(upscaler="fixed"), canvas, Box.of_size(canvas), str(path), image=image)
    Engine("cpu", "fp32").run(job, lambda e: layers.append(e) if isinstance(e, Layer) else None, lambda: False)
    assert layers[0].pixels.shape == (32, 32, 4)


def test_in_a_chain_what_was_finished_before_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_network(monkeypatch, OfOneSize(16, 2))
    checkpoint = str(write_tiny_checkpoint(tmp_path / "tiny.safetensors"))
    path = str(save(tmp_path / "fixed.pth", compact()))
    box = Box.of_size(NOWHERE)
    links = (
        Link(Job("", "upscale", Upscale(upscaler="fixed"), NOWHERE, box, path), 0),
        Link(Job("", "refine", Refine(prompt="x", steps=2), NOWHERE, box, checkpoint), 0),
    )
    told: list[object] = []
    with pytest.raises(ModelError) as error:
        Engine("cpu", "fp32").run(
            dataclasses.replace(text_job(checkpoint), chain=Chain(links)), told.append, lambda: False
        )
    assert error.value.code == "model.unsupported"
    (kept,) = [event for event in told if isinstance(event, Layer)]
    assert kept.stage == "generate" and [link["mode"] for link in kept.info["then"]] == ["upscale", "refine"]
