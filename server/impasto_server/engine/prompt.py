"""The prompt's grammar: attention weights, BREAK, and chunks of 75 tokens. No torch here.

The rules are those that painters know from AUTOMATIC1111:

- ``(x)`` multiplies the weight by 1.1, ``[x]`` divides it, ``(x:1.3)`` multiplies by 1.3; nested ones multiply;
- ``\\(``, ``\\)``, ``\\[``, ``\\]`` and ``\\\\`` stand for the character; any other backslash disappears;
- a bracket that is never closed reaches to the end, a closing one without partner is text;
- the word ``BREAK`` in capitals ends the chunk.

No text is an error: what does not fit the grammar is taken literally.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from .tokenizer import BOS, COMMA, EOS

__all__ = ["CHUNK", "MAX_WEIGHT", "Chunk", "Span", "format_attention", "make_chunks", "parse_attention"]

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
    | :\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)
    | (?P<close>[)\]])
    | (?P<text>[^\\()\[\]:]+|:)
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


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
            for n, part in enumerate(_BREAK.split(value)):
                if n:
                    pieces.append(("", 1.0, True))
                pieces.append((part, weight, False))
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
class Chunk:
    """77 token ids (the begin mark, 75 places, an end mark) and the weight of each; marks and padding weigh 1."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


def make_chunks(
    spans: Iterable[Span],
    encode: Callable[[str], Sequence[int]],
    *,
    pad: int = EOS,
    comma_reach: int = COMMA_REACH,
) -> tuple[Chunk, ...]:
    """Lay the tokens of the spans into chunks of 75; at least one chunk, also for no text.

    Where a chunk is full and a comma lies within its last `comma_reach` tokens, what follows the comma moves to the
    next chunk, so that a phrase is not torn. `pad` fills what is left behind the first end mark (SD 1.x: the end mark,
    SD 2.x: 0).
    """
    chunks: list[Chunk] = []
    tokens: list[int] = []
    weights: list[float] = []
    comma = -1  # where the last comma of this chunk stands

    def close(keep: int) -> None:
        nonlocal tokens, weights, comma
        chunks.append(_chunk(tokens[:keep], weights[:keep], pad))
        tokens, weights, comma = tokens[keep:], weights[keep:], -1

    for span in spans:
        for token in encode(span.text):
            if len(tokens) == CHUNK:
                reachable = token != COMMA and comma >= 0 and len(tokens) - comma <= comma_reach
                close(comma + 1 if reachable else CHUNK)
            if token == COMMA:
                comma = len(tokens)
            tokens.append(token)
            weights.append(span.weight)
        if span.ends_chunk:
            close(len(tokens))
    if tokens or not chunks:
        close(len(tokens))
    return tuple(chunks)


def _chunk(tokens: list[int], weights: list[float], pad: int) -> Chunk:
    missing = CHUNK - len(tokens)
    ids = [BOS, *tokens, EOS, *([pad] * missing)]
    return Chunk(tuple(ids), (1.0, *weights, 1.0, *([1.0] * missing)))
