"""LoRAs and embeddings in whole jobs: what they change, what the recipe says, and that they leave nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from impasto_protocol.errors import ModelError, RequestError
from impasto_server.engine.addon_names import lora_names
from impasto_server.engine.extra_networks import LoraUse
from impasto_server.engine.jobs import Job
from impasto_server.engine.lora import lora_hash
from impasto_server.engine.modes import Txt2Img, parse_params
from impasto_server.engine.run import Engine

from tests.engine.device import DEVICE
from tests.engine.test_run import run, run_batch, selection_job, text_job
from tests.loras import kohya_tensors, numbers, write_embedding, write_lora, write_tensors
from tests.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_checkpoint(folder / "tiny.safetensors")
    write_lora(folder / "ink.safetensors")
    write_lora(folder / "oil.safetensors", seed=1, text=False)
    write_embedding(folder / "bad-hands.safetensors")
    write_embedding(folder / "wide.safetensors", width=768)
    tensors = {**kohya_tensors(seed=2), "bundle_emb.sparkle.string_to_param.*": numbers(2, 32, seed=9)}
    write_tensors(folder / "bundle.safetensors", tensors)
    return folder


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(DEVICE, "fp32")


def job(models: Path, prompt: str = "a cat", **params: Any) -> Job:
    made = text_job(str(models / "tiny.safetensors"), prompt=prompt, steps=2, **params)
    names = ("ink", "oil", "bundle")
    return replace(
        made,
        loras={name: str(models / f"{name}.safetensors") for name in names},
        embeddings={name: str(models / f"{name}.safetensors") for name in ("bad-hands", "wide")},
    )


def entry(name: str, strength: float = 1.0, text: float | str = "auto") -> dict[str, Any]:
    return {"model": name, "strength": strength, "text_strength": text}


def test_on_then_off_gives_the_same_picture_to_the_last_bit(models: Path, engine: Engine) -> None:
    plain, _, _ = run(engine, job(models))
    changed, result, _ = run(engine, job(models, loras=[entry("ink")]))
    again, after, _ = run(engine, job(models))
    assert (plain.pixels != changed.pixels).any()
    assert np.array_equal(plain.pixels, again.pixels)
    digits = lora_hash(models / "ink.safetensors")
    told = [{"model": "ink", "strength": 1.0, "text_strength": 1.0, "hash": digits}]
    assert result.ran["loras"] == changed.info["loras"] == told
    assert "loras" not in after.ran and "loras" not in again.info and "Lora" not in again.info["parameters"]


def test_the_prompt_and_the_parameter_do_the_same(models: Path, engine: Engine) -> None:
    by_parameter, _, _ = run(engine, job(models, loras=[entry("ink", 0.5, 0.25), entry("oil", -1.0)]))
    by_prompt, _, _ = run(engine, job(models, "a cat<lora:ink:0.25:0.5><lora:oil:-1>"))
    mixed, _, _ = run(engine, job(models, "a cat<lora:oil:-1>", loras=[entry("ink", 0.5, 0.25)]))
    assert np.array_equal(by_parameter.pixels, by_prompt.pixels)
    assert np.array_equal(by_parameter.pixels, mixed.pixels)
    hashes = ", ".join(f"{name}: {lora_hash(models / f'{name}.safetensors')}" for name in ("ink", "oil"))
    assert by_parameter.info["parameters"].startswith("a cat<lora:ink:0.25:0.5><lora:oil:-1.0:-1.0>\n")
    assert f'Lora hashes: "{hashes}", ' in by_parameter.info["parameters"]
    assert by_prompt.info["params"]["prompt"] == "a cat<lora:ink:0.25:0.5><lora:oil:-1>"


def test_strengths_are_apart(models: Path, engine: Engine) -> None:
    plain, _, _ = run(engine, job(models))
    pictures = [plain.pixels]
    for network, text in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        layer, _, _ = run(engine, job(models, loras=[entry("ink", network, text)]))
        assert all((layer.pixels != other).any() for other in pictures)
        pictures.append(layer.pixels)
    off, _, _ = run(engine, job(models, loras=[entry("ink", 0.0)]))
    assert np.array_equal(off.pixels, plain.pixels)


def test_an_inpainting_checkpoint_with_a_lora(models: Path, engine: Engine) -> None:
    checkpoint = str(write_tiny_checkpoint(models / "nine.safetensors", channels=9))
    plain = selection_job(checkpoint)
    files = job(models).loras
    changed = replace(plain, params=replace(plain.params, loras=[entry("ink")]), loras=files)
    before, _, _ = run(engine, plain)
    with_lora, _, _ = run(engine, changed)
    after, _, _ = run(engine, plain)
    assert (before.pixels != with_lora.pixels).any() and np.array_equal(before.pixels, after.pixels)


def test_a_missing_one_says_the_nearest(models: Path, engine: Engine) -> None:
    for params in ({"prompt": "a <lora:imk:1>"}, {"loras": [entry("imk")]}):
        with pytest.raises(ModelError, match=r"no LoRA 'imk'\. Did you mean 'ink'") as caught:
            run(engine, job(models, **params))
        assert caught.value.code == "model.unknown"


def test_one_that_does_not_fit_leaves_the_checkpoint_as_it_was(models: Path, engine: Engine) -> None:
    plain, _, _ = run(engine, job(models))
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    wide = {f"{key}.lora_down.weight": numbers(4, 768), f"{key}.lora_up.weight": numbers(320, 4)}
    path = write_tensors(models / "broad.safetensors", wide)
    wrong = replace(job(models, loras=[entry("broad")]), loras={"broad": str(path)})
    with pytest.raises(ModelError, match="320 x 768 where"):
        run(engine, wrong)
    again, _, _ = run(engine, job(models))
    assert np.array_equal(plain.pixels, again.pixels)


def test_a_batch_has_one_set(models: Path, engine: Engine) -> None:
    with pytest.raises(RequestError, match="different LoRAs"):
        run_batch(engine, job(models, "a {<lora:ink:1>|<lora:oil:1>|cat|dog}", batch=8))
    layers, _, _ = run_batch(engine, job(models, "a {cat|dog|bird|cow}<lora:ink:1>", batch=2))
    assert all(layer.info["loras"][0]["model"] == "ink" for layer in layers)


def test_embeddings_in_prompts(models: Path, engine: Engine) -> None:
    plain, _, _ = run(engine, job(models, negative_prompt="bad hands"))
    changed, result, _ = run(engine, job(models, negative_prompt="(Bad-hands:1.2), blurry"))
    assert (plain.pixels != changed.pixels).any()
    assert "embeddings" not in plain.info
    (told,) = result.ran["embeddings"]
    assert told["model"] == "bad-hands" and len(told["hash"]) == 12
    assert f'TI hashes: "bad-hands: {told["hash"]}"' in changed.info["parameters"]
    again, _, _ = run(engine, job(models, negative_prompt="(Bad-hands:1.2), blurry"))
    assert np.array_equal(changed.pixels, again.pixels)
    write_embedding(models / "bad-hands.safetensors", seed=5, vectors=3)
    other, _, _ = run(engine, job(models, negative_prompt="(Bad-hands:1.2), blurry"))
    assert (changed.pixels != other.pixels).any()


def test_an_embedding_of_another_width_is_refused_where_it_is_used(models: Path, engine: Engine) -> None:
    run(engine, job(models, "a cat"))
    with pytest.raises(ModelError, match=r"768 numbers where .* has 32") as caught:
        run(engine, job(models, "a wide cat"))
    assert caught.value.data["need"] == 32 and caught.value.data["got"] == 768


def test_an_embedding_inside_a_lora_is_there_while_it_is_on(models: Path, engine: Engine) -> None:
    on, result, _ = run(engine, job(models, "a sparkle", loras=[entry("bundle")]))
    assert result.ran["embeddings"] == [{"model": "sparkle", "hash": ""}]
    word, off, _ = run(engine, job(models, "a sparkle"))
    assert "embeddings" not in off.ran and (on.pixels != word.pixels).any()


def test_half_precision(models: Path) -> None:
    """fp32 deltas are cast to the format of the network; on, then off, is bit-identical there, too."""
    engine = Engine(DEVICE, "fp32")
    engine.dtype = torch.bfloat16
    plain, _, _ = run(engine, job(models))
    changed, _, _ = run(engine, job(models, loras=[entry("ink")]))
    again, _, _ = run(engine, job(models))
    assert np.array_equal(plain.pixels, again.pixels) and (plain.pixels != changed.pixels).any()


def test_the_parameter() -> None:
    params = parse_params("txt2img", {"loras": [{"model": "a"}, {"model": "b", "strength": 0.5, "text_strength": 0}]})
    assert isinstance(params, Txt2Img)
    assert params.lora_uses == (LoraUse("a", 1.0, 1.0), LoraUse("b", 0.5, 0.0))
    for wrong, path in (
        ([{"model": "a", "strength": 11}], "params.loras[0].strength"),
        ([{"model": "a", "weight": 1}], "params.loras[0].weight"),
        (["a"], "params.loras[0]"),
    ):
        with pytest.raises(RequestError) as caught:
            parse_params("txt2img", {"loras": wrong})
        assert caught.value.path == path


def test_names_in_a_prompt() -> None:
    assert lora_names("a <lora:one:1> {<lyco: two :1:te=2>|\\<lora:three:1>} <lora:one> <lora::1>") == ("one", "two")
