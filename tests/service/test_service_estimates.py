"""How long a job will take: what is counted, and what is known of loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.geometry import Size
from impasto_server.engine.planning import plan
from impasto_server.engine.prompt_words import WordSources
from impasto_server.service.catalogue import Catalogue, Model
from impasto_server.service.estimates import Estimates, needs_of
from impasto_server.service.facts import Facts, identify
from impasto_server.service.resolving import resolve


def needs(*jobs: dict[str, Any], model: str = "m") -> Any:
    """What these jobs need, each a picture of 64 x 64 where it does not say otherwise."""
    catalogue = Catalogue([], identify)
    catalogue.models = tuple(
        Model(name, Path(f"{name}.safetensors"), Facts(kind, "sd1", native_size=64))
        for name, kind in ((model, "checkpoint"), ("l", "lora"))
    )
    settings = [one for job in jobs for one in resolve(catalogue, WordSources(), "txt2img", job)]
    plans = [plan("txt2img", each.params, Size(64, 64), None, 64) for each in settings]
    return needs_of(settings, plans)


def test_estimates_count_what_the_network_is_asked() -> None:
    """Twice the pictures take about twice the time; so do a sampler that looks twice a step, the parts of an AND, and
    the pixels of a hires pass."""
    base = {"steps": 10, "sampler": "euler"}
    estimates = Estimates()
    assert estimates.seconds(needs(base)) is None
    estimates.measured(needs(base), 11.0)

    def seconds(**params: Any) -> float:
        answer = estimates.seconds(needs({**base, **params}))
        assert answer is not None
        return answer

    assert seconds() == pytest.approx(11.0)
    assert seconds(batch=2) == pytest.approx(21.0)
    assert seconds(sampler="heun") == pytest.approx(20.0)
    assert seconds(cfg=1.0) == pytest.approx(6.0)
    assert seconds(prompt="a AND b AND c") == pytest.approx(21.0)
    assert seconds(hires=True) == pytest.approx(11.0 + 4 * 12.0)
    assert seconds(hires=True, hires_steps=5, hires_prompt="a AND b AND c") == pytest.approx(11.0 + 4 * 12.0)
    assert seconds(vary=[{"param": "steps", "values": "10, 20"}]) == pytest.approx(11.0 + 21.0)


def test_estimates_know_what_is_loaded() -> None:
    base: dict[str, Any] = {"steps": 10, "sampler": "euler"}
    with_lora = {**base, "prompt": "<lora:l:1>"}
    estimates = Estimates()
    estimates.measured(needs(base), 11.0, 5.0)
    assert estimates.seconds(needs(base)) == pytest.approx(11.0), "it is loaded"
    estimates.measured(needs(with_lora), 11.0, 2.0)
    assert estimates.seconds(needs(with_lora)) == pytest.approx(11.0)
    assert estimates.seconds(needs(base)) == pytest.approx(13.0), "the LoRA is to be taken off"
    assert estimates.seconds(needs(base, with_lora)) == pytest.approx(26.0)
    assert estimates.seconds(needs(base, model="n")) is None
    estimates.measured(needs(base, model="n"), 4.0, 1.0)
    assert estimates.seconds(needs(base)) == pytest.approx(16.0), "it has to be loaded again"
