"""Embeddings of prompts: chunks, attention weights, and a cache that never changes a result."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from impasto_server.engine.load import Components, load_checkpoint
from impasto_server.engine.text import TextCache, encode, encode_pair

from tests.tiny import tiny_modules, write_tiny_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Components:
    path = write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors", half=False)
    return load_checkpoint(path, device=torch.device("cpu"), dtype=torch.float32)


@torch.no_grad()
def reference(ids: list[int]) -> torch.Tensor:
    _, _, text = tiny_modules()
    padded = [49406, *ids, *[49407] * (76 - len(ids))]
    return text(torch.tensor([padded])).last_hidden_state


CAT = [320, 1125, 539, 320, 2368]


def test_a_plain_prompt_is_what_the_text_encoder_gives(tiny: Components) -> None:
    got = encode(tiny, "a photo of a cat", cache=TextCache())
    assert got.dtype == torch.float32 and got.shape == (1, 77, 32) and not got.requires_grad
    assert torch.equal(got, reference(CAT))


def test_a_weight_multiplies_its_tokens_and_the_mean_is_restored(tiny: Components) -> None:
    got = encode(tiny, "a photo of a (cat:1.5)", cache=TextCache())
    z = reference(CAT)
    weights = torch.ones(77)
    weights[5] = 1.5
    weighted = z * weights[:, None]
    assert torch.allclose(got, weighted * (z.mean() / weighted.mean()), rtol=1e-6)
    assert torch.allclose(got.mean(), z.mean(), rtol=1e-4)
    assert not torch.equal(got, z)


def test_long_prompts_are_encoded_chunk_by_chunk(tiny: Components) -> None:
    cache = TextCache()
    got = encode(tiny, "a photo of a cat BREAK a cat", cache=cache)
    assert got.shape == (1, 154, 32)
    assert torch.equal(got[:, :77], encode(tiny, "a photo of a cat", cache=cache))
    assert torch.equal(got[:, 77:], encode(tiny, "a cat", cache=cache))
    assert encode(tiny, "cat " * 76, cache=cache).shape == (1, 154, 32)


def test_a_pair_has_equal_length(tiny: Components) -> None:
    cache = TextCache()
    empty = encode(tiny, "", cache=cache)
    for text, negative in (("cat " * 160, "dog"), ("dog", "cat " * 160), ("", "")):
        one, other = encode_pair(tiny, text, negative, cache=cache)
        assert one.shape == other.shape
        assert torch.equal(one[:, :77], encode(tiny, text, cache=cache)[:, :77])
        assert torch.equal(other[:, :77], encode(tiny, negative, cache=cache)[:, :77])
        if text != negative:
            shorter = one if text == "dog" else other
            assert torch.equal(shorter[:, -77:], empty)


def test_extreme_weights_stay_finite(tiny: Components) -> None:
    for text in ("(cat:0)", "(cat:-100)", "(" * 300 + "cat", "[" * 300 + "cat", "(cat:1e9)"):
        assert torch.isfinite(encode(tiny, text, cache=TextCache())).all()


def test_an_embedding_without_a_mean_is_not_blown_up(tiny: Components) -> None:
    norm = tiny.text_encoder.final_layer_norm
    kept = norm.bias
    try:
        norm.bias = torch.nn.Parameter(torch.zeros(32), requires_grad=False)  # then its mean is rounding noise
        plain = encode(tiny, "a cat", cache=TextCache())
        got = encode(tiny, "a (cat:1.5)", cache=TextCache())
    finally:
        norm.bias = kept
    assert torch.allclose(got[0, 2], plain[0, 2] * 1.5)
    assert torch.allclose(got[0, 1], plain[0, 1])


def test_the_cache_saves_the_encoder_and_changes_nothing(tiny: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TextCache()
    first = encode(tiny, "a (cat:1.2) BREAK a dog", cache=cache)
    assert len(cache) == 2

    def unexpected(*args: object, **kwargs: object) -> None:
        raise AssertionError("the text encoder was asked again")

    monkeypatch.setattr(tiny.text_encoder, "forward", unexpected)
    assert torch.equal(encode(tiny, "a (cat:1.2) BREAK a dog", cache=cache), first)
    encode(tiny, "a (cat:1.4) BREAK a [dog]", cache=cache)  # other weights, same tokens
    with pytest.raises(AssertionError, match="asked again"):
        encode(tiny, "a bird", cache=cache)


def test_the_cache_is_bounded_and_keeps_what_is_used(tiny: Components) -> None:
    cache = TextCache(size=2)
    for text in ("one", "two", "one", "three"):
        encode(tiny, text, cache=cache)
    assert len(cache) == 2
    tokens = tiny.tokenizer.encode("one")
    assert cache.get(tiny.identity, (49406, *tokens, *[49407] * 75)) is not None


def test_models_do_not_share_embeddings(tiny: Components, tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "other.safetensors", seed=1)
    other = load_checkpoint(path, device=torch.device("cpu"), dtype=torch.float32)
    cache = TextCache()
    assert not torch.equal(encode(tiny, "a cat", cache=cache), encode(other, "a cat", cache=cache))
