"""VAEs, TAESD and UNets by themselves over a real socket: what runs, what the recipe says of it."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_protocol.geometry import Size
from impasto_protocol.messages import Error
from impasto_server.service import facts

from tests.e2e import guard
from tests.e2e.test_e2e_actions import one, settings_of
from tests.engine.test_vae_files import unet_file
from tests.service.fakes import ask_submit, connected, running
from tests.tiny import write_tiny_checkpoint
from tests.vaes import kl, tiny_decoder, write_taesd, write_vae

CANVAS = Size(64, 64)


@pytest.fixture(autouse=True)
def no_network() -> Any:
    guard.watch()
    yield
    guard.watching[0] = False


def test_what_runs_and_what_is_told(tmp_path: Path) -> None:
    models = tmp_path / "models"
    whole = write_tiny_checkpoint(models / "plain.safetensors", half=False)
    soft = write_vae(models / "soft.safetensors", kl(seed=3))
    write_vae(models / "own.safetensors", kl())
    write_vae(models / "wide.safetensors", kl(latent_channels=16))
    write_taesd(models / "taesd_decoder.safetensors", tiny_decoder())
    unet_file(models / "alone.safetensors", whole)
    digits = hashlib.sha256(soft.read_bytes()).hexdigest()[:10]

    async def scenario() -> None:
        async with (
            running(settings_of(tmp_path), identify=facts.identify) as (_, endpoint),
            connected(endpoint) as peer,
        ):

            async def made(job: str, **params: Any) -> tuple[Any, Any, Any]:
                values = {"model": "plain", "prompt": "a pear", "steps": 2, "seed": 5, **params}
                output, pixels, end = await one(peer, job, "txt2img", values, {}, CANVAS)
                return np.asarray(pixels), output, end

            plain, output, end = await made("plain")
            assert "vae" not in output.info and "VAE" not in output.info["parameters"] and "vae" not in end.ran
            other, output, end = await made("soft", vae="soft")
            assert (other != plain).any() and end.ran["vae"] == {"file": "soft.safetensors", "hash": digits}
            assert f"VAE hash: {digits}, VAE: soft.safetensors" in output.info["parameters"]
            again, _, _ = await made("again", **{**output.info["params"]})
            assert (again == other).all(), "from its recipe"
            same, _, _ = await made("own", vae="own")
            assert (same == plain).all(), "the same weights from a file of their own"
            tiny, _, end = await made("tiny", vae="taesd_decoder")
            assert (tiny != plain).any() and end.ran["vae"]["file"] == "taesd_decoder.safetensors"
            back, _, _ = await made("back")
            assert (back == plain).all()
            parts, output, _ = await made("parts", model="alone", text_encoder="plain")
            assert (parts == plain).all() and output.info["model"]["file"] == "alone"
            parts, _, _ = await made("parts2", model="alone", text_encoder="plain", vae="soft")
            assert (parts == other).all()

            for vae, said in (("wide", "16 channels"), ("sofft", "'soft'")):
                answer = await ask_submit(peer, vae, "txt2img", params={"model": "plain", "vae": vae}, canvas=CANVAS)
                assert isinstance(answer, Error) and answer.path == "params.vae" and said in answer.message

    asyncio.run(scenario())
