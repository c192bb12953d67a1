"""Captions to CLIP token ids: the true CLIP vocabulary, made from the byte-pair list that the engine carries."""

from __future__ import annotations

import gzip
import json
from functools import lru_cache
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from starter.sources import WORK

MERGES = Path(__file__).parent.parent / "server" / "impasto_server" / "engine" / "data" / "clip_merges.txt.gz"
TOKENS = 49408
LENGTH = 77
END = 49407


def _printable() -> list[str]:
    """A printable character for each byte value, in the order in which CLIP numbers them."""
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    return [chr(b) for b in plain] + [chr(256 + n) for n in range(256 - len(plain))]


def build(folder: Path) -> Path:
    """Writes vocab.json and merges.txt from the engine's byte-pair list, so that both read the same."""
    merges = gzip.decompress(MERGES.read_bytes()).decode("utf-8").rstrip("\n").split("\n")
    characters = _printable()
    words = characters + [c + "</w>" for c in characters] + [m.replace(" ", "") for m in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    if len(words) != TOKENS or len(set(words)) != TOKENS:
        raise SystemExit(f"{MERGES.name}: {len(set(words))} distinct tokens instead of {TOKENS}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    return folder


@lru_cache(maxsize=1)
def tokenizer() -> CLIPTokenizer:
    folder = WORK / "clip"
    if not (folder / "vocab.json").exists():
        build(folder)
    # the keyword form does not look anything up by a folder's name
    return CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        unk_token="<|endoftext|>",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )


def encode(captions: list[str]) -> torch.Tensor:
    """Token ids int64 [n, 77], padded with the end mark as SD 1.x does."""
    found = tokenizer()(captions, padding="max_length", max_length=LENGTH, truncation=True)
    return torch.tensor(found["input_ids"])


def whole_words() -> dict[str, int]:
    """Lower-case words of three letters and more that are one token each, with their ids."""
    found = {}
    for token, number in tokenizer().get_vocab().items():
        word = token.removesuffix("</w>")
        if token.endswith("</w>") and len(word) > 2 and word.isascii() and word.isalpha():
            found[word] = number
    return found
