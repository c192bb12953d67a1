"""LoRAs and embeddings over a real socket, with the real engine in the worker process and no network."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.geometry import Size
from impasto_protocol.messages import Error
from impasto_server.service import facts

from tests.e2e import guard
from tests.e2e.test_e2e_actions import one, settings_of
from tests.e2e.test_e2e_serve import impasto
from tests.loras import numbers, write_embedding, write_lora, write_tensors
from tests.service.fakes import ask_submit, connected, running
from tests.tiny import write_tiny_checkpoint

CANVAS = Size(64, 64)


@pytest.fixture(autouse=True)
def no_network() -> Any:
    guard.watch()
    yield
    guard.watching[0] = False


def web_ui(root: Path) -> Path:
    """The folder of an A1111 user."""
    write_tiny_checkpoint(root / "models" / "Stable-diffusion" / "dream.safetensors")
    loras = root / "models" / "Lora"
    write_lora(loras / "people" / "ink.safetensors")
    write_tensors(loras / "v3_final.safetensors", {"lora_unet_conv_out.diff_b": numbers(4)}, {"ss_output_name": "tone"})
    write_lora(loras / "dream.safetensors", seed=3)  # called as the checkpoint
    key = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    big = {f"{key}.lora_down.weight": numbers(2, 2048), f"{key}.lora_up.weight": numbers(640, 2)}
    write_tensors(loras / "big.safetensors", big)
    wide = {f"{key}.lora_down.weight": numbers(2, 99), f"{key}.lora_up.weight": numbers(32, 2)}
    write_tensors(loras / "broad.safetensors", wide)
    write_embedding(root / "embeddings" / "EasyNegative.safetensors")
    write_embedding(root / "embeddings" / "wide-one.safetensors", width=48)
    return root


def test_on_then_off_is_bit_identical(tmp_path: Path) -> None:
    root = web_ui(tmp_path / "webui")

    async def scenario() -> None:
        async with (
            running(replace(settings_of(tmp_path), a1111=(root,)), identify=facts.identify) as (server, endpoint),
            connected(endpoint) as peer,
        ):
            entries = {m.id: m.to_wire() for m in server.catalogue.models}
            assert (entries["ink"]["kind"], entries["ink"]["usable"]) == ("lora", True)
            assert (entries["EasyNegative"]["kind"], entries["EasyNegative"]["usable"]) == ("embedding", True)
            assert (entries["big"]["family"], entries["big"]["usable"]) == ("sdxl", True)
            common = {"prompt": "a cat", "steps": 2, "seed": 5}
            _, plain, end = await one(peer, "plain", "txt2img", common, {}, CANVAS)
            assert "loras" not in end.ran

            asked = {**common, "loras": [{"model": "ink", "strength": 0.8}]}
            output, by_parameter, end = await one(peer, "parameter", "txt2img", asked, {}, CANVAS)
            (told,) = end.ran["loras"]
            assert (told["model"], told["strength"], told["text_strength"]) == ("ink", 0.8, 0.8)
            assert f'Lora hashes: "ink: {told["hash"]}"' in output.info["parameters"]
            assert output.info["parameters"].startswith("a cat<lora:ink:0.8:0.8>\n")

            tagged = {**common, "prompt": "a cat<lora:ink:0.8>"}
            _, by_prompt, _ = await one(peer, "prompt", "txt2img", tagged, {}, CANVAS)
            assert (by_prompt == by_parameter).all() and (by_prompt != plain).any()

            # By the name that it was trained under, as A1111 writes it.
            _, aliased, end = await one(
                peer, "alias", "txt2img", {**common, "prompt": "a cat<lora:tone:1>"}, {}, CANVAS
            )
            assert end.ran["loras"][0]["model"] == "tone" and (aliased != plain).any()

            _, namesake, end = await one(
                peer, "name", "txt2img", {**common, "prompt": "a cat<lora:dream:1>"}, {}, CANVAS
            )
            assert end.ran["loras"][0]["model"] == "dream" and (namesake != aliased).any()

            _, off, _ = await one(peer, "off", "txt2img", common, {}, CANVAS)
            assert (off == plain).all()

            # From its recipe the picture is made again.
            _, again, _ = await one(peer, "again", "txt2img", output.info["params"], {}, CANVAS)
            assert (again == by_parameter).all()

            avoiding = {**common, "negative_prompt": "easynegative"}
            output, avoided, end = await one(peer, "embedding", "txt2img", avoiding, {}, CANVAS)
            (told,) = end.ran["embeddings"]
            assert told["model"] == "EasyNegative" and (avoided != plain).any()
            assert f'TI hashes: "EasyNegative: {told["hash"]}"' in output.info["parameters"]

    asyncio.run(scenario())


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    root = web_ui(tmp_path / "webui")

    async def scenario() -> None:
        async with (
            running(replace(settings_of(tmp_path), a1111=(root,)), identify=facts.identify) as (_, endpoint),
            connected(endpoint) as peer,
        ):
            for index, (params, code, path, said) in enumerate(
                (
                    ({"loras": [{"model": "imk"}]}, "model.unknown", "params.loras[0].model", "Did you mean 'ink'?"),
                    ({"prompt": "<lora:imk:1>"}, "model.unknown", "params.prompt", "Did you mean 'ink'?"),
                    ({"prompt": "<lora:big:1>"}, "model.unsupported", "params.prompt", "is for sdxl, the checkpoint"),
                    ({"loras": [{"model": "EasyNegative"}]}, "model.unsupported", "params.loras[0].model", "not lora"),
                    ({"loras": [{"name": "ink"}]}, "request.invalid_param", "params.loras[0].name", "no parameter"),
                )
            ):
                answer = await ask_submit(peer, f"w{index}", params=params, canvas=CANVAS)
                assert isinstance(answer, Error), answer
                assert (answer.code, answer.path) == (code, path) and said in answer.message
            # An embedding of another width, where it is a word of its own; its name in another word is none yet.
            for params, path in (
                ({"prompt": "a (wide-one:1.2) cat"}, "params.prompt"),
                ({"negative_prompt": "WIDE-one, blurry"}, "params.negative_prompt"),
            ):
                answer = await ask_submit(peer, "e", params=params, canvas=CANVAS)
                assert isinstance(answer, Error) and (answer.code, answer.path) == ("model.unsupported", path)
                assert answer.data is not None and (answer.data["need"], answer.data["got"]) == (32, 48)
                assert "'wide-one'" in answer.message and "'dream'" in answer.message
            # A comment asks for nothing.
            await one(peer, "fine", "txt2img", {"prompt": "a cat # <lora:imk:1>", "steps": 1}, {}, CANVAS)
            # What only the tensors' shapes tell is told before the job is accepted, with both sides.
            for params, path in (
                ({"prompt": "<lora:broad:1>"}, "params.prompt"),
                ({"loras": [{"model": "broad"}]}, "params.loras[0].model"),
            ):
                answer = await ask_submit(peer, "shape", params=params, canvas=CANVAS)
                assert isinstance(answer, Error) and (answer.code, answer.path) == ("model.unsupported", path)
                assert "'broad'" in answer.message and "mat1" not in answer.message
                assert answer.data is not None and answer.data["need"] != answer.data["got"]

    asyncio.run(scenario())


def test_on_the_command_line(tmp_path: Path) -> None:
    root = web_ui(tmp_path / "webui")
    common = ("txt2img", "--a1111", str(root), "--in-process", "--prompt", "a cat", "--steps", "1", "--seed", "1")
    made = impasto(tmp_path, *common, "--lora", "ink:0.5:0.25", "--lora", "tone", "--json", "-o", "a.png")
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)["ran"]["loras"]
    assert [(lora["model"], lora["strength"], lora["text_strength"]) for lora in told] == [
        ("ink", 0.5, 0.25),
        ("tone", 1.0, 1.0),
    ]
    wrong = impasto(tmp_path, *common, "--lora", "imk", "-o", "b.png")
    assert wrong.returncode == 2 and "Did you mean 'ink'" in wrong.stderr
