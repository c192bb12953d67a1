"""What can be completed while a prompt is typed: LoRAs, embeddings and wildcards of the catalogue, and tags."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from impasto_protocol.lists import Word

__all__ = ["Completions", "Suggestion", "complete", "names_of"]

MOST = 12
"""Suggestions at a time."""
SHORTEST = 2
"""Letters of a plain word before it is completed."""

_TAG = re.compile(r"<(?:(?:lora|lyco)?:?)?([^<>:]*)$")
_WILDCARD = re.compile(r"__([^\s_<>][^\s<>]*?|)$")
_WORD = re.compile(r"[^\s,.;:()\[\]{}<>|\\]+$")
_PIECE = re.compile(r"[^\s,\n:()\[\]{}<>|\\](?:[^,\n:\[\]{}<>|]*)$")
"""What stands between commas or brackets: tags may have several words."""
_LETTER = re.compile(r"[^\W\d_]")


class Suggestion(NamedTuple):
    """`shown` in a list; `text` takes the place of what was typed."""

    text: str
    shown: str


class Completions(NamedTuple):
    """What may stand in the place of the characters from `start` up to the caret."""

    start: int
    suggestions: Tuple[Suggestion, ...] = ()


def names_of(models: Sequence[Mapping[str, Any]]) -> Dict[str, List[str]]:
    """The names that can stand in a prompt, by kind."""
    names: Dict[str, List[str]] = {}
    for model in models:
        if model.get("kind") in ("lora", "embedding", "wildcard") and model.get("usable", True):
            names.setdefault(str(model["kind"]), []).append(str(model["id"]))
    return names


def _none(typed: str) -> Sequence[Word]:
    return ()


def complete(
    text: str, caret: int, names: Mapping[str, Sequence[str]], tags: Callable[[str], Sequence[Word]] = _none
) -> Completions:
    """What can be meant at the caret: `<` begins a LoRA, `__` a wildcard, any word may be an embedding, and what stands
    between two commas a tag, of which `tags(typed)` knows.
    """
    before = text[:caret]
    tag = _TAG.search(before)
    if tag is not None:
        found = _matching(tag.group(1), names.get("lora", ()))
        return Completions(tag.start(), tuple(Suggestion(f"<lora:{name}:1>", f"{name}  (LoRA)") for name in found))
    wildcard = _WILDCARD.search(before)
    if wildcard is not None and names.get("wildcard"):
        found = _matching(wildcard.group(1), names["wildcard"])
        return Completions(wildcard.start(), tuple(Suggestion(f"__{name}__", f"{name}  (wildcard)") for name in found))
    word, found = _WORD.search(before), []
    if word is not None and len(word.group()) >= SHORTEST:
        found = [name for name in _matching(word.group(), names.get("embedding", ())) if name != word.group()]
    offered = [Suggestion(name, f"{name}  (embedding)") for name in found]
    start = word.start() if word is not None else caret
    piece = _PIECE.search(before)
    if piece is not None and len(piece.group()) >= SHORTEST and _LETTER.search(piece.group()):
        hits = [tag for tag in tags(piece.group()) if tag.text != piece.group()]
        if hits:
            # All of them take the place of the whole piece; before an embedding its other words stay.
            kept, start = before[piece.start() : start], piece.start()
            offered = [Suggestion(kept + name, shown) for name, shown in offered] + [_tag(tag) for tag in hits]
    return Completions(start if offered else caret, tuple(offered[:MOST]))


def _tag(tag: Word) -> Suggestion:
    found_by = f"{tag.alias} → " if tag.alias else ""
    return Suggestion(tag.text, f"{found_by}{tag.text}" + (f"  ({_count(tag.uses)})" if tag.uses else ""))


def _count(uses: int) -> str:
    """About how many, short: 4.4 M, 12 k, 340."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if uses >= size:
            return f"{uses / size:.1f} {letter}" if uses < 10 * size else f"{uses // size} {letter}"
    return str(uses)


def _matching(typed: str, names: Sequence[str]) -> List[str]:
    """The names that hold what was typed, first those that begin with it."""
    sought = typed.strip().casefold()
    holding = [name for name in names if sought in name.casefold()]
    return sorted(holding, key=lambda name: (not _last(name).startswith(sought), name.casefold()))[:MOST]


def _last(name: str) -> str:
    """The name without its folders."""
    return name.casefold().rsplit("/", 1)[-1]
