"""The client's controller on GTK's main loop."""

from __future__ import annotations

from impasto_client.controller import Controller as Base
from impasto_client.events import Event

from .host import GimpHost
from .job import host_name
from .toolkit import GLib, pixbuf_of

__all__ = ["Controller"]


class Controller(Base):
    """State and deeds of the panel."""

    def __init__(self) -> None:
        host = GimpHost()
        host.thumbnailer = pixbuf_of
        super().__init__(host, host_name(), lambda event: GLib.idle_add(self._handle, event))

    def _handle(self, event: Event) -> bool:
        self.handle(event)
        return False
