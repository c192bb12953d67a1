"""What a prompt says at each call of the network, counted as AUTOMATIC1111 counts. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .params_common import TWO_CALLS
from .prompt_grammar import Edit, Nodes, Text

__all__ = ["Phase", "phases", "text_at", "total_calls"]


@dataclass(frozen=True)
class Phase:
    """A text and the calls, counted from 0, in which it holds: start <= call < end."""

    text: str
    start: int
    end: int


def total_calls(sampler: str, steps: int) -> int:
    """The calls that fractions refer to: the steps that were asked for, twice as many for samplers that look twice.

    A1111 counts so for image to image, too, where fewer run; the count begins at the first that does.
    """
    return steps * 2 if sampler in TWO_CALLS else steps


def phases(nodes: Nodes, total: int, before: int | None = None) -> tuple[Phase, ...]:
    """The texts of `total` calls in order, neighbouring equal ones as one phase; `before`: see `When.calls`."""
    found: list[Phase] = []
    for call in range(total):
        # A1111 looks up call 0 (the first) in a table that begins with 1: the first entry serves twice.
        text = text_at(nodes, max(call, 1), total, before)
        if found and found[-1].text == text:
            found[-1] = Phase(text, found[-1].start, call + 1)
        else:
            found.append(Phase(text, call, call + 1))
    return tuple(found)


def text_at(nodes: Nodes, number: int, total: int, before: int | None = None) -> str:
    """The text for entry `number` (from 1 to `total`) of A1111's table."""
    return "".join(_texts(nodes, number, total, before))


def _texts(nodes: Nodes, number: int, total: int, before: int | None) -> Iterable[str]:
    for node in nodes:
        if isinstance(node, Text):
            yield node.text
        elif isinstance(node, Edit):
            first = number <= node.when.calls(total, before)
            yield from _texts(node.before if first else node.after, number, total, before)
        else:
            yield from _texts(node.options[(number - 1) % len(node.options)], number, total, before)
