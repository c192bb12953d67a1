"""The docker: what the painter sees. It shows the controller's state and hands over what the painter asked for."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional

from impasto_client.document import ResultLayer
from impasto_client.jobs import JobState
from krita import DockWidget, Krita

from .controller import MODE, Controller
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
OWN_FIELDS = ("prompt", "negative_prompt", "strength", "model", "seed")
"""Parameters with a place of their own; all others go into the generated group."""
PICTURE_SIZE = 640
"""Pixels to which a result is scaled for the docker."""
POLL = 200
"""Milliseconds between two looks at the selection: Krita does not tell when it changes. One look takes microseconds."""
STAGES = {"load": "Loading the model", "text": "Reading the prompt", "encode": "Looking at the picture"}
STAGES.update({"denoise": "Painting", "decode": "Finishing", "compose": "Finishing"})
DOTS = {"connected": "#5aa469", "connecting": "#c9a24a", "starting": "#c9a24a", "failed": "#c8553d", "lost": "#c8553d"}


class ImpastoDocker(DockWidget):
    """One per main window; all share one controller."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.setWindowTitle("Impasto")
        self.panel = Panel()
        self.setWidget(self.panel)
        self._shown_rev = ""
        self._shown_preview: Optional[bytes] = None
        self._restore()
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
        for result in reversed(controller.jobs.results):
            self.panel.strip.add(result)
        self.panel.restyle()
        self.refresh()

    def _connect(self) -> None:
        panel, controller = self.panel, self.controller
        panel.button.clicked.connect(self.inpaint)
        panel.cancel.clicked.connect(controller.cancel)
        panel.retry.clicked.connect(controller.try_again)
        panel.model.activated.connect(self._model_chosen)
        panel.add_layer.clicked.connect(self._add_again)
        panel.strip.chosen.connect(self._show_result)
        panel.strip.itemClicked.connect(lambda _: self._show_result(panel.strip.current()))
        panel.strip.wanted.connect(controller.add_again)
        for prompt in (panel.prompt, panel.negative):
            prompt.submitted.connect(self.inpaint)
        changes = (panel.prompt.textChanged, panel.negative.textChanged, panel.strength.changed)
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

    def inpaint(self) -> None:
        """Start a job with what the docker shows; where that cannot be, say why."""
        if not self.controller.inpaint(self.params()) and not self.isVisible():
            view = Krita.instance().activeWindow().activeView()
            if view is not None and self.controller.notice is not None:
                view.showFloatingMessage(self.controller.notice.text, icon("layer", self.palette()), 3000, 1)

    def params(self) -> Dict[str, Any]:
        """The parameters as the painter set them; what was left alone stays with the server."""
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

    def _add_again(self) -> None:
        result = self.panel.strip.current()
        if result is not None:
            self.controller.add_again(result)

    def _add_result(self, result: ResultLayer) -> None:
        self.panel.seed.set_last(result.seed)
        self.panel.strip.add(result)

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
        obstacle = self.controller.obstacle()
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
            self.panel.progress.setFormat(text)
            busy = job.state not in ("running", "fetching")
            self.panel.progress.setRange(0, 0 if busy else 1000)
            self.panel.progress.setValue(round(1000 * job.fraction))
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
        mode = catalog.mode(MODE)
        if mode is not None:
            self.panel.form.set_params([p for p in mode.params if p.name not in OWN_FIELDS])
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
            self.panel.model.setItemData(row, _describe_model(entry), Qt.ItemDataRole.ToolTipRole)
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
        kept = {
            "prompt": self.panel.prompt.toPlainText(),
            "negative_prompt": self.panel.negative.toPlainText(),
            "strength": self.panel.strength.value,
            "seed": self.panel.seed.seed(),
            "model": self._wanted_model,
            "more": self.panel.form.overrides(),
        }
        Krita.instance().writeSetting("impasto", "panel", json.dumps(kept))

    def _restore(self) -> None:
        self._wanted_model = ""
        try:
            kept = json.loads(Krita.instance().readSetting("impasto", "panel", "{}"))
            self.panel.prompt.setPlainText(str(kept.get("prompt", "")))
            self.panel.negative.setPlainText(str(kept.get("negative_prompt", "")))
            self.panel.strength.set_value(float(kept.get("strength", 1.0)))
            self.panel.seed.set_seed(int(kept.get("seed", -1)))
            self._wanted_model = str(kept.get("model", ""))
            self.panel.form.set_overrides(dict(kept.get("more", {})))
        except (ValueError, TypeError, AttributeError):
            return  # a damaged entry of kritarc: the defaults hold


def describe(job: JobState) -> str:
    """The text on the progress bar."""
    if job.state == "waiting":
        return "Waiting for the server"
    if job.state == "uploading":
        return "Sending the picture"
    if job.state == "queued":
        return f"Waiting for {job.position} jobs" if job.position > 1 else "Waiting for its turn"
    if job.state == "fetching":
        return "Fetching the picture"
    stage = STAGES.get(job.stage) or (job.stage[:1].upper() + job.stage[1:]) or "Working"
    return f"{stage}: step {job.step} of {job.steps}" if job.steps > 1 else stage


def _describe_model(entry: Mapping[str, Any]) -> str:
    if not entry.get("usable", True):
        return str(entry.get("reason") or "This model cannot be used.")
    return ", ".join(str(entry[key]) for key in ("id", "family", "variant") if entry.get(key))
