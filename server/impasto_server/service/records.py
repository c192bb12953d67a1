"""One job as the queue keeps it: its state, its lasting events, and who listens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from impasto_protocol.messages import Message

from .orders import Order

__all__ = ["ACTIVE", "Listener", "Record", "plain"]

Listener = Callable[[Message], None]
"""Takes each event of a job; never blocks and never raises."""

ACTIVE = ("queued", "running")
"""The states before a terminal event."""


@dataclass
class Record:
    """One job and what has happened to it."""

    order: Order
    created: float
    state: str = "queued"
    cancel_asked: bool = False
    events: list[Message] = field(default_factory=list)
    """The lasting ones; event n has seq n + 1."""
    listeners: set[Listener] = field(default_factory=set)
    outputs: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.order.submit.job

    @property
    def next_seq(self) -> int:
        return len(self.events) + 1

    def tell(self, message: Message, *, lasting: bool = True) -> None:
        if lasting:
            self.events.append(message)
        for listener in tuple(self.listeners):
            listener(message)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the wire and JSON can hold of a recipe; anything else as its text."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(values), default=str))
    return plain
