"""Axes as they are written, the parameters of each picture, and the job that makes them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.jobs import Cancelled, Cell, Job, Layer, Progress
from impasto_server.engine.modes import Txt2Img, parse_params
from impasto_server.engine.run import Engine
from impasto_server.engine.variants import MAX_VARIANTS, variants_of

from tests.engine.device import DEVICE
from tests.engine.test_run import run_batch
from tests.tiny import NATIVE_SIZE, write_tiny_checkpoint

NATIVE = Size(NATIVE_SIZE, NATIVE_SIZE)


def axis(param: str, values: str) -> dict[str, str]:
    return {"param": param, "values": values}


def values_of(param: str, text: str, **params: Any) -> list[Any]:
    return [v.params.get(param) for v in variants_of("txt2img", {**params, "vary": [axis(param, text)]})]


@pytest.mark.parametrize(
    ("param", "text", "expected"),
    [
        ("steps", "1-5", [1, 2, 3, 4, 5]),
        ("steps", "1-5 (+2)", [1, 3, 5]),
        ("steps", "10-5 (-3)", [10, 7]),
        ("steps", "1-10 [5]", [1, 3, 5, 7, 10]),
        ("steps", "20, 30,1-3", [20, 30, 1, 2, 3]),
        ("seed", "5-3, -1", [5, 4, 3, -1]),
        ("cfg", "1-2 (+0.5)", [1.0, 1.5, 2.0]),
        ("cfg", "3-4 (+0.1)", [3 + i / 10 for i in range(11)]),
        ("hires_strength", "0.2-0.8 [4]", [0.2, 0.4, 0.6, 0.8]),
        ("sampler", "Euler a, heun, DPM++ 2M SDE", ["euler_a", "heun", "dpmpp_2m_sde"]),
        ("hires", "off, true", [False, True]),
        ("prompt", "a cat, sitting\n\n a dog ", ["a cat, sitting", "a dog"]),
        ("model", '"one, two", three', ["one, two", "three"]),
    ],
)
def test_values_as_they_are_written(param: str, text: str, expected: list[Any]) -> None:
    assert values_of(param, text) == pytest.approx(expected) if param == "cfg" else values_of(param, text) == expected


def test_two_axes_are_a_table() -> None:
    made = variants_of("txt2img", {"prompt": "a cat", "vary": [axis("CFG Scale", "3, 5"), axis("Steps", "1-3")]})
    assert [(v.column, v.row, v.params["cfg"], v.params["steps"]) for v in made] == [
        (0, 0, 3, 1),
        (1, 0, 5, 1),
        (0, 1, 3, 2),
        (1, 1, 5, 2),
        (0, 2, 3, 3),
        (1, 2, 5, 3),
    ]
    assert made[3].told == {
        "column": 1,
        "row": 1,
        "columns": 2,
        "rows": 3,
        "labels": [{"param": "Guidance scale", "value": "5"}, {"param": "Steps", "value": "2"}],
    }
    assert all("vary" not in v.params for v in made)


def test_words_are_replaced_in_all_prompts() -> None:
    base = {"prompt": "a cat, (cat:1.2)", "negative_prompt": "no cat"}
    made = variants_of("txt2img", {**base, "vary": [axis("Prompt S/R", 'cat, "dog, small"')]})
    assert [v.params["prompt"] for v in made] == ["a cat, (cat:1.2)", "a dog, small, (dog, small:1.2)"]
    assert made[1].params["negative_prompt"] == "no dog, small"


@pytest.mark.parametrize(
    ("entry", "path", "says"),
    [
        (axis("step", "1"), "params.vary[0].param", "did you mean 'steps'"),
        (axis("batch", "1, 2"), "params.vary[0].param", "batch"),
        (axis("steps", "1-"), "params.vary[0].values", "neither a number nor a range"),
        (axis("steps", "1-5 (-1)"), "params.vary[0].values", "never arrives"),
        (axis("steps", "1-5 (+0)"), "params.vary[0].values", "never arrives"),
        (axis("steps", "2-1 [0]"), "params.vary[0].values", "from 1 to 100"),
        (axis("steps", "1.5"), "params.vary[0].values.steps", "whole number"),
        (axis("steps", "1-1000"), "params.vary[0].values", "at most 100"),
        (axis("cfg", "0.5"), "params.vary[0].values.cfg", "from 1 to 30"),
        (axis("sampler", "eulr"), "params.vary[0].values.sampler", "did you mean 'euler'"),
        (axis("cfg", " , "), "params.vary[0].values", "no value"),
        (axis("search_replace", "dog, cat"), "params.vary[0].values", "stand in no prompt"),
        (axis("hires", "perhaps"), "params.vary[0].values", "true or false"),
        ({"param": "cfg", "value": "1"}, "params.vary[0].value", "Did you mean 'values'"),
    ],
)
def test_what_cannot_be_read_says_where(entry: dict[str, str], path: str, says: str) -> None:
    with pytest.raises(RequestError) as refused:
        variants_of("txt2img", {"prompt": "a fox", "vary": [entry]})
    assert refused.value.code == "request.invalid_param" and refused.value.path == path
    assert says in refused.value.message


def test_too_many_and_twice_the_same() -> None:
    for vary, says in (
        ([axis("steps", "1-20"), axis("cfg", "1-20")], f"at most {MAX_VARIANTS}"),
        ([axis("steps", "1, 2"), axis("steps", "3")], "two parameters"),
    ):
        with pytest.raises(RequestError, match=says):
            variants_of("txt2img", {"vary": vary})


@given(st.text("0123456789.,-+()[] \n\"'einfa_", max_size=40), st.sampled_from(["steps", "cfg", "model", "sampler"]))
def test_any_text_is_read_or_refused(text: str, param: str) -> None:
    try:
        made = variants_of("txt2img", {"vary": [axis(param, text)]})
    except RequestError as e:
        assert e.path and e.path.startswith("params.vary[0]")
    else:
        assert 1 <= len(made) <= MAX_VARIANTS
        assert all(parse_params("txt2img", v.params) for v in made)


# ---- the job


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: Any) -> str:
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(DEVICE, "fp32")


def varied(checkpoint: str, *axes: dict[str, str], **params: Any) -> Job:
    base = {"prompt": "a red apple", "seed": 5, "steps": 3, **params}
    cells = tuple(
        Cell(variant, parse_params("txt2img", variant.params), checkpoint)
        for variant in variants_of("txt2img", {**base, "vary": list(axes)})
    )
    return Job("j", "txt2img", cells[0].params, NATIVE, Box.of_size(NATIVE), checkpoint, cells=cells)


def test_each_picture_comes_with_its_own_recipe(engine: Engine, checkpoint: str) -> None:
    job = varied(checkpoint, axis("cfg", "2, 9"), axis("seed", "5-7"))
    layers, result, events = run_batch(engine, job)
    assert [layer.index for layer in layers] == list(range(6)) and result.seeds == (5, 5, 6, 6, 7, 7)
    assert [layer.info["variant"]["column"] for layer in layers] == [0, 1] * 3
    assert layers[1].name == "a red apple (5), Guidance scale 9, Seed 5" and result.ran["variants"] == 6
    for layer in (layers[0], layers[5]):
        params = Txt2Img(**layer.info["params"])
        assert not params.vary and "variant" not in layer.info["parameters"].lower()
        alone, _, _ = run_batch(engine, replace(job, params=params, cells=()))
        np.testing.assert_array_equal(alone[0].pixels, layer.pixels)
    fractions = [e.fraction for e in events if isinstance(e, Progress)]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    # They come one by one, not all at the end.
    places = [i for i, e in enumerate(events) if isinstance(e, Layer)]
    assert all(any(isinstance(e, Progress) for e in events[a:b]) for a, b in itertools.pairwise(places))


def test_one_seed_is_drawn_for_all(engine: Engine, checkpoint: str) -> None:
    layers, result, _ = run_batch(engine, varied(checkpoint, axis("cfg", "2, 9"), seed=-1))
    assert len(set(result.seeds)) == 1 and (layers[0].pixels != layers[1].pixels).any()
    _, result, _ = run_batch(engine, varied(checkpoint, axis("seed", "-1, -1"), seed=-1))
    assert len(set(result.seeds)) == 2


def test_batches_and_checkpoints(engine: Engine, checkpoint: str, tmp_path: Any, monkeypatch: Any) -> None:
    """The pictures of one checkpoint are made together, wherever they stand in the table."""
    other = str(write_tiny_checkpoint(tmp_path / "other.safetensors", seed=3))
    job = varied(checkpoint, axis("model", "tiny, other"), axis("cfg", "2, 9"), batch=2)
    cells = [replace(c, checkpoint=other if c.params.model == "other" else checkpoint) for c in job.cells]
    layers, _, _ = run_batch(engine, replace(job, cells=tuple(cells)))
    told = [(layer.info["variant"]["column"], layer.info["variant"]["row"], layer.seed) for layer in layers]
    assert told == [(c, r, s) for c in (0, 1) for r in (0, 1) for s in (5, 6)]
    assert [layer.index for layer in layers] == list(range(8))


def test_cancel_keeps_what_has_come(engine: Engine, checkpoint: str) -> None:
    events: list[Any] = []

    def cancelled() -> bool:
        return any(isinstance(e, Layer) for e in events) and isinstance(events[-1], Progress) and events[-1].step == 2

    with pytest.raises(Cancelled):
        engine.run(varied(checkpoint, axis("cfg", "2, 9, 12"), steps=20), events.append, cancelled)
    assert len([e for e in events if isinstance(e, Layer)]) == 1
