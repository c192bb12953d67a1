"""The docker: what the painter sees. It shows the controller's state and hands over what the painter asked for."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from impasto_client.document import ResultLayer
from impasto_client.intents import WHOLE, Aim, intent_for, strength_key
from impasto_client.targets import ANNOTATE, planned_area
from impasto_client.ways import AUTOMATIC, CHOICES, WAYS, actions, choice_of, family_of, mode_for
from impasto_client.wishes import Wishes, chosen_row, hints_of, model_rows, settings_of
from impasto_client.wording import describe, describe_connection, describe_plan
from impasto_protocol.home import home_folder, log_file
from impasto_protocol.schema import Intent, Mode
from krita import DockWidget, Krita

from . import document as pixels
from .controller import Controller
from .icons import dot, icon
from .panel import Panel
from .qt import (
    QApplication,
    QColor,
    QDesktopServices,
    QEvent,
    QFileDialog,
    QImage,
    Qt,
    QTimer,
    QUrl,
)
from .result_box import ResultBox
from .server_dialog import ServerDialog
from .widgets import quiet_color, tint, warning_color

__all__ = ["DOCKER_ID", "ImpastoDocker"]

DOCKER_ID = "impasto_docker"
ACTIONS = actions("document")
PICTURES = "Pictures (*.png *.jpg *.jpeg *.webp *.avif *.gif *.txt)"
POLL = 200
"""Milliseconds between two looks at the selection: Krita does not tell when it changes. One look takes microseconds."""
DOTS = {"connected": "#5aa469", "connecting": "#c9a24a", "starting": "#c9a24a", "failed": "#c8553d", "lost": "#c8553d"}


class ImpastoDocker(DockWidget):
    """One per main window; all share one controller."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.setWindowTitle("Impasto")
        self.results = ResultBox(controller, pixels.active_document)
        front = pixels.active_document
        self.panel = Panel(self.results, lambda: controller.layers(front()), lambda: controller.masks(front()))
        self.setWidget(self.panel)
        self.choice, self.way = CHOICES[0][0], AUTOMATIC
        self.mode = "inpaint"
        """The mode of the server that the button starts now."""
        self.intent: Optional[Intent] = None
        """What that mode is for now."""
        self._shown_rev = ""
        self.wishes = Wishes()
        self._shown_preview: Optional[bytes] = None
        self._restore()
        self._write()
        self.mode = self._meant()
        self.intent = self._intended(self.mode)
        self._show_mode()
        self._timer = QTimer(self)
        self._timer.setInterval(POLL)
        self._timer.timeout.connect(self._look)
        self._saver = QTimer(self)
        self._saver.setSingleShot(True)
        self._saver.setInterval(500)
        self._saver.timeout.connect(self._save)
        self._connect()
        controller.signals.changed.connect(self.refresh)
        controller.signals.added.connect(self._add_result)
        controller.signals.listed.connect(self.results.refresh)
        self.panel.restyle()
        self.refresh()

    def _connect(self) -> None:
        panel, controller = self.panel, self.controller
        panel.button.clicked.connect(lambda *_: self.ask())
        panel.cancel.clicked.connect(lambda *_: controller.cancel())
        panel.retry.clicked.connect(controller.try_again)
        panel.model.activated.connect(self._model_chosen)
        panel.next.triggered.connect(functools.partial(self.ask, "front"))
        panel.instead.triggered.connect(functools.partial(self.ask, "replace"))
        panel.queue.cancelled.connect(lambda id: controller.cancel(id) if id else controller.cancel_all())
        panel.open_log.triggered.connect(lambda *_: QDesktopServices.openUrl(QUrl.fromLocalFile(str(_log()))))
        panel.diagnose.triggered.connect(lambda *_: controller.diagnose())
        panel.copy_log.triggered.connect(lambda *_: QApplication.clipboard().setText(str(_log())))
        panel.way.activated.connect(lambda *_: self.set_way(panel.way.currentData()))
        panel.aim.changed.connect(self._aimed)
        panel.preset.told = controller.tell
        self.results.used.connect(lambda shown: self.use_settings(shown.mode, shown.params))
        controller.signals.taken.connect(self._taken)
        controller.signals.furthered.connect(self._go_further)
        panel.form.hinted.connect(self._hint)
        controller.signals.hint_bound.connect(panel.form.bind_hint)
        controller.signals.hint_shown.connect(panel.form.show_hint)
        panel.from_file.triggered.connect(self._take_from_file)
        panel.other_server.triggered.connect(lambda *_: self.choose_server())
        panel.dropped.connect(controller.read_settings)
        for prompt in (panel.prompt, panel.negative):
            prompt.use(controller.vocabulary)
            prompt.submitted.connect(lambda *_: self.ask())
            prompt.pasted.connect(controller.read_settings)
        for choice, button in panel.choices.items():
            button.clicked.connect(functools.partial(self._chosen, choice))
        changes = (panel.prompt.textChanged, panel.negative.textChanged, panel.strength.changed, panel.scale.changed)
        for signal in (*changes, panel.seed.changed, panel.form.changed, panel.experts.toggled):
            signal.connect(self._touched)

    def _hint(self, at: int, entry: Mapping[str, Any], keep: bool) -> None:
        catalog = self.controller.catalog
        mode = catalog.mode(ANNOTATE) if catalog is not None else None
        self.controller.hints.ask(pixels.active_document(), mode, at, entry, keep)

    # ---- what Krita and Qt tell

    def canvasChanged(self, canvas: Any) -> None:
        """Krita calls this when another view comes to the front."""
        self._look()

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

    def ask(self, place: str = "back", *_: Any) -> None:
        """Start a job with what the docker shows; where that cannot be, say why."""
        self._follow()
        document = pixels.active_document()
        if (
            not self.controller.ask(self.mode, document, self.params(), place, self.panel.aim.aim())
            and not self.isVisible()
        ):
            view = Krita.instance().activeWindow().activeView()
            if view is not None and self.controller.notice is not None:
                view.showFloatingMessage(self.controller.notice.text, icon("layer", self.palette()), 3000, 1)

    def set_mode(self, mode: str) -> None:
        """Choose what leads to this mode, whatever is there."""
        self._choose(*choice_of(mode))

    def set_way(self, way: str) -> None:
        """Say what "paint" means, or leave it to what is there."""
        self._choose(self.choice, way)

    def _chosen(self, choice: str, *_: Any) -> None:
        self._choose(choice, self.way)

    def _choose(self, choice: str, way: str) -> None:
        if (choice, way) != (self.choice, self.way):
            self._read()
            self.choice = choice
            if choice == "paint":
                self.way = way
            self._follow(read=False)
            self._show_mode()
            self.refresh()
            self._touched()

    def _meant(self) -> str:
        """The mode that the choice means with what is there now."""
        document = pixels.active_document()
        selected = document is not None and pixels.selected_box(document) is not None
        return mode_for(self.choice, self.way, selected or bool(self.panel.aim.aim().mask), self._plain_strength())

    def _plain_strength(self) -> float:
        """That of painting: an intent may have its own, and then that is shown."""
        own = strength_key(family_of(self.mode), self.intent) != "paint"
        return self.wishes.strengths["paint"] if own else float(self.panel.strength.value)

    def _intended(self, mode: str) -> Optional[Intent]:
        """What a mode is for, with what is there now."""
        document, host = pixels.active_document(), self.controller.host
        area = canvas = None
        if document is not None:
            canvas = host.canvas_of(document)
            area = planned_area(host, mode, document, self.panel.aim.aim())
        known = self._known(mode)
        intents = known.intents if known is not None else ()
        return intent_for(intents, self.panel.aim.chosen(), area, canvas, self._plain_strength())

    def _known(self, mode: str) -> Optional[Mode]:
        """The server's description of a mode."""
        return self.controller.catalog.mode(mode) if self.controller.catalog is not None else None

    def _aimed(self) -> None:
        """The painter chose what inpainting is for, or where."""
        self._read()
        self._follow(read=False)
        self.refresh()
        self._touched()

    def _follow(self, read: bool = True) -> None:
        """Show the settings of another mode where what is there means that; what was set for the last one is kept."""
        mode = self._meant()
        intent = self._intended(mode)
        if mode != self.mode or intent != self.intent:
            if read:
                self._read()
            self.mode, self.intent = mode, intent
            self._show_mode()

    def use_settings(self, mode: str, params: Mapping[str, Any]) -> None:
        """Take over how a picture was made. What "paint" means stays with what is there, if it was left to that."""
        if mode not in ACTIONS:
            return
        self._read()
        known = self._known(mode)
        name = self.wishes.take_for(mode, params, known)
        if mode == "inpaint":
            self.panel.aim.choose(name)
            self.panel.aim.set_aim(Aim(context=WHOLE if params.get("area") == "whole" else ""))
        self.choice, way = choice_of(mode)
        if self.choice == "paint" and self.way != AUTOMATIC:
            self.way = way
        self._write()
        self.mode, self.intent = mode, None
        self.panel.strength.set_value(self.wishes.strengths.get(family_of(mode), 1.0))
        self.mode = self._meant()
        self.intent = self._intended(self.mode)
        self._show_mode()
        self._fill_models()
        self.refresh()
        self._touched()

    def _taken(self, mode: str, params: Mapping[str, Any]) -> None:
        if self.isVisible():
            self.use_settings(mode, params)

    def _go_further(self, mode: str, params: Mapping[str, Any]) -> None:
        """Take over what goes on from a result; the button shall do that, whatever is selected."""
        if self.isVisible():
            self.use_settings(mode, params)
            if self._meant() != mode:
                self.set_way(mode)

    def _take_from_file(self, *_: Any) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Take settings from a picture", str(Path.home()), PICTURES)
        if path:
            self.controller.read_settings(Path(path))

    def choose_server(self) -> None:
        """Ask for another server; the message says what came of it."""
        ServerDialog(self.controller.servers, self).show()

    def params(self) -> Dict[str, Any]:
        """The parameters as the painter set them; what was left alone stays with the server."""
        self._read()
        return self.wishes.params(
            self.mode, self.panel.model.currentData() or "", self.panel.form.overrides(), self.intent
        )

    def _read(self) -> None:
        """Note what the widgets show."""
        panel, wishes = self.panel, self.wishes
        wishes.prompt, wishes.negative_prompt = panel.prompt.toPlainText(), panel.negative.toPlainText()
        wishes.scale, wishes.seed = panel.scale.value, panel.seed.seed()
        wishes.advanced = panel.experts.isChecked()
        family = family_of(self.mode)
        if family in wishes.strengths:
            wishes.strengths[strength_key(family, self.intent)] = panel.strength.value
        if self._shown_rev:  # before the server has described them there is nothing to see
            wishes.keep_settings(self.mode, panel.form.chosen(), self._known(self.mode), self.intent)

    def _write(self) -> None:
        """Show in the widgets what is wished for, but for what depends on the mode."""
        panel, wishes = self.panel, self.wishes
        panel.prompt.setPlainText(wishes.prompt)
        panel.negative.setPlainText(wishes.negative_prompt)
        panel.scale.set_value(wishes.scale)
        panel.seed.set_seed(wishes.seed)
        panel.experts.setChecked(wishes.advanced)

    def _show_mode(self) -> None:
        """The choice, the button and the settings of the action that is chosen."""
        family = family_of(self.mode)
        self.panel.show_action(ACTIONS[self.mode], self.way)
        if family in self.wishes.strengths:
            self.panel.strength.set_value(self.wishes.strength(self.mode, self.intent))
        self.panel.aim.show_intent(self.intent)
        # In this order: what was kept from another day is checked against the description.
        self.panel.form.set_overrides(self.wishes.settings(self.mode, self.intent))
        self._describe_settings()
        self._model_chosen(save=False)

    def _describe_settings(self) -> None:
        """The generated settings, where the server has said what the mode takes."""
        catalog = self.controller.catalog
        mode = catalog.mode(self.mode) if catalog is not None else None
        if mode is not None:
            # What the model sees when it inpaints is chosen above, with more to choose from.
            shown = [p for p in settings_of(mode) if (mode.name, p.name) != ("inpaint", "area")]
            self.panel.form.set_params(shown)

    def _add_result(self, result: ResultLayer) -> None:
        self.panel.seed.set_last(result.seed)

    # ---- showing the state

    def refresh(self) -> None:
        """Show everything that the controller knows."""
        self._refresh_catalog()
        self._refresh_action()
        self._refresh_job()
        self._refresh_footer()

    def _look(self) -> None:
        """What Krita does not tell: the document in front and its selection."""
        self._follow()
        self._refresh_action()
        self.results.look()

    def _refresh_action(self) -> None:
        document = pixels.active_document()
        where = self.panel.aim.aim()
        obstacle = self.controller.obstacle(self.mode, document, where)
        if self.panel.button.isEnabled() == bool(obstacle):
            self.panel.button.setEnabled(not obstacle)
            self.panel.places.setEnabled(not obstacle)
        if self.isVisible():
            self.controller.expect(self.mode, document, {} if obstacle else self.params(), where)
        estimate, text = self.controller.estimate, obstacle
        if not obstacle and estimate.error is not None:
            text = estimate.error.message
        elif not obstacle and estimate.plan is not None:
            text = describe_plan(estimate.plan)
        if self.panel.hint.text() != text:
            self.panel.hint.setText(text)
        self.panel.hint.setVisible(bool(text))

    def _refresh_job(self) -> None:
        job, active = self.controller.running(), self.controller.jobs.active
        self.panel.cancel.setVisible(job is not None)
        self.panel.progress.setVisible(job is not None)
        self.panel.queue.show_jobs(active)
        if job is not None:
            waiting = len(active) - 1
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
                self.results.preview(QImage.fromData(job.preview))
        else:
            self._shown_preview = None
            self.results.preview(None)
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
        inpaint = catalog.mode("inpaint")
        self.panel.aim.offer(inpaint.intents if inpaint is not None else ())
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
        hints = hints_of(catalog.models if catalog is not None else (), chosen)
        self.panel.form.set_hints({**hints, **(self.intent.params if self.intent is not None else {})})
        self.panel.model.setToolTip(
            self.panel.model.currentData(Qt.ItemDataRole.ToolTipRole) or "The checkpoint that paints."
        )
        self.panel.preset.offer(catalog, chosen or "")
        if save:
            self.wishes.model = chosen or ""
            self._touched()

    # ---- what is kept between sessions

    def _touched(self, *_: Any) -> None:
        self._saver.start()

    def _save(self) -> None:
        self._read()
        Krita.instance().writeSetting(
            "impasto",
            "panel",
            json.dumps(
                {"choice": self.choice, "way": self.way, "intent": self.panel.aim.chosen(), **self.wishes.kept()}
            ),
        )

    def _restore(self) -> None:
        try:
            kept = json.loads(Krita.instance().readSetting("impasto", "panel", "{}"))
            self.wishes = Wishes.restored(kept)
            if kept.get("choice") in [choice for choice, _, _ in CHOICES]:
                self.choice = kept["choice"]
            if kept.get("way") in [way for way, _ in WAYS]:
                self.way = kept["way"]
            self.panel.aim.choose(str(kept.get("intent", AUTOMATIC)))
        except (ValueError, TypeError, AttributeError):
            return  # a damaged entry of kritarc: the defaults hold


def _log() -> Any:
    """Where the server writes what it does."""
    return log_file(home_folder())
