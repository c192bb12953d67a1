r"""The prompt as a tree: what changes over the steps, what is guided apart, what is loaded beside. No torch here.

The rules are AUTOMATIC1111's:

- ``[from:to:when]`` puts "to" in the place of "from", ``[to:when]`` adds, ``[from::when]`` removes; `when` with a point
  is a fraction of the steps, without one a number of steps; ``[a|b|c]`` changes every step; all of them nest;
- ``one :1.2 AND two :-0.4`` are parts that are guided apart, each with a weight (1 where none is given);
- ``<lora:name:1>`` asks for a file, see `extra_networks`;
- a backslash makes the next character text. What remains is text with attention weights, which `prompt` reads.

What A1111 takes literally is literal here. What it would take literally though it was meant as something else (a
`when` that is no number, an AND inside of brackets) is a PromptError that says where.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from .extra_networks import LoraUse, format_networks, refuse_networks, take_networks
from .prompt import MAX_WEIGHT
from .prompt_errors import PromptError

__all__ = [
    "Alternate",
    "Edit",
    "Node",
    "Nodes",
    "Part",
    "Prompt",
    "Text",
    "When",
    "format_nodes",
    "format_prompt",
    "parse_negative",
    "parse_prompt",
]

MAX_DEPTH = 50
"""Edits and alternations within one another."""
MAX_STEP = 1_000_000.0


@dataclass(frozen=True)
class When:
    """Where an edit switches: a number of steps, or a fraction of them (of the hires pass from 1 to 2)."""

    number: float
    is_fraction: bool

    def calls(self, total: int, before: int | None = None) -> int:
        """Up to and including which call of `total` (from 1) the first side holds.

        In a hires pass `before` is the number of calls of the pass before it: whole numbers go on counting from there,
        fractions from 1.
        """
        if before is not None:
            return min(total, int((self.number - 1) * total if self.is_fraction else self.number - before))
        return min(total, int(self.number * total if self.is_fraction else self.number))


@dataclass(frozen=True)
class Text:
    """Source text, its escapes and attention brackets left in; never empty."""

    text: str


@dataclass(frozen=True)
class Edit:
    """``[before:after:when]``."""

    before: tuple[Node, ...]
    after: tuple[Node, ...]
    when: When


@dataclass(frozen=True)
class Alternate:
    """``[a|b|c]``, at least two."""

    options: tuple[tuple[Node, ...], ...]


Node = Text | Edit | Alternate
Nodes = tuple[Node, ...]
"""Neighbouring texts are one."""


@dataclass(frozen=True)
class Part:
    """One side of an AND; a prompt without one has a single part of weight 1."""

    nodes: Nodes
    weight: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """A whole prompt: its parts (at least one), and the LoRAs that it asks for."""

    parts: tuple[Part, ...]
    loras: tuple[LoraUse, ...] = ()


_TOKEN = re.compile(r"\\.|[()\[\]:|]|[^\\()\[\]:|]+|\\", re.DOTALL)
_AND = re.compile(r"(?<!\\)\bAND\b")
_PART_WEIGHT = re.compile(r"(?<!\\):\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+))\s*\Z")
_WHEN = re.compile(r"\s*(\+?(?:\d+(?:\.\d*)?|\.\d+))\s*")
_LIKE_A_NUMBER = re.compile(r"(?=[^\d]*\d)[\s\d.,+%-]*")


def parse_prompt(text: str) -> Prompt:
    """The tree of a prompt. Raises PromptError."""
    rest, loras = take_networks(text)
    sides = _split(rest)
    if len(sides) > 1 or loras:
        sides = [_stripped(side, start) for side, start in sides]
    if len(sides) == 1:
        return Prompt((Part(_parse(*sides[0])),), loras)
    return Prompt(tuple(_part(side, start) for side, start in sides), loras)


def parse_negative(text: str) -> Nodes:
    """The tree of a negative prompt, which has neither AND nor networks. Raises PromptError."""
    refuse_networks(text)
    return _parse(text, 0)


def _split(text: str) -> list[tuple[str, int]]:
    """The sides of the ANDs, and where each begins."""
    found = list(_AND.finditer(text))
    if not found:
        return [(text, 0)]
    for first, last in _outermost(text):
        if any(first < match.start() < last for match in found):
            raise PromptError(
                "AND stands inside of brackets and would tear them apart; write AND outside, or A\\ND for the word.",
                first,
                text[first:last],
            )
    starts = [0, *(match.end() for match in found)]
    ends = [*(match.start() for match in found), len(text)]
    return [(text[start:end], start) for start, end in zip(starts, ends, strict=True)]


def _outermost(text: str) -> list[tuple[int, int]]:
    """From where to where the pairs of brackets reach that lie in no other."""
    tokens = list(_TOKEN.finditer(text))
    pairs = _pairs(tokens)
    reaches: list[tuple[int, int]] = []
    beyond = -1
    for i, token in enumerate(tokens):
        if i > beyond and pairs.get(i, -1) > i:
            beyond = pairs[i]
            reaches.append((token.start(), tokens[beyond].end()))
    return reaches


def _stripped(text: str, start: int) -> tuple[str, int]:
    return text.strip(), start + len(text) - len(text.lstrip())


def _part(text: str, start: int) -> Part:
    match = _PART_WEIGHT.search(text)
    if match is None:
        return Part(_parse(text, start))
    weight = max(-MAX_WEIGHT, min(MAX_WEIGHT, float(match.group(1))))
    return Part(_parse(text[: match.start()].rstrip(), start), weight)


def _pairs(tokens: Sequence[re.Match[str]]) -> dict[int, int]:
    """Index of each bracket that has a partner -> that of the partner; the others are text."""
    pairs: dict[int, int] = {}
    opened: list[int] = []
    for i, token in enumerate(tokens):
        if token.group() in ("(", "["):
            opened.append(i)
        elif token.group() in (")", "]") and opened and tokens[opened[-1]].group() == "(["[token.group() == "]"]:
            pairs[i] = opened.pop()
            pairs[pairs[i]] = i
    return pairs


@dataclass
class _Open:
    """A bracket that is being read: what is between its separators so far."""

    start: int
    bracket: str = ""
    sides: list[list[Node]] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list)
    depth: int = 0

    def add(self, nodes: Iterable[Node]) -> None:
        side = self.sides[-1]
        for node in nodes:
            if isinstance(node, Text) and side and isinstance(side[-1], Text):
                side[-1] = Text(side[-1].text + node.text)
            else:
                side.append(node)

    def literally(self, close: str) -> list[Node]:
        whole = _Open(self.start)
        for opener, side in zip([self.bracket, *self.separators], self.sides, strict=True):
            whole.add([Text(opener), *side])
        whole.add([Text(close)])
        return whole.sides[0]


def _parse(text: str, offset: int) -> Nodes:
    """The nodes of a text that begins at `offset` of the prompt."""
    tokens = list(_TOKEN.finditer(text))
    pairs = _pairs(tokens)
    frames = [_Open(0)]
    for i, token in enumerate(tokens):
        value, frame = token.group(), frames[-1]
        if i in pairs and pairs[i] > i:
            frames.append(_Open(token.start(), value))
        elif i in pairs:
            frames.pop()
            nodes = _closed(frame, value, offset, text[frame.start : token.end()])
            frames[-1].add(nodes)
            frames[-1].depth = max(frames[-1].depth, frame.depth)
        elif value in (":", "|") and frame.bracket == "[":
            frame.sides.append([])
            frame.separators.append(value)
        else:
            frame.add([Text(value)])
    return tuple(frames[0].sides[0])


def _closed(frame: _Open, close: str, offset: int, source: str) -> list[Node]:
    """What a pair of brackets is: an edit, an alternation, or text with weights."""
    node = _scheduled(frame, offset, source) if frame.separators else None
    if node is None:
        return frame.literally(close)
    frame.depth += 1
    if frame.depth > MAX_DEPTH:
        raise PromptError(
            f"brackets that change over the steps lie more than {MAX_DEPTH} deep; nest fewer.",
            offset + frame.start,
            source,
        )
    return [node]


def _scheduled(frame: _Open, offset: int, source: str) -> Node | None:
    sides, last = frame.sides, frame.sides[-1]

    def wrong(message: str) -> PromptError:
        return PromptError(message, offset + frame.start, source)

    if ":" not in frame.separators:
        return Alternate(tuple(tuple(side) for side in sides))
    if "|" in frame.separators:
        raise wrong("one pair of brackets has both | and :; give each its own brackets, or write \\: and \\| for text.")
    when = "".join(node.text if isinstance(node, Text) else "[" for node in last)
    number = _WHEN.fullmatch(when)
    if number is None:
        if len(sides) == 3:
            raise wrong(
                f"the step {when.strip()!r} at which it switches is no number; write a fraction such as 0.5 or a step "
                "such as 10, or \\: for a colon that is text."
            )
        if len(sides) == 2 and _LIKE_A_NUMBER.fullmatch(when):
            raise wrong(
                f"the step {when.strip()!r} at which it switches is no number of 0 or more; write a fraction such as "
                "0.5 or a step such as 10."
            )
        return None
    if len(sides) > 3:
        raise wrong("it has more than two colons; write [from:to:when], and \\: for a colon that is text.")
    fraction = "." in number.group(1)
    value = min(float(number.group(1)), MAX_STEP)
    if fraction and value > 2:
        raise wrong(f"a fraction of the steps is at most 2, not {value:g}; write a step number without a point.")
    before = tuple(sides[0]) if len(sides) == 3 else ()
    return Edit(before, tuple(sides[-2]), When(value, fraction))


def format_prompt(prompt: Prompt) -> str:
    """The text that `parse_prompt` reads as `prompt`."""
    if len(prompt.parts) == 1:
        text = format_nodes(prompt.parts[0].nodes)
    else:
        text = " AND ".join(_format_part(part) for part in prompt.parts)
    return f"{text} {format_networks(prompt.loras)}" if prompt.loras else text


def _format_part(part: Part) -> str:
    text = format_nodes(part.nodes)
    if part.weight == 1.0 and not _PART_WEIGHT.search(text):
        return text
    return f"{text} :{_plain(part.weight)}"


def format_nodes(nodes: Nodes) -> str:
    """The text that reads as `nodes`."""
    return "".join(_format_node(node) for node in nodes)


def _format_node(node: Node) -> str:
    if isinstance(node, Text):
        return node.text
    if isinstance(node, Alternate):
        return "[" + "|".join(format_nodes(option) for option in node.options) + "]"
    when = _plain(node.when.number)
    if not node.when.is_fraction:
        when = when.partition(".")[0]
    before = format_nodes(node.before) + ":" if node.before else ""
    # One that only removes needs both colons, one that only adds may do without.
    return f"[{before}{format_nodes(node.after)}:{when}]"


def _plain(number: float) -> str:
    text = format(Decimal(repr(float(number))), "f")
    return text if "." in text else text + ".0"
