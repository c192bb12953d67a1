"""The docker: what the painter sees. It shows the controller's state and hands over what the painter asked for."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional

from impasto_client.document import ResultLayer
from impasto_client.jobs import JobState
from krita import DockWidget, Krita

from .controller import MODE, Controller
from .form import ParamForm
from .icons import dot, icon
from .qt import (
    QColor,
    QComboBox,
    QEvent,
    QFrame,
    QHBoxLayout,
    QImage,
    QLabel,
    QPalette,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    Qt,
    QTimer,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from .results import ResultStrip, image_of
from .slider import FillSlider
from .widgets import Fold, Picture, PromptEdit, SeedField, quiet_color, tint, warning_color

__all__ = ["DOCKER_ID", "ImpastoDocker"]

DOCKER_ID = "impasto_docker"
OWN_FIELDS = ("prompt", "negative_prompt", "strength", "model", "seed")
"""Parameters with a place of their own; all others go into the generated group."""
POLL = 200
"""Milliseconds between two looks at the selection: Krita does not tell when it changes. One look takes microseconds."""
STAGES = {"load": "Loading the model", "text": "Reading the prompt", "encode": "Looking at the picture"}
STAGES.update({"denoise": "Painting", "decode": "Finishing", "compose": "Finishing"})
DOTS = {"connected": "#5aa469", "connecting": "#c9a24a", "starting": "#c9a24a", "failed": "#c8553d", "lost": "#c8553d"}
PICTURE_HEIGHT = 260


class ImpastoDocker(DockWidget):
    """One per main window; all share one controller."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.setWindowTitle("Impasto")
        self.setWidget(self._build())
        self._restore()
        self._timer = QTimer(self)
        self._timer.setInterval(POLL)
        self._timer.timeout.connect(self._refresh_action)
        self._saver = QTimer(self)
        self._saver.setSingleShot(True)
        self._saver.setInterval(500)
        self._saver.timeout.connect(self._save)
        controller.changed.connect(self.refresh)
        controller.result_added.connect(self._add_result)
        for result in reversed(controller.jobs.results):
            self.strip.add(result)
        self._style()
        self.refresh()

    # ---- building

    def _build(self) -> Any:
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(6)
        for widget in (*self._wishes(), *self._action(), *self._outcome(), *self._settings()):
            column.addWidget(widget)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(page)
        body = QWidget()
        body.setObjectName("impasto_body")
        outer = QVBoxLayout(body)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        outer.addWidget(scroll, 1)
        outer.addWidget(self._footer())
        return body

    def _wishes(self) -> Any:
        self.model = QComboBox()
        self.model.setObjectName("impasto_model")
        self.model.setMinimumContentsLength(8)
        self.model.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.model.activated.connect(self._model_chosen)
        self.prompt = PromptEdit("What should be there?", 3, 10)
        self.prompt.setObjectName("impasto_prompt")
        self.prompt.setToolTip("Describe what to paint. (word:1.2) stresses, [word] weakens. Ctrl+Return paints.")
        self.negative = PromptEdit("What should not be there?", 2, 6)
        self.negative.setObjectName("impasto_negative_prompt")
        self.negative_fold = Fold("Negative prompt")
        self.negative_fold.setObjectName("impasto_negative_fold")
        self.negative_fold.inside.addWidget(self.negative)
        self.strength = FillSlider("Strength", 0.0, 1.0, 0.01, "%")
        self.strength.setObjectName("impasto_strength")
        self.strength.setToolTip("100 % replaces what is selected; less keeps more of its forms and colours.")
        self.strength.set_value(1.0)
        for prompt in (self.prompt, self.negative):
            prompt.submitted.connect(self.inpaint)
            prompt.textChanged.connect(self._touched)
        self.negative.textChanged.connect(self._name_negative)
        self.strength.changed.connect(self._touched)
        return self.model, self.prompt, self.negative_fold, self.strength

    def _settings(self) -> Any:
        self.seed = SeedField()
        self.seed_row = QWidget()
        row = QHBoxLayout(self.seed_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(QLabel("Seed"))
        row.addWidget(self.seed, 1)
        self.form = ParamForm()
        self.reset = QPushButton("Reset to defaults")
        self.reset.setObjectName("impasto_reset")
        self.reset.clicked.connect(self.form.reset)
        self.advanced = Fold("More settings")
        self.advanced.setObjectName("impasto_advanced")
        self.advanced.inside.addWidget(self.form)
        self.advanced.inside.addWidget(self.reset)
        self.seed.changed.connect(self._touched)
        self.form.changed.connect(self._touched)
        return self.seed_row, self.advanced

    def _action(self) -> Any:
        line = QWidget()
        row = QHBoxLayout(line)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        self.button = QPushButton("Inpaint selection")
        self.button.setObjectName("impasto_inpaint")
        self.button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.button.clicked.connect(self.inpaint)
        self.cancel = QPushButton("Cancel")
        self.cancel.setObjectName("impasto_cancel")
        self.cancel.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Fixed)
        self.cancel.clicked.connect(self.controller.cancel)
        row.addWidget(self.button, 1)
        row.addWidget(self.cancel)
        self.hint = QLabel()
        self.hint.setObjectName("impasto_hint")
        self.message = QLabel()
        self.message.setObjectName("impasto_message")
        for label in (self.hint, self.message):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.progress = QProgressBar()
        self.progress.setObjectName("impasto_progress")
        self.progress.setRange(0, 1000)
        return line, self.hint, self.progress, self.message

    def _outcome(self) -> Any:
        self.picture = Picture(PICTURE_HEIGHT)
        self.picture.setObjectName("impasto_picture")
        self.result_line = QWidget()
        row = QHBoxLayout(self.result_line)
        row.setContentsMargins(0, 0, 0, 0)
        self.result_text = QLabel()
        self.result_text.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.add_layer = QPushButton("Add as layer again")
        self.add_layer.setObjectName("impasto_add_again")
        self.add_layer.clicked.connect(self._add_again)
        row.addWidget(self.result_text, 1)
        row.addWidget(self.add_layer)
        self.strip = ResultStrip()
        self.strip.chosen.connect(self._show_result)
        self.strip.wanted.connect(self.controller.add_again)
        self.strip.itemClicked.connect(lambda _: self._show_result(self.strip.current()))
        self.result_line.setVisible(False)
        return self.picture, self.result_line, self.strip

    def _footer(self) -> Any:
        footer = QFrame()
        row = QHBoxLayout(footer)
        row.setContentsMargins(8, 3, 6, 3)
        self.lamp = QLabel()
        self.state = QLabel()
        self.state.setObjectName("impasto_connection")
        self.state.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.state.setWordWrap(True)
        self.retry = QToolButton()
        self.retry.setObjectName("impasto_retry")
        self.retry.setText("Try again")
        self.retry.clicked.connect(self.controller.try_again)
        row.addWidget(self.lamp)
        row.addWidget(self.state, 1)
        row.addWidget(self.retry)
        return footer

    def _style(self) -> None:
        """Colours from the theme; called again when the painter changes it."""
        palette = self.palette()
        quiet = quiet_color(palette).name()
        for label in (self.hint, self.state, self.result_text):
            tint(label, quiet_color(palette))
        high = palette.color(QPalette.ColorRole.Highlight)
        ink = palette.color(QPalette.ColorRole.HighlightedText).name()
        off = palette.color(QPalette.ColorRole.Button).name()
        edge = palette.color(QPalette.ColorRole.Mid).name()
        self.button.setStyleSheet(
            f"QPushButton {{ background: {high.name()}; color: {ink}; border: none; border-radius: 3px;"
            " padding: 7px 10px; font-weight: bold; }"
            f"QPushButton:hover {{ background: {high.lighter(112).name()}; }}"
            f"QPushButton:pressed {{ background: {high.darker(115).name()}; }}"
            f"QPushButton:focus {{ border: 1px solid {ink}; }}"
            f"QPushButton:disabled {{ background: {off}; color: {quiet}; border: 1px solid {edge}; }}"
        )
        self.cancel.setStyleSheet("QPushButton { padding: 7px 10px; }")
        for fold in (self.negative_fold, self.advanced):
            fold.style_by(palette)
        # A style sheet stops a widget from taking over the docker's font, which is smaller than the program's.
        for button in (self.button, self.cancel, self.negative_fold.button, self.advanced.button):
            font = self.hint.font()
            font.setBold(button is self.button)
            button.setFont(font)
        self.add_layer.setIcon(icon("layer", palette))
        self.strip.style_by(palette)
        self.seed.refresh()

    # ---- what Krita and Qt tell

    def canvasChanged(self, canvas: Any) -> None:
        """Krita calls this when another view comes to the front."""
        self._refresh_action()

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self._timer.start()
        QTimer.singleShot(0, self._style)
        QTimer.singleShot(0, self.controller.start)

    def hideEvent(self, event: Any) -> None:
        super().hideEvent(event)
        self._timer.stop()

    def changeEvent(self, event: Any) -> None:
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange) and hasattr(self, "button"):
            QTimer.singleShot(0, self._style)

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
            "prompt": self.prompt.toPlainText(),
            "negative_prompt": self.negative.toPlainText(),
            "strength": self.strength.value,
            "seed": self.seed.seed(),
            **self.form.overrides(),
        }
        if self.model.currentData():
            params["model"] = self.model.currentData()
        return params

    def _add_again(self) -> None:
        result = self.strip.current()
        if result is not None:
            self.controller.add_again(result)

    def _add_result(self, result: ResultLayer) -> None:
        self.seed.set_last(result.seed)
        self.strip.add(result)

    def _show_result(self, result: Optional[ResultLayer]) -> None:
        if result is None:
            return
        self.picture.show_image(image_of(result, 1024))
        self.result_text.setText(f"Seed {result.seed}")
        self.result_line.setVisible(True)

    # ---- showing the state

    def refresh(self) -> None:
        """Show everything that the controller knows."""
        self._refresh_catalog()
        self._refresh_action()
        self._refresh_job()
        self._refresh_footer()

    def _refresh_action(self) -> None:
        obstacle = self.controller.obstacle()
        if self.button.isEnabled() == bool(obstacle):
            self.button.setEnabled(not obstacle)
        if self.hint.text() != obstacle:
            self.hint.setText(obstacle)
        self.hint.setVisible(bool(obstacle))

    def _refresh_job(self) -> None:
        job = self.controller.running()
        self.cancel.setVisible(job is not None)
        self.progress.setVisible(job is not None)
        if job is not None:
            waiting = len(self.controller.jobs.active) - 1
            text = describe(job) + (f" ({waiting} more waiting)" if waiting else "")
            self.progress.setFormat(text)
            busy = job.state not in ("running", "fetching")
            self.progress.setRange(0, 0 if busy else 1000)
            self.progress.setValue(round(1000 * job.fraction))
            if job.preview is not None:
                self.picture.show_image(QImage.fromData(job.preview))
                self.result_line.setVisible(False)
        elif not self.result_line.isVisible():
            current = self.strip.current()
            if current is not None:
                self._show_result(current)
            else:
                self.picture.show_image(None)
        notice = self.controller.notice
        self.message.setVisible(notice is not None)
        if notice is not None:
            self.message.setText(notice.text)
            tint(self.message, (warning_color if notice.is_error else quiet_color)(self.palette()))

    def _refresh_footer(self) -> None:
        connection = self.controller.connection
        texts = {
            "idle": "Not connected",
            "starting": "Starting the server…",
            "connecting": "Connecting…",
            # The device is not known yet while the engine starts.
            "connected": connection.server.replace(" (starting)", "") or "Connected",
        }
        text = texts.get(connection.state) or connection.message or "No connection to the server."
        self.state.setText(text)
        self.state.setToolTip(connection.message)
        color = DOTS.get(connection.state)
        self.lamp.setPixmap(
            dot(quiet_color(self.palette()) if color is None else QColor(color), self.devicePixelRatioF())
        )
        self.retry.setVisible(connection.state in ("failed", "lost", "idle"))
        self.retry.setText("Start server" if connection.state == "idle" else "Try again")

    def _refresh_catalog(self) -> None:
        catalog = self.controller.catalog
        if catalog is None or getattr(self, "_shown_rev", None) == catalog.rev:
            return
        self._shown_rev = catalog.rev
        mode = catalog.mode(MODE)
        if mode is not None:
            self.form.set_params([p for p in mode.params if p.name not in OWN_FIELDS])
        self._fill_models()

    def _fill_models(self) -> None:
        entries = self.controller.models()
        usable = [entry for entry in entries if entry.get("usable", True)]
        self.model.clear()
        if len(usable) != 1:
            self.model.addItem("Automatic" if usable else "No model yet", "")
            self.model.setItemData(0, "The server takes the model that suits best.", Qt.ItemDataRole.ToolTipRole)
        for entry in entries:
            self.model.addItem(str(entry.get("title") or entry["id"]), entry["id"])
            row = self.model.count() - 1
            self.model.setItemData(row, _describe_model(entry), Qt.ItemDataRole.ToolTipRole)
            self.model.model().item(row).setEnabled(bool(entry.get("usable", True)))
        found = self.model.findData(self._wanted_model)
        self.model.setCurrentIndex(found if found >= 0 and self.model.model().item(found).isEnabled() else 0)
        self._model_chosen(save=False)

    def _model_chosen(self, *_: Any, save: bool = True) -> None:
        entry = next((m for m in self.controller.models() if m["id"] == self.model.currentData()), None)
        hints = entry.get("hints") if entry is not None else None
        self.form.set_hints(hints if isinstance(hints, Mapping) else {})
        self.model.setToolTip(self.model.currentData(Qt.ItemDataRole.ToolTipRole) or "The checkpoint that paints.")
        if save:
            self._wanted_model = self.model.currentData() or ""
            self._touched()

    def _name_negative(self) -> None:
        filled = bool(self.negative.toPlainText().strip())
        self.negative_fold.button.setText("Negative prompt" + (" •" if filled else ""))

    # ---- what is kept between sessions

    def _touched(self, *_: Any) -> None:
        if hasattr(self, "_saver"):
            self._saver.start()

    def _save(self) -> None:
        kept = {
            "prompt": self.prompt.toPlainText(),
            "negative_prompt": self.negative.toPlainText(),
            "strength": self.strength.value,
            "seed": self.seed.seed(),
            "model": self._wanted_model,
            "more": self.form.overrides(),
        }
        Krita.instance().writeSetting("impasto", "panel", json.dumps(kept))

    def _restore(self) -> None:
        self._wanted_model = ""
        try:
            kept = json.loads(Krita.instance().readSetting("impasto", "panel", "{}"))
            self.prompt.setPlainText(str(kept.get("prompt", "")))
            self.negative.setPlainText(str(kept.get("negative_prompt", "")))
            self.strength.set_value(float(kept.get("strength", 1.0)))
            self.seed.set_seed(int(kept.get("seed", -1)))
            self._wanted_model = str(kept.get("model", ""))
            self.form.set_overrides(dict(kept.get("more", {})))
        except (ValueError, TypeError, AttributeError):
            return  # a damaged entry of kritarc: the defaults hold
        self._name_negative()


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
