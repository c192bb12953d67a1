"""The ids of CLIP's tokenizer: recorded ones, and transformers' implementation over the same merges as the oracle."""

from __future__ import annotations

import gzip
import hashlib
import time
from functools import cache
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_server.engine.tokenizer import COMMA, load_tokenizer

MERGES_SHA256 = "f61f2adf497e6f5357c347aeb4646fabe82f341e946de5bdec5d2858e41bef4a"
# What OpenAI's CLIP gives for these sentences, without the marks at both ends.
RECORDED = {
    "a photo of a cat": (320, 1125, 539, 320, 2368),
    "a photo of an astronaut riding a horse": (320, 1125, 539, 550, 18376, 6765, 320, 4558),
    "a photograph of an astronaut riding a horse": (320, 8853, 539, 550, 18376, 6765, 320, 4558),
    "a photo of a dog": (320, 1125, 539, 320, 1929),
    "a diagram": (320, 22697),
    ",": (COMMA,),
    "": (),
    " \n\t ": (),
}


@cache
def oracle() -> Any:
    from transformers import CLIPTokenizer

    data = resources.files("impasto_server.engine").joinpath("data/clip_merges.txt.gz").read_bytes()
    merges = gzip.decompress(data).decode().split("\n")
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    single = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    tokens = [*single, *(c + "</w>" for c in single), *("".join(m.split(" ")) for m in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    assert len(vocabulary) == 49408
    return CLIPTokenizer(vocab=vocabulary, merges=[tuple(m.split(" ")) for m in merges])


@pytest.mark.parametrize("text", RECORDED)
def test_recorded_ids(text: str) -> None:
    assert load_tokenizer().encode(text) == RECORDED[text]


@pytest.mark.parametrize(
    "text",
    [
        "Masterpiece, best quality, (detailed:1.2) portrait of a red-haired woman, 8k, f/1.8",
        "don't stop; it's the painter's, we'll see, I'd say they've",
        "Ein Gemälde über Österreich, façade, naïve, smörgåsbord — œuvre…",
        "猫の写真, 赤い帽子",
        "🦊🍎 fox & apple 100% #ff0000 <lora:x:1>",
        "İstanbul ΣΊΣΥΦΟΣ ½ ² Ⅷ ٣",
        "a\u0301 combining and a\u00a0space",
        "<|endoftext|> inside",
        "supercalifragilisticexpialidocious antidisestablishmentarianism",
    ],
)
def test_same_ids_as_transformers(text: str) -> None:
    assert list(load_tokenizer().encode(text)) == oracle()(text, add_special_tokens=False)["input_ids"]


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x24F), max_size=60))
def test_same_ids_as_transformers_on_any_latin_text(text: str) -> None:
    assert list(load_tokenizer().encode(text)) == oracle()(text, add_special_tokens=False)["input_ids"]


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_any_text_has_ids(text: str) -> None:
    assert all(0 <= token < 49408 for token in load_tokenizer().encode(text + "\ud800"))


def test_the_shipped_merges_are_those_that_the_tool_makes() -> None:
    data = resources.files("impasto_server.engine").joinpath("data/clip_merges.txt.gz").read_bytes()
    assert hashlib.sha256(gzip.decompress(data)).hexdigest() == MERGES_SHA256


def test_one_endless_word_is_quick() -> None:
    start = time.perf_counter()
    assert len(load_tokenizer().encode("qzxjv" * 2000)) > 1000
    assert time.perf_counter() - start < 2.0
