"""What `impasto doctor` says, for a client that asks: run in a process of its own, as a user would run it.

That process imports torch and asks drivers; the server does neither.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from impasto_protocol.errors import ResourceError

__all__ = ["COMMAND", "Diagnosis"]

COMMAND = (sys.executable, "-m", "impasto_server.cli.main", "doctor", "--json")
PATIENCE = 240.0
"""Seconds."""


class Diagnosis:
    """One look at the installation at a time: who asks while it lasts gets the same answer."""

    def __init__(self, home: Path, command: Sequence[str] = COMMAND) -> None:
        self.home = home
        self.command = tuple(command)
        self._running: asyncio.Task[tuple[str, int]] | None = None

    async def page(self) -> tuple[str, int]:
        """The page, and how many of its findings are bad. Raises ResourceError `resource.no_answer`."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._look(), name="impasto-doctor")
        # One client's end does not take the answer from another.
        return await asyncio.shield(self._running)

    async def close(self) -> None:
        """End what runs."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _look(self) -> tuple[str, int]:
        process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "IMPASTO_HOME": str(self.home)},
        )
        try:
            async with asyncio.timeout(PATIENCE):
                said, wrong = await process.communicate()
        except TimeoutError:
            raise ResourceError(
                "resource.no_answer", f"The look at the installation took longer than {PATIENCE:g} s."
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            told = json.loads(said)
            return str(told["text"]), int(told["bad"])
        except (ValueError, KeyError, TypeError) as e:
            lines = wrong.decode("utf-8", "replace").strip().splitlines()
            raise ResourceError(
                "resource.no_answer",
                "The look at the installation failed"
                + (f" ({lines[-1]})" if lines else "")
                + "; run `impasto doctor`.",
            ) from e
