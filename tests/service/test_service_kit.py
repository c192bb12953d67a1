"""The kit as the service shows it: its upscaler is one of the models, files are listed, a foreign one is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_protocol.errors import ModelError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.home import kit_folder
from impasto_protocol.messages import CatalogRequest, Error
from impasto_server.cli.main import main
from impasto_server.engine.kit import runtime
from impasto_server.service import facts
from impasto_server.service.kit_files import install_upscalers, kit_files
from impasto_server.service.server import catalogue_of
from impasto_server.service.settings import Settings

from tests.e2e.test_e2e_actions import one, sent
from tests.service.fakes import ask_submit, connected, identify, running, settings_for
from tests.upscalers import compact, save

UPSCALER = "realesr-animevideov3-x4"


def by_folder(path: Path) -> facts.Facts:
    """As they are in the kit's folder, pretended elsewhere."""
    return facts.identify(path) if path.parent.name == "kit" else identify(path)


def test_the_server_offers_the_kits_upscaler_and_uses_it(tmp_path: Path) -> None:
    engine = "impasto_server.engine.run:Engine"
    settings = settings_for(tmp_path, starter=True, engine=engine, device="cpu", precision="fp32")

    async def scenario() -> None:
        async with running(settings, identify=by_folder) as (_, endpoint), connected(endpoint) as peer:
            catalog: Any = await peer.ask(CatalogRequest)
            (entry,) = [m for m in catalog.models if m["kind"] == "upscaler"]
            assert (entry["id"], entry["usable"], entry["family"]) == (UPSCALER, True, "esrgan")
            canvas = Size(24, 18)
            pixels = np.random.default_rng(1).integers(0, 256, (18, 24, 4), np.uint8)
            inputs = {"image": await sent(peer, pixels, Box.of_size(canvas))}
            output, _, _ = await one(peer, "u", "upscale", {"upscaler": UPSCALER, "scale": 4.0}, inputs, canvas)
            assert (output.width, output.height) == (96, 72)

    asyncio.run(scenario())
    assert [p.name for p in kit_folder(tmp_path).iterdir()] == [f"{UPSCALER}.safetensors"]


def test_another_upscaler_in_its_place_is_refused(tmp_path: Path) -> None:
    other = save(kit_folder(tmp_path) / f"{UPSCALER}.safetensors", compact(scale=4))
    kept = other.read_bytes()

    async def scenario() -> None:
        async with (
            running(settings_for(tmp_path, starter=True), identify=by_folder) as (server, endpoint),
            connected(endpoint) as peer,
        ):
            (model,) = [m for m in server.catalogue.models if m.id == UPSCALER]
            assert not model.facts.usable and "impasto models kit --repair" in model.facts.reason
            params = {"upscaler": UPSCALER}
            canvas = Size(9, 9)
            inputs = {"image": await sent(peer, np.zeros((9, 9, 4), np.uint8), Box.of_size(canvas))}
            answer = await ask_submit(peer, "u", "upscale", params=params, canvas=canvas, inputs=inputs)
            assert isinstance(answer, Error) and answer.code == "model.unsupported"

    asyncio.run(scenario())
    assert other.read_bytes() == kept


def test_a_user_may_keep_another_file_of_that_name_elsewhere(tmp_path: Path) -> None:
    save(tmp_path / "mine" / f"{UPSCALER}.pth", compact(scale=4))
    install_upscalers(tmp_path)
    catalogue = catalogue_of(Settings(home=tmp_path, models=(tmp_path / "mine",)))
    catalogue.scan()
    found = [m for m in catalogue.models if m.facts.kind == "upscaler"]
    assert len(found) == 2 and all(m.facts.usable for m in found)
    assert next(m for m in found if m.id == UPSCALER).path.parent.name == "mine"


def test_other_files_of_the_kit_are_no_models(tmp_path: Path) -> None:
    for file in kit_files(tmp_path):
        assert file.state in ("packed", "to pull") and file.licence and file.origin and file.paper
        if file.state == "packed":
            runtime.installed(file.name, kit_folder(tmp_path))
    assert {file.state for file in kit_files(tmp_path)} == {"there", "to pull"}
    catalogue = catalogue_of(Settings(home=tmp_path))
    catalogue.scan()
    assert [m.id for m in catalogue.models] == [UPSCALER]


def test_models_list_and_show_tell_of_the_kit(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path))
    names = {file.name for file in kit_files(tmp_path)}
    assert main(["models", "list"]) == 0
    listed = capsys.readouterr().out
    assert names <= {line.split()[0] for line in listed.splitlines()} and "unpacked when first used" in listed
    assert not kit_folder(tmp_path).exists(), "a list unpacks nothing"
    assert main(["models", "show", "face-mesh", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["licence"] == "Apache-2.0" and "Kartynnik" in told["paper"]
    assert main(["models", "kit", "--repair"]) == 0
    capsys.readouterr()
    path = kit_folder(tmp_path) / "face-mesh.onnx"
    right = path.read_bytes()
    path.write_bytes(right[:1000])
    assert main(["models", "kit", "--json"]) == 1
    states = {file["name"]: file["state"] for file in json.loads(capsys.readouterr().out)}
    assert "--repair" in states.pop("face-mesh") and set(states.values()) == {"there", "to pull"}
    assert main(["models", "kit", "--repair"]) == 0 and path.read_bytes() == right


def test_a_damaged_installation_still_lists_the_other_models(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path))
    install_upscalers(tmp_path)

    def damaged() -> Any:
        raise ModelError("model.corrupt", "The kit's file kit.json is missing.")

    monkeypatch.setattr("impasto_server.service.kit_files.known", damaged)
    assert main(["models", "list"]) == 0
    told = capsys.readouterr()
    assert UPSCALER in told.out and "kit.json is missing" in told.err
    assert main(["models", "kit"]) == 1
