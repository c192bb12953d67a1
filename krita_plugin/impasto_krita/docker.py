"""The docker: what the painter sees. It shows the controller's state and hands over what the painter asked for."""

from __future__ import annotations

import functools
import json
from typing import Any, Dict, Mapping, Optional

from impasto_client.document import ResultLayer
from impasto_client.wording import describe, describe_model
from krita import DockWidget, Krita

from .actions import ACTIONS
from .controller import NEW_DOCUMENT, Controller
from .icons import dot, icon
from .panel import Panel
from .qt import (
    QColor,
    QEvent,
    QImage,
    Qt,
    QTimer,
)
from .results import image_of
from .widgets import quiet_color, tint, warning_color

__all__ = ["DOCKER_ID", "ImpastoDocker"]

DOCKER_ID = "impasto_docker"
OWN_FIELDS = ("prompt", "negative_prompt", "strength", "model", "seed", "scale")
"""Parameters with a place of their own; all others go into the generated group."""
STRENGTHS = {"inpaint": 1.0, "sketch": 0.75}
"""Where the strength begins; each action keeps its own."""
PICTURE_SIZE = 640
"""Pixels to which a result is scaled for the docker."""
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
        self._strengths = dict(STRENGTHS)
        self._more: Dict[str, Dict[str, Any]] = {}
        """What was changed under More settings, by mode."""
        self._shown_preview: Optional[bytes] = None
        self._restore()
        self._show_mode()
        self._timer = QTimer(self)
        self._timer.setInterval(POLL)
        self._timer.timeout.connect(self._refresh_action)
        self._saver = QTimer(self)
        self._saver.setSingleShot(True)
        self._saver.setInterval(500)
        self._saver.timeout.connect(self._save)
        self._connect()
        controller.changed.connect(self.refresh)
        controller.result_added.connect(self._add_result)
        controller.result_found.connect(self._add_found)
        for result in reversed(controller.jobs.results):
            if result.stage != NEW_DOCUMENT:
                self.panel.strip.add(result)
        for result in controller.found:
            self.panel.strip.add(result, last=True)
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
        panel.strip.wanted.connect(controller.add_again)
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
        if not self.controller.ask(self.mode, self.params()) and not self.isVisible():
            view = Krita.instance().activeWindow().activeView()
            if view is not None and self.controller.notice is not None:
                view.showFloatingMessage(self.controller.notice.text, icon("layer", self.palette()), 3000, 1)

    def set_mode(self, mode: str) -> None:
        """Show the settings of another action; what was set for the last one is kept."""
        if mode == self.mode:
            return
        self._keep_settings()
        self.mode = mode
        self._show_mode()
        self.refresh()
        self._touched()

    def params(self) -> Dict[str, Any]:
        """The parameters as the painter set them; what was left alone stays with the server."""
        if self.mode == "upscale":
            return {"scale": self.panel.scale.value, **self.panel.form.overrides()}
        params: Dict[str, Any] = {
            "prompt": self.panel.prompt.toPlainText(),
            "negative_prompt": self.panel.negative.toPlainText(),
            "strength": self.panel.strength.value,
            "seed": self.panel.seed.seed(),
            **self.panel.form.overrides(),
        }
        if self.panel.model.currentData():
            params["model"] = self.panel.model.currentData()
        return params

    def _mode_clicked(self, mode: str, *_: Any) -> None:
        self.set_mode(mode)

    def _keep_settings(self) -> None:
        """Note what is set for the action that is shown."""
        if self.mode in self._strengths:
            self._strengths[self.mode] = self.panel.strength.value
        if self._shown_rev:  # before the server has described them there is nothing to see
            self._more[self.mode] = self.panel.form.overrides()

    def _show_mode(self) -> None:
        """The choice, the button and the settings of the action that is chosen."""
        action = next(action for action in ACTIONS if action.mode == self.mode)
        self.panel.show_action(action)
        if self.mode in self._strengths:
            self.panel.strength.set_value(self._strengths[self.mode])
        # In this order: what was kept from another day is checked against the description.
        self.panel.form.set_overrides(self._more.get(self.mode, {}))
        self._describe_settings()
        self._model_chosen(save=False)

    def _describe_settings(self) -> None:
        """The generated settings, where the server has said what the mode takes."""
        catalog = self.controller.catalog
        mode = catalog.mode(self.mode) if catalog is not None else None
        if mode is not None:
            self.panel.form.set_params([p for p in mode.params if p.name not in OWN_FIELDS])

    def _add_again(self) -> None:
        result = self.panel.strip.current()
        if result is not None:
            self.controller.add_again(result)

    def _add_result(self, result: ResultLayer) -> None:
        self.panel.seed.set_last(result.seed)
        self.panel.strip.add(result)

    def _add_found(self, result: ResultLayer) -> None:
        self.panel.strip.add(result, last=True)

    def _show_result(self, result: Optional[ResultLayer]) -> None:
        if result is None:
            return
        self.panel.picture.show_image(image_of(result, PICTURE_SIZE))
        self.panel.result_text.setText(f"Seed {result.seed}")
        self.panel.result_line.setVisible(True)

    # ---- showing the state

    def refresh(self) -> None:
        """Show everything that the controller knows."""
        self._refresh_catalog()
        self._refresh_action()
        self._refresh_job()
        self._refresh_footer()

    def _refresh_action(self) -> None:
        obstacle = self.controller.obstacle(self.mode)
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
        texts = {
            "idle": "Not connected",
            "starting": "Starting the server…",
            "connecting": "Connecting…",
            "connected": self._server_text(),
        }
        text = texts.get(connection.state) or connection.message or "No connection to the server."
        self.panel.state.setText(text)
        self.panel.state.setToolTip(connection.message)
        color = DOTS.get(connection.state)
        self.panel.lamp.setPixmap(
            dot(quiet_color(self.palette()) if color is None else QColor(color), self.devicePixelRatioF())
        )
        self.panel.retry.setVisible(connection.state in ("failed", "lost", "idle"))
        self.panel.retry.setText("Start server" if connection.state == "idle" else "Try again")

    def _server_text(self) -> str:
        """The server and what it runs on; the catalogue says so once the engine is up."""
        name = self.controller.connection.server.split(" (")[0] or "Connected"
        catalog = self.controller.catalog
        device = catalog.device if catalog is not None and catalog.device != "starting" else ""
        return (name[:1].upper() + name[1:]) + (f" on {device}" if device else "")

    def _refresh_catalog(self) -> None:
        catalog = self.controller.catalog
        if catalog is None or catalog.rev == self._shown_rev:
            return
        self._shown_rev = catalog.rev
        self.panel.form.set_models(catalog.models)
        self._describe_settings()
        self._fill_models()

    def _fill_models(self) -> None:
        entries = self.controller.models()
        usable = [entry for entry in entries if entry.get("usable", True)]
        self.panel.model.clear()
        if len(usable) != 1:
            self.panel.model.addItem("Automatic" if usable else "No model yet", "")
            self.panel.model.setItemData(0, "The server takes the model that suits best.", Qt.ItemDataRole.ToolTipRole)
        for entry in entries:
            self.panel.model.addItem(str(entry.get("title") or entry["id"]), entry["id"])
            row = self.panel.model.count() - 1
            self.panel.model.setItemData(row, describe_model(entry), Qt.ItemDataRole.ToolTipRole)
            self.panel.model.model().item(row).setEnabled(bool(entry.get("usable", True)))
        found = self.panel.model.findData(self._wanted_model)
        self.panel.model.setCurrentIndex(
            found if found >= 0 and self.panel.model.model().item(found).isEnabled() else 0
        )
        self._model_chosen(save=False)

    def _model_chosen(self, *_: Any, save: bool = True) -> None:
        entry = next((m for m in self.controller.models() if m["id"] == self.panel.model.currentData()), None)
        hints = entry.get("hints") if entry is not None else None
        self.panel.form.set_hints(hints if isinstance(hints, Mapping) else {})
        self.panel.model.setToolTip(
            self.panel.model.currentData(Qt.ItemDataRole.ToolTipRole) or "The checkpoint that paints."
        )
        if save:
            self._wanted_model = self.panel.model.currentData() or ""
            self._touched()

    # ---- what is kept between sessions

    def _touched(self, *_: Any) -> None:
        self._saver.start()

    def _save(self) -> None:
        self._keep_settings()
        kept = {
            "mode": self.mode,
            "prompt": self.panel.prompt.toPlainText(),
            "negative_prompt": self.panel.negative.toPlainText(),
            "strengths": self._strengths,
            "scale": self.panel.scale.value,
            "seed": self.panel.seed.seed(),
            "model": self._wanted_model,
            "more": self._more,
        }
        Krita.instance().writeSetting("impasto", "panel", json.dumps(kept))

    def _restore(self) -> None:
        self._wanted_model = ""
        try:
            kept = json.loads(Krita.instance().readSetting("impasto", "panel", "{}"))
            self.panel.prompt.setPlainText(str(kept.get("prompt", "")))
            self.panel.negative.setPlainText(str(kept.get("negative_prompt", "")))
            for mode, value in dict(kept.get("strengths", {})).items():
                self._strengths[str(mode)] = float(value)
            self.panel.scale.set_value(float(kept.get("scale", 2.0)))
            self.panel.seed.set_seed(int(kept.get("seed", -1)))
            self._wanted_model = str(kept.get("model", ""))
            self._more = {str(mode): dict(values) for mode, values in dict(kept.get("more", {})).items()}
            if kept.get("mode") in [action.mode for action in ACTIONS]:
                self.mode = kept["mode"]
        except (ValueError, TypeError, AttributeError):
            return  # a damaged entry of kritarc: the defaults hold
