"""Control pictures over a real socket and from the command line, with the real engine in the worker process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_protocol.geometry import Size
from impasto_protocol.messages import Error, InputPicture
from impasto_server.service import facts
from PIL import Image

from tests.control import write_tiny_controlnet
from tests.e2e import guard
from tests.e2e.test_e2e_actions import one, settings_of
from tests.e2e.test_e2e_serve import impasto
from tests.service.fakes import ask_submit, connected, picture, running
from tests.tiny import write_tiny_checkpoint

CANVAS = Size(64, 64)


@pytest.fixture(autouse=True)
def no_network() -> Any:
    guard.watch()
    yield
    guard.watching[0] = False


def models(root: Path) -> None:
    write_tiny_checkpoint(root / "models" / "tiny.safetensors")
    write_tiny_controlnet(root / "models" / "canny.safetensors")
    write_tiny_controlnet(root / "models" / "wide.safetensors", cross_attention_dim=48)


def test_a_hint_guides_and_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    models(tmp_path)

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (server, endpoint),
            connected(endpoint) as peer,
        ):
            entries = {m.id: m.to_wire() for m in server.catalogue.models}
            assert (entries["canny"]["kind"], entries["canny"]["usable"]) == ("controlnet", True)
            hint = InputPicture(await peer.put(picture(48, 80)), 48, 80, "rgba8")
            common = {"prompt": "a cat", "steps": 2, "seed": 5}
            unit = {"model": "canny", "image": "control_1", "preprocessor": "canny"}
            _, plain, end = await one(peer, "plain", "txt2img", common, {}, CANVAS)
            assert "control" not in end.ran
            asked = {**common, "control": [{**unit, "weight": 0.8}]}
            output, guided, end = await one(peer, "guided", "txt2img", asked, {"control_1": hint}, CANVAS)
            assert (guided != plain).any()
            (told,) = end.ran["control"]
            assert (told["model"], told["weight"], told["preprocessor"]) == ("canny", 0.8, "canny")
            again = output.info["params"]
            _, same, _ = await one(peer, "again", "txt2img", again, {"control_1": hint}, CANVAS)
            assert (same == guided).all()
            _, off, _ = await one(peer, "off", "txt2img", {**common, "control": [{**unit, "weight": 0.0}]},
                                  {"control_1": hint}, CANVAS)  # fmt: skip
            assert (off == plain).all()
            gone = [{**unit, "model": "gone", "enabled": False}, {"model": "", "enabled": False}]
            output, off, end = await one(
                peer, "kept", "txt2img", {**common, "control": gone}, {"control_1": hint}, CANVAS
            )
            assert (off == plain).all() and "control" not in end.ran
            assert "ControlNet 0" not in output.info["parameters"] and len(output.info["params"]["control"]) == 2

            for index, (units, inputs, code, path, said) in enumerate(
                (
                    (
                        [{**unit, "model": "cany"}],
                        {"control_1": hint},
                        "model.unknown",
                        ".model",
                        "Did you mean 'canny'?",
                    ),
                    ([{**unit, "model": "tiny"}], {"control_1": hint}, "model.unsupported", ".model", "not controlnet"),
                    ([unit], {}, "request.missing_input", ".image", "control unit 1 was not sent"),
                    ([{**unit, "image": ""}], {}, "request.missing_input", ".image", "has no picture"),
                    ([{**unit, "image": "mask"}], {}, "request.missing_input", ".image", "was not sent"),
                    (
                        [{**unit, "start": 0.6, "end": 0.2}],
                        {"control_1": hint},
                        "request.invalid_param",
                        ".end",
                        "after",
                    ),
                    ([{**unit, "weight": 3}], {"control_1": hint}, "request.invalid_param", ".weight", "from 0 to 2"),
                )
            ):
                answer = await ask_submit(
                    peer, f"w{index}", params={**common, "control": units}, inputs=inputs, canvas=CANVAS
                )
                assert isinstance(answer, Error) and answer.code == code, answer
                assert answer.path == f"params.control[0]{path}" and said in answer.message, answer
            stray = await ask_submit(peer, "stray", params=common, inputs={"control_1": hint}, canvas=CANVAS)
            assert isinstance(stray, Error) and stray.path == "inputs.control_1"
            wide = {**common, "control": [{**unit, "model": "wide"}]}
            failed = await ask_submit(peer, "wide", params=wide, inputs={"control_1": hint}, canvas=CANVAS)
            if not isinstance(failed, Error):
                failed = (await peer.end("wide")).error
            assert failed.code == "model.unsupported" and "width 48" in str(failed.data)

    asyncio.run(scenario())


def test_a_reference_guides_without_a_model(tmp_path: Path) -> None:
    models(tmp_path)

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (_, endpoint),
            connected(endpoint) as peer,
        ):
            shown = {"control_1": InputPicture(await peer.put(picture(48, 80)), 48, 80, "rgba8")}
            common = {"prompt": "a cat", "steps": 2, "seed": 5}
            _, plain, _ = await one(peer, "plain", "txt2img", common, {}, CANVAS)
            asked = {**common, "references": [{"image": "control_1", "kind": "both"}]}
            _, guided, end = await one(peer, "guided", "txt2img", asked, shown, CANVAS)
            assert (guided != plain).any() and end.ran["references"][0]["kind"] == "both"
            alone = await ask_submit(peer, "alone", params={**common, "references": [{}]}, canvas=CANVAS)
            assert isinstance(alone, Error) and alone.path == "params.references[0].image"

    asyncio.run(scenario())


def test_from_the_command_line(tmp_path: Path) -> None:
    models(tmp_path)
    hint = np.zeros((64, 64, 3), np.uint8)
    hint[20:40, 20:40] = 255
    Image.fromarray(hint).save(tmp_path / "square.png")
    found = impasto(
        tmp_path,
        *("txt2img", "--prompt", "a cat", "--steps", "2", "--seed", "5", "--size", "64x64", "--model", "tiny"),
        *("--control", f"canny=canny:{tmp_path / 'square.png'}:0.7", "-o", str(tmp_path / "out.png"), "--json"),
        *("--reference", f"adain:{tmp_path / 'square.png'}:0.6"),
    )
    assert found.returncode == 0, found.stderr
    ran = json.loads(found.stdout)["ran"]
    (told,) = ran["control"]
    assert (ran["references"][0]["kind"], ran["references"][0]["weight"]) == ("adain", 0.6)
    assert (told["model"], told["weight"], told["preprocessor"]) == ("canny", 0.7, "canny")
    wrong = impasto(tmp_path, "txt2img", "--control", "canny", "-o", str(tmp_path / "no.png"))
    assert wrong.returncode == 2 and "MODEL=FILE" in wrong.stderr


def test_a_hint_of_a_picture_comes_back_as_a_layer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (_, endpoint),
            connected(endpoint) as peer,
        ):
            image = np.full((40, 60, 4), 255, np.uint8)
            image[10:30, 20:40, :3] = 0
            there = InputPicture(await peer.put(image.tobytes()), 60, 40, "rgba8", 5, 6)
            # No checkpoint is needed for it.
            output, hint, _ = await one(
                peer, "hint", "annotate", {"preprocessor": "canny"}, {"image": there}, Size(80, 60)
            )
            assert output.placement == (5, 6, 60, 40) and output.stage == "annotate" and output.alpha == "opaque"
            assert hint[10, 30, 0] == 255 or hint[9, 30, 0] == 255
            assert not hint[20, 30, 0] and (hint[..., 3] == 255).all()

    asyncio.run(scenario())


def test_a_hint_from_the_command_line(tmp_path: Path) -> None:
    image = np.full((64, 64, 3), 255, np.uint8)
    image[20:40, 20:40] = 0
    Image.fromarray(image).save(tmp_path / "square.png")
    found = impasto(
        tmp_path, "annotate", "--image", str(tmp_path / "square.png"), "--preprocessor", "lineart", "-o",
        str(tmp_path / "hint.png"),
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    with Image.open(tmp_path / "hint.png") as hint:
        assert hint.size == (64, 64) and hint.convert("L").getextrema()[1] > 100
