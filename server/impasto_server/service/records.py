"""One job as the queue keeps it: its state, its lasting events, and who listens."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from impasto_protocol.messages import Finished, Message, Submit

from .ledger import PastJob
from .orders import Order

__all__ = ["ACTIVE", "Listener", "Record", "fingerprint", "plain", "record_of"]

Listener = Callable[[Message], None]
"""Takes each event of a job; never blocks and never raises."""

ACTIVE = ("queued", "running")
"""The states before a terminal event."""


@dataclass
class Record:
    """One job and what has happened to it. `order` is None for a job of an earlier run of the server."""

    id: str
    mode: str
    fingerprint: str
    created: float
    order: Order | None = None
    state: str = "queued"
    cancel_asked: bool = False
    pinned: tuple[str, ...] = ()
    """The pictures that the store keeps for it."""
    position: int = 0
    """Where it was last said to stand while it waits."""
    events: list[Message] = field(default_factory=list)
    """The lasting ones; event n has seq n + 1."""
    listeners: set[Listener] = field(default_factory=set)
    outputs: list[str] = field(default_factory=list)

    @property
    def next_seq(self) -> int:
        return len(self.events) + 1

    @property
    def past(self) -> PastJob:
        """What the ledger keeps of it."""
        return PastJob(self.id, self.mode, self.fingerprint, self.created, self.events)

    def tell(self, message: Message, *, lasting: bool = True) -> None:
        if lasting:
            self.events.append(message)
        for listener in tuple(self.listeners):
            listener(message)


def record_of(past: PastJob) -> Record:
    """The record of a job that has ended in an earlier run."""
    end = past.events[-1]
    outputs = list(end.outputs) if isinstance(end, Finished) else []
    return Record(
        past.job, past.mode, past.fingerprint, past.created, None, past.state, events=past.events, outputs=outputs
    )


def fingerprint(submit: Submit) -> str:
    """The same for submits that ask for the same thing."""
    fields = dataclasses.replace(submit, id=0).to_wire()
    return hashlib.blake2b(json.dumps(fields, sort_keys=True, default=repr).encode(), digest_size=16).hexdigest()


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the wire and JSON can hold of a recipe; anything else as its text."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(values), default=str))
    return plain
