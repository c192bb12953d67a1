"""Which server an editor uses: this computer's own, or one that it was paired with."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Callable, Optional, Tuple

from impasto_protocol.errors import ImpastoError

from .events import Event, ServerChosen
from .link import Link, internal_error
from .paired import read_paired, write_paired
from .pairing import pair

__all__ = ["PAIRING_HELP", "Servers"]

PAIRING_HELP = (
    "To paint with the graphics card of another computer, or where this editor may not see your files: run `impasto "
    "pair` on the server's computer, and type the address and the code that it shows."
)
"""What the editors' dialogs say above address and code."""

_log = logging.getLogger("impasto.client")


class Servers:
    """The choice of a `Runner`. Its deeds return at once; `ServerChosen` follows on a thread of their own.

    `left` is called before the link goes to another server.
    """

    def __init__(
        self, link: Link, emit: Callable[[Event], None], left: Callable[[], None], home: Optional[Path] = None
    ) -> None:
        self._link = link
        self._emit = emit
        self._left = left
        self._home = home

    def known(self) -> Tuple[str, ...]:
        """The names of the paired servers. Reads a small file; none where it cannot be read."""
        try:
            return tuple(server.name for server in read_paired(self._home).servers)
        except ImpastoError:
            return ()

    def pair(self, address: str, code: str) -> None:
        """Pair with the server at this address by the code that it shows, and use it from now on."""
        self._apart(lambda: pair(address, code, home=self._home).name)

    def connect(self, address: str, code: str) -> None:
        """What a dialog with both fields asks for: pair, or without a code use one that was paired with before."""
        if code.strip():
            self.pair(address, code)
        else:
            self.use(address.strip())

    def use(self, name: str) -> None:
        """Use a server that was paired with before, or with "" this computer's own."""

        def choose() -> str:
            write_paired(read_paired(self._home).choose(name), self._home)
            return name

        self._apart(choose)

    def _apart(self, deed: Callable[[], str]) -> None:
        def run() -> None:
            try:
                name = deed()
            except ImpastoError as error:
                self._emit(ServerChosen("", error))
                return
            except Exception as defect:
                _log.exception("a defect of Impasto's client")
                self._emit(ServerChosen("", internal_error(defect)))
                return
            self._left()
            self._emit(ServerChosen(name))
            self._link.reconnect()

        # Not in a lane: jobs must not wait for a server that does not answer.
        threading.Thread(target=run, name="impasto-servers", daemon=True).start()
