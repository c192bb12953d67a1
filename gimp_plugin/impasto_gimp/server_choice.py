"""The menu entry that goes to another server; scripts can call it too."""

from __future__ import annotations

from typing import Any, List

from gi.repository import Gimp
from impasto_client.events import ServerChosen
from impasto_client.paired import read_paired
from impasto_client.servers import change_server
from impasto_protocol.errors import ImpastoError, RequestError

from .names import RECONNECT
from .procedures import end, hand_to_panel

__all__ = ["run_connect"]


def run_connect(procedure: Any, run_mode: Any, image: Any, drawables: List[Any], config: Any, data: Any = None) -> Any:
    """Pair with a server or go back to this computer's own; an open panel follows."""
    status = Gimp.PDBStatusType
    # GIMP gives an empty text as none.
    address, code = config.get_property("address") or "", config.get_property("code") or ""
    try:
        if run_mode == Gimp.RunMode.INTERACTIVE:
            from .server_dialog import ask_server

            wish = ask_server(tuple(server.name for server in read_paired().servers))
            if wish is None:
                return end(procedure, status.CANCEL)
            address, code = wish
        chosen = ServerChosen(change_server(address, code))
    except RequestError as error:
        wrong = status.CALLING_ERROR if run_mode == Gimp.RunMode.NONINTERACTIVE else status.EXECUTION_ERROR
        return end(procedure, wrong, error.message)
    except ImpastoError as error:
        return end(procedure, status.EXECUTION_ERROR, error.message)
    hand_to_panel(image, RECONNECT)
    if run_mode == Gimp.RunMode.INTERACTIVE:
        Gimp.message(chosen.sentence)
    return end(procedure, status.SUCCESS)
