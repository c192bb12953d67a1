"""Yes or no: asked on a terminal, answered by --yes elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from impasto_protocol.errors import RequestError

__all__ = ["Asker"]


@dataclass
class Asker:
    """Asks before anything is changed."""

    yes: bool = False
    """Every question is answered with yes."""
    terminal: TextIO = sys.stdin
    read: Callable[[str], str] = input

    def agrees(self, question: str) -> bool:
        """Whether the user says yes (an empty answer does).

        Raises RequestError `request.confirm` where nobody can be asked.
        """
        if self.yes:
            return True
        if not self.terminal.isatty():
            raise RequestError(
                "request.confirm",
                f"{question} Nobody can be asked here, this is not a terminal; add --yes, or --dry-run to see what "
                "would be done.",
            )
        while True:
            try:
                answer = self.read(f"{question} [Y/n] ").strip().lower()
            except EOFError:
                return False
            if answer in ("", "y", "yes"):
                return True
            if answer in ("n", "no"):
                return False
