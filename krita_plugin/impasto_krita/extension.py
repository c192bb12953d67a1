"""What Krita loads: the actions of the menu, and the docker's factory."""

from __future__ import annotations

import functools
from typing import Any, Callable

from krita import DockWidgetFactory, DockWidgetFactoryBase, Extension, Krita

from .controller import Controller
from .docker import DOCKER_ID, ImpastoDocker
from .qt import QDockWidget, Qt, QTimer

__all__ = ["ImpastoExtension", "register"]

FIRST_LOOK = 1500
"""Milliseconds after which a new window has laid itself out."""
WIDTH = 300
"""Points that the docker's texts need."""


class ImpastoExtension(Extension):
    """Owns the one controller of this Krita."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        self.controller = Controller(f"krita {parent.version()}", self)

    def setup(self) -> None:
        """Krita calls this once, before there is a window."""
        notifier = Krita.instance().notifier()
        notifier.setActive(True)
        notifier.applicationClosing.connect(self.controller.stop)

    def createActions(self, window: Any) -> None:
        """Krita calls this for every main window. Texts and shortcuts are in impasto_krita.action."""
        # Krita deletes `window` after this call; the main window behind it stays.
        main_window = window.qwindow()
        for name, deed in (
            ("impasto_inpaint_selection", functools.partial(_ask, "inpaint")),
            ("impasto_sketch", functools.partial(_ask, "sketch")),
            ("impasto_upscale", functools.partial(_ask, "upscale")),
            ("impasto_cancel", _cancel),
            ("impasto_show_docker", _show),
            ("impasto_other_server", _choose_server),
        ):
            action = window.createAction(name, "", "tools/scripts")
            action.triggered.connect(functools.partial(_with_docker, main_window, deed))
        # The first time Krita squeezes a new docker into what the others leave, a strip at the bottom.
        if not Krita.instance().readSetting("impasto", "placed", ""):
            QTimer.singleShot(FIRST_LOOK, functools.partial(_place, main_window))


def register() -> None:
    """Hand extension and docker to Krita."""
    app = Krita.instance()
    extension = ImpastoExtension(app)
    app.addExtension(extension)
    make = functools.partial(ImpastoDocker, extension.controller)
    app.addDockWidgetFactory(DockWidgetFactory(DOCKER_ID, DockWidgetFactoryBase.DockRight, make))


def _with_docker(main_window: Any, deed: Callable[[ImpastoDocker], None], *_: Any) -> None:
    docker = main_window.findChild(ImpastoDocker)
    if docker is not None:
        deed(docker)


def _place(main_window: Any) -> None:
    """Give the docker a place of its own beside the brush presets, half of its column high; once for each user."""
    docker = main_window.findChild(ImpastoDocker)
    presets = main_window.findChild(QDockWidget, "PresetDocker")
    if docker is None or docker.isFloating() or not main_window.isVisible():
        return
    if presets is not None and presets.isVisible() and not presets.isFloating():
        main_window.tabifyDockWidget(presets, docker)
    docker.show()
    docker.raise_()
    main_window.resizeDocks([docker], [main_window.height() // 2], Qt.Orientation.Vertical)
    main_window.resizeDocks([docker], [max(docker.width(), WIDTH)], Qt.Orientation.Horizontal)
    Krita.instance().writeSetting("impasto", "placed", "1")


def _ask(mode: str, docker: ImpastoDocker) -> None:
    docker.ask_for(mode)


def _cancel(docker: ImpastoDocker) -> None:
    docker.controller.cancel()


def _choose_server(docker: ImpastoDocker) -> None:
    _show(docker)
    docker.choose_server()


def _show(docker: ImpastoDocker) -> None:
    docker.show()
    docker.raise_()
    QTimer.singleShot(0, docker.panel.prompt.setFocus)
