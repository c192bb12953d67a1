"""LoRAs on and off a checkpoint: exactly the deltas, only where something changes, and back to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from impasto_protocol.errors import ModelError
from impasto_server.engine.load import Components, load_checkpoint
from impasto_server.engine.patch import LoraSource, Patcher
from impasto_server.engine.text import TextCache, encode

from tests.loras import LAYERS, TEXT_LAYERS, kohya_tensors, numbers, write_lora, write_tensors
from tests.tiny import write_tiny_checkpoint

TOUCHED = len(LAYERS) + len(TEXT_LAYERS)


def load(path: Path, dtype: torch.dtype = torch.float32) -> Components:
    return load_checkpoint(path, device=torch.device("cpu"), dtype=dtype)


@pytest.fixture
def tiny(tmp_path: Path) -> Components:
    return load(write_tiny_checkpoint(tmp_path / "tiny.safetensors"))


def snapshot(components: Components) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": value.clone()
        for part in ("unet", "text_encoder")
        for name, value in getattr(components, part).named_parameters()
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


EVERYTHING = {f"unet.{layer}.weight" for layer in LAYERS} | {f"text_encoder.{layer}.weight" for layer in TEXT_LAYERS}


@pytest.mark.parametrize("half", [True, False], ids=["cast", "mapped"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_on_then_off_is_bit_identical(tmp_path: Path, half: bool, dtype: torch.dtype) -> None:
    path = write_tiny_checkpoint(tmp_path / "tiny.safetensors", half=half)
    written = path.read_bytes()
    components = load(path, dtype)
    before = snapshot(components)
    patcher = Patcher(components)
    for seed in (0, 1):
        patched = patcher.apply([LoraSource(str(write_lora(tmp_path / f"{seed}.safetensors", seed=seed)))])
        assert patched.unet is components.unet
        assert changed(before, snapshot(components)) == EVERYTHING
    assert patcher.apply([]) is components
    assert same(before, snapshot(components))
    assert path.read_bytes() == written
    for name, value in (*components.unet.named_parameters(), *components.text_encoder.named_parameters()):
        assert not value.requires_grad, name


def test_the_deltas_are_added_in_fp32_and_cast(tmp_path: Path, tiny: Components) -> None:
    lora = write_lora(tmp_path / "a.safetensors")
    tensors = kohya_tensors()
    before = snapshot(tiny)
    Patcher(tiny).apply([LoraSource(str(lora), 0.5, -0.25)])
    after = snapshot(tiny)
    for part, layers, prefix, strength in (
        ("unet", LAYERS, "lora_unet_", 0.5),
        ("text_encoder", TEXT_LAYERS, "lora_te_text_model_", -0.25),
    ):
        for layer in layers:
            key = prefix + layer.replace(".", "_")
            up, down = tensors[f"{key}.lora_up.weight"], tensors[f"{key}.lora_down.weight"]
            name = f"{part}.{layer}.weight"
            expected = before[name] + strength * (up.flatten(1) @ down.flatten(1) / 2).reshape(before[name].shape)
            assert torch.allclose(after[name], expected, atol=1e-6)


def test_the_same_set_costs_nothing_and_another_touches_what_differs(tmp_path: Path, tiny: Components) -> None:
    full = str(write_lora(tmp_path / "full.safetensors"))
    one = {key: value for key, value in kohya_tensors(seed=1).items() if "attn1_to_q" in key}
    small = str(write_tensors(tmp_path / "small.safetensors", one))
    patcher = Patcher(tiny)
    for loras, count in (
        ([], 0),
        ([LoraSource(full)], TOUCHED),
        ([LoraSource(full)], 0),
        ([LoraSource(full), LoraSource(small)], 1),
        ([LoraSource(small), LoraSource(full)], 0),  # the order does not matter
        ([LoraSource(full), LoraSource(small, 0.5)], 1),
        ([LoraSource(full, 1.0, 0.5), LoraSource(small, 0.5)], len(TEXT_LAYERS)),
        ([LoraSource(small, 0.5)], TOUCHED),
        ([LoraSource(small, 0.0, 1.0)], 1),  # a strength of 0 is off
        ([], 0),
    ):
        patcher.apply(loras)
        assert patcher.replaced == count, loras
    fresh = snapshot(load(tiny.source.path))
    assert same(fresh, snapshot(tiny))


def test_a_set_is_what_it_is_however_it_was_reached(tmp_path: Path, tiny: Components) -> None:
    a, b = (str(write_lora(tmp_path / f"{seed}.safetensors", seed=seed)) for seed in (0, 1))
    wandering, straight = Patcher(tiny), load(tiny.source.path)
    for loras in ([LoraSource(b)], [LoraSource(a), LoraSource(b, 0.3)], [LoraSource(b, 0.7), LoraSource(a, -1.0)]):
        wandering.apply(loras)
    Patcher(straight).apply([LoraSource(a, -1.0), LoraSource(b, 0.7)])
    assert same(snapshot(tiny), snapshot(straight))


def test_the_same_lora_twice_counts_twice(tmp_path: Path, tiny: Components) -> None:
    a = str(write_lora(tmp_path / "a.safetensors"))
    before = snapshot(tiny)
    patcher = Patcher(tiny)
    patcher.apply([LoraSource(a), LoraSource(a)])
    twice = snapshot(tiny)
    patcher.apply([LoraSource(a, 2.0, 2.0)])
    assert all(torch.allclose(twice[name], value, atol=1e-5) for name, value in snapshot(tiny).items())
    patcher.apply([])
    assert same(before, snapshot(tiny))


def test_texts_are_not_encoded_again_where_the_text_encoder_is_the_same(tmp_path: Path, tiny: Components) -> None:
    both, network = (write_lora(tmp_path / f"{text}.safetensors", text=text) for text in (True, False))
    patcher, cache = Patcher(tiny), TextCache()
    plain = encode(tiny, "a cat", cache=cache)
    assert torch.equal(encode(patcher.apply([LoraSource(str(network))]), "a cat", cache=cache), plain)
    assert len(cache) == 1
    changed = encode(patcher.apply([LoraSource(str(both))]), "a cat", cache=cache)
    assert not torch.equal(changed, plain) and len(cache) == 2
    assert torch.equal(encode(patcher.apply([LoraSource(str(both), 0.5, 1.0)]), "a cat", cache=cache), changed)
    assert len(cache) == 2
    encode(patcher.apply([LoraSource(str(both), 0.5, 0.9)]), "a cat", cache=cache)
    assert len(cache) == 3
    assert torch.equal(encode(patcher.apply([]), "a cat", cache=cache), plain) and len(cache) == 3


def test_a_lora_that_changed_on_disk_is_read_anew(tmp_path: Path, tiny: Components) -> None:
    import os

    path = write_lora(tmp_path / "a.safetensors")
    patcher = Patcher(tiny)
    patcher.apply([LoraSource(str(path))])
    first = snapshot(tiny)
    write_lora(tmp_path / "b.safetensors", seed=1).replace(path)
    os.utime(path, ns=(1, 1))
    patcher.apply([LoraSource(str(path))])
    assert patcher.replaced == TOUCHED and not same(first, snapshot(tiny))


def test_what_does_not_fit_changes_nothing(tmp_path: Path, tiny: Components) -> None:
    good = str(write_lora(tmp_path / "good.safetensors"))
    tensors = {**kohya_tensors(seed=1), "lora_unet_conv_out.diff": numbers(3, 16, 3, 3)}
    bad = str(write_tensors(tmp_path / "bad.safetensors", tensors))
    patcher = Patcher(tiny)
    patcher.apply([LoraSource(good)])
    before = snapshot(tiny)
    with pytest.raises(ModelError, match="another size"):
        patcher.apply([LoraSource(bad)])
    assert same(before, snapshot(tiny))
    patcher.apply([LoraSource(good)])
    assert patcher.replaced == 0


def test_an_error_half_way_is_made_good_by_the_next_job(
    tmp_path: Path, tiny: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    from impasto_server.engine import patch

    a = str(write_lora(tmp_path / "a.safetensors"))
    before = snapshot(tiny)
    patcher = Patcher(tiny)
    calls = 0

    def failing(*args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise MemoryError

    with monkeypatch.context() as context:
        context.setattr(patch, "_add", failing)
        with pytest.raises(MemoryError):
            patcher.apply([LoraSource(a)])
    patcher.apply([])
    assert patcher.replaced == 3 and same(before, snapshot(tiny))


def test_a_checkpoint_that_changed_is_not_mixed_with_the_old_one(tmp_path: Path, tiny: Components) -> None:
    a = str(write_lora(tmp_path / "a.safetensors"))
    write_tiny_checkpoint(tmp_path / "new.safetensors", seed=1, half=False).replace(tiny.source.path)
    before = snapshot(tiny)
    with pytest.raises(ModelError, match="was changed") as caught:
        Patcher(tiny).apply([LoraSource(a)])
    assert caught.value.retryable and same(before, snapshot(tiny))


def test_an_inpainting_checkpoint_takes_an_ordinary_lora(tmp_path: Path) -> None:
    nine = load(write_tiny_checkpoint(tmp_path / "nine.safetensors", channels=9))
    before = nine.unet.conv_in.weight.clone()
    up, down = numbers(16, 2, 1, 1), numbers(2, 4, 3, 3, seed=1)
    tensors = {"lora_unet_conv_in.lora_up.weight": up, "lora_unet_conv_in.lora_down.weight": down}
    path = write_tensors(tmp_path / "a.safetensors", {**kohya_tensors(), **tensors})
    patcher = Patcher(nine)
    patcher.apply([LoraSource(str(path))])
    delta = (up.flatten(1) @ down.flatten(1)).reshape(16, 4, 3, 3)
    assert torch.allclose(nine.unet.conv_in.weight[:, :4], before[:, :4] + delta, atol=1e-6)
    assert torch.equal(nine.unet.conv_in.weight[:, 4:], before[:, 4:])
    patcher.apply([])
    assert torch.equal(nine.unet.conv_in.weight, before)


def test_biases_and_norms(tmp_path: Path, tiny: Components) -> None:
    tensors = {
        "lora_unet_conv_out.diff_b": numbers(4),
        "lora_unet_conv_norm_out.w_norm": numbers(16),
        "lora_unet_conv_norm_out.b_norm": numbers(16, seed=1),
    }
    before = snapshot(tiny)
    Patcher(tiny).apply([LoraSource(str(write_tensors(tmp_path / "a.safetensors", tensors)), 0.5)])
    after = snapshot(tiny)
    assert changed(before, after) == {"unet.conv_out.bias", "unet.conv_norm_out.weight", "unet.conv_norm_out.bias"}
    assert torch.allclose(after["unet.conv_out.bias"], before["unet.conv_out.bias"] + 0.5 * numbers(4))
