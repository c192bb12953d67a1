"""Every kind of bad input, over a real socket: a typed error with a sentence, and the server goes on."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from impasto_protocol.codec import encode
from impasto_protocol.errors import ImpastoError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.messages import (
    Accepted,
    CatalogRequest,
    ClientInfo,
    Error,
    Finished,
    Get,
    Hello,
    InputPicture,
    Jobs,
    JobsOk,
    Plan,
    PlanOk,
    Put,
    PutNew,
)
from impasto_protocol.version import PROTOCOL, SUBPROTOCOL, Limits
from impasto_server.service.settings import Settings
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.service.fakes import (
    TOKEN,
    Peer,
    add_model,
    ask_submit,
    connected,
    disc,
    inpaint_inputs,
    open_socket,
    picture,
    running,
    settings_for,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for name in ("tiny.safetensors", "broken.safetensors", "lora-ink.safetensors"):
        add_model(tmp_path, name)
    return settings_for(tmp_path)


def refused(answer: Any, code: str, path: str | None = None) -> Error:
    assert isinstance(answer, Error), answer
    assert answer.code == code, answer
    assert len(answer.message) > 20 and answer.message[0].isupper()
    if path is not None:
        assert answer.path == path
    return answer


async def goes_on(peer: Peer) -> None:
    """The same connection still works."""
    assert isinstance(await peer.ask(Jobs), JobsOk)


# ---- before and in the hello


@pytest.mark.parametrize("token", ["", "wrong", "a token for tests, long enough ", "ünsinn"])
def test_wrong_token(settings: Settings, token: str) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint):
            with pytest.raises(ImpastoError) as e:
                async with connected(endpoint, token):
                    pass
            assert e.value.code == "auth.denied"
            async with connected(endpoint) as peer:
                await goes_on(peer)

    asyncio.run(scenario())


def test_the_connection_is_closed_after_a_refused_hello(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint):
            for hello, code in (
                (Hello((PROTOCOL[0] + 1, 0), ClientInfo("peer", "0"), ""), "protocol.version"),
                (Jobs(1), "protocol.not_ready"),
            ):
                async with open_socket(endpoint) as peer:
                    await peer.send(hello)
                    refused(await peer.receive(), code)
                    with pytest.raises(ConnectionClosed):
                        await peer.receive()

    asyncio.run(scenario())


def test_browsers_and_strangers_are_refused(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint):
            with pytest.raises(InvalidStatus) as e:
                async with open_socket(endpoint, origin="http://localhost"):
                    pass
            assert e.value.response.status_code == 403
            with pytest.raises(InvalidStatus) as e:
                async with open_socket(endpoint, subprotocols=None):
                    pass
            assert e.value.response.status_code == 400

    asyncio.run(scenario())


def test_beyond_loopback_needs_a_flag(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path, host="0.0.0.0")):
            pass

    with pytest.raises(ImpastoError, match="--tls") as e:
        asyncio.run(scenario())
    assert e.value.code == "resource.beyond_loopback"


# ---- frames


def nested(depth: int) -> bytes:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return bytes(msgpack.packb({"type": "jobs", "id": 1, "x": value}))


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (encode({"type": "jobs", "id": 1})[:-1], "protocol.bad_message"),
        (b"\xc1", "protocol.bad_message"),
        (b"", "protocol.bad_message"),
        (encode({"type": "jobs", "id": 1}) + b"\x00", "protocol.bad_message"),
        (nested(40), "protocol.bad_message"),
        (b"\x91" * 10_000 + b"\x01", "protocol.bad_message"),
        (b"\x00" * (Limits().frame + 1), "protocol.bad_message"),
        (encode({"type": "sing", "id": 1}), "protocol.unknown_type"),
        (encode({"type": "jobs", "id": "one"}), "protocol.bad_message"),
        (encode({"type": "jobs"}), "protocol.bad_message"),
        (encode({"type": "cancel", "id": 1, "job": "../../etc"}), "protocol.bad_message"),
        (encode({"type": "get", "id": 1, "digest": "../x", "offset": 0, "length": 1}), "protocol.bad_message"),
        (encode({"type": "plan", "id": 1, "mode": "txt2img", "params": 3, "canvas": [1, 1]}), "protocol.bad_message"),
    ],
)
def test_frames_that_are_none(settings: Settings, frame: bytes, code: str) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            await peer.socket.send(frame)
            refused(await peer.receive(), code)
            await goes_on(peer)

    asyncio.run(scenario())


def test_text_frames_and_far_too_long_ones(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint):
            async with connected(endpoint) as peer:
                await peer.socket.send("hello")
                refused(await peer.receive(), "protocol.bad_message")
            url = f"ws://{endpoint.host}:{endpoint.port}"
            socket = await connect(url, subprotocols=[SUBPROTOCOL], compression=None, proxy=None)
            peer = Peer(socket)
            await peer.send(Hello(PROTOCOL, ClientInfo("peer", "0"), TOKEN))
            await peer.receive()
            with pytest.raises(ConnectionClosed):
                await socket.send(bytes(3 * Limits().frame))
                await peer.receive()
            async with connected(endpoint) as peer:
                await goes_on(peer)

    asyncio.run(scenario())


# ---- uploads


def test_uploads(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            await peer.send(Put("0" * 32, 4, 0, b"abcd"))
            error = refused(await peer.receive(), "asset.digest_mismatch")
            assert error.data == {"digest": "0" * 32}
            await peer.send(Put("0" * 32, 8, 4, b"abcd"))
            refused(await peer.receive(), "protocol.bad_message")
            await peer.send(Put("0" * 32, Limits().upload_bytes + 1, 0, b"abcd"))
            refused(await peer.receive(), "asset.too_large")
            refused(await peer.ask(PutNew, 4, 1, b"abc"), "protocol.bad_message", "offset")
            refused(await peer.ask(PutNew, Limits().upload_bytes + 1, 0, b"abcd"), "asset.too_large")
            refused(await peer.ask(Get, "0" * 32, 0, 100), "asset.missing")
            digest = await peer.put(b"abcd")
            refused(await peer.ask(Get, digest, 5, 100), "request.invalid_param", "offset")
            refused(await peer.ask(Get, digest, 0, Limits().chunk + 1), "request.invalid_param", "length")
            await goes_on(peer)

    asyncio.run(scenario())


# ---- plan and submit


@pytest.mark.parametrize(
    ("mode", "params", "code", "path"),
    [
        ("paint", {}, "request.unknown_mode", "mode"),
        ("txt2img", {"step": 3}, "request.invalid_param", "params.step"),
        ("txt2img", {"steps": 0}, "request.invalid_param", "params.steps"),
        ("txt2img", {"steps": 1 << 40}, "request.invalid_param", "params.steps"),
        ("txt2img", {"steps": "many"}, "request.invalid_param", "params.steps"),
        ("txt2img", {"cfg": math.nan}, "request.invalid_param", "params.cfg"),
        ("txt2img", {"cfg": math.inf}, "request.invalid_param", "params.cfg"),
        ("txt2img", {"prompt": 3}, "request.invalid_param", "params.prompt"),
        ("txt2img", {"prompt": "x" * 20_000}, "request.invalid_param", "params.prompt"),
        ("txt2img", {"sampler": "eular"}, "request.invalid_param", "params.sampler"),
        ("txt2img", {"width": 1 << 20}, "request.invalid_param", "params.width"),
        ("txt2img", {"model": "tyny"}, "model.unknown", "params.model"),
        ("txt2img", {"model": "/etc/passwd"}, "model.unknown", "params.model"),
        ("txt2img", {"model": ["tiny"]}, "request.invalid_param", "params.model"),
        ("txt2img", {"model": "broken"}, "model.corrupt", "params.model"),
        ("txt2img", {"model": "lora-ink"}, "model.unsupported", "params.model"),
    ],
)
def test_parameters(settings: Settings, mode: str, params: dict[str, Any], code: str, path: str) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            refused(await peer.ask(Plan, mode, params, Size(64, 64)), code, path)
            answer = await peer.ask(lambda n: Plan(n, mode, params, Size(64, 64)))
            assert isinstance(answer, Error)
            refused(await ask_submit(peer, "j", mode, params=params), code, path)
            if params.get("model") == "tyny":
                assert "'tiny'" in answer.message
            await goes_on(peer)

    asyncio.run(scenario())


def test_plans_of_impossible_geometry(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:

            async def plan(canvas: Size, selection: Box | None) -> Any:
                return await peer.ask(Plan, "inpaint", {}, canvas, selection)

            refused(await plan(Size(64, 64), None), "request.empty_selection")
            refused(await plan(Size(64, 64), Box(3, 3, 0, 4)), "request.empty_selection")
            refused(await plan(Size(64, 64), Box(64, 0, 9, 9)), "request.bad_geometry")
            refused(await plan(Size(0, 64), Box(0, 0, 9, 9)), "request.bad_geometry")
            refused(await plan(Size(1 << 30, 64), Box(0, 0, 9, 9)), "request.bad_geometry")
            answer = await plan(Size(300, 200), Box(150, 100, 1, 1))
            assert isinstance(answer, PlanOk) and answer.box.contains(Box(150, 100, 1, 1))

    asyncio.run(scenario())


def test_pictures_of_a_submit(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            inputs = await inpaint_inputs(peer)
            image, mask = inputs["image"], inputs["mask"]
            nothing = InputPicture(await peer.put(bytes(64 * 48)), 64, 48, "l8")

            async def inpaint(canvas: Any = (64, 48), **pictures: Any) -> Any:
                return await ask_submit(peer, "j", "inpaint", inputs=pictures, canvas=canvas)

            def changed(picture: InputPicture, **values: Any) -> InputPicture:
                from dataclasses import replace

                return replace(picture, **values)

            refused(await inpaint(mask=mask), "request.missing_input", "inputs.image")
            refused(await inpaint(image=image), "request.missing_input", "inputs.mask")
            refused(await inpaint(image=image, mask=mask, depth=mask), "request.invalid_param", "inputs.depth")
            lost = changed(image, digest="f" * 32)
            error = refused(await inpaint(image=lost, mask=mask), "asset.missing")
            assert error.data == {"digests": ["f" * 32]} and error.retryable
            refused(await inpaint(image=changed(image, format="rgb16"), mask=mask), "asset.bad_image", "inputs.image")
            refused(await inpaint(image=changed(image, format="rgb8"), mask=mask), "asset.bad_image", "inputs.image")
            refused(
                await inpaint(image=changed(image, width=1 << 20, height=1 << 20), mask=mask),
                "asset.too_large",
                "inputs.image",
            )
            refused(await inpaint(image=changed(image, width=0), mask=mask), "asset.bad_image", "inputs.image")
            refused(await inpaint(image=image, mask=changed(mask, format="rgba8")), "asset.bad_image", "inputs.mask")
            refused(await inpaint(image=image, mask=changed(mask, x=1)), "request.bad_geometry", "inputs.mask")
            refused(await inpaint(image=image, mask=nothing), "request.empty_selection", "inputs.mask")
            refused(await inpaint(image=image, mask=mask, canvas=(32, 48)), "request.bad_geometry")
            refused(await inpaint(image=image, mask=mask, canvas=(0, 0)), "request.bad_geometry")
            refused(
                await ask_submit(peer, "j", "inpaint", inputs=inputs, output_format="rgb16"),
                "request.invalid_param",
                "output_format",
            )
            # Nothing of all this has left a trace, and the good one runs.
            listed = await peer.ask(Jobs)
            assert isinstance(listed, JobsOk) and listed.jobs == ()
            assert isinstance(await inpaint(image=image, mask=mask), Accepted)
            assert isinstance(await peer.end("j"), Finished)

    asyncio.run(scenario())


def test_a_selection_of_one_pixel_works(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            one = np.zeros((48, 64), np.uint8)
            one[47, 63] = 1
            inputs = {
                "image": InputPicture(await peer.put(picture()), 64, 48, "rgba8"),
                "mask": InputPicture(await peer.put(one.tobytes()), 64, 48, "l8"),
            }
            await ask_submit(peer, "j", "inpaint", inputs=inputs)
            assert isinstance(await peer.end("j"), Finished)

    asyncio.run(scenario())


def test_a_defect_becomes_an_incident(settings: Settings, caplog: Any, monkeypatch: Any) -> None:
    async def scenario() -> None:
        async with running(settings) as (server, endpoint), connected(endpoint) as peer:

            def broken() -> None:
                raise ZeroDivisionError("secret detail")

            monkeypatch.setattr(server.catalogue, "modes", broken)
            error = refused(await peer.ask(CatalogRequest), "internal.failure")
            assert error.data is not None and error.data["incident"] in caplog.text
            assert "secret detail" not in error.message and "ZeroDivisionError: secret detail" in caplog.text
            await goes_on(peer)

    asyncio.run(scenario())


def test_a_client_that_stops_reading_is_closed_and_delays_nobody(settings: Settings) -> None:
    from dataclasses import replace

    async def scenario() -> None:
        async with running(replace(settings, slow_client=0.5)) as (_, endpoint), connected(endpoint) as peer:
            async with connected(endpoint, max_queue=1) as stuck:
                data = picture(1024, 1024)
                digest = await peer.put(data)
                for number in range(64):
                    await stuck.send(Get(number, digest, 0, Limits().chunk))
                await ask_submit(peer, "j", params={"steps": 3, "prompt": "slow"})
                assert isinstance(await peer.end("j"), Finished)
                await asyncio.sleep(0.8)
                with pytest.raises(ConnectionClosed):
                    for _ in range(200):
                        await stuck.receive()
            await goes_on(peer)

    asyncio.run(scenario())


def test_no_checkpoint_says_how_to_get_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        add_model(tmp_path, "broken.safetensors")
        async with running(settings_for(tmp_path, rescan=0.05)) as (_, endpoint), connected(endpoint) as peer:
            from impasto_protocol.messages import Catalog, CatalogChanged

            catalog = await peer.ask(CatalogRequest)
            assert isinstance(catalog, Catalog)
            assert not catalog.modes[0].available and "impasto models starter" in catalog.modes[0].reason
            assert [m["id"] for m in catalog.models] == ["broken"] and not catalog.models[0]["usable"]
            refused(await ask_submit(peer, "j"), "model.unknown")
            # One that is put there is noticed.
            add_model(tmp_path, "hinted.safetensors")
            while not isinstance(message := await peer.receive(), CatalogChanged):
                pass
            assert message.rev != catalog.rev
            planned = await peer.ask(Plan, "txt2img", {}, Size(64, 64))
            assert isinstance(planned, PlanOk) and planned.steps == 3

    asyncio.run(scenario())


def test_the_device_is_told_once_the_worker_knows_it(settings: Settings) -> None:
    """Hello is answered before the worker is up; who asked early hears of it."""

    async def scenario() -> None:
        from impasto_protocol.messages import Catalog, CatalogChanged

        async with running(settings) as (_, endpoint), connected(endpoint) as peer:
            early = await peer.ask(CatalogRequest)
            assert isinstance(early, Catalog) and early.device == "starting"
            await ask_submit(peer, "j")  # the thread worker starts with its first job
            while not isinstance(await peer.receive(), CatalogChanged):
                pass
            catalog = await peer.ask(CatalogRequest)
            assert isinstance(catalog, Catalog) and catalog.device == "fake device" and catalog.rev != early.rev

    asyncio.run(scenario())


def test_the_mask_helper_selects_something() -> None:
    assert any(disc())
