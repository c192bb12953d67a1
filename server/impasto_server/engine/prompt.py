"""The words of a prompt at one step: attention weights, BREAK, and chunks of 75 tokens. No torch here.

What changes over the steps is resolved before, see `prompt_grammar`.

The rules are those that painters know from AUTOMATIC1111:

- ``(x)`` multiplies the weight by 1.1, ``[x]`` divides it, ``(x:1.3)`` multiplies by 1.3; nested ones multiply;
- ``\\(``, ``\\)``, ``\\[``, ``\\]`` and ``\\\\`` stand for the character; any other backslash disappears;
- a bracket that is never closed reaches to the end, a closing one without partner is text;
- the word ``BREAK`` in capitals ends the chunk.

No text is an error: what does not fit the grammar is taken literally.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from .tokenizer import BOS, COMMA, EOS

__all__ = [
    "CHUNK",
    "MAX_WEIGHT",
    "Chunk",
    "EmbeddingNames",
    "Placed",
    "Span",
    "format_attention",
    "make_chunks",
    "parse_attention",
]

ROUND = 1.1
SQUARE = 1 / 1.1
MAX_WEIGHT = 100.0
"""Weights are held within +-MAX_WEIGHT, so that no nesting overflows half precision."""


@dataclass(frozen=True)
class Span:
    """A piece of the prompt and its weight; where `ends_chunk` is set, BREAK stands behind it (text may be empty)."""

    text: str
    weight: float = 1.0
    ends_chunk: bool = False


_TOKEN = re.compile(
    r"""\\(?P<literal>[()\[\]\\])
    | (?P<lone>\\)
    | (?P<open>[(\[])
    | :\s*(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)
    | (?P<close>[)\]])
    | (?P<text>[^\\()\[\]:]+|:)
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\bBREAK\b")


def parse_attention(text: str) -> tuple[Span, ...]:
    """Split a prompt into spans of equal weight; neighbours of equal weight are one span, empty ones are left out."""
    tokens = list(_TOKEN.finditer(text))
    factors = _factors(tokens)
    pieces: list[tuple[str, float, bool]] = []
    rounds, squares = [1.0], [1.0]
    for i, token in enumerate(tokens):
        kind = token.lastgroup
        value = token.group()
        weight = max(-MAX_WEIGHT, min(MAX_WEIGHT, rounds[-1] * squares[-1]))
        if kind == "open":
            stack = rounds if value == "(" else squares
            stack.append(_bounded(stack[-1] * factors[i]))
        elif kind in ("close", "number") and i in factors:
            (squares if value == "]" else rounds).pop()
        elif kind == "literal":
            pieces.append((token.group("literal"), weight, False))
        elif kind != "lone":
            parts = _BREAK.split(value)
            for n, part in enumerate(parts):
                if n:
                    pieces.append(("", 1.0, True))
                    part = part.lstrip()
                pieces.append((part if n == len(parts) - 1 else part.rstrip(), weight, False))
    return _joined(pieces)


def _factors(tokens: Sequence[re.Match[str]]) -> dict[int, float]:
    """Index of each opening bracket -> what it multiplies by; the closing ones that have a partner are in it, too."""
    factors: dict[int, float] = {}
    rounds: list[int] = []
    squares: list[int] = []
    for i, token in enumerate(tokens):
        value = token.group()
        if token.lastgroup == "open":
            (rounds if value == "(" else squares).append(i)
            factors[i] = ROUND if value == "(" else SQUARE
        elif token.lastgroup == "close" and (squares if value == "]" else rounds):
            (squares if value == "]" else rounds).pop()
            factors[i] = 1.0
        elif token.lastgroup == "number" and rounds:
            factors[rounds.pop()] = max(-MAX_WEIGHT, min(MAX_WEIGHT, float(token.group("number"))))
            factors[i] = 1.0
    return factors


def _bounded(product: float) -> float:
    return max(-1e100, min(1e100, product))


def _joined(pieces: Iterable[tuple[str, float, bool]]) -> tuple[Span, ...]:
    spans: list[Span] = []
    for text, weight, is_break in pieces:
        if is_break:
            _without_end(spans)
        elif not spans or spans[-1].ends_chunk:
            text = text.lstrip() if spans else text  # after a BREAK, whatever brackets stand between
        last = spans[-1] if spans else None
        if is_break:
            if last is None or last.ends_chunk:
                spans.append(Span("", 1.0, True))
            else:
                spans[-1] = Span(last.text, last.weight, True)
        elif text:
            if last is not None and last.weight == weight and not last.ends_chunk:
                spans[-1] = Span(last.text + text, weight)
            else:
                spans.append(Span(text, weight))
    return tuple(spans)


def _without_end(spans: list[Span]) -> None:
    """Take away the spaces before a BREAK, also where they stand in brackets of their own."""
    while spans and not spans[-1].ends_chunk:
        text = spans[-1].text.rstrip()
        if text:
            spans[-1] = Span(text, spans[-1].weight)
            return
        spans.pop()


def format_attention(spans: Iterable[Span]) -> str:
    """A prompt that `parse_attention` reads as `spans` (a weight is always printed as a number in round brackets).

    Text next to BREAK loses its spaces on that side when it is read again, as it does in any prompt.
    """
    out: list[str] = []
    for span in spans:
        text = re.sub(r"[()\[\]\\]", r"\\\g<0>", span.text)
        text = re.sub(r"\bBREAK\b", r"B\\REAK", text)  # the word, not the command
        if span.weight != 1.0 and text:
            text = f"({text}:{format(Decimal(repr(span.weight)), 'f')})"
        out.append(text + (" BREAK " if span.ends_chunk else ""))
    return "".join(out)


CHUNK = 75
"""Tokens of a chunk without the marks at its two ends."""
COMMA_REACH = 20


@dataclass(frozen=True)
class Placed:
    """An embedding in a chunk: `count` vectors whose first stands at `place` (0..76) of the chunk's tokens."""

    name: str
    place: int
    count: int


@dataclass(frozen=True)
class Chunk:
    """77 token ids (the begin mark, 75 places, an end mark) and the weight of each; marks and padding weigh 1.

    The tokens under an embedding are 0: its vectors take their place.
    """

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    embeddings: tuple[Placed, ...] = ()


class EmbeddingNames:
    """Embeddings by name, found in a prompt as A1111 finds them: by the tokens of the name, the longest first.

    `counts` gives the number of vectors of each; one of more than 75 cannot stand in a prompt and is passed over.
    """

    def __init__(self, counts: Mapping[str, int], encode: Callable[[str], Sequence[int]]) -> None:
        self._by_first: dict[int, list[tuple[tuple[int, ...], str, int]]] = {}
        for name, count in counts.items():
            tokens = tuple(encode(name))
            if tokens and 0 < count <= CHUNK:
                self._by_first.setdefault(tokens[0], []).append((tokens, name, count))
        for found in self._by_first.values():
            found.sort(key=lambda entry: (-len(entry[0]), entry[1]))

    def at(self, tokens: Sequence[int], start: int) -> tuple[str, int, int] | None:
        """(name, number of vectors, number of tokens) of the embedding whose name begins at `start`, or None."""
        for name_tokens, name, count in self._by_first.get(tokens[start], ()):
            if tuple(tokens[start : start + len(name_tokens)]) == name_tokens:
                return name, count, len(name_tokens)
        return None


def make_chunks(
    spans: Iterable[Span],
    encode: Callable[[str], Sequence[int]],
    *,
    pad: int = EOS,
    comma_reach: int = COMMA_REACH,
    embeddings: EmbeddingNames | None = None,
) -> tuple[Chunk, ...]:
    """Lay the tokens of the spans into chunks of 75; at least one chunk, also for no text.

    Where a chunk is full and a comma lies within its last `comma_reach` tokens, what follows the comma moves to the
    next chunk, so that a phrase is not torn. An embedding that does not fit moves whole. `pad` fills what is left
    behind the first end mark (SD 1.x: the end mark, SD 2.x: 0).
    """
    laying = _Laying(pad)
    for span in spans:
        tokens = encode(span.text)
        at = 0
        while at < len(tokens):
            token = tokens[at]
            if len(laying.tokens) == CHUNK:
                comma = laying.comma
                reachable = token != COMMA and comma >= 0 and CHUNK - comma <= comma_reach
                laying.close(comma + 1 if reachable else CHUNK)
            found = embeddings.at(tokens, at) if embeddings is not None else None
            if found is None:
                if token == COMMA:
                    laying.comma = len(laying.tokens)
                laying.tokens.append(token)
                laying.weights.append(span.weight)
                at += 1
            else:
                laying.place(*found[:2], span.weight)
                at += found[2]
        if span.ends_chunk:
            laying.close(len(laying.tokens))
    if laying.tokens or not laying.chunks:
        laying.close(len(laying.tokens))
    return tuple(laying.chunks)


class _Laying:
    """The chunks that are done and the one that is being filled; `comma` is where its last comma stands, or -1."""

    def __init__(self, pad: int) -> None:
        self.pad, self.chunks = pad, list[Chunk]()
        self.tokens: list[int] = []
        self.weights: list[float] = []
        self.placed: list[Placed] = []
        self.comma = -1

    def place(self, name: str, count: int, weight: float) -> None:
        if len(self.tokens) + count > CHUNK:
            self.close(len(self.tokens))
        self.placed.append(Placed(name, len(self.tokens) + 1, count))
        self.tokens += [0] * count
        self.weights += [weight] * count

    def close(self, keep: int) -> None:
        """End the chunk after `keep` tokens; the others, with their embeddings, begin the next one."""
        missing = CHUNK - keep
        ids = (BOS, *self.tokens[:keep], EOS, *([self.pad] * missing))
        weights = (1.0, *self.weights[:keep], 1.0, *([1.0] * missing))
        stay = tuple(placed for placed in self.placed if placed.place <= keep)
        self.chunks.append(Chunk(ids, weights, stay))
        self.placed = [Placed(p.name, p.place - keep, p.count) for p in self.placed if p.place > keep]
        self.tokens, self.weights, self.comma = self.tokens[keep:], self.weights[keep:], -1
