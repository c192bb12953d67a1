"""The command line: help without torch, one job with an engine that pretends, files, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from impasto_client.client import Client
from impasto_protocol.home import history_folder, models_folder, read_launch
from impasto_server.cli import connect
from impasto_server.cli.main import VERBS, main, parser_for
from impasto_server.cli.options import given_values
from impasto_server.cli.server import launch_command, settings_from
from impasto_server.cli.sheet import contact_sheet
from impasto_server.service import facts, starter_model
from impasto_server.service.catalogue import Catalogue
from PIL import Image

from tests.service.fakes import add_model, identify


@pytest.fixture
def home(tmp_path: Path, monkeypatch: Any) -> Path:
    """A folder of one's own, an engine that pretends, one model, nothing else in the current folder."""
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path / "home"))
    add_model(tmp_path / "home")
    real = connect.settings_from
    changes = {"engine": "tests.service.fakes:FakeEngine", "starter": False}
    monkeypatch.setattr(connect, "settings_from", lambda args: replace(real(args), **changes))
    monkeypatch.setattr(Catalogue, "__init__", _with_identify(Catalogue.__init__))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def _with_identify(init: Any) -> Any:
    def patched(self: Any, folders: Any, _: Any, *rest: Any, **more: Any) -> None:
        init(self, folders, identify, *rest, **more)

    return patched


def save(path: str, pixels: Any) -> str:
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def files(home: Path) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    mask = np.zeros((90, 120), np.uint8)
    mask[30:50, 40:70] = 255
    return save("in.png", rng.integers(0, 256, (90, 120, 3), np.uint8)), save("mask.png", mask)


def test_help_is_fast_and_names_every_verb() -> None:
    code = (
        "import sys\n"
        "from impasto_server.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'numpy', 'websockets', 'PIL', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(verb: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as e:
        main([verb, "--help"])
    assert e.value.code == 0 and verb in capsys.readouterr().out


def test_options_come_from_the_schema(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        parser_for("inpaint").parse_args(["inpaint", "--help"])
    told = capsys.readouterr().out
    for option in ("--prompt", "--negative", "--strength", "--no-match-color", "--area {masked,whole}", "--mask FILE"):
        assert option in told


def test_a_style_may_be_given_more_than_once() -> None:
    args = parser_for("txt2img").parse_args(["txt2img", "--style", "Ink", "--style", '"A, B"', "--clip-skip", "2"])
    assert given_values(args) == {"styles": 'Ink, "A, B"', "clip_skip": 2}
    assert "styles" not in given_values(parser_for("txt2img").parse_args(["txt2img"]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--sampler", "DPM++ 2M Karras"], {"sampler": "dpmpp_2m", "schedule": "karras"}),
        (["--sampler", "Euler a"], {"sampler": "euler_a"}),
        (["--sampler", "ddim"], {"sampler": "ddim"}),
        (
            ["--schedule", "SGM Uniform", "--sampler", "DPM++ 2M Karras"],
            {"sampler": "dpmpp_2m", "schedule": "sgm_uniform"},
        ),
        (["--sampler", "DPM++ 2M Karras", "--schedule", "beta"], {"sampler": "dpmpp_2m", "schedule": "beta"}),
        (["--eta", "0.5", "--s-churn", "2"], {"eta": 0.5, "s_churn": 2.0}),
        (["--eta", "auto", "--ngms-all", "--no-exact-steps"], {"eta": "auto", "ngms_all": True, "exact_steps": False}),
    ],
)
def test_a1111s_names_of_samplers_are_understood(words: list[str], expected: dict[str, Any]) -> None:
    assert given_values(parser_for("txt2img").parse_args(["txt2img", *words])) == expected


def test_txt2img_writes_the_picture_and_says_where(home: Path, capsys: Any) -> None:
    assert main(["txt2img", "--prompt", "a fox", "--size", "64x48", "--steps", "2", "-o", "out.png"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == "out.png" and "denoise" in told.err
    with Image.open("out.png") as image:
        assert image.size == (64, 48) and image.mode == "RGB" and image.getpixel((3, 3)) == (200, 100, 50)
        assert "impasto" in image.info
    assert list(history_folder(home).glob("*.png")), "every result is in the history too"
    assert main(["txt2img", "--steps", "1"]) == 0
    assert Path("txt2img-7.png").exists(), "the default name, and the model's own size"
    with Image.open("txt2img-7.png") as image:
        assert image.size == (64, 64)


def test_inpaint_composes_over_the_input(files: tuple[str, str], capsys: Any) -> None:
    image, mask = files
    words = [
        "inpaint",
        "--image",
        image,
        "--mask",
        mask,
        "--prompt",
        "many",
        "-o",
        "o.png",
        "--layer",
        "l.png",
        "--json",
    ]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert [o["file"] for o in told["outputs"]] == ["o-1.png", "o-2.png", "o-3.png"] and told["seeds"] == [7]
    x, y, width, height = told["outputs"][0]["placement"]
    with Image.open(told["outputs"][0]["layer"]) as layer:
        assert layer.size == (width, height) and layer.mode == "RGBA"
        assert layer.getpixel((40 - x, 30 - y))[3] == 255
    # The fake returns the picture as it was, so composing changes nothing.
    assert np.array_equal(np.asarray(Image.open("o-1.png")), np.asarray(Image.open(image)))


def test_an_intent_is_values_to_begin_with(files: tuple[str, str], capsys: Any, monkeypatch: Any) -> None:
    """What is given goes before them."""
    image, mask = files
    planned: list[dict[str, Any]] = []
    plan = Client.plan

    def noted(self: Client, mode: str, params: Any, *rest: Any) -> Any:
        planned.append(dict(params))
        return plan(self, mode, params, *rest)

    monkeypatch.setattr(Client, "plan", noted)
    words = ["inpaint", "--image", image, "--mask", mask, "--prompt", "sand", "--intent", "remove"]
    assert main([*words, "-o", "a.png"]) == 0
    assert main([*words, "--strength", "0.5", "-o", "b.png"]) == 0
    assert planned[0] == {"prompt": "sand", "strength": 0.9, "masked_content": "fill", "grow": 12}
    assert planned[1] == {**planned[0], "strength": 0.5}
    with pytest.raises(SystemExit):
        main([*words[:-1], "destroy"])


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["txt2img", "--steps", "0"], 2, "from 1 to 150"),
        (["txt2img", "--model", "tyny"], 2, "'tiny'"),
        (["txt2img", "--prompt", "refuse"], 1, "download it again"),
        (["txt2img", "--prompt", "defect"], 1, "internal.failure"),
        (["img2img", "--image", "missing.png"], 2, "missing.png"),
        (["img2img", "--image", "mask.txt"], 2, "cannot be opened"),
        (["inpaint", "--image", "in.png", "--mask", "small.png"], 2, "same size"),
        (["inpaint", "--image", "in.png", "--mask", "black.png"], 2, "selects nothing"),
        (["sketch", "--image", "in.png", "--backdrop", "small.png"], 2, "same size"),
        (["sketch", "--image", "in.png", "--background", "document"], 2, "backdrop"),
        (["upscale", "--image", "in.png", "--scale", "9"], 2, "from 1 to 8"),
        (["txt2img", "--steps", "1", "-o", "nowhere/out.png"], 2, "cannot be written"),
    ],
)
def test_exit_codes_and_sentences(files: tuple[str, str], capsys: Any, words: list[str], code: int, says: str) -> None:
    Path("mask.txt").write_text("not a picture")
    save("small.png", np.full((4, 4), 255, np.uint8))
    save("black.png", np.zeros((90, 120), np.uint8))
    assert main(words) == code
    told = capsys.readouterr()
    assert says in told.err and "Traceback" not in told.err and not told.out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["sing"],
        ["txt2img", "--steps", "x"],
        ["txt2img", "--size", "0x4"],
        ["inpaint", "--image", "a.png"],
        ["serve", "x"],
    ],
)
def test_bad_usage_is_exit_code_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(words)
    assert e.value.code == 2


def test_a_model_may_be_a_file(home: Path, tmp_path: Path, capsys: Any) -> None:
    add_model(tmp_path / "elsewhere", "tiny.safetensors")
    file = models_folder(tmp_path / "elsewhere") / "tiny.safetensors"
    assert main(["txt2img", "--steps", "1", "--model", str(file), "-o", "out.png"]) == 0


def test_launch_command_gives_the_same_settings() -> None:
    words = ["serve", "--port", "7860", "--models", "a", "b", "--a1111", "c", "--memory", "1.5G", "--precision", "fp32"]
    words += ["--wildcards", "d", "--wildcards", "e", "--host", "192.168.1.5", "--tls", "--stop-after", "30"]
    settings = settings_from(parser_for("serve").parse_args(words))
    assert settings.memory_budget == 3 << 29
    command = launch_command(settings)
    assert command[:4] == [sys.executable, "-m", "impasto_server.cli.main", "serve"]
    assert settings_from(parser_for("serve").parse_args(command[3:])) == settings


def test_installing_a_plugin_lets_the_editor_start_the_server(home: Path, monkeypatch: Any) -> None:
    from impasto_server.cli import plugin

    monkeypatch.setattr(plugin, "run", lambda args: 0)
    assert main(["plugin", "install", "krita"]) == 0
    assert read_launch(home) == [sys.executable, "-m", "impasto_server.cli.main", "serve"]


def test_models(home: Path, capsys: Any) -> None:
    add_model(home, "broken.safetensors")
    assert main(["models", "list"]) == 0
    told = capsys.readouterr().out
    assert "tiny" in told and "download it again" in told
    assert main(["models", "show", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"].endswith("tiny.safetensors")
    assert main(["models", "show", "tyny"]) == 2
    assert main(["models", "check"]) == 1
    assert "BAD" in capsys.readouterr().out


def test_models_check_of_real_files(home: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "zip.safetensors").write_bytes(b"PK\x03\x04 no safetensors at all")
    assert main(["models", "check", str(tmp_path / "zip.safetensors"), str(tmp_path / "none.ckpt")]) == 1
    told = capsys.readouterr().out
    assert told.count("BAD") == 2 and "no such file" in told


def test_history(home: Path, capsys: Any) -> None:
    assert main(["txt2img", "--steps", "1", "-o", "out.png"]) == 0
    capsys.readouterr()
    assert main(["history", "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry["mode"] == "txt2img" and Path(entry["file"]).exists()


def listed(capsys: Any) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["history", "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_history_makes_a_result_again(files: tuple[str, str], capsys: Any) -> None:
    image, mask = files
    assert main(["txt2img", "--prompt", "a fox", "--size", "64x48", "--steps", "2", "-o", "fox.png"]) == 0
    words = ["inpaint", "--image", image, "--mask", mask, "--prompt", "a hare", "--steps", "1", "--feather", "3"]
    assert main([*words, "-o", "hare.png"]) == 0
    hare, fox = listed(capsys)
    assert (hare["mode"], fox["mode"]) == ("inpaint", "txt2img")
    # The test's engine keeps only the prompt and the seed in its recipe.
    assert main(["history", "--again", fox["job"][:8], "-o", "again.png"]) == 0
    assert capsys.readouterr().out.strip() == "again.png"
    assert main(["history", "--again", hare["job"], "-o", "both.png"]) == 2
    assert "--image FILE" in capsys.readouterr().err
    assert main(["history", "--again", hare["job"], "--image", image, "--mask", mask, "-o", "both.png"]) == 0
    with Image.open("hare.png") as one, Image.open("both.png") as other:
        assert one.tobytes() == other.tobytes()
    again = listed(capsys)
    assert [entry["mode"] for entry in again] == ["inpaint", "txt2img", "inpaint", "txt2img"]
    assert again[1]["recipe"]["params"]["prompt"] == "a fox"


@pytest.mark.parametrize("words", [["nothing"], [""], ["", "--index", "3"]])
def test_history_does_not_know_that_job(home: Path, words: list[str], capsys: Any) -> None:
    assert main(["txt2img", "--steps", "1", "-o", "out.png"]) == 0
    assert main(["history", "--again", *words]) == 1
    assert "impasto history" in capsys.readouterr().err


def test_history_wants_more_of_an_id_that_two_jobs_have(home: Path, capsys: Any) -> None:
    for n in range(17):  # one of 16 digits comes twice
        assert main(["txt2img", "--steps", "1", "-o", f"out-{n}.png"]) == 0
    first = [entry["job"][0] for entry in listed(capsys)]
    double = next(digit for digit in first if first.count(digit) > 1)
    assert main(["history", "--again", double]) == 2
    assert "write more of it" in capsys.readouterr().err


def test_a_damaged_starter_is_not_hidden(home: Path, monkeypatch: Any, capsys: Any) -> None:
    class Damaged(Exception):
        pass

    class Unpack:
        StarterDamaged = Damaged

        @staticmethod
        def install(folder: Path) -> Path:
            raise Damaged("checksum of part 3")

    monkeypatch.setattr(starter_model, "importlib", SimpleNamespace(import_module=lambda name: Unpack))
    assert main(["models", "starter"]) == 1
    assert "checksum of part 3" in capsys.readouterr().err


def test_stop_without_a_server(home: Path, capsys: Any) -> None:
    assert main(["stop"]) == 0
    assert "No server" in capsys.readouterr().err


def test_facts_of_kinds_that_cannot_run_yet(tmp_path: Path) -> None:
    found = facts.identify(tmp_path / "not-there.safetensors")
    assert not found.usable and found.reason and found.code.startswith("model.")


def test_variants_and_a_sheet_of_them(home: Path, tmp_path: Path, capsys: Any) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\na wolf\n", encoding="utf-8")
    words = ["txt2img", "--vary", f"prompt=@{prompts}", "--vary", "cfg=3-9 (+3)", "--vary", "seed=1"]
    assert main([*words, "--size", "64x64"]) == 2
    assert "at most 2 entries" in capsys.readouterr().err
    args = parser_for("txt2img").parse_args(words[:-2])
    assert given_values(args)["vary"] == [
        {"param": "prompt", "values": "a fox\na wolf\n"},
        {"param": "cfg", "values": "3-9 (+3)"},
    ]
    with pytest.raises(SystemExit):
        parser_for("txt2img").parse_args(["txt2img", "--vary", "cfg"])
    # The test's engine makes three pictures and no variants: they stand in a row.
    assert main(["txt2img", "--prompt", "many", "--size", "64x48", "-o", "o.png", "--sheet", "sheet.png"]) == 0
    assert capsys.readouterr().out.splitlines() == ["sheet.png", "o-1.png", "o-2.png", "o-3.png"]
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 3 * 64 and sheet.height > 48


def test_a_sheet_is_a_table() -> None:
    labels = [("Guidance scale", "3"), ("Guidance scale", "9"), ("Seed", "1"), ("Seed", "2")]

    def info(column: int, row: int) -> dict[str, Any]:
        said = [{"param": p, "value": v} for p, v in (labels[column], labels[2 + row])]
        return {"variant": {"column": column, "row": row, "columns": 2, "rows": 2, "labels": said}}

    places = [(0, 0), (1, 0), (0, 1), (1, 1)]
    colors = ["red", "lime", "blue", "yellow"]
    images = [Image.new("RGBA", (400, 200), color) for color in colors]
    sheet = contact_sheet(images, [info(*place) for place in places])
    found: dict[Any, list[tuple[int, int]]] = {}
    for x in range(0, sheet.width, 4):
        for y in range(0, sheet.height, 4):
            found.setdefault(sheet.getpixel((x, y)), []).append((x, y))
    centres = [np.mean(found[Image.new("RGB", (1, 1), color).getpixel((0, 0))], axis=0) for color in colors]
    assert centres[0][0] < centres[1][0] and abs(centres[0][1] - centres[1][1]) < 4
    assert centres[0][1] < centres[2][1] and abs(centres[0][0] - centres[2][0]) < 4
    assert abs(centres[3][0] - centres[1][0]) < 4 and abs(centres[3][1] - centres[2][1]) < 4


def test_a_result_is_taken_further(home: Path, capsys: Any) -> None:
    assert main(["txt2img", "--prompt", "a fox", "--size", "64x48", "-o", "fox.png"]) == 0
    job = listed(capsys)[0]["job"]
    assert main(["history", "--further", f"{job[:8]}:0", "--set", "steps=2", "-o", "i.png"]) == 0
    assert main(["history", "--further", job, "--to", "hires", "--set", "hires_scale=1.5", "-o", "h.png"]) == 0
    assert [entry["mode"] for entry in listed(capsys)] == ["txt2img", "img2img", "txt2img"]
    with Image.open("h.png") as image:
        assert image.size == (96, 96), "the model's own size, and the hires pass over it"
    for words, says in (
        (["--further", f"{job}:x"], "no number"),
        (["--further", f"{job}:4"], "There is no result 4"),
        (["--further", job, "--set", "size=3"], "sets no parameter"),
        (["--further", job, "--to", "inpaint"], "--mask FILE"),
    ):
        assert main(["history", *words]) != 0
        assert says in capsys.readouterr().err
