"""When nobody needs the server any more: no client and no job for so long that it may stop by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["LOOK_SECONDS", "IdleWatch"]

LOOK_SECONDS = 1.0
"""Seconds between two looks at most."""


class IdleWatch:
    """Ends its `wait` after `after` seconds in which `busy` was never true; belongs to the event loop.

    `clock` counts seconds that the machine was awake: setting the clock, or a night's sleep, makes nobody idle.
    """

    def __init__(self, after: float, busy: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self.after = after
        self._busy = busy
        self._clock = clock
        self._since = clock()

    def used(self) -> None:
        """Somebody was there just now, if only between two looks."""
        self._since = self._clock()

    @property
    def over(self) -> bool:
        """Whether it has been idle for long enough; looking while it is busy begins the time anew."""
        if self._busy():
            self.used()
        return self._clock() - self._since >= self.after

    async def wait(self) -> None:
        """Until it is over."""
        while not self.over:
            await asyncio.sleep(min(LOOK_SECONDS, max(0.01, self.after / 10)))
