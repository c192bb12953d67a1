"""An SDXL checkpoint from a single file over a real socket, with what goes with it and what does not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_protocol.geometry import Size
from impasto_protocol.messages import Error, InputPicture
from impasto_server.service import facts

from tests.control import write_tiny_controlnet, write_tiny_union
from tests.e2e import guard
from tests.e2e.test_e2e_actions import one, settings_of
from tests.service.fakes import ask_submit, connected, picture, running
from tests.tiny import write_tiny_checkpoint
from tests.tiny_xl import UNET, write_tiny_xl

CANVAS = Size(64, 64)


@pytest.fixture(autouse=True)
def no_network() -> Any:
    guard.watch()
    yield
    guard.watching[0] = False


def test_it_paints_with_a_union_controlnet(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_tiny_xl(models / "xl.safetensors")
    write_tiny_checkpoint(models / "tiny.safetensors")
    left_out = ("sample_size", "in_channels", "out_channels", "up_block_types")
    write_tiny_union(models / "union.safetensors", **{k: v for k, v in UNET.items() if k not in left_out})
    write_tiny_controlnet(models / "canny.safetensors")

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (server, endpoint),
            connected(endpoint) as peer,
        ):
            entries = {m.id: m.to_wire() for m in server.catalogue.models}
            assert (entries["xl"]["family"], entries["xl"]["native_size"], entries["xl"]["usable"]) == (
                "sdxl",
                64,
                True,
            )
            assert (entries["union"]["kind"], entries["union"]["family"]) == ("controlnet", "sdxl")
            common = {"prompt": "a cat", "steps": 2, "seed": 5, "model": "xl"}
            output, plain, end = await one(peer, "plain", "txt2img", common, {}, CANVAS)
            assert end.ran["model"] == "Tiny XL" and plain.std() > 1
            _, again, _ = await one(peer, "again", "txt2img", output.info["params"], {}, CANVAS)
            assert np.array_equal(again, plain)

            hint = InputPicture(await peer.put(picture(48, 80)), 48, 80, "rgba8")
            unit = {"model": "union", "image": "control_1"}
            asked = {**common, "control": [{**unit, "control_type": "depth"}]}
            _, guided, end = await one(peer, "guided", "txt2img", asked, {"control_1": hint}, CANVAS)
            assert (guided != plain).any() and end.ran["control"][0]["control_type"] == "depth"
            for name, units, model, code, path, said in (
                ("untold", [unit], "xl", "request.invalid_param", ".control_type", "choose its control type"),
                ("sd1-net", [{**unit, "model": "canny"}], "xl", "model.unsupported", ".model", "is for sd1"),
                ("xl-net", [unit], "tiny", "model.unsupported", ".model", "is for sdxl"),
            ):
                answer = await ask_submit(
                    peer, name, params={**common, "model": model, "control": units}, inputs={"control_1": hint},
                    canvas=CANVAS,
                )  # fmt: skip
                assert isinstance(answer, Error) and answer.code == code, answer
                assert answer.path == f"params.control[0]{path}" and said in answer.message

    asyncio.run(scenario())
