"""Names that can be completed while a prompt is typed: LoRAs, embeddings, wildcards, as the catalogue has them."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

__all__ = ["Completions", "Suggestion", "complete", "names_of"]

MOST = 12
"""Suggestions at a time."""
SHORTEST = 2
"""Letters of a plain word before it is completed."""

_TAG = re.compile(r"<(?:(?:lora|lyco)?:?)?([^<>:]*)$")
_WILDCARD = re.compile(r"__([^\s_<>][^\s<>]*?|)$")
_WORD = re.compile(r"[^\s,.;:()\[\]{}<>|\\]+$")


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


def complete(text: str, caret: int, names: Mapping[str, Sequence[str]]) -> Completions:
    """What can be meant at the caret: `<` begins a LoRA, `__` a wildcard, and any word may be an embedding."""
    before = text[:caret]
    tag = _TAG.search(before)
    if tag is not None:
        found = _matching(tag.group(1), names.get("lora", ()))
        return Completions(tag.start(), tuple(Suggestion(f"<lora:{name}:1>", f"{name}  (LoRA)") for name in found))
    wildcard = _WILDCARD.search(before)
    if wildcard is not None and names.get("wildcard"):
        found = _matching(wildcard.group(1), names["wildcard"])
        return Completions(wildcard.start(), tuple(Suggestion(f"__{name}__", f"{name}  (wildcard)") for name in found))
    word = _WORD.search(before)
    if word is not None and len(word.group()) >= SHORTEST:
        found = [name for name in _matching(word.group(), names.get("embedding", ())) if name != word.group()]
        return Completions(word.start(), tuple(Suggestion(name, f"{name}  (embedding)") for name in found))
    return Completions(caret)


def _matching(typed: str, names: Sequence[str]) -> List[str]:
    """The names that hold what was typed, first those that begin with it."""
    sought = typed.strip().casefold()
    holding = [name for name in names if sought in name.casefold()]
    return sorted(holding, key=lambda name: (not _last(name).startswith(sought), name.casefold()))[:MOST]


def _last(name: str) -> str:
    """The name without its folders."""
    return name.casefold().rsplit("/", 1)[-1]
