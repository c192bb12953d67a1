"""Preprocessors over a real socket and from the command line: joints, what is missing, what is wrong; by their unit."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from impasto_protocol.geometry import Size
from impasto_protocol.messages import CatalogRequest, Error, InputPicture
from impasto_server.engine.annotators.hed import Hed
from impasto_server.engine.annotators.lineart import LineDrawing
from impasto_server.service import facts
from PIL import Image

from tests.control import write_tiny_controlnet
from tests.e2e import guard
from tests.e2e.test_e2e_actions import one, settings_of
from tests.e2e.test_e2e_serve import impasto
from tests.hints.networks import random_state
from tests.service.fakes import Peer, ask_submit, connected, picture, running
from tests.tiny import write_tiny_checkpoint

CANVAS = Size(64, 64)
COMMON = {"prompt": "a cat", "steps": 2, "seed": 5}
BODY = [0, 0, 0, 32, 10, 1, 12, 10, 1] + [0, 0, 0] * 15
JOINTS = json.dumps({"people": [{"pose_keypoints_2d": BODY}], "canvas_width": 64, "canvas_height": 64})


@pytest.fixture(autouse=True)
def no_network() -> Any:
    guard.watch()
    yield
    guard.watching[0] = False


def models(root: Path) -> None:
    write_tiny_checkpoint(root / "models" / "tiny.safetensors")
    write_tiny_controlnet(root / "models" / "pose.safetensors")


async def refused(peer: Peer, job: str, mode: str, params: Any, inputs: Any, canvas: Size = CANVAS) -> Any:
    """The error of a job, whether it comes at once or when it runs."""
    answer = await ask_submit(peer, job, mode, params=params, inputs=inputs, canvas=canvas)
    return answer if isinstance(answer, Error) else (await peer.end(job)).error


def test_joints_guide_without_a_picture(tmp_path: Path) -> None:
    models(tmp_path)

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (_, endpoint),
            connected(endpoint) as peer,
        ):
            unit = {"model": "pose", "preprocessor": "openpose_full", "pose": JOINTS}
            _, plain, _ = await one(peer, "plain", "txt2img", COMMON, {}, CANVAS)
            output, guided, end = await one(peer, "guided", "txt2img", {**COMMON, "control": [unit]}, {}, CANVAS)
            assert (guided != plain).any() and end.ran["control"][0]["preprocessor"] == "openpose_full"
            # The joints are kept with the layer: its recipe makes it again.
            assert json.loads(output.info["params"]["control"][0]["pose"]) == json.loads(JOINTS)
            _, again, _ = await one(peer, "again", "txt2img", output.info["params"], {}, CANVAS)
            assert (again == guided).all()

            there = {"image": InputPicture(await peer.put(picture(64, 64)), 64, 64, "rgba8")}
            asked = {"preprocessor": "openpose", "pose": JOINTS}
            output, drawn, _ = await one(peer, "drawn", "annotate", asked, there, CANVAS)
            assert drawn[10, 22, :3].tolist() == [153, 0, 0]
            assert output.info["pose"]["people"][0]["pose_keypoints_2d"][3:5] == [32, 10]
            # What came back is what may be sent.
            edited = output.info["pose"]
            edited["people"][0]["pose_keypoints_2d"][4] = 40
            asked = {"preprocessor": "openpose", "pose": json.dumps(edited)}
            _, moved, _ = await one(peer, "moved", "annotate", asked, there, CANVAS)
            assert moved[25, 22].any() and (moved != drawn).any()

            for index, (wrong, path, said) in enumerate(
                (
                    ({**unit, "pose": "{}"}, "pose", "joints of control unit 1 cannot be read"),
                    ({**unit, "preprocessor": "canny"}, "pose", "joints of control unit 1 are drawn by openpose"),
                    ({**unit, "pose": "", "preprocessor": "canny"}, "image", "control unit 1 has no picture"),
                )
            ):
                answer = await ask_submit(peer, f"w{index}", params={**COMMON, "control": [wrong]}, canvas=CANVAS)
                assert isinstance(answer, Error) and answer.path == f"params.control[0].{path}", answer
                assert said in answer.message, answer

    asyncio.run(scenario())


def test_what_cannot_run_is_listed_and_refused_by_name(tmp_path: Path) -> None:
    models(tmp_path)

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (server, endpoint),
            connected(endpoint) as peer,
        ):
            catalog: Any = await peer.ask(CatalogRequest)
            told = {mode.name: {p.name: p for p in mode.params} for mode in catalog.modes}
            unit = {item.name: item for item in told["txt2img"]["control"].items}
            for param in (told["annotate"]["preprocessor"], unit["preprocessor"]):
                missing = param.ui["unavailable"]
                assert {"softedge", "scribble_hed", "openpose", "openpose_full"} <= set(missing)
                assert not {"canny", "mlsd", "openpose_faceonly"} & set(missing)
                for name, file in (
                    ("dwpose", "dw-ll_ucoco_384.onnx"),
                    ("depth_midas", "dpt_hybrid-midas-501f0c75.pt"),
                    ("depth_anything", "depth_anything_v2_vits.pth"),
                    ("normal_bae", "scannet.pt"),
                    ("lineart_coarse", "sk_model2.pth"),
                    ("segmentation", "oneformer_ade20k_swin_tiny"),
                ):
                    assert file in missing[name] and "models folder" in missing[name]
                assert "impasto models pull pose" in missing["openpose"]
                assert "ControlNetHED.pth" in missing["softedge"] and "impasto models pull hed" in missing["softedge"]

            there = InputPicture(await peer.put(picture(64, 64)), 64, 64, "rgba8")
            for job, mode, params, inputs, path, name in (
                ("a", "annotate", {"preprocessor": "softedge"}, {"image": there}, "params.preprocessor", "the picture"),
                (
                    "c",
                    "txt2img",
                    {**COMMON, "control": [{"model": "pose", "image": "control_1"}, {"model": "pose",
                     "image": "control_1", "preprocessor": "openpose"}]},
                    {"control_1": there},
                    "params.control[1].preprocessor",
                    "control unit 2",
                ),
            ):  # fmt: skip
                error = await refused(peer, job, mode, params, inputs)
                assert (error.code, error.path) == ("model.unknown", path), error
                assert name in error.message and "impasto models pull" in error.message

            # The user's own file is as good.
            torch.save(random_state(Hed()), tmp_path / "models" / "ControlNetHED.pth")
            torch.save(random_state(LineDrawing()), tmp_path / "models" / "sk_model2.pth")
            (tmp_path / "models" / "yolox_l.onnx").write_bytes(b"not one")
            await asyncio.to_thread(server.catalogue.scan)
            output, hint, end = await one(
                peer, "own", "annotate", {"preprocessor": "softedge"}, {"image": there}, CANVAS
            )
            assert end.ran["annotators"] == ["ControlNetHED"] and output.alpha == "opaque" and hint[..., 0].std() > 0
            catalog = await peer.ask(CatalogRequest)
            told = {mode.name: {p.name: p for p in mode.params} for mode in catalog.modes}
            missing = told["annotate"]["preprocessor"].ui["unavailable"]
            # The coarse lines have a network of their own, of the same layout.
            assert not {"softedge", "lineart_coarse"} & set(missing) and {"lineart_realistic", "dwpose"} <= set(missing)
            found = {model.id: model for model in server.catalogue.models}
            assert not found["yolox_l"].facts.usable and "no complete ONNX file" in found["yolox_l"].facts.reason

    asyncio.run(scenario())


def test_bad_pictures_name_their_unit(tmp_path: Path) -> None:
    models(tmp_path)

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (_, endpoint),
            connected(endpoint) as peer,
        ):
            nothing = np.zeros((40, 30, 4), np.uint8)
            hint = InputPicture(await peer.put(picture(30, 40)), 30, 40, "rgba8")
            empty = InputPicture(await peer.put(nothing.tobytes()), 30, 40, "rgba8")
            white = np.full((40, 30, 4), 255, np.uint8)
            full = InputPicture(await peer.put(white.tobytes()), 30, 40, "rgba8")
            units = [{"model": "pose", "image": f"control_{i}", "preprocessor": "canny"} for i in (1, 2)]
            params = {**COMMON, "control": units}
            # Another size is fitted.
            await one(peer, "sizes", "txt2img", params, {"control_1": hint, "control_2": hint}, CANVAS)
            error = await refused(peer, "empty", "txt2img", params, {"control_1": hint, "control_2": empty})
            assert (error.code, error.path) == ("request.empty_selection", "params.control[1]"), error
            assert "control unit 2 is fully transparent" in error.message
            error = await refused(peer, "gone", "txt2img", params, {"control_1": hint})
            assert (error.code, error.path) == ("request.missing_input", "params.control[1].image"), error
            whole = {**units[0], "preprocessor": "inpaint"}
            error = await refused(peer, "whole", "txt2img", {**COMMON, "control": [whole]}, {"control_1": full})
            assert (
                error.code == "request.empty_selection" and "control unit 1 has no transparent place" in error.message
            )
            # A picture whose bytes are not those of its size.
            wrong = {"control_1": InputPicture(hint.digest, 31, 40, "rgba8"), "control_2": hint}
            error = await refused(peer, "wrong", "txt2img", params, wrong)
            assert error.code.startswith("asset.") and error.path == "inputs.control_1", error

    asyncio.run(scenario())


def test_joints_from_the_command_line(tmp_path: Path) -> None:
    models(tmp_path)
    Image.new("RGB", (64, 64), (200, 200, 200)).save(tmp_path / "grey.png")
    (tmp_path / "joints.json").write_text(JOINTS)
    found = impasto(
        tmp_path,
        *("annotate", "--image", "grey.png", "--preprocessor", "openpose", "--pose", "joints.json"),
        *("-o", "drawn.png", "--pose-out", "again.json"),
    )
    assert found.returncode == 0, found.stderr
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["people"][0]["pose_keypoints_2d"] == BODY and again["canvas_width"] == 64
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.getpixel((22, 10)) == (153, 0, 0)
    found = impasto(
        tmp_path,
        *("txt2img", "--prompt", "a cat", "--steps", "2", "--seed", "5", "--size", "64x64", "--model", "tiny"),
        *("--control", "pose=again.json:0.7", "-o", "out.png", "--json"),
    )
    assert found.returncode == 0, found.stderr
    (told,) = json.loads(found.stdout)["ran"]["control"]
    assert (told["preprocessor"], told["weight"]) == ("openpose_full", 0.7)
    missing = impasto(tmp_path, "annotate", "--image", "grey.png", "--preprocessor", "openpose")
    assert missing.returncode == 2 and "impasto models pull pose" in missing.stderr
    none = impasto(
        tmp_path, "annotate", "--image", "grey.png", "--preprocessor", "canny", "--pose-out", "x.json", "-o", "c.png"
    )
    assert none.returncode != 0 and "finds no joints" in none.stderr
