"""CLIP's byte pair tokenizer (Radford et al. 2021), over the merges that are shipped in `data/`. No torch here.

Ours and not transformers' because it costs nothing to import, knows no hub, and gives the ids of a piece of text
without marks or padding, which attention weights and chunks need. The ids equal those of CLIP (the tests compare).
"""

from __future__ import annotations

import gzip
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from heapq import heapify, heappop, heappush
from importlib import resources
from itertools import pairwise

__all__ = ["BOS", "COMMA", "EOS", "VOCABULARY", "Tokenizer", "load_tokenizer"]

VOCABULARY = 49408
BOS = 49406
EOS = 49407
COMMA = 267
"""The id of a comma that stands by itself."""

_MARKS = {"<|startoftext|>": BOS, "<|endoftext|>": EOS}
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
# Information separators: Python calls them space, Unicode's White_Space property does not.
_NOT_SPACE = "\x1c\x1d\x1e\x1f"


@dataclass(frozen=True)
class Tokenizer:
    """`merges` maps two neighbouring ids to the id that replaces them; a lower id was learnt earlier and goes first."""

    merges: Mapping[tuple[int, int], int]

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of `text` without marks and padding; any string is accepted, the empty one gives ()."""
        ids: list[int] = []
        # Per character, as CLIP's fast tokenizer does it: no special final sigma.
        plain = "".join(c.lower() for c in unicodedata.normalize("NFC", text))
        for word in _words(plain):
            if word in _MARKS:
                ids.append(_MARKS[word])
            else:
                ids.extend(self._merge(word))
        return tuple(ids)

    def _merge(self, word: str) -> list[int]:
        order = _byte_order()
        ids = [order[byte] for byte in word.encode("utf-8", errors="replace")]
        ids[-1] += 256  # the form at the end of a word
        merges = self.merges
        # The pair learnt first goes first, from left to right. A heap of candidates over a linked list, so that one
        # endless word costs n log n; a candidate whose sides have changed since is passed over.
        after = [*range(1, len(ids)), -1]
        before = [*range(-1, len(ids) - 1)]
        heap = [(merges[pair], i, *pair) for i, pair in enumerate(pairwise(ids)) if pair in merges]
        heapify(heap)
        while heap:
            merged, i, left, right = heappop(heap)
            j = after[i]
            if ids[i] != left or j < 0 or ids[j] != right:
                continue
            ids[i], ids[j] = merged, -1
            after[i] = after[j]
            if after[i] >= 0:
                before[after[i]] = i
            for first, second in ((before[i], i), (i, after[i])):
                pair = (ids[first], ids[second])
                if first >= 0 and second >= 0 and pair in merges:
                    heappush(heap, (merges[pair], first, *pair))
        return [token for token in ids if token >= 0]


def _class_of(char: str) -> str:
    """L letter, N number, space, or P for everything else."""
    if char.isspace() and char not in _NOT_SPACE:
        return " "
    major = unicodedata.category(char)[0]
    return major if major in "LN" else "P"


def _words(text: str) -> list[str]:
    """Contractions, runs of letters, single digits and runs of anything else; spaces only separate."""
    classes = [_class_of(char) for char in text]
    words: list[str] = []
    i = 0
    while i < len(text):
        kind = classes[i]
        end = i + 1
        special: tuple[str, ...] = ()
        if text[i] == "<":
            special = tuple(mark for mark in _MARKS if text.startswith(mark, i))
        elif text[i] == "'":
            special = tuple(tail for tail in _CONTRACTIONS if text.startswith(tail, i))
        if special:
            end = i + len(special[0])
        elif kind in "LP":
            while end < len(text) and classes[end] == kind:
                end += 1
        if kind != " ":
            words.append(text[i:end])
        i = end
    return words


@cache
def _byte_order() -> tuple[int, ...]:
    """Byte -> its place in CLIP's alphabet: the printable bytes of Latin-1 come first, the others after them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    places = {byte: place for place, byte in enumerate(printable + others)}
    return tuple(places[byte] for byte in range(256))


@cache
def load_tokenizer() -> Tokenizer:
    """The tokenizer of CLIP ViT-L/14, which every Stable Diffusion model uses; about 50 ms the first time."""
    data = resources.files("impasto_server.engine").joinpath("data", "clip_merges.txt.gz").read_bytes()
    pairs = [line.split(" ") for line in gzip.decompress(data).decode("utf-8").split("\n")]
    # The alphabet in print: a byte that is not printable is written as the character 256 and on.
    order = _byte_order()
    printed: dict[int, str] = {place: chr(byte) for byte, place in enumerate(order)}
    first_other = len([*range(33, 127), *range(161, 173), *range(174, 256)])
    for place in range(first_other, 256):
        printed[place] = chr(256 + place - first_other)
    ids = {char: place for place, char in printed.items()}
    ids |= {char + "</w>": place + 256 for place, char in printed.items()}
    merges: dict[tuple[int, int], int] = {}
    for number, (left, right) in enumerate(pairs, start=512):
        merges[ids[left], ids[right]] = number
        ids[left + right] = number
    return Tokenizer(merges)
