"""The client's controller with Qt's signals. One serves all windows of a Krita."""

from __future__ import annotations

from typing import Any, Optional

from impasto_client.controller import Controller as Base

from .host import KritaHost
from .qt import QApplication, QObject, Qt, pyqtSignal

__all__ = ["Controller"]


class _Signals(QObject):
    """What Qt carries; `arrived` from the runner's threads to the main thread."""

    changed = pyqtSignal()
    added = pyqtSignal(object)
    listed = pyqtSignal()
    taken = pyqtSignal(str, object)
    furthered = pyqtSignal(str, object)
    hint_bound = pyqtSignal(object, str)
    hint_shown = pyqtSignal(object, object)
    arrived = pyqtSignal(object)


class Controller(Base):
    """Dockers show the state at every `signals.changed`, the strip at every `signals.listed`."""

    def __init__(self, host_name: str, parent: Optional[Any] = None) -> None:
        self.signals = _Signals(parent)
        # Whichever thread emits it, an event is dealt with in a turn of its own on the main thread.
        self.signals.arrived.connect(self.handle, Qt.ConnectionType.QueuedConnection)
        super().__init__(KritaHost(), host_name, self.signals.arrived.emit)
        self.changed = self.signals.changed.emit
        self.added = self.signals.added.emit
        self.taken = self.signals.taken.emit
        self.further.taken = self.signals.furthered.emit
        self.hints.bound = self.signals.hint_bound.emit
        self.hints.shown = self.signals.hint_shown.emit
        self.diagnosed = lambda text: QApplication.clipboard().setText(text)
        self.gallery.changed = self.signals.listed.emit
