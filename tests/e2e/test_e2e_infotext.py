"""An old picture's settings give the old picture again: the real engine, the command line, files of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_server.cli.main import main
from impasto_server.service.picture_texts import picture_texts
from PIL import Image

from tests.e2e import guard
from tests.e2e.test_e2e_lora import web_ui

SETTINGS = ["--seed", "7", "--steps", "3", "--size", "64x72", "--cfg", "4.5", "--noise", "torch-cpu"]
MORE = [
    "--lora",
    "ink:0.5",
    "--sampler",
    "euler_a",
    "--schedule",
    "exponential",
    "--eta",
    "0.5",
    "--clip-skip",
    "2",
    "--ensd",
    "31337",
]


@pytest.fixture
def ui(tmp_path: Path, monkeypatch: Any) -> Iterator[Path]:
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    guard.watch()
    yield web_ui(tmp_path / "webui")
    guard.watching[0] = False


def made(ui: Path, *words: str) -> np.ndarray:
    """The pixels of the PNG that a job writes."""
    assert main([*words, "--a1111", str(ui), "--in-process", "-o", "out.png"]) == 0
    with Image.open("out.png") as image:
        return np.asarray(image.convert("RGB"))


def kept(name: str) -> str:
    """The last picture, put aside; its A1111 text alone beside it."""
    data = Path("out.png").read_bytes()
    Path(f"{name}.png").write_bytes(data)
    Path(f"{name}.txt").write_text(picture_texts(data).texts["parameters"], encoding="utf-8")
    return f"{name}.png"


def test_text_to_image(ui: Path) -> None:
    first = made(ui, "txt2img", "--prompt", "a (cat:1.2), [dog:owl:0.5]", "--negative", "red", *SETTINGS, *MORE)
    old = kept("old")
    for source in (old, "old.txt"):
        assert np.array_equal(made(ui, "txt2img", "--from", source), first), source
    assert not np.array_equal(made(ui, "txt2img", "--from", old, "--seed", "8"), first)


def test_inpainting(ui: Path) -> None:
    rng = np.random.default_rng(3)
    Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)).save("in.png")
    mask = np.zeros((96, 96), np.uint8)
    mask[30:60, 24:70] = 255
    Image.fromarray(mask).save("mask.png")
    inputs = ["--image", "in.png", "--mask", "mask.png"]
    set_ = ["--prompt", "x", "--seed", "3", "--steps", "2", "--strength", "0.8", "--grow", "2", "--feather", "4"]
    first = made(ui, "inpaint", *inputs, *set_, "--blend", "3", "--padding", "16", "--no-match-color")
    for source in (kept("old"), "old.txt"):
        assert np.array_equal(made(ui, "inpaint", *inputs, "--from", source), first), source
    assert not np.array_equal(made(ui, "inpaint", *inputs, "--from", "old.txt", "--match-color"), first)
