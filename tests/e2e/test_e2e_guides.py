"""IP-Adapters and regions over a real socket and from the command line, with the real engine in the worker process."""

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

from tests.e2e import guard
from tests.e2e.test_e2e_actions import one, settings_of
from tests.e2e.test_e2e_serve import impasto
from tests.ip_adapters import write_tiny_identity, write_tiny_ip_adapter, write_tiny_tower
from tests.service.fakes import ask_submit, connected, picture, running
from tests.tiny import tiny_modules, write_tiny_checkpoint

CANVAS = Size(64, 64)


@pytest.fixture(autouse=True)
def no_network() -> Any:
    guard.watch()
    yield
    guard.watching[0] = False


def models(root: Path) -> None:
    unet, _, _ = tiny_modules()
    write_tiny_checkpoint(root / "models" / "tiny.safetensors")
    write_tiny_ip_adapter(root / "models" / "ip-adapter_plus.bin", unet, "plus")
    write_tiny_ip_adapter(root / "models" / "ip-adapter-faceid.bin", unet, "faceid")


def left_half(width: int, height: int) -> np.ndarray[Any, Any]:
    mask = np.zeros((height, width, 4), np.uint8)
    mask[:, : width // 2] = 255
    return mask


def test_a_picture_prompts_with_its_tower_and_is_refused_without(tmp_path: Path) -> None:
    models(tmp_path)

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (server, endpoint),
            connected(endpoint) as peer,
        ):
            shown = {"control_1": InputPicture(await peer.put(picture(48, 80)), 48, 80, "rgba8")}
            where = left_half(64, 64)
            masked = {**shown, "control_2": InputPicture(await peer.put(where.tobytes()), 64, 64, "rgba8")}
            common = {"prompt": "a cat", "steps": 2, "seed": 5}
            unit = {"model": "ip-adapter_plus", "image": "control_1", "weight": 0.8}

            async def refused(name: str, inputs: dict[str, InputPicture], **fields: Any) -> Error:
                answer = await ask_submit(
                    peer, name, params={**common, "ip_adapters": [{**unit, **fields}]}, inputs=inputs, canvas=CANVAS
                )
                assert isinstance(answer, Error), answer
                return answer

            blind = await refused("blind", shown)
            assert (blind.code, blind.path) == ("model.unknown", "params.ip_adapters[0].model")
            assert "image encoder" in blind.message and "IP-Adapter unit 1" in blind.message
            write_tiny_tower(tmp_path / "models" / "image_encoder" / "model.safetensors")
            server.catalogue.scan()
            _, plain, _ = await one(peer, "plain", "txt2img", common, {}, CANVAS)
            asked = {**common, "ip_adapters": [{**unit, "layers": "strong_style"}]}
            output, guided, end = await one(peer, "guided", "txt2img", asked, shown, CANVAS)
            assert (guided != plain).any()
            (told,) = end.ran["ip_adapters"]
            assert (told["model"], told["kind"], told["layers"]) == ("ip-adapter_plus", "plus", "strong_style")
            assert (told["pictures"], told["masked"], told["steps"]) == (1, False, 2)
            _, same, _ = await one(peer, "again", "txt2img", output.info["params"], shown, CANVAS)
            assert (same == guided).all()
            _, half, end = await one(
                peer, "half", "txt2img", {**common, "ip_adapters": [{**unit, "mask": "control_2"}]}, masked, CANVAS
            )
            assert end.ran["ip_adapters"][0]["masked"] and (half != guided).any()
            off = {**common, "ip_adapters": [{**unit, "weight": 0.0}]}
            _, silent, _ = await one(peer, "off", "txt2img", off, shown, CANVAS)
            assert (silent == plain).all()
            for name, inputs, fields, code, path in (
                ("w2", shown, {"model": "ip-adapter_plas"}, "model.unknown", ".model"),
                ("w3", {}, {}, "request.missing_input", ".image"),
                ("w4", shown, {"mask": "control_2"}, "request.missing_input", ".mask"),
                ("w5", shown, {"start": 0.8, "end": 0.2}, "request.invalid_param", ".end"),
                ("w6", {}, {"image": ""}, "request.missing_input", ".image"),
            ):
                answer = await refused(name, inputs, **fields)
                assert (answer.code, answer.path) == (code, f"params.ip_adapters[0]{path}"), answer

    asyncio.run(scenario())


def photograph() -> tuple[bytes, int, int]:
    """The astronaut of scikit-image, RGBA."""
    from skimage import data

    image = np.dstack([data.astronaut(), np.full((512, 512), 255, np.uint8)])
    return image.tobytes(), 512, 512


def test_a_face_prompts_where_the_network_is_there_that_knows_it(tmp_path: Path) -> None:
    models(tmp_path)
    unet, _, _ = tiny_modules()
    write_tiny_ip_adapter(tmp_path / "models" / "ip-adapter-faceid-plusv2.bin", unet, "faceid-plus")

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (server, endpoint),
            connected(endpoint) as peer,
        ):
            data, width, height = photograph()
            shown = {"control_1": InputPicture(await peer.put(data), width, height, "rgba8")}
            empty = {"control_1": InputPicture(await peer.put(picture(48, 80)), 48, 80, "rgba8")}
            common = {"prompt": "a cat", "steps": 2, "seed": 5}

            def asked(model: str, weight: float = 1.0) -> dict[str, Any]:
                return {**common, "ip_adapters": [{"model": model, "image": "control_1", "weight": weight}]}

            missing = await ask_submit(peer, "m1", params=asked("ip-adapter-faceid"), inputs=shown, canvas=CANVAS)
            assert isinstance(missing, Error) and missing.code == "model.unknown"
            assert "w600k_r50.onnx" in missing.message and "IP-Adapter unit 1" in missing.message
            write_tiny_identity(tmp_path / "models" / "w600k_r50.onnx")
            server.catalogue.scan()
            known = {m.id: m.to_wire() for m in server.catalogue.models}["w600k_r50"]
            assert (known["kind"], known["variant"], known["usable"]) == ("annotator", "face-identity", True)
            _, plain, _ = await one(peer, "plain", "txt2img", common, {}, CANVAS)
            _, guided, end = await one(peer, "face", "txt2img", asked("ip-adapter-faceid"), shown, CANVAS)
            (told,) = end.ran["ip_adapters"]
            assert (told["kind"], told["identity"]) == ("faceid", "w600k_r50") and "tower" not in told
            assert (guided != plain).any()
            _, again, _ = await one(peer, "plain-again", "txt2img", common, {}, CANVAS)
            assert (again == plain).all(), "the adapter's LoRA is off again"
            blind = await ask_submit(peer, "m2", params=asked("ip-adapter-faceid-plusv2"), inputs=shown, canvas=CANVAS)
            assert isinstance(blind, Error) and "image encoder" in blind.message
            write_tiny_tower(tmp_path / "models" / "image_encoder" / "model.safetensors")
            server.catalogue.scan()
            _, plus, end = await one(peer, "plus", "txt2img", asked("ip-adapter-faceid-plusv2"), shown, CANVAS)
            assert end.ran["ip_adapters"][0]["kind"] == "faceid-plus" and (plus != guided).any()
            await ask_submit(peer, "nobody", params=asked("ip-adapter-faceid"), inputs=empty, canvas=CANVAS)
            failed = (await peer.end("nobody")).error
            assert (failed.code, failed.path) == ("request.no_face", "params.ip_adapters[0].image")
            assert "IP-Adapter unit 1" in failed.message

    asyncio.run(scenario())


def test_regions_have_prompts_of_their_own(tmp_path: Path) -> None:
    models(tmp_path)

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (_, endpoint),
            connected(endpoint) as peer,
        ):
            where = {"control_1": InputPicture(await peer.put(left_half(64, 64).tobytes()), 64, 64, "rgba8")}
            common = {"prompt": "a forest", "steps": 2, "seed": 5}
            region = {"prompt": "a deer", "mask": "control_1"}
            _, plain, _ = await one(peer, "plain", "txt2img", common, {}, CANVAS)
            asked = {**common, "regions": [region]}
            output, regional, end = await one(peer, "regional", "txt2img", asked, where, CANVAS)
            assert (regional != plain).any()
            assert end.ran["regions"] == [{"prompt": "a deer", "negative": "", "weight": 1.0}]
            _, same, _ = await one(peer, "again", "txt2img", output.info["params"], where, CANVAS)
            assert (same == regional).all()
            for name, inputs, fields, code, path in (
                ("w1", where, {"prompt": " "}, "request.invalid_param", ".prompt"),
                ("w2", {}, {"mask": ""}, "request.missing_input", ".mask"),
                ("w3", {}, {}, "request.missing_input", ".mask"),
                ("w4", where, {"prompt": "a deer AND a fox"}, "request.invalid_param", ".prompt"),
                ("w5", where, {"prompt": "a __missing__ deer"}, "request.invalid_param", ".prompt"),
            ):
                params = {**common, "regions": [{**region, **fields}]}
                answer = await ask_submit(peer, name, params=params, inputs=inputs, canvas=CANVAS)
                assert isinstance(answer, Error), (name, answer)
                assert (answer.code, answer.path) == (code, f"params.regions[0]{path}"), answer
            nothing = InputPicture(await peer.put(bytes(64 * 64 * 4)), 64, 64, "rgba8")
            failed = await ask_submit(peer, "empty", params=asked, inputs={"control_1": nothing}, canvas=CANVAS)
            if not isinstance(failed, Error):
                failed = (await peer.end("empty")).error
            assert failed.code == "request.empty_selection" and "region 1" in failed.message

    asyncio.run(scenario())


def test_both_from_the_command_line(tmp_path: Path) -> None:
    models(tmp_path)
    write_tiny_tower(tmp_path / "models" / "clip.safetensors")
    Image.fromarray(left_half(64, 64)).save(tmp_path / "left.png")
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(tmp_path / "grey.png")
    common = ("--prompt", "a forest", "--steps", "2", "--seed", "5", "--model", "tiny", "--json")
    found = impasto(
        tmp_path,
        *("img2img", "--image", str(tmp_path / "grey.png"), *common, "-o", str(tmp_path / "out.png")),
        *("--region", f"{tmp_path / 'left.png'}:0.8=a deer = a stag"),
        *("--ip-adapter", f"ip-adapter_plus=style:{tmp_path / 'left.png'},{tmp_path / 'grey.png'}:0.6"),
    )
    assert found.returncode == 0, found.stderr
    ran = json.loads(found.stdout)["ran"]
    assert ran["regions"] == [{"prompt": "a deer = a stag", "negative": "", "weight": 0.8}]
    (told,) = ran["ip_adapters"]
    assert (told["layers"], told["weight"], told["pictures"]) == ("style", 0.6, 2)
    wrong = impasto(tmp_path, "txt2img", "--region", "left.png", "-o", str(tmp_path / "no.png"))
    assert wrong.returncode == 2 and "MASK=PROMPT" in wrong.stderr
