"""Face profiles and the swap over a real socket and from the command line, alone and in a chain."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_protocol.geometry import Size
from impasto_protocol.messages import CatalogRequest, ChainLink, Error, InputPicture, Output, Submit
from impasto_server.service import facts
from PIL import Image
from skimage import data

from tests.e2e import guard
from tests.e2e.test_e2e_actions import settings_of
from tests.e2e.test_e2e_serve import impasto
from tests.service.fakes import ask_submit, connected, running
from tests.tiny import write_tiny_checkpoint

ASTRONAUT = data.astronaut()
CANVAS = Size(300, 300)
OURS = "a portrait by NASA, in the public domain"


@pytest.fixture(autouse=True)
def no_network() -> Any:
    guard.watch()
    yield
    guard.watching[0] = False


def portrait() -> Image.Image:
    small = Image.fromarray((data.lfw_subset()[10] * 255).clip(0, 255).astype(np.uint8))
    canvas = Image.new("RGB", (300, 300), (128, 128, 128))
    canvas.paste(small.resize((150, 150), Image.Resampling.BICUBIC).convert("RGB"), (75, 75))
    return canvas


def build(home: Path) -> Any:
    Image.fromarray(ASTRONAUT).save(home / "photo.png")
    portrait().save(home / "other.png")
    return impasto(home, "faces", "build", "astro", str(home / "photo.png"), "--consent", OURS, "--json")


def test_profiles_from_the_command_line(tmp_path: Path) -> None:
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["photographs"] == 1 and told["photos"][0]["similarity"] == pytest.approx(1)
    photo, other = str(tmp_path / "photo.png"), str(tmp_path / "other.png")
    again = impasto(tmp_path, "faces", "build", "astro", photo, "--consent", OURS)
    assert again.returncode == 2 and "--replace" in again.stderr
    for words, code in (
        (("faces", "build", "b", photo), "request.no_consent"),
        (("faces", "build", "b", photo, other, "--consent", OURS), "request.two_people"),
        (("faces", "build", "../b", photo, "--consent", OURS), "request.invalid_param"),
        (("faces", "compare", photo, "nobody"), "model.unknown"),
    ):
        refused = impasto(tmp_path, *words)
        assert refused.returncode == 2 and code in refused.stderr, words
    (row,) = json.loads(impasto(tmp_path, "faces", "find", other, "--profile", "astro", "--json").stdout)
    assert row["number"] == 1 and row["similarity"] < 0.4 and not row["cut"]
    like = json.loads(impasto(tmp_path, "faces", "compare", photo, "astro", "--json").stdout)
    assert like["same"] and like["similarity"] > 0.9
    (listed,) = json.loads(impasto(tmp_path, "faces", "list", "--json").stdout)
    assert listed["name"] == "astro" and listed["consent"] == OURS
    swapped = tmp_path / "swapped.png"
    done = impasto(tmp_path, "faceswap", "--image", other, "--profile", "astro", "-o", str(swapped), "--json")
    assert done.returncode == 0, done.stderr
    (face,) = json.loads(done.stdout)["ran"]["faces"]
    assert face["done"] and face["similarity"] > face["similarity_before"] + 0.2
    before, after = np.asarray(portrait()), np.asarray(Image.open(swapped).convert("RGB"))
    x, y, w, h = json.loads(done.stdout)["outputs"][0]["placement"]
    outside = np.ones(before.shape[:2], bool)
    outside[y : y + h, x : x + w] = False
    assert np.array_equal(before[outside], after[outside]) and not np.array_equal(before, after)
    assert "compositeWithTrainedAlgorithmicMedia" in str(Image.open(swapped).info)


def test_without_a_profile_the_mode_says_how_to_make_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (_, endpoint),
            connected(endpoint) as peer,
        ):
            catalog: Any = await peer.ask(CatalogRequest)
            (mode,) = [m for m in catalog.modes if m.name == "faceswap"]
            assert not mode.available and "impasto faces build" in mode.reason

    asyncio.run(scenario())


def test_over_a_socket_and_in_a_chain(tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / "models").mkdir(exist_ok=True)
    write_tiny_checkpoint(tmp_path / "models" / "tiny.safetensors")
    pixels = np.dstack([np.asarray(portrait()), np.full((300, 300), 255, np.uint8)]).tobytes()

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (_, endpoint),
            connected(endpoint) as peer,
        ):
            catalog: Any = await peer.ask(CatalogRequest)
            (model,) = [m for m in catalog.models if m["kind"] == "face"]
            assert model["id"] == "astro" and model["preview"]
            (mode,) = [m for m in catalog.modes if m.name == "faceswap"]
            assert mode.available and mode.params[0].choices == {"from": "models", "kind": "face"}
            digest = await peer.put(pixels)
            inputs = {"image": InputPicture(digest, 300, 300, "rgba8")}
            links = (ChainLink("upscale", {"scale": 2.0}),)
            await peer.ask(Submit, "a", "faceswap", {"which": "largest"}, CANVAS, inputs, then=links)
            end = await peer.end("a")
            assert not hasattr(end, "error"), end
            assert end.ran["chain"][0]["back_end"] == "mesh-warp", end
            first, second = [e for e in peer.events if isinstance(e, Output) and e.job == "a"]
            assert first.stage == "faceswap" and first.alpha == "soft" and first.info["faces"][0]["done"]
            assert second.stage == "upscale" and (second.width, second.height) == (600, 600)
            for params, code in (({"profile": "nobody"}, "model.unknown"), ({"profile": "tiny"}, "model.unsupported")):
                answer = await ask_submit(
                    peer, code.replace(".", "-"), "faceswap", params=params, inputs=inputs, canvas=CANVAS
                )
                assert isinstance(answer, Error) and answer.code == code and answer.path == "params.profile"
            far = {"which": "point", "x": 2, "y": 2}
            await ask_submit(peer, "b", "faceswap", params=far, inputs=inputs, canvas=CANVAS)
            assert (await peer.end("b")).error.code == "request.no_face"

    asyncio.run(scenario())
