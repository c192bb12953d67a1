"""A thread that does one thing after the other."""

from __future__ import annotations

import queue
import threading
from typing import Callable, Optional

__all__ = ["Lane"]


class Lane:
    """Tasks run in the order in which they were put, on one thread. A task must not raise."""

    def __init__(self, name: str) -> None:
        self._tasks: queue.SimpleQueue[Optional[Callable[[], None]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, task: Callable[[], None]) -> None:
        self._tasks.put(task)

    def stop(self) -> None:
        """Let the thread end after the tasks that were put before."""
        self._tasks.put(None)

    def join(self, timeout: float) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            if task is None:
                return
            task()
