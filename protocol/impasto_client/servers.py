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

__all__ = ["PAIRING_HELP", "Servers", "change_server"]

PAIRING_HELP = (
    "To paint with the graphics card of another computer, or where this editor may not see your files: run `impasto "
    "pair` on the server's computer, and type the address and the code that it shows."
)
"""What the editors' dialogs say above address and code."""

_log = logging.getLogger("impasto.client")


def change_server(address: str, code: str = "", home: Optional[Path] = None) -> str:
    """Use another server from now on; blocks. Its name, "" for this computer's own.

    With a code the server at this address is paired with; without one it is one that was paired with before, and an
    empty address is this computer's own. Raises what `pair` and `PairedServers.choose` raise.
    """
    if code.strip():
        return pair(address, code, home=home).name
    name = address.strip()
    write_paired(read_paired(home).choose(name), home)
    return name


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

    def change(self, address: str, code: str = "") -> None:
        """Use another server from now on: see `change_server`."""
        self._apart(lambda: change_server(address, code, self._home))

    def look_again(self) -> None:
        """Another process has changed the choice."""
        self._left()
        self._link.reconnect()

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
            self._emit(ServerChosen(name))
            self.look_again()

        # Not in a lane: jobs must not wait for a server that does not answer.
        threading.Thread(target=run, name="impasto-servers", daemon=True).start()
