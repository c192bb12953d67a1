"""The form of A1111's `parameters` text: prompt, negative prompt, and one line of `key: value` pairs. No torch here.

What the keys mean is the business of `infotext`; here is only how the text is taken apart and put together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MAX_TEXT", "Infotext", "format_infotext", "format_pairs", "read_pairs", "split_infotext"]

MAX_TEXT = 1 << 18
"""Characters that are read at most."""

_NEGATIVE = "Negative prompt:"
_ENOUGH = 3
"""Pairs from which on a line holds parameters; with fewer it is a line of the prompt."""

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"(?=\s*(?:,|\Z))')
_KEY_SIGNS = frozenset(" -/")


@dataclass(frozen=True)
class Infotext:
    """A text taken apart. `pairs` are in order, a key may stand twice; `rest` is what belongs to nothing."""

    prompt: str = ""
    negative_prompt: str = ""
    pairs: tuple[tuple[str, str], ...] = ()
    rest: tuple[str, ...] = field(default=())

    @property
    def values(self) -> dict[str, str]:
        """The pairs by key; of a key that stands twice the later one holds, as in A1111."""
        return dict(self.pairs)


def split_infotext(text: str) -> Infotext:
    """Take a text apart; any text is one, at worst a prompt alone.

    The parameters are the last line if it has three pairs. Some extensions write further lines behind it (templates
    of what was drawn): then the last line that begins with "Steps:" and has three pairs, and those lines are `rest`.
    """
    lines = [line.strip() for line in text[:MAX_TEXT].strip().replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    at = len(lines) - 1
    pairs, junk = read_pairs(lines[at])
    if len(pairs) < _ENOUGH:
        pairs, junk = [], []
        starts = [i for i, line in enumerate(lines) if line.startswith("Steps:")]
        found = next(((i, *read) for i in reversed(starts) if len((read := read_pairs(lines[i]))[0]) >= _ENOUGH), None)
        at, pairs, junk = found if found is not None else (len(lines), pairs, junk)
    prompt: list[str] = []
    negative: list[str] | None = None
    for line in lines[:at]:
        if negative is None and line.startswith(_NEGATIVE):
            negative = []
            line = line[len(_NEGATIVE) :].strip()
        (prompt if negative is None else negative).append(line)
    rest = (*junk, *(line for line in lines[at + 1 :] if line))
    return Infotext("\n".join(prompt).strip(), "\n".join(negative or ()).strip(), tuple(pairs), rest)


def format_infotext(prompt: str, negative_prompt: str, pairs: Iterable[tuple[str, Any]]) -> str:
    """The text that `split_infotext` takes apart again."""
    lines = [prompt]
    if negative_prompt:
        lines.append(f"{_NEGATIVE} {negative_prompt}")
    lines.append(format_pairs(pairs))
    return "\n".join(lines)


def format_pairs(pairs: Iterable[tuple[str, Any]]) -> str:
    """`key: value, key: value`; a value that would be torn apart stands in quotes, as JSON."""
    return ", ".join(f"{key}: {_quoted(value)}" for key, value in pairs)


def read_pairs(line: str) -> tuple[list[tuple[str, str]], list[str]]:
    """The pairs of a line, and the pieces between them that are none. Its time grows with the line's length alone.

    A key is a word character, then at least one of word characters, spaces, - and /; a value a JSON string, else
    everything up to the next comma.
    """
    pairs: list[tuple[str, str]] = []
    junk: list[str] = []
    at, colon = 0, -1
    while at < len(line):
        comma = _find(line, ",", at)
        if colon < at:
            colon = _find(line, ":", at)
        start, key = (comma, "") if comma < colon else _key(line, at, colon)
        if not key:
            junk.append(line[at:comma])
            at = comma + 1
            continue
        junk.append(line[at:start])
        value, at = _value(line, colon + 1)
        pairs.append((key, value))
    return pairs, [piece.strip() for piece in junk if piece.strip()]


def _find(line: str, sign: str, at: int) -> int:
    found = line.find(sign, at)
    return found if found >= 0 else len(line)


def _key(line: str, at: int, colon: int) -> tuple[int, str]:
    """Where the key before the colon begins, and the key; "" where there is none."""
    start = colon
    while start > at and (line[start - 1] in _KEY_SIGNS or line[start - 1] == "_" or line[start - 1].isalnum()):
        start -= 1
    key = line[start:colon].lstrip(" -/")
    return colon - len(key), key.rstrip() if len(key) > 1 else ""


def _value(line: str, at: int) -> tuple[str, int]:
    """The value that begins at `at`, and where the next pair does."""
    while at < len(line) and line[at].isspace():
        at += 1
    quoted = _QUOTED.match(line, at) if line.startswith('"', at) else None
    if quoted is not None:
        try:
            # A half of a character (a lone surrogate) could be neither saved nor sent.
            text = json.loads(quoted.group()).encode("utf-8", "replace").decode()
        except ValueError:
            text = quoted.group()
        return text, _find(line, ",", quoted.end()) + 1
    end = _find(line, ",", at)
    return line[at:end].strip(), end + 1


def _quoted(value: Any) -> str:
    text = str(value)
    torn = any(c in text for c in ",:\n\r") or text != text.strip() or text[:1] == '"' or len(text.splitlines()) > 1
    return json.dumps(text, ensure_ascii=False) if torn else text
