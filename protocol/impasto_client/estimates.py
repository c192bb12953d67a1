"""What a job would take, asked before it is started: the server's plan for what the panel shows now."""

from __future__ import annotations

import itertools
import json
from typing import Any, Mapping, Optional

from impasto_protocol.errors import ImpastoError
from impasto_protocol.geometry import Box

from .events import Failed, Planned, PlanResult
from .tasks import Runner

__all__ = ["Estimate"]


class Estimate:
    """`plan` is the newest answer and `error` what is wrong with what is set; both None until there is one."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._numbers = itertools.count(1)
        self._asked = ""
        self._ticket = ""
        self.plan: Optional[PlanResult] = None
        self.error: Optional[ImpastoError] = None

    def ask(self, mode: str, canvas: Box, area: Optional[Box], params: Mapping[str, Any]) -> None:
        """Ask, unless this is what was asked last. Quick: it is polled."""
        # Neither the words nor the seed change what a job takes, and they change with every key.
        rest = {name: value for name, value in params.items() if name not in ("prompt", "negative_prompt", "seed")}
        asked = json.dumps([mode, list(canvas), list(area or ()), rest], sort_keys=True, default=str)
        if asked == self._asked:
            return
        self._asked = asked
        self._ticket = f"estimate-{next(self._numbers)}"
        self._runner.plan(self._ticket, mode, rest, canvas.size, area)

    def forget(self) -> None:
        """Nothing can be started now, or a job has ended, from which the server has learnt: ask anew."""
        self._asked = ""

    def clear(self) -> None:
        """There is nothing to estimate."""
        self._asked = self._ticket = ""
        self.plan = self.error = None

    def take(self, event: object) -> bool:
        """Take an answer; False where the event is none."""
        if not isinstance(event, (Planned, Failed)) or not event.ticket.startswith("estimate-"):
            return False
        if event.ticket == self._ticket:
            self.plan = event.plan if isinstance(event, Planned) else None
            self.error = event.error if isinstance(event, Failed) else None
        return True
