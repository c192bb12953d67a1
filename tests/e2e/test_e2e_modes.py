"""Every mode over a real socket with the real engine in the worker process, a tiny checkpoint, and no network."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_protocol.geometry import Box, Size
from impasto_protocol.messages import (
    Cancel,
    Cancelled,
    Failed,
    Finished,
    InputPicture,
    Output,
    Plan,
    PlanOk,
    Preview,
    Progress,
)
from impasto_server.service import facts

from tests.e2e import guard
from tests.service.fakes import WISH, Peer, ask_submit, connected, picture, running, settings_for
from tests.tiny import write_tiny_checkpoint

CANVAS = Size(160, 120)
SELECTED = Box(60, 40, 30, 24)


class Hostile:
    """Unpickled, it would run a command."""

    def __reduce__(self) -> Any:
        return os.system, ("true",)


@pytest.fixture(scope="module")
def home(tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("home")
    whole = write_tiny_checkpoint(folder / "models" / "tiny.safetensors").read_bytes()
    # Header whole, tensors cut off: what a broken download looks like.
    (folder / "models" / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "models" / "mislabelled.safetensors").write_bytes(b"PK\x03\x04 a zip under another name" * 100)
    (folder / "models" / "hostile.ckpt").write_bytes(pickle.dumps({"state_dict": Hostile()}))
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_network() -> Any:
    guard.watch()
    yield
    guard.watching[0] = False


def settings_of(home: Path, **changes: Any) -> Any:
    changes = {"worker": "process", "engine": "tests.e2e.guard:engine", "precision": "fp32", **changes}
    return settings_for(home, **changes)


async def inputs_for(peer: Peer, box: Box, *, mask: bool) -> tuple[dict[str, InputPicture], Any, Any]:
    """The document's pixels in `box`, and the selection in it."""
    document = np.frombuffer(picture(*CANVAS), np.uint8).reshape(CANVAS.height, CANVAS.width, 4).copy()
    document[..., 3] = 255
    selected = np.zeros((CANVAS.height, CANVAS.width), np.uint8)
    selected[SELECTED.y : SELECTED.bottom, SELECTED.x : SELECTED.right] = 255
    part = (slice(box.y, box.bottom), slice(box.x, box.right))
    where = (box.width, box.height)
    inputs = {"image": InputPicture(await peer.put(document[part].tobytes()), *where, "rgba8", box.x, box.y)}
    if mask:
        inputs["mask"] = InputPicture(await peer.put(selected[part].tobytes()), *where, "l8", box.x, box.y)
    return inputs, document, selected


async def one(peer: Peer, job: str, mode: str, params: Any, inputs: Any = None) -> tuple[Output, Any, Finished]:
    await ask_submit(peer, job, mode, params=params, canvas=CANVAS, inputs=inputs or {}, preview=WISH)
    end = await peer.end(job)
    assert isinstance(end, Finished), end
    output = await peer.until(Output, job)
    pixels = np.frombuffer(await peer.fetch(output), np.uint8).reshape(output.height, output.width, 4)
    return output, pixels, end


def test_every_mode_without_a_network(home: Path) -> None:
    async def scenario() -> None:
        async with (
            running(settings_of(home), identify=facts.identify) as (_, endpoint),
            connected(endpoint) as peer,
        ):
            params = {"prompt": "a (red:1.2) fox", "steps": 3, "seed": 5, "model": "tiny"}

            output, first, end = await one(peer, "t1", "txt2img", {**params, "width": 64, "height": 48})
            assert end.seeds == (5,) and end.timings and end.ran
            fractions = [e.fraction for e in peer.events if isinstance(e, Progress)]
            assert fractions == sorted(fractions) and fractions[-1] == 1
            previews = [e for e in peer.events if isinstance(e, Preview)]
            assert previews and previews[0].image.startswith(b"\xff\xd8")
            assert output.info["params"]["seed"] == 5 and output.info["parameters"]
            _, again, _ = await one(peer, "t2", "txt2img", {**params, "width": 64, "height": 48})
            assert np.array_equal(first, again), "the same request gives the same pixels"

            whole = Box.of_size(CANVAS)
            inputs, document, _ = await inputs_for(peer, whole, mask=False)
            output, pixels, _ = await one(peer, "i1", "img2img", {**params, "strength": 0.5}, inputs)
            assert output.placement == whole and pixels.shape == (120, 160, 4)

            planned = await peer.ask(Plan, "inpaint", {**params}, CANVAS, SELECTED)
            assert isinstance(planned, PlanOk) and planned.box.contains(SELECTED) and planned.seconds is not None
            inputs, document, selected = await inputs_for(peer, planned.box, mask=True)
            output, pixels, _ = await one(peer, "p1", "inpaint", params, inputs)
            assert output.alpha == "soft"
            place = output.placement
            assert planned.box.contains(place) and place.contains(SELECTED)
            alpha = np.zeros((CANVAS.height, CANVAS.width), np.uint8)
            alpha[place.y : place.bottom, place.x : place.right] = pixels[..., 3]
            assert (alpha[selected == 255] == 255).all()
            reach = SELECTED.grow(planned.reach)
            beyond = np.ones_like(alpha, bool)
            beyond[max(0, reach.y) : reach.bottom, max(0, reach.x) : reach.right] = False
            assert not alpha[beyond].any(), "beyond the reach the layer is transparent"
            inside = document[SELECTED.y : SELECTED.bottom, SELECTED.x : SELECTED.right, :3]
            offset_y, offset_x = SELECTED.y - place.y, SELECTED.x - place.x
            made = pixels[offset_y : offset_y + SELECTED.height, offset_x : offset_x + SELECTED.width, :3]
            assert not np.array_equal(inside, made), "what is selected has changed"

            codes = {
                "truncated": "model.corrupt",
                "mislabelled": "model.corrupt",
                "hostile": "model.unsafe",
            }
            for name, code in codes.items():
                answer: Any = await ask_submit(peer, name, "txt2img", params={**params, "model": name}, canvas=CANVAS)
                if answer.TYPE == "accepted":
                    ended = await peer.end(name)
                    assert isinstance(ended, Failed)
                    answer = ended.error
                assert answer.code == code, answer
                assert name != "hostile" or f"{os.name}.system" in answer.message
            # And the server goes on.
            await one(peer, "t3", "txt2img", {**params, "width": 64, "height": 48})

            # A cancel is heard within one step.
            await ask_submit(peer, "c", "txt2img", params={**params, "steps": 150}, canvas=CANVAS)
            await peer.until(Progress, "c")
            await peer.ask(Cancel, "c")
            assert isinstance(await peer.end("c"), Cancelled)
            steps = [e.step for e in peer.events if isinstance(e, Progress) and e.job == "c"]
            assert max(steps) < 150, "it ended before its last step"

    before = {p: hashlib.sha256(p.read_bytes()).digest() for p in (home / "models").iterdir()}
    asyncio.run(scenario())
    assert {p: hashlib.sha256(p.read_bytes()).digest() for p in (home / "models").iterdir()} == before


def test_the_guard_refuses_the_network() -> None:
    import socket

    with pytest.raises(guard.NetworkUsed):
        socket.create_connection(("192.0.2.1", 9), timeout=0.1)
    with pytest.raises(guard.NetworkUsed):
        socket.getaddrinfo("example.org", 80)
