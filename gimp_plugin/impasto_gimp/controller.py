"""The client's controller on GTK's main loop."""

from __future__ import annotations

from typing import Any, Optional

from impasto_client.controller import Controller as Base
from impasto_client.events import Event

from . import document as pixels
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

    def ask_again_active(self, image: Optional[Any]) -> bool:
        """Make the active layer of the image again from its recipe."""
        drawables = image.get_selected_drawables() if image is not None and pixels.is_open(image) else []
        return self.ask_again(image, drawables[0] if len(drawables) == 1 else None)
