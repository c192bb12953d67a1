"""A mistyped parameter, choice, mode, model or style is told with the nearest right one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from impasto_protocol.errors import ImpastoError, ModelError, RequestError
from impasto_protocol.nearest import nearest
from impasto_server.engine.addon_names import unknown_lora
from impasto_server.engine.modes import parse_params
from impasto_server.engine.prompt_styles import Style, take_styles
from impasto_server.service.catalogue import Catalogue

from tests.service.fakes import add_model, identify


def test_nearest() -> None:
    assert nearest("eular", ("euler", "euler_a", "heun")) == ["euler"]
    assert nearest("DPMPP_2M", ("dpmpp_2m", "dpmpp_sde")) == ["dpmpp_2m"]
    assert nearest("deliberat v2", ("Deliberate_v2", "dreamshaper")) == ["Deliberate_v2"]
    assert nearest("zzz", ("euler",)) == nearest("x", ()) == []
    began = time.process_time()
    nearest("a" * 1_000_000, ["a" * 1000] * 20)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("wrong", "path", "near"),
    [
        (lambda: parse_params("txt2img", {"smapler": "euler"}), "params.smapler", ["sampler"]),
        (lambda: parse_params("txt2img", {"zzz": 1}), "params.zzz", []),
        (lambda: parse_params("txt2img", {"sampler": "Euler A"}), "params.sampler", ["euler_a"]),
        (lambda: parse_params("inpaint", {"area": "maskd"}), "params.area", ["masked"]),
        (lambda: parse_params("txt2img", {"loras": [{"modle": "a"}]}), "params.loras[0].modle", ["model"]),
        (lambda: parse_params("inpant", {}), "mode", ["inpaint"]),
        (lambda: take_styles("inc", {"Ink": Style(), "Oil": Style()}), "params.styles", ["Ink"]),
    ],
)
def test_in_requests(wrong: Callable[[], object], path: str, near: list[str]) -> None:
    with pytest.raises(RequestError) as e:
        wrong()
    assert e.value.path == path and e.value.data["nearest"] == near
    assert all(name in e.value.message for name in near)


def test_in_the_catalogue(tmp_path: Path) -> None:
    for name in ("dreamshaper_8", "lora_dreams", "broken_dreamsh", "deliberate_v2"):
        add_model(tmp_path, f"{name}.safetensors")
    catalogue = Catalogue((tmp_path / "models",), identify)
    catalogue.scan()
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: catalogue.checkpoint("Dreamsh"), "dreamshaper_8"),
        (lambda: catalogue.checkpoint("deliberatev2.safetensors"), "deliberate_v2"),
        (lambda: catalogue.lora("lora_dream", "params.prompt", "sd1"), "lora_dreams"),
    ]
    for ask, near in wrong:
        with pytest.raises(ModelError) as e:
            ask()
        assert e.value.code == "model.unknown" and e.value.data["nearest"] == [near] and near in e.value.message
    assert unknown_lora("zzz", ["a"]).data == {"nearest": []}
    error: ImpastoError = unknown_lora("INK", ["ink"])
    assert error.data == {"nearest": ["ink"]}
