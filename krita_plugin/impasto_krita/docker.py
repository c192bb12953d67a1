"""The docker: what the painter sees. It shows the controller's state and hands over what the painter asked for."""

from __future__ import annotations

import functools
import json
from typing import Any, Dict, Optional

from impasto_client.controller import Shown
from impasto_client.wishes import Wishes, chosen_row, hints_of, model_rows, settings_of
from impasto_client.wording import describe, describe_connection
from krita import DockWidget, Krita

from . import document as pixels
from .actions import ACTIONS
from .controller import Controller
from .icons import dot, icon
from .panel import Panel
from .qt import (
    QColor,
    QEvent,
    QImage,
    Qt,
    QTimer,
)
from .widgets import quiet_color, tint, warning_color

__all__ = ["DOCKER_ID", "ImpastoDocker"]

DOCKER_ID = "impasto_docker"
POLL = 200
"""Milliseconds between two looks at the selection: Krita does not tell when it changes. One look takes microseconds."""
DOTS = {"connected": "#5aa469", "connecting": "#c9a24a", "starting": "#c9a24a", "failed": "#c8553d", "lost": "#c8553d"}


class ImpastoDocker(DockWidget):
    """One per main window; all share one controller."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.setWindowTitle("Impasto")
        self.panel = Panel()
        self.setWidget(self.panel)
        self.mode = ACTIONS[0].mode
        self._shown_rev = ""
        self.wishes = Wishes()
        self._shown_preview: Optional[bytes] = None
        self._restore()
        self._write()
        self._show_mode()
        self._timer = QTimer(self)
        self._timer.setInterval(POLL)
        self._timer.timeout.connect(self._refresh_action)
        self._saver = QTimer(self)
        self._saver.setSingleShot(True)
        self._saver.setInterval(500)
        self._saver.timeout.connect(self._save)
        self._connect()
        controller.signals.changed.connect(self.refresh)
        controller.signals.added.connect(self._add_result)
        for shown in reversed(controller.shown):
            self.panel.strip.add(shown)
        self.panel.restyle()
        self.refresh()

    def _connect(self) -> None:
        panel, controller = self.panel, self.controller
        panel.button.clicked.connect(self.ask)
        panel.cancel.clicked.connect(controller.cancel)
        panel.retry.clicked.connect(controller.try_again)
        panel.model.activated.connect(self._model_chosen)
        panel.add_layer.clicked.connect(self._add_again)
        panel.strip.chosen.connect(self._show_result)
        panel.strip.itemClicked.connect(lambda _: self._show_result(panel.strip.current()))
        panel.strip.wanted.connect(self._apply)
        for prompt in (panel.prompt, panel.negative):
            prompt.submitted.connect(self.ask)
        for mode, button in panel.modes.items():
            button.clicked.connect(functools.partial(self._mode_clicked, mode))
        changes = (panel.prompt.textChanged, panel.negative.textChanged, panel.strength.changed, panel.scale.changed)
        for signal in (*changes, panel.seed.changed, panel.form.changed):
            signal.connect(self._touched)

    # ---- what Krita and Qt tell

    def canvasChanged(self, canvas: Any) -> None:
        """Krita calls this when another view comes to the front."""
        self._refresh_action()

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self._timer.start()
        QTimer.singleShot(0, self.panel.restyle)
        QTimer.singleShot(0, self.controller.start)

    def hideEvent(self, event: Any) -> None:
        super().hideEvent(event)
        self._timer.stop()

    def changeEvent(self, event: Any) -> None:
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange) and hasattr(self, "panel"):
            QTimer.singleShot(0, self.panel.restyle)

    # ---- deeds

    def ask_for(self, mode: str) -> None:
        """Choose an action and start it, as its menu entry and its shortcut do."""
        self.set_mode(mode)
        self.ask()

    def ask(self) -> None:
        """Start a job with what the docker shows; where that cannot be, say why."""
        if not self.controller.ask(self.mode, pixels.active_document(), self.params()) and not self.isVisible():
            view = Krita.instance().activeWindow().activeView()
            if view is not None and self.controller.notice is not None:
                view.showFloatingMessage(self.controller.notice.text, icon("layer", self.palette()), 3000, 1)

    def set_mode(self, mode: str) -> None:
        """Show the settings of another action; what was set for the last one is kept."""
        if mode == self.mode:
            return
        self._read()
        self.mode = mode
        self._show_mode()
        self.refresh()
        self._touched()

    def params(self) -> Dict[str, Any]:
        """The parameters as the painter set them; what was left alone stays with the server."""
        self._read()
        return self.wishes.params(self.mode, self.panel.model.currentData() or "")

    def _mode_clicked(self, mode: str, *_: Any) -> None:
        self.set_mode(mode)

    def _read(self) -> None:
        """Note what the widgets show."""
        panel, wishes = self.panel, self.wishes
        wishes.prompt, wishes.negative_prompt = panel.prompt.toPlainText(), panel.negative.toPlainText()
        wishes.scale, wishes.seed = panel.scale.value, panel.seed.seed()
        if self.mode in wishes.strengths:
            wishes.strengths[self.mode] = panel.strength.value
        if self._shown_rev:  # before the server has described them there is nothing to see
            wishes.more[self.mode] = panel.form.overrides()

    def _write(self) -> None:
        """Show in the widgets what is wished for, but for what depends on the mode."""
        panel, wishes = self.panel, self.wishes
        panel.prompt.setPlainText(wishes.prompt)
        panel.negative.setPlainText(wishes.negative_prompt)
        panel.scale.set_value(wishes.scale)
        panel.seed.set_seed(wishes.seed)

    def _show_mode(self) -> None:
        """The choice, the button and the settings of the action that is chosen."""
        action = next(action for action in ACTIONS if action.mode == self.mode)
        self.panel.show_action(action)
        if self.mode in self.wishes.strengths:
            self.panel.strength.set_value(self.wishes.strengths[self.mode])
        # In this order: what was kept from another day is checked against the description.
        self.panel.form.set_overrides(self.wishes.more.get(self.mode, {}))
        self._describe_settings()
        self._model_chosen(save=False)

    def _describe_settings(self) -> None:
        """The generated settings, where the server has said what the mode takes."""
        catalog = self.controller.catalog
        mode = catalog.mode(self.mode) if catalog is not None else None
        if mode is not None:
            self.panel.form.set_params(settings_of(mode))

    def _add_again(self) -> None:
        self._apply(self.panel.strip.current())

    def _apply(self, shown: Optional[Shown]) -> None:
        if shown is not None:
            self.controller.apply(shown.result, pixels.active_document())

    def _add_result(self, shown: Shown, old: bool) -> None:
        if not old:
            self.panel.seed.set_last(shown.result.seed)
        self.panel.strip.add(shown, last=old)

    def _show_result(self, shown: Optional[Shown]) -> None:
        if shown is None:
            return
        self.panel.picture.show_image(shown.small)
        self.panel.result_text.setText(f"Seed {shown.result.seed}")
        self.panel.result_line.setVisible(True)

    # ---- showing the state

    def refresh(self) -> None:
        """Show everything that the controller knows."""
        self._refresh_catalog()
        self._refresh_action()
        self._refresh_job()
        self._refresh_footer()

    def _refresh_action(self) -> None:
        obstacle = self.controller.obstacle(self.mode, pixels.active_document())
        if self.panel.button.isEnabled() == bool(obstacle):
            self.panel.button.setEnabled(not obstacle)
        if self.panel.hint.text() != obstacle:
            self.panel.hint.setText(obstacle)
        self.panel.hint.setVisible(bool(obstacle))

    def _refresh_job(self) -> None:
        job = self.controller.running()
        self.panel.cancel.setVisible(job is not None)
        self.panel.progress.setVisible(job is not None)
        if job is not None:
            waiting = len(self.controller.jobs.active) - 1
            text = describe(job) + (f" ({waiting} more waiting)" if waiting else "")
            busy = job.state not in ("running", "fetching")
            # A progress bar paints itself at once at each of these; so it does once, when Qt paints everything.
            self.panel.progress.setUpdatesEnabled(False)
            self.panel.progress.setFormat(text)
            self.panel.progress.setRange(0, 0 if busy else 1000)
            self.panel.progress.setValue(round(1000 * job.fraction))
            self.panel.progress.setUpdatesEnabled(True)
            if job.preview is not None and job.preview is not self._shown_preview:
                self._shown_preview = job.preview
                self.panel.picture.show_image(QImage.fromData(job.preview))
                self.panel.result_line.setVisible(False)
        elif self.panel.result_line.isHidden():
            self._shown_preview = None
            current = self.panel.strip.current()
            if current is not None:
                self._show_result(current)
            else:
                self.panel.picture.show_image(None)
        notice = self.controller.notice
        self.panel.message.setVisible(notice is not None)
        if notice is not None:
            self.panel.message.setText(notice.text)
            tint(self.panel.message, (warning_color if notice.is_error else quiet_color)(self.palette()))

    def _refresh_footer(self) -> None:
        connection = self.controller.connection
        self.panel.state.setText(describe_connection(connection, self.controller.catalog))
        self.panel.state.setToolTip(connection.message)
        color = DOTS.get(connection.state)
        self.panel.lamp.setPixmap(
            dot(quiet_color(self.palette()) if color is None else QColor(color), self.devicePixelRatioF())
        )
        self.panel.retry.setVisible(connection.state in ("failed", "lost", "idle"))
        self.panel.retry.setText("Start server" if connection.state == "idle" else "Try again")

    def _refresh_catalog(self) -> None:
        catalog = self.controller.catalog
        if catalog is None or catalog.rev == self._shown_rev:
            return
        self._shown_rev = catalog.rev
        self.panel.form.set_models(catalog.models)
        self._describe_settings()
        self._fill_models()

    def _fill_models(self) -> None:
        catalog = self.controller.catalog
        rows = model_rows(catalog.models if catalog is not None else ())
        self.panel.model.clear()
        for at, row in enumerate(rows):
            self.panel.model.addItem(row.title, row.id)
            self.panel.model.setItemData(at, row.tip, Qt.ItemDataRole.ToolTipRole)
            self.panel.model.model().item(at).setEnabled(row.usable)
        self.panel.model.setCurrentIndex(chosen_row(rows, self.wishes.model))
        self._model_chosen(save=False)

    def _model_chosen(self, *_: Any, save: bool = True) -> None:
        catalog, chosen = self.controller.catalog, self.panel.model.currentData()
        self.panel.form.set_hints(hints_of(catalog.models if catalog is not None else (), chosen))
        self.panel.model.setToolTip(
            self.panel.model.currentData(Qt.ItemDataRole.ToolTipRole) or "The checkpoint that paints."
        )
        if save:
            self.wishes.model = chosen or ""
            self._touched()

    # ---- what is kept between sessions

    def _touched(self, *_: Any) -> None:
        self._saver.start()

    def _save(self) -> None:
        self._read()
        Krita.instance().writeSetting("impasto", "panel", json.dumps({"mode": self.mode, **self.wishes.kept()}))

    def _restore(self) -> None:
        try:
            kept = json.loads(Krita.instance().readSetting("impasto", "panel", "{}"))
            self.wishes = Wishes.restored(kept)
            if kept.get("mode") in [action.mode for action in ACTIONS]:
                self.mode = kept["mode"]
        except (ValueError, TypeError, AttributeError):
            return  # a damaged entry of kritarc: the defaults hold
