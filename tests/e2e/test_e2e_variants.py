"""Hires, variants and taking a result further, over a real socket with the real engine in the worker process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_protocol.geometry import Size
from impasto_protocol.messages import (
    Cancel,
    Cancelled,
    Catalog,
    CatalogRequest,
    Error,
    Finished,
    Further,
    InputPicture,
    Output,
    Parameters,
    Plan,
    PlanOk,
    Progress,
)
from impasto_server.service import facts

from tests.e2e import guard
from tests.e2e.test_e2e_modes import settings_of
from tests.loras import write_lora
from tests.service.fakes import WISH, Peer, ask_submit, connected, running
from tests.tiny import write_tiny_checkpoint
from tests.upscalers import compact, save

SMALL = Size(64, 64)
BASE = {"prompt": "a red fox", "steps": 3, "seed": 5, "model": "tiny", "width": 64, "height": 64}


@pytest.fixture(scope="module")
def home(tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("home")
    write_tiny_checkpoint(folder / "models" / "tiny.safetensors")
    write_tiny_checkpoint(folder / "models" / "other.safetensors", seed=7)
    write_lora(folder / "models" / "lcm-tiny.safetensors")
    save(folder / "models" / "ESRGAN" / "sharp.pth", compact(scale=2))
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_network() -> Any:
    guard.watch()
    yield
    guard.watching[0] = False


async def made(peer: Peer, job: str, params: Any, canvas: Size = SMALL, **more: Any) -> tuple[list[Output], Finished]:
    """All outputs and the end of a job."""
    await ask_submit(peer, job, more.pop("mode", "txt2img"), params=params, canvas=canvas, preview=WISH, **more)
    end = await peer.end(job)
    assert isinstance(end, Finished), end
    return [e for e in peer.events if isinstance(e, Output) and e.job == job], end


async def pixels_of(peer: Peer, output: Output) -> Any:
    return np.frombuffer(await peer.fetch(output), np.uint8).reshape(output.height, output.width, 4)


def test_hires_over_the_wire(home: Path) -> None:
    async def scenario() -> None:
        async with running(settings_of(home), identify=facts.identify) as (_, endpoint), connected(endpoint) as peer:
            params = {**BASE, "hires": True, "hires_steps": 2, "hires_upscaler": "latent", "hires_keep_first": True}
            planned = await peer.ask(Plan, "txt2img", params, SMALL)
            assert isinstance(planned, PlanOk) and planned.final == Size(128, 128) and planned.working == SMALL
            assert planned.outputs == 2 and planned.steps == 5 and planned.seconds is None
            outputs, end = await made(peer, "h1", params, planned.final)
            assert [o.stage for o in outputs] == ["generate", "hires"]
            assert [(o.width, o.height) for o in outputs] == [(128, 128)] * 2
            assert end.ran["hires"]["working"] == [128, 128]
            assert {"denoise", "upscale", "hires"} <= set(end.timings)
            stages = {e.stage for e in peer.events if isinstance(e, Progress)}
            assert "hires" in stages, "progress may be left out, but not all of it"

            # An upscaler of the catalogue, another checkpoint, and what they are called in the recipe.
            params |= {"hires_upscaler": "sharp", "hires_model": "other", "hires_keep_first": False}
            outputs, _ = await made(peer, "h2", params, planned.final)
            assert outputs[0].info["hires"]["model"]["file"] == "other"
            assert "Hires upscaler: sharp, Hires checkpoint: other" in outputs[0].info["parameters"]
            for name, code, path in (
                ("hires_upscaler", "model.unknown", "params.hires_upscaler"),
                ("hires_model", "model.unknown", "params.hires_model"),
            ):
                wrong = await ask_submit(peer, f"w-{name}", "txt2img", params={**params, name: "none"}, canvas=SMALL)
                assert isinstance(wrong, Error) and (wrong.code, wrong.path) == (code, path), wrong
            wrong = await peer.ask(Plan, "txt2img", {**params, "hires_prompt": "[a:b:c]"}, SMALL)
            assert isinstance(wrong, Error) and wrong.path == "params.hires_prompt"

    asyncio.run(scenario())


def test_variants_come_as_they_are_made(home: Path) -> None:
    async def scenario() -> None:
        async with running(settings_of(home), identify=facts.identify) as (_, endpoint), connected(endpoint) as peer:
            await made(peer, "first", BASE)
            table = [{"param": "cfg", "values": "2-8 (+3)"}, {"param": "seed", "values": "5, 6"}]
            planned = await peer.ask(Plan, "txt2img", {**BASE, "vary": table}, SMALL)
            assert isinstance(planned, PlanOk) and planned.outputs == 6 and planned.steps == 18
            alone = await peer.ask(Plan, "txt2img", BASE, SMALL)
            assert isinstance(alone, PlanOk) and alone.seconds is not None and planned.seconds is not None
            assert planned.seconds == pytest.approx(6 * alone.seconds)
            outputs, end = await made(peer, "v", {**BASE, "vary": table})
            assert [o.index for o in outputs] == list(range(6)) and end.seeds == (5, 5, 5, 6, 6, 6)
            assert [(o.info["variant"]["column"], o.info["variant"]["row"]) for o in outputs] == [
                (c, r) for r in (0, 1) for c in (0, 1, 2)
            ]
            assert [label["value"] for label in outputs[5].info["variant"]["labels"]] == ["8", "6"]
            fractions = [e.fraction for e in peer.events if isinstance(e, Progress) and e.job == "v"]
            assert fractions == sorted(fractions) and fractions[-1] > 0.9
            # Each recipe makes its picture alone.
            again, _ = await made(peer, "a", outputs[4].info["params"])
            assert np.array_equal(await pixels_of(peer, again[0]), await pixels_of(peer, outputs[4]))

            # Prompts and checkpoints; what cannot be read says where, in a plan and in a submit.
            prompts = [{"param": "prompt", "values": "a fox\na wolf"}, {"param": "model", "values": "tiny, other"}]
            outputs, _ = await made(peer, "p", {**BASE, "vary": prompts})
            assert {(o.info["params"]["prompt"], o.info["model"]["file"]) for o in outputs} == {
                (p, m) for p in ("a fox", "a wolf") for m in ("tiny", "other")
            }
            for wrong, path in (
                ([{"param": "cfg", "values": "1-"}], "params.vary[0].values"),
                ([{"param": "model", "values": "tiny, none"}], "params.model"),
                ([{"param": "prompt", "values": "a fox\n[a:b:c]"}], "params.prompt"),
            ):
                for answer in (
                    await peer.ask(Plan, "txt2img", {**BASE, "vary": wrong}, SMALL),
                    await ask_submit(peer, f"w{len(path)}", "txt2img", params={**BASE, "vary": wrong}, canvas=SMALL),
                ):
                    assert isinstance(answer, Error) and answer.path == path, answer

            # A cancel is heard within a step, and what has come stays.
            many = {**BASE, "steps": 60, "vary": [{"param": "seed", "values": "1-50"}]}
            await ask_submit(peer, "c", "txt2img", params=many, canvas=SMALL)
            await peer.until(Output, "c")
            await peer.ask(Cancel, "c")
            assert isinstance(await peer.end("c"), Cancelled)
            kept = [e for e in peer.events if isinstance(e, Output) and e.job == "c"]
            assert 1 <= len(kept) < 50
            assert (await pixels_of(peer, kept[0])).shape == (64, 64, 4)

    asyncio.run(scenario())


def test_a_result_is_taken_further(home: Path) -> None:
    async def scenario() -> None:
        async with running(settings_of(home), identify=facts.identify) as (_, endpoint), connected(endpoint) as peer:
            seeds = {**BASE, "vary": [{"param": "seed", "values": "11-13"}]}
            outputs, _ = await made(peer, "f", seeds)
            chosen = outputs[1]

            answer = await peer.ask(Further, "hires", "f", 1)
            assert isinstance(answer, Parameters) and answer.mode == "txt2img"
            assert answer.params["seed"] == 12 and answer.params["hires"] is True and "vary" not in answer.params
            params = {**answer.params, "hires_keep_first": True}
            planned = await peer.ask(Plan, "txt2img", params, SMALL)
            assert isinstance(planned, PlanOk) and planned.final is not None
            larger, _ = await made(peer, "f-hires", params, planned.final)
            assert larger[1].stage == "hires" and larger[1].seed == 12

            data = await peer.fetch(chosen)
            picture = InputPicture(await peer.put(data), 64, 64, chosen.format)
            mask = InputPicture(await peer.put(b"\xff" * 64 * 64), 64, 64, "l8")
            for way, inputs in (
                ("img2img", {"image": picture}),
                ("inpaint", {"image": picture, "mask": mask}),
                ("upscale", {"image": picture}),
            ):
                answer = await peer.ask(Further, way, None, 0, chosen.info)
                assert isinstance(answer, Parameters) and answer.mode == way
                if way != "upscale":
                    assert answer.params["seed"] == 12 and answer.params["prompt"] == "a red fox"
                    assert "strength" not in answer.params and "hires" not in answer.params
                done, _ = await made(peer, f"f-{way}", answer.params, mode=way, inputs=inputs)
                assert done[0].stage == ("upscale" if way == "upscale" else "generate")

            wrong = await peer.ask(Further, "hires", "f-inpaint", 0)
            assert isinstance(wrong, Error) and "no hires pass" in wrong.message
            wrong = await peer.ask(Further, "hires", "f-hires", 1)
            assert isinstance(wrong, Error) and "has been through" in wrong.message
            wrong = await peer.ask(Further, "sideways", "f", 0)
            assert isinstance(wrong, Error) and wrong.path == "way"
            wrong = await peer.ask(Further, "hires", "f", 9)
            assert isinstance(wrong, Error) and wrong.code == "job.unknown"

    asyncio.run(scenario())


def test_a_fast_preset_only_where_it_is_asked_for(home: Path) -> None:
    async def scenario() -> None:
        async with running(settings_of(home), identify=facts.identify) as (_, endpoint), connected(endpoint) as peer:
            catalog = await peer.ask(CatalogRequest)
            assert isinstance(catalog, Catalog) and catalog.presets is not None
            (preset,) = catalog.presets
            assert preset["id"] == "fast:lcm-tiny" and preset["params"]["sampler"] == "lcm"
            plain, end = await made(peer, "slow", BASE)
            assert "loras" not in end.ran and end.ran["sampler"] == "dpmpp_2m"
            quick, end = await made(peer, "fast", {**BASE, **preset["params"]})
            assert end.ran["loras"][0]["model"] == "lcm-tiny" and (end.ran["sampler"], end.ran["steps"]) == ("lcm", 6)
            assert quick[0].digest != plain[0].digest

    asyncio.run(scenario())


def test_soft_inpainting_over_the_wire(home: Path) -> None:
    async def scenario() -> None:
        async with running(settings_of(home), identify=facts.identify) as (_, endpoint), connected(endpoint) as peer:
            picture = InputPicture(await peer.put(bytes(range(256)) * 64), 64, 64, "rgba8")
            grey = bytes(min(255, 8 * x) for _ in range(64) for x in range(64))
            mask = InputPicture(await peer.put(grey), 64, 64, "l8")
            params = {"prompt": "a fox", "steps": 3, "seed": 5, "model": "tiny", "soft": True, "exact": True}
            outputs, _ = await made(peer, "soft", params, mode="inpaint", inputs={"image": picture, "mask": mask})
            output = outputs[0]
            alpha = (await pixels_of(peer, output))[..., 3]
            x, y = output.placement.x, output.placement.y
            selected = np.frombuffer(grey, np.uint8).reshape(64, 64)[y : y + output.height, x : x + output.width]
            assert output.alpha == "soft" and (alpha[selected == 0] == 0).all()
            assert "Soft inpainting enabled: True" in output.info["parameters"]

    asyncio.run(scenario())
