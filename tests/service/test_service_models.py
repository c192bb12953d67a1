"""The catalogue beyond single checkpoints: folders, pickles, upscalers, and inpainting partners."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.errors import ModelError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.messages import Accepted, Error, Finished, Plan, PlanOk
from impasto_server.engine import jobs as engine
from impasto_server.service import facts as facts_module
from impasto_server.service.catalogue import Catalogue
from impasto_server.service.facts import Facts
from impasto_server.service.metadata import png_info
from impasto_server.service.model_folders import a1111_folders
from impasto_server.service.partners import partners
from impasto_server.service.resolving import resolve_params

from tests.service.fakes import (
    FakeEngine,
    Peer,
    add_model,
    ask_submit,
    connected,
    inpaint_inputs,
    running,
    settings_for,
)

NORMAL = Facts("checkpoint", "sd1", "normal", native_size=64)
INPAINT = replace(NORMAL, variant="inpaint", hints={"steps": 4})


def paired(**models: Facts) -> dict[str, str]:
    return partners({name: (Path("/models") / f"{name}.safetensors", facts) for name, facts in models.items()})


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("deliberate_v2", "deliberate_v2-inpainting"),
        ("deliberate_v2", "Deliberate_V2_Inpainting"),
        ("deliberate_v2", "deliberate-inpaint_v2"),
        ("dreamshaper_8", "dreamshaper_8Inpainting"),
        ("epicrealism_pureEvolutionV5", "epicrealism_pureEvolutionV5-inpainting"),
        ("v1-5-pruned-emaonly", "sd-v1-5-inpainting"),
        ("deliberate_v2.fp16", "deliberate_v2-inpainting.fp16"),
        ("impasto-starter", "impasto-starter-inpainting"),
    ],
)
def test_a_partner_is_proposed_by_name(name: str, other: str) -> None:
    assert paired(**{name: NORMAL, other: INPAINT, "zebra-inpainting": INPAINT}) == {name: other}


@pytest.mark.parametrize(
    ("name", "other", "changes"),
    [
        ("deliberate_v2", "deliberate_v3-inpainting", {}),
        ("deliberate_v2", "deliberate-inpainting", {}),
        ("deliberate_v2", "deliberate_v2-inpainting", {"variant": "normal"}),
        ("deliberate_v2", "deliberate_v2-inpainting", {"family": "sdxl"}),
        ("deliberate_v2", "deliberate_v2-inpainting", {"usable": False}),
        ("deliberate_v2", "deliberate_v2-inpainting", {"kind": "lora"}),
        ("sd", "inpainting", {}),
    ],
)
def test_none_is_proposed_that_does_not_fit(name: str, other: str, changes: dict[str, Any]) -> None:
    assert paired(**{name: NORMAL, other: replace(INPAINT, **changes)}) == {}


def test_of_several_the_nearest_is_taken() -> None:
    here, there = Path("/a"), Path("/b")
    models = {
        "x": (here / "x.ckpt", NORMAL),
        "x_inpainting": (there / "x_inpainting.ckpt", INPAINT),
        "x_inpainting_fp16": (here / "x_inpainting_fp16.ckpt", INPAINT),
        "x_inpainting_fp16_pruned": (here / "x_inpainting_fp16_pruned.ckpt", INPAINT),
    }
    assert partners(models) == {"x": "x_inpainting_fp16"}


def test_what_the_model_says_goes_before_its_name() -> None:
    mine = replace(NORMAL, says_partner="other")
    assert paired(x=mine, **{"x-inpainting": INPAINT, "other": INPAINT}) == {"x": "other"}
    assert paired(x=replace(NORMAL, says_partner=""), **{"x-inpainting": INPAINT}) == {}
    # One that is not there is none: better the painter's own model than another.
    assert paired(x=replace(NORMAL, says_partner="gone"), **{"x-inpainting": INPAINT}) == {}


def identify(path: Path) -> Facts:
    """By the file's name."""
    if path.stem.startswith("sharp"):
        return Facts("upscaler", "esrgan")
    if path.stem.startswith("dull"):
        return Facts("upscaler", usable=False, reason="Install spandrel.", code="model.unsupported")
    return INPAINT if "inpaint" in path.stem else NORMAL


def catalogue_in(home: Path, *names: str) -> Catalogue:
    folders = [add_model(home, name).parent for name in names]
    catalogue = Catalogue(folders[:1], identify)
    catalogue.scan()
    return catalogue


def test_entries_tell_their_partner(tmp_path: Path) -> None:
    catalogue = catalogue_in(tmp_path, "a.safetensors", "a-inpainting.ckpt", "sharp.pth")
    wire = {m.id: m.to_wire() for m in catalogue.models}
    assert wire["a"]["partner"] == "a-inpainting" and wire["a-inpainting"]["partner"] == ""
    assert "says_partner" not in wire["a"] and "path" not in wire["a"] and "code" not in wire["a"]
    before = catalogue.rev
    (tmp_path / "models" / "a-inpainting.ckpt").unlink()
    assert catalogue.scan() and catalogue.rev != before
    assert {m.id: m.partner for m in catalogue.models} == {"a": "", "sharp": ""}


def test_what_runs_is_the_partner_unless_that_is_turned_off(tmp_path: Path) -> None:
    catalogue = catalogue_in(tmp_path, "a.safetensors", "a-inpainting.safetensors", "b.safetensors")

    def runs(mode: str, **values: Any) -> tuple[str, str, int]:
        params, model = resolve_params(catalogue, mode, values)
        assert model is not None
        return getattr(params, "model"), model.id, getattr(params, "steps")  # noqa: B009

    assert runs("inpaint", model="a") == ("a", "a-inpainting", 4), "with the partner's hints"
    assert runs("inpaint", model="a", use_partner=False) == ("a", "a", 20)
    assert runs("inpaint", model="b") == ("b", "b", 20)
    assert runs("inpaint", model="a-inpainting") == ("a-inpainting", "a-inpainting", 4)
    assert runs("img2img", model="a") == ("a", "a", 20)
    assert runs("inpaint") == ("a", "a-inpainting", 4), "the first ordinary one, by its partner"
    assert runs("inpaint", use_partner=False) == ("a", "a", 20)
    only = catalogue_in(tmp_path / "b", "z-inpainting.safetensors")
    for mode in ("inpaint", "txt2img"):
        assert resolve_params(only, mode, {})[1] is not None, "where there is no other"


def test_upscalers_by_name(tmp_path: Path) -> None:
    catalogue = catalogue_in(tmp_path, "a.safetensors", "sharp.pth", "dull.pth")
    assert [m.id for m in catalogue.models] == ["a", "sharp", "dull"]
    params, model = resolve_params(catalogue, "upscale", {"upscaler": "sharp"})
    assert model is not None and model.id == "sharp" and getattr(params, "upscaler") == "sharp"  # noqa: B009
    assert resolve_params(catalogue, "upscale", {})[1] is None
    for name, code, said in (
        ("shrap", "model.unknown", "'sharp'"),
        ("zzz", "model.unknown", "Lanczos"),
        ("a", "model.unsupported", "checkpoint"),
        ("dull", "model.unsupported", "Install spandrel"),
    ):
        with pytest.raises(ModelError, match=said) as caught:
            resolve_params(catalogue, "upscale", {"upscaler": name})
        assert (caught.value.code, caught.value.path) == (code, "params.upscaler")
    with pytest.raises(ModelError) as caught:
        resolve_params(catalogue, "txt2img", {"model": "sharp"})
    assert (caught.value.code, caught.value.path) == ("model.unsupported", "params.model")


def test_a_folder_is_one_entry(tmp_path: Path) -> None:
    root = tmp_path / "models"
    folder = root / "dream-v1.5"
    for part in ("unet", "vae", "text_encoder"):
        (folder / part).mkdir(parents=True)
        (folder / part / "model.safetensors").write_bytes(b"x")
    (folder / "model_index.json").write_text("{}")
    (folder / "whole.safetensors").write_bytes(b"a single file beside the parts")
    asked: list[Path] = []

    def counted(path: Path) -> Facts:
        asked.append(path)
        return NORMAL

    catalogue = Catalogue([root], counted, tmp_path / "models.json")
    assert catalogue.scan() and sorted(m.id for m in catalogue.models) == ["dream-v1.5", "whole"]
    assert not catalogue.scan() and len(asked) == 2
    again = Catalogue([root], counted, tmp_path / "models.json")
    again.scan()
    assert len(asked) == 2
    os.utime(folder / "vae" / "model.safetensors", (10**9, 2 * 10**9))
    assert again.scan() and asked[2:] == [folder]
    alone = Catalogue([folder], counted)
    alone.scan()
    assert {m.path for m in alone.models} == {folder, folder / "whole.safetensors"}


def test_a_sidecar_that_changes_is_noticed(tmp_path: Path) -> None:
    path = add_model(tmp_path)
    catalogue = Catalogue([path.parent], identify)
    catalogue.scan()
    assert not catalogue.scan()
    path.with_suffix(".json").write_text("{}")
    os.utime(path.with_suffix(".json"), (2 * 10**9, 2 * 10**9))
    assert catalogue.scan()


def test_the_folders_of_a1111_hold_upscalers_of_every_kind(tmp_path: Path) -> None:
    names = {folder.relative_to(tmp_path).as_posix() for folder in a1111_folders(tmp_path)}
    assert names >= {f"models/{name}" for name in ("ESRGAN", "RealESRGAN", "SwinIR", "DAT", "Stable-diffusion")}


def test_an_upscaler_without_spandrel_says_how_to_mend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.upscalers import compact, save

    path = save(tmp_path / "x.pth", compact())
    assert facts_module.identify(path).usable
    with_it = facts_module.index_version()
    monkeypatch.setattr(facts_module, "find_spec", lambda name: None)
    found = facts_module.identify(path)
    assert (found.kind, found.usable, found.code) == ("upscaler", False, "model.unsupported")
    assert "pip install --no-deps spandrel einops" in found.reason
    assert facts_module.index_version() != with_it, "so that the index is made anew when it is installed"


class Telling(FakeEngine):
    """Says in `ran` what it was given."""

    def run(self, job: engine.Job, emit: engine.Emit, cancelled: Callable[[], bool]) -> engine.Result:
        result = super().run(job, emit, cancelled)
        return replace(result, ran={"model": Path(job.checkpoint).stem, "partner_of": job.partner_of})


def scenario_of(tmp_path: Path, run: Callable[[Peer], Awaitable[None]]) -> None:
    settings = settings_for(tmp_path, engine=f"{__name__}:Telling")

    async def scenario() -> None:
        async with running(settings, identify=identify) as (_, endpoint), connected(endpoint) as peer:
            await run(peer)

    asyncio.run(scenario())


def test_plan_and_submit_agree_about_the_model_that_runs(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a-inpainting.safetensors", "b.safetensors"):
        add_model(tmp_path, name)

    async def run(peer: Peer) -> None:
        inputs = await inpaint_inputs(peer)
        for model, use, runs in (("a", True, "a-inpainting"), ("a", False, "a"), ("b", True, "b")):
            params = {"model": model, "use_partner": use, "steps": 2}
            planned = await peer.ask(Plan, "inpaint", params, Size(64, 48), Box(16, 12, 16, 12))
            assert isinstance(planned, PlanOk)
            told = [w for w in planned.warnings if "partner" in w]
            assert told == (["Inpaints with a-inpainting, the inpainting partner of a."] if runs != model else [])
            job = f"{model}-{use}"
            answer = await ask_submit(peer, job, "inpaint", params=params, inputs=inputs)
            assert isinstance(answer, Accepted), answer
            end = await peer.end(job)
            assert isinstance(end, Finished)
            assert end.ran == {"model": runs, "partner_of": model if runs != model else ""}

    scenario_of(tmp_path, run)


def test_a_wrong_upscaler_is_refused_before_anything_is_accepted(tmp_path: Path) -> None:
    add_model(tmp_path, "sharp.pth")

    async def run(peer: Peer) -> None:
        answer = await peer.ask(Plan, "upscale", {"upscaler": "shrap"}, Size(20, 20))
        assert isinstance(answer, Error) and (answer.code, answer.path) == ("model.unknown", "params.upscaler")
        assert isinstance(await peer.ask(Plan, "upscale", {"upscaler": "sharp"}, Size(20, 20)), PlanOk)

    scenario_of(tmp_path, run)


def test_what_a_picture_says_of_its_source() -> None:
    """Made by a model, changed by one, or only resampled: the PNG says which."""

    def packet(recipe: dict[str, Any], **more: bool) -> str:
        info = png_info(recipe, **more)
        return b"".join(data for kind, data, *_ in info.chunks if kind == b"iTXt").decode()

    assert "digitalsourcetype/trainedAlgorithmicMedia" in packet({"mode": "txt2img"})
    assert "digitalsourcetype/compositeWith" in packet({"mode": "inpaint"}, composite=True)
    assert "digitalsourcetype/algorithmicallyEnhanced" in packet({"mode": "upscale", "upscaler": "sharp"})
    assert packet({"mode": "upscale"}) == ""
