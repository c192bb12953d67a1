"""The docker's widgets and how they are laid out. What they mean is the docker's business."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional

from impasto_client.ways import CHOICES, PROMPTED, WAYS, Action, choice_of
from impasto_client.wishes import strength_tip

from .aim_box import AimBox
from .colors import ink_on_highlight
from .form import ParamForm
from .form_preset import PresetRow
from .prompt_field import PromptEdit
from .qt import (
    QCheckBox,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPalette,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    Qt,
    QToolButton,
    QVBoxLayout,
    QWidget,
    pyqtSignal,
)
from .queue_list import QueueList
from .slider import FillSlider
from .widgets import Fold, SeedField, quiet_color, tint

__all__ = ["Panel"]


class Panel(QWidget):
    """From top to bottom: what is wanted, the button, what came of it, further settings, the connection.

    `dropped` tells the Path of a picture, or the text, that the painter let fall on it.
    """

    dropped = pyqtSignal(object)

    def __init__(self, results: Any, layers: Any, masks: Any, parent: Optional[Any] = None) -> None:
        """`results` is the widget of what came of it; `layers()` are those of the document in front, `masks()` those
        that can say where to inpaint.
        """
        super().__init__(parent)
        self._masks = masks
        self._layers = layers
        self.results = results
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(6)
        for widget in (self._choice(), *self._wishes(), *self._action(), results, *self._settings()):
            column.addWidget(widget)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(page)
        self.setAcceptDrops(True)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        outer.addWidget(scroll, 1)
        outer.addWidget(self._footer())

    def _choice(self) -> Any:
        """What the button is about: one of a row of buttons."""
        row = QWidget()
        row.setObjectName("impasto_modes")
        buttons = QHBoxLayout(row)
        buttons.setContentsMargins(0, 0, 0, 0)
        buttons.setSpacing(0)
        self.choices: Dict[str, Any] = {}
        for choice, title, tip in CHOICES:
            button = QToolButton()
            button.setObjectName(f"impasto_mode_{choice}")
            button.setText(title)
            button.setToolTip(tip)
            button.setCheckable(True)
            button.setAutoExclusive(True)
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            buttons.addWidget(button)
            self.choices[choice] = button
        return row

    def show_action(self, action: Action, way: str) -> None:
        """Show what the action needs, and nothing else."""
        choice, _ = choice_of(action.mode)
        self.choices[choice].setChecked(True)
        self.way.setCurrentIndex(self.way.findData(way))
        self.button.setText(action.button)
        self.button.setToolTip(action.tip)
        paints = action.mode in PROMPTED
        for widget in (self.model, self.prompt, self.negative_fold, self.seed_row):
            widget.setVisible(paints)
        self.way.setVisible(choice == "paint")
        self.aim.setVisible(action.mode == "inpaint")
        self.strength.setVisible(paints and way != "txt2img")
        self.scale.setVisible(action.mode == "upscale")
        self.strength.setToolTip(strength_tip(action.mode))

    def _wishes(self) -> Any:
        self.way = _list("impasto_way")
        self.way.setToolTip("What is painted. Automatic inpaints a selection, and without one goes by the strength.")
        for mode, text in WAYS:
            self.way.addItem(text, mode)
        self.model = _list("impasto_model")
        self.prompt = PromptEdit("What should be there?", 3, 10)
        self.prompt.setObjectName("impasto_prompt")
        self.prompt.setToolTip(
            "Describe what to paint. (word:1.2) stresses, [word] weakens. Ctrl+Return paints;\n"
            "Ctrl+Up and Ctrl+Down weigh the words that are selected or under the caret."
        )
        self.negative = PromptEdit("What should not be there?", 2, 6)
        self.negative.setObjectName("impasto_negative_prompt")
        self.negative_fold = Fold("Negative prompt")
        self.negative_fold.setObjectName("impasto_negative_fold")
        self.negative_fold.inside.addWidget(self.negative)
        self.negative.textChanged.connect(self._name_negative)
        self.aim = AimBox(self._layers, self._masks)
        self.strength = FillSlider("Strength", 0.0, 1.0, 0.01, "%")
        self.strength.setObjectName("impasto_strength")
        self.strength.set_value(1.0)
        self.scale = FillSlider("Scale", 1.0, 8.0, 0.5, "×")
        self.scale.setObjectName("impasto_scale")
        self.scale.setToolTip("How many times as wide and as high the new document is.")
        self.scale.set_value(2.0)
        return self.way, self.aim, self.model, self.prompt, self.negative_fold, self.strength, self.scale

    def _settings(self) -> Any:
        self.seed = SeedField()
        self.seed_row = QWidget()
        row = QHBoxLayout(self.seed_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(QLabel("Seed"))
        row.addWidget(self.seed, 1)
        self.form = ParamForm(self._layers)
        self.preset = PresetRow(self.form)
        self.experts = QCheckBox("Show all settings")
        self.experts.setObjectName("impasto_experts")
        self.experts.setToolTip("Also those that are rarely needed.")
        self.experts.toggled.connect(self.form.set_advanced)
        self.reset = QPushButton("Reset to defaults")
        self.reset.setObjectName("impasto_reset")
        self.reset.clicked.connect(self.form.reset)
        self.advanced = Fold("More settings")
        self.advanced.setObjectName("impasto_advanced")
        self.advanced.inside.addWidget(self.preset)
        self.advanced.inside.addWidget(self.form)
        self.advanced.inside.addWidget(self.experts)
        self.advanced.inside.addWidget(self.reset)
        return self.seed_row, self.advanced

    def _action(self) -> Any:
        line = QWidget()
        row = QHBoxLayout(line)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        self.button = QPushButton()
        self.button.setObjectName("impasto_inpaint")
        self.button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.places = QToolButton()
        self.places.setObjectName("impasto_places")
        self.places.setArrowType(Qt.ArrowType.DownArrow)
        self.places.setToolTip("More ways to start: before the jobs that wait, or instead of them.")
        self.places.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.places.setMenu(QMenu(self.places))
        self.places.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Expanding)
        self.next = self.places.menu().addAction("Start before the jobs that wait")
        self.instead = self.places.menu().addAction("Start instead of the jobs that wait")
        self.cancel = QPushButton("Cancel")
        self.cancel.setObjectName("impasto_cancel")
        self.cancel.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Fixed)
        row.addWidget(self.button, 1)
        row.addWidget(self.places)
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
        self.queue = QueueList()
        return line, self.hint, self.progress, self.queue, self.message

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
        row.addWidget(self.lamp)
        row.addWidget(self.state, 1)
        row.addWidget(self.retry)
        row.addWidget(self._log())
        return footer

    def _log(self) -> Any:
        """A button with what is seldom wanted."""
        self.help = QToolButton()
        self.help.setObjectName("impasto_help")
        self.help.setText("…")
        self.help.setAutoRaise(True)
        self.help.setToolTip("Settings from an old picture; another server; the log, for when something goes wrong.")
        self.help.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.help.setMenu(QMenu(self.help))
        self.from_file = self.help.menu().addAction("Take settings from a picture…")
        self.other_server = self.help.menu().addAction("Connect to another server…")
        self.help.menu().addSeparator()
        self.open_log = self.help.menu().addAction("Open the server's log")
        self.copy_log = self.help.menu().addAction("Copy the log's place")
        self.diagnose = self.help.menu().addAction("Copy a diagnosis")
        self.diagnose.setToolTip("What the server finds on this computer, and what to mend.")
        return self.help

    def dragEnterEvent(self, event: Any) -> None:
        data = event.mimeData()
        if any(url.isLocalFile() for url in data.urls()) or data.hasText():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        data = event.mimeData()
        files = [url.toLocalFile() for url in data.urls() if url.isLocalFile()]
        if files:
            self.dropped.emit(Path(files[0]))
        elif data.hasText():
            self.dropped.emit(data.text())
        event.acceptProposedAction()

    def restyle(self) -> None:
        """Colours and fonts from the theme and the docker; to be called again when they change."""
        palette = self.palette()
        quiet = quiet_color(palette).name()
        for label in (self.hint, self.state, self.queue.rest):
            tint(label, quiet_color(palette))
        high = palette.color(QPalette.ColorRole.Highlight)
        ink = ink_on_highlight(palette).name()
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
        ground = palette.color(QPalette.ColorRole.Base).name()
        for button in self.choices.values():
            button.setStyleSheet(
                f"QToolButton {{ background: {off}; color: {quiet}; border: 1px solid {edge}; padding: 4px 6px; }}"
                f"QToolButton:hover {{ color: {palette.color(QPalette.ColorRole.ButtonText).name()}; }}"
                f"QToolButton:checked {{ background: {ground}; color: {palette.color(QPalette.ColorRole.Text).name()};"
                f" border-bottom: 2px solid {high.name()}; }}"
                f"QToolButton:focus {{ border-color: {high.name()}; }}"
            )
        for plain in (self.places, self.help):  # their text and arrow say enough
            plain.setStyleSheet("QToolButton::menu-indicator { image: none; width: 0; }")
        filled = self.progress.palette()
        filled.setColor(QPalette.ColorRole.HighlightedText, ink_on_highlight(palette))
        self.progress.setPalette(filled)
        self.cancel.setStyleSheet("QPushButton { padding: 7px 10px; }")
        for fold in (self.negative_fold, self.advanced):
            fold.style_by(palette)
        # A style sheet stops a widget from taking over the docker's font, which is smaller than the program's.
        for button in (
            self.button,
            self.cancel,
            *self.choices.values(),
            self.negative_fold.button,
            self.advanced.button,
        ):
            font = self.hint.font()
            font.setBold(button is self.button)
            button.setFont(font)
        self.results.style_by(palette, quiet_color(palette))
        self.seed.refresh()

    def _name_negative(self) -> None:
        filled = bool(self.negative.toPlainText().strip())
        self.negative_fold.button.setText("Negative prompt" + (" •" if filled else ""))


def _list(name: str) -> Any:
    """A list to choose from that never makes the docker wider."""
    combo = QComboBox()
    combo.setObjectName(name)
    combo.setMinimumContentsLength(8)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return combo
