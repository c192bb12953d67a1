"""Editing a prompt: the weight of words raised and lowered by a key, as in AUTOMATIC1111's web UI."""

from __future__ import annotations

import re
from typing import List, NamedTuple, Optional, Tuple

__all__ = ["STEP", "Edit", "is_settings", "shift_weight"]

STEP = 0.1
"""What one key press adds to or takes from the weight of words."""
TAG_STEP = 0.05
"""The same for <lora:name:1>."""
IMPLIED = 1.1
"""The weight of (words) without a number."""
HIGHEST = 9.9
_WORD = re.compile(r"(?:\\.|[^\s.,\\/!?%^*;:{}=`~()\[\]<>|])+")
_NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+))"
_CLOSED = re.compile(r":\s*" + _NUMBER + r"\s*\)")
_SETTINGS = re.compile(r"^Steps: *\d+, *\w[\w ]*: ", re.MULTILINE)
_TAG = re.compile(r"(<(?:lora|lyco|hypernet):[^<>:]+)(?::\s*" + _NUMBER + r")?([^<>]*>)")


class Edit(NamedTuple):
    """A text and what is selected in it: characters `start` up to `end`."""

    text: str
    start: int
    end: int


def is_settings(text: str) -> bool:
    """Is a pasted text that of a whole picture, as AUTOMATIC1111 and its kin write it, and not a prompt?"""
    return _SETTINGS.search(text) is not None


def shift_weight(text: str, start: int, end: int, steps: int) -> Edit:
    """Raise the weight of what is selected by `steps` of 0.1 (lower it by negative ones), at most down to 0.

    With nothing selected it is that of the group around the caret, `(red hair:1.2)`, or of the word under it; in
    `<lora:name:1>` the number, in steps of 0.05. A weight that comes to 1 leaves no brackets. The words stay selected,
    so that the key can be pressed again. Where there is nothing to weigh the text stays as it was.
    """
    start, end = sorted((max(0, min(start, len(text))), max(0, min(end, len(text)))))
    tag = next((t for t in _TAG.finditer(text) if t.start() <= start and end <= t.end()), None)
    if tag is not None:
        return _shift_tag(text, tag, start, end, steps)
    chosen = _words(text, start, end)
    if chosen is None:
        return Edit(text, start, end)
    start, end = chosen
    before, after, weight = start, end, 1.0
    if start > 0 and text[start - 1] == "(" and not _escaped(text, start - 1):
        closed = _CLOSED.match(text, end)
        if closed is not None:
            before, after, weight = start - 1, closed.end(), float(closed.group(1))
        elif text[end : end + 1] == ")":
            before, after, weight = start - 1, end + 1, IMPLIED
    words, shifted = text[start:end], _shifted(weight, STEP * steps)
    if shifted == 1.0:
        return Edit(text[:before] + words + text[after:], before, before + len(words))
    made = f"({words}:{shifted:g})"
    return Edit(text[:before] + made + text[after:], before + 1, before + 1 + len(words))


def _words(text: str, start: int, end: int) -> Optional[Tuple[int, int]]:
    """The words that are meant by what is selected; None where none can be weighed."""
    if start == end:
        found = _group_around(text, start) or _word_under(text, start)
    elif any(_content(text, *group) == (start, end) for group in _groups(text)):
        found = (start, end)
    else:
        found = _selected(text, start, end)
    return found if found is not None and text[slice(*found)].strip() and _balanced(text[slice(*found)]) else None


def _selected(text: str, start: int, end: int) -> Tuple[int, int]:
    """What is selected, without blanks and commas at its ends, nor the brackets of its own."""
    start, end = _trimmed(text, start, end)
    # A backslash stays with what it stands before.
    if start > 0 and text[start - 1] == "\\" and not _escaped(text, start - 1):
        start -= 1
    if end < len(text) and _escaped(text, end):
        end += 1
    return _inside(text, start, end) or (start, end)


def _shift_tag(text: str, tag: re.Match[str], start: int, end: int, steps: int) -> Edit:
    shifted = _shifted(float(tag.group(2) or 1), TAG_STEP * steps)
    made = f"{tag.group(1)}:{shifted:g}{tag.group(3)}"
    last = tag.start() + len(made)
    return Edit(text[: tag.start()] + made + text[tag.end() :], min(start, last), min(end, last))


def _shifted(weight: float, by: float) -> float:
    return min(max(round(weight + by, 4), 0.0), HIGHEST)


def _escaped(text: str, at: int) -> bool:
    """Does an odd number of backslashes stand before?"""
    count = 0
    while at > count and text[at - 1 - count] == "\\":
        count += 1
    return count % 2 == 1


def _trimmed(text: str, start: int, end: int) -> Tuple[int, int]:
    while end > start and text[end - 1] in " \t\n,":
        end -= 1
    while start < end and text[start] in " \t\n,":
        start += 1
    return start, end


def _groups(text: str) -> List[Tuple[int, int]]:
    """Every (group): the places of its brackets, inner ones first."""
    opened: List[int] = []
    found: List[Tuple[int, int]] = []
    for at, letter in enumerate(text):
        if letter in "()" and not _escaped(text, at):
            if letter == "(":
                opened.append(at)
            elif opened:
                found.append((opened.pop(), at))
    return found


def _content(text: str, opened: int, closed: int) -> Tuple[int, int]:
    """The words of a group, without its weight."""
    weight = next((m for m in _CLOSED.finditer(text, opened + 1, closed + 1) if m.end() == closed + 1), None)
    return opened + 1, weight.start() if weight is not None else closed


def _group_around(text: str, caret: int) -> Optional[Tuple[int, int]]:
    around = next(((o, c) for o, c in _groups(text) if o < caret <= c), None)
    return None if around is None else _content(text, *around)


def _inside(text: str, start: int, end: int) -> Optional[Tuple[int, int]]:
    """The words of a group that is selected with its brackets."""
    return _content(text, start, end - 1) if (start, end - 1) in _groups(text) else None


def _word_under(text: str, caret: int) -> Optional[Tuple[int, int]]:
    word = next((w for w in _WORD.finditer(text) if w.start() <= caret <= w.end()), None)
    return None if word is None else (word.start(), word.end())


def _balanced(words: str) -> bool:
    """Are there as many closing brackets as opening ones, each after its own?"""
    waiting: List[str] = []
    for at, letter in enumerate(words):
        if letter in "([" and not _escaped(words, at):
            waiting.append({"(": ")", "[": "]"}[letter])
        elif letter in ")]" and not _escaped(words, at) and (not waiting or waiting.pop() != letter):
            return False
    return not waiting
