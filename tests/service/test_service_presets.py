"""Presets: which LoRAs are known for a few steps, and what becomes of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from impasto_client.presets import applied, fitting
from impasto_server.engine.modes import parse_params
from impasto_server.service.catalogue import Model
from impasto_server.service.facts import Facts
from impasto_server.service.presets import presets_of


def lora(name: str, **facts: Any) -> Model:
    return Model(name, Path(f"{name}.safetensors"), Facts("lora", **{"family": "sd1", **facts}))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lcm-lora-sdv1-5", {"sampler": "lcm", "steps": 6, "cfg": 1.5}),
        ("LCM_LoRA_Weights_SD15", {"sampler": "lcm"}),
        ("Hyper-SD15-8steps-lora", {"sampler": "ddim", "steps": 8, "cfg": 1.0}),
        ("Hyper-SD15-12steps-CFG-lora", {"steps": 12, "cfg": 5.0}),
        ("TCD-SD15-LoRA", {"sampler": "ddim", "steps": 8}),
        ("sdxl_lightning_4step_lora", {"sampler": "euler", "steps": 4, "cfg": 1.0}),
    ],
)
def test_names_that_are_known(name: str, expected: dict[str, Any]) -> None:
    (preset,) = presets_of([lora(name)])
    assert preset["id"] == f"fast:{name}" and preset["family"] == "sd1" and preset["title"].startswith("Fast: ")
    assert {key: preset["params"][key] for key in expected} == expected
    parse_params("txt2img", preset["params"])


def test_by_what_a_file_says_of_itself() -> None:
    (preset,) = presets_of([lora("pytorch_lora_weights", alias="lcm_sd15", strength=0.8)])
    assert preset["params"]["loras"] == [{"model": "pytorch_lora_weights", "strength": 0.8}]
    assert len(presets_of([lora("weights", title="Hyper-SD 8 steps")])) == 1


@pytest.mark.parametrize("model", [lora("calcmap"), lora("lightningbolts"), lora("ink"), lora("lcm", usable=False)])
def test_others_are_none(model: Model) -> None:
    assert presets_of([model]) == ()


def test_settings_are_taken_over() -> None:
    (preset,) = presets_of([lora("lcm")])
    values = applied({"prompt": "a fox", "steps": 30, "loras": [{"model": "ink", "strength": 0.5}]}, preset)
    assert values["prompt"] == "a fox" and values["steps"] == 6 and values["sampler"] == "lcm"
    assert [entry["model"] for entry in values["loras"]] == ["ink", "lcm"]
    again = applied({"loras": [{"model": "lcm", "strength": 0.5}]}, preset)
    assert again["loras"] == [{"model": "lcm", "strength": 0.5}]
    assert fitting([preset], "sd1") == [preset] and fitting([preset], "sdxl") == []
