"""Settings of old pictures on the command line: `--from`, `params`, what written files say; mistyped words."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from impasto_server.cli import connect
from impasto_server.cli.main import main
from impasto_server.engine.modes import Upscale
from impasto_server.service import server
from impasto_server.service.catalogue import Catalogue
from impasto_server.service.metadata import save_options
from impasto_server.service.picture_texts import picture_texts
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.service.fakes import add_model, identify

TEXT = """a red fox
Negative prompt: blurry
Steps: 3, Sampler: DPM++ 2M Karras, CFG scale: 5.5, Seed: 12, Size: 64x72, Model: tiny, Tiling: True, Version: v1.6.0"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: Any) -> Path:
    """A folder of one's own, an engine that pretends, one model."""
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path / "home"))
    add_model(tmp_path / "home")
    real = connect.settings_from
    changes = {"engine": "tests.service.fakes:FakeEngine", "starter": False}
    monkeypatch.setattr(connect, "settings_from", lambda args: replace(real(args), **changes))
    monkeypatch.setattr(server, "Catalogue", lambda folders, _, *rest: Catalogue(folders, identify, *rest))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def submitted(home: Path, monkeypatch: Any) -> list[tuple[str, dict[str, Any]]]:
    """The jobs that the command line hands in: verb and parameters."""
    from impasto_client.client import Client

    jobs: list[tuple[str, dict[str, Any]]] = []
    real = Client.submit

    def submit(self: Client, job: str, mode: str, params: Any, *rest: Any, **more: Any) -> int:
        jobs.append((mode, dict(params)))
        return real(self, job, mode, params, *rest, **more)

    monkeypatch.setattr(Client, "submit", submit)
    return jobs


def old_picture(path: str = "old.png", text: str = TEXT) -> str:
    info = PngInfo()
    if text:
        info.add_text("parameters", text)
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


def test_from_a_picture(submitted: list[tuple[str, dict[str, Any]]], capsys: Any) -> None:
    words = ["txt2img", "--from", old_picture(), "--steps", "4", "-o", "new.png"]
    assert main(words) == 0
    ((mode, params),) = submitted
    expected = {"prompt": "a red fox", "negative_prompt": "blurry", "sampler": "dpmpp_2m", "schedule": "karras"}
    expected |= {"cfg": 5.5, "seed": 12, "width": 64, "height": 72, "model": "tiny", "clip_skip": 1}
    assert mode == "txt2img" and {name: params[name] for name in expected} == expected
    assert params["steps"] == 4, "what is said here comes before what the file says"
    assert "Tiling: True" in capsys.readouterr().err
    with Image.open("new.png") as image:
        assert image.size == (64, 72)
    assert main(["txt2img", "--from", "old.png", "--size", "80x64", "-o", "new.png"]) == 0
    assert submitted[1][1]["width"] == 80


def test_from_the_input_a_text_beside_the_picture_and_another_mode(
    submitted: list[tuple[str, dict[str, Any]]], capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(TEXT.encode())))
    assert main(["txt2img", "--from", "-", "-o", "a.png"]) == 0
    old_picture("bare.png", "")
    Path("bare.txt").write_text(TEXT, encoding="utf-8")
    assert main(["txt2img", "--from", "bare.png", "-o", "b.png"]) == 0
    assert submitted[0] == submitted[1]
    capsys.readouterr()
    assert main(["img2img", "--from", "bare.png", "--image", "bare.png", "-o", "c.png"]) == 0
    mode, params = submitted[2]
    assert (mode, params["prompt"], params["seed"]) == ("img2img", "a red fox", 12) and "width" not in params
    assert "--from was text to image; img2img has no width, height" in capsys.readouterr().err


def test_params_prints_what_was_understood_and_what_was_not(home: Path, capsys: Any) -> None:
    text = TEXT.replace("Model: tiny", "Model: tinny").replace("a red fox", "a red fox\non a hill")
    assert main(["params", old_picture(text=text)]) == 0
    told = capsys.readouterr().out
    assert (
        told.startswith("Text to image, by AUTOMATIC1111 v1.6.0\n  prompt           a red fox\n")
        and "on a hill" in told
    )
    assert "Tiling: True: " in told and "The nearest is 'tiny'" in told
    assert main(["params", "old.png", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["mode"] == "txt2img" and read["params"]["model"] == "tinny" and read["params"]["steps"] == 3
    assert {note["kind"] for note in read["notes"]} == {"unsupported", "missing"}


@pytest.mark.parametrize("verb", [["params"], ["txt2img", "--from"]])
def test_files_that_say_nothing(verb: list[str], home: Path, capsys: Any) -> None:
    Path("torn.png").write_bytes(Path(old_picture()).read_bytes()[:30])
    for file, says, code in (
        ("no.png", "cannot be read", 2),
        (old_picture("bare.png", ""), "says nothing", 2),
        ("torn.png", "damaged", 1),
    ):
        assert main([*verb, file]) == code
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "avif", "gif"])
def test_what_is_written_says_how_it_was_made(suffix: str, home: Path, capsys: Any) -> None:
    file = f"out.{suffix}"
    assert main(["txt2img", "--prompt", "ein Füchs", "--size", "64x48", "--steps", "2", "-o", file]) == 0
    data = Path(file).read_bytes()
    assert picture_texts(data).texts["parameters"].startswith("ein Füchs\nSteps: 2, ")
    assert (b"trainedAlgorithmicMedia" in data) == (suffix != "gif")
    capsys.readouterr()
    assert main(["params", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["params"]["prompt"] == "ein Füchs"


def test_the_layer_says_it_too(home: Path) -> None:
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save("mask.png")
    words = ["inpaint", "--image", "mask.png", "--mask", "mask.png", "--prompt", "p", "--steps", "1"]
    assert main([*words, "-o", "o.webp", "--layer", "l.webp"]) == 0
    for file, kind in (("o.webp", b"compositeWithTrained"), ("l.webp", b"/trainedAlgorithmicMedia")):
        data = Path(file).read_bytes()
        assert picture_texts(data).texts["parameters"].startswith("p\nSteps: 1") and kind in data


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_an_upscale_says_so(suffix: str, home: Path, capsys: Any) -> None:
    text = "Postprocess upscale by: 2, Postprocess upscaler: Lanczos"
    recipe = {"mode": "upscale", "params": {"scale": 2.0, "upscaler": ""}, "postprocessing": text}
    Image.new("RGB", (4, 4)).save(f"big{suffix}", **save_options(suffix, recipe))
    assert b"AlgorithmicMedia" not in Path(f"big{suffix}").read_bytes()
    assert main(["params", f"big{suffix}", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    # A PNG holds the whole recipe, with what is at its default; the others A1111's text alone.
    assert read["mode"] == "upscale" and {"scale", "upscaler"} <= read["params"].keys()
    assert Upscale(**read["params"]) == Upscale(scale=2.0, upscaler="")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["inpant"], "did you mean inpaint?"),
        (["txt2img", "--sampelr", "euler"], "--sampelr: did you mean --sampler?"),
        (["txt2img", "--negativ-promt=x"], "--negativ-promt=x: did you mean --negative-prompt?"),
        (["txt2img", "--sampler", "euler_s"], "did you mean euler_a?"),
        (["models", "lst"], "did you mean list?"),
        (["models", "list", "--jsn"], "--jsn: did you mean --json?"),
    ],
)
def test_a_mistyped_word_is_told_with_the_nearest_right_one(words: list[str], says: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as e:
        main(words)
    assert e.value.code == 2 and says in capsys.readouterr().err


def test_words_that_are_near_nothing_are_only_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["txt2img", "--zzzz"])
    assert "did you mean" not in capsys.readouterr().err
