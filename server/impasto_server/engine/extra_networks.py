"""`<lora:name:1>` in a prompt: what is to be loaded beside the checkpoint, taken out of the text. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from .prompt_errors import PromptError

__all__ = ["LoraUse", "format_networks", "networks_in", "refuse_networks", "take_networks"]

LORA_KINDS = ("lora", "lyco")
"""lyco is what an older extension of A1111 called the rarer kinds of LoRA; the file tells them apart."""

MAX_STRENGTH = 100.0

_NETWORK = re.compile(r"(?<!\\)<(\w+):([^>]*)>")
_UNCLOSED = re.compile(r"(?<!\\)<(?:lora|lyco|hypernet):[^>]*\Z")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)")


@dataclass(frozen=True)
class LoraUse:
    """A LoRA that a prompt asks for: file stem or alias, and its strengths on the network and on the text encoder."""

    name: str
    unet: float
    text: float


def take_networks(text: str) -> tuple[str, tuple[LoraUse, ...]]:
    """The text without its `<kind:...>`, and what they ask for, in order.

    `<lora:name>` has the strength 1, `<lora:name:te>` one for both, `<lora:name:te:unet>` one each; `te=` and `unet=`
    name them. Raises PromptError for another kind, a strength that is no number, and one that is never closed.
    """
    matches = networks_in(text)
    found = [_read(match) for match in matches]
    unclosed = _UNCLOSED.search(text)
    if unclosed is not None:
        raise PromptError("it is never closed; write > behind it.", unclosed.start(), unclosed.group())
    starts = [0, *(match.end() for match in matches)]
    ends = [*(match.start() for match in matches), len(text)]
    return "".join(text[start:end] for start, end in zip(starts, ends, strict=True)), tuple(found)


def networks_in(text: str) -> tuple[re.Match[str], ...]:
    """Each ``<kind:...>`` of a text; its groups are the kind and what follows it."""
    # Not beyond the last bracket: from each < on the search would run to the end.
    return tuple(_NETWORK.finditer(text, 0, text.rfind(">") + 1))


def refuse_networks(text: str) -> None:
    """Raise PromptError where a negative prompt names a network: A1111 would leave it there as text."""
    match = re.search(r"(?<!\\)<(?:lora|lyco|hypernet):[^>]*>?", text)
    if match is not None:
        raise PromptError(
            "it does nothing in the negative prompt; put it into the prompt, with a negative strength if it is to "
            "work the other way.",
            match.start(),
            match.group(),
        )


def format_networks(uses: Iterable[LoraUse]) -> str:
    """The text that `take_networks` reads as `uses`."""
    return "".join(f"<lora:{use.name}:{_plain(use.text)}:{_plain(use.unet)}>" for use in uses)


def _read(match: re.Match[str]) -> LoraUse:
    kind, values = match.groups()

    def wrong(message: str) -> PromptError:
        return PromptError(message, match.start(), match.group())

    if kind == "hypernet":
        raise wrong("hypernetworks are not supported; take it out.")
    if kind not in LORA_KINDS:
        raise wrong(f"{kind!r} is no kind of network; lora is. If it is meant as text, write \\< for <.")
    positional: list[str] = []
    named: dict[str, str] = {}
    for item in values.split(":"):
        name, equals, value = item.partition("=")
        if equals and name.strip() in ("te", "unet", "dyn"):
            named[name.strip()] = value
        else:
            positional.append(item)
    name = positional[0].strip() if positional else ""
    if not name:
        raise wrong("it names no file; write <lora:name:1>.")
    if "dyn" in named or len(positional) > 3:
        raise wrong("a strength for a part of the ranks (dyn) is not supported; write <lora:name:te:unet>.")

    def strength(key: str, place: int, default: float) -> float:
        text = named.get(key, positional[place] if len(positional) > place else None)
        if text is None:
            return default
        if not _NUMBER.fullmatch(text.strip()):
            raise wrong(f"the strength {text.strip()!r} is no number; write one such as 0.8.")
        return max(-MAX_STRENGTH, min(MAX_STRENGTH, float(text)))

    text = strength("te", 1, 1.0)
    return LoraUse(name, strength("unet", 2, text), text)


def _plain(number: float) -> str:
    return format(Decimal(repr(number)), "f")
