"""What inpainting is for, and where it paints and looks: shown while something is to be inpainted."""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Sequence, Tuple

from impasto_client.intents import CONTEXTS, Aim, intent_choices
from impasto_client.ways import AUTOMATIC
from impasto_protocol.schema import Intent

from .qt import QComboBox, QHBoxLayout, QLabel, Qt, QVBoxLayout, QWidget, pyqtSignal

__all__ = ["AimBox"]

GONE = "A layer that is gone"


class _LayerList(QComboBox):
    """Fixed choices and then the layers of the document, which are looked up when the list is opened."""

    def __init__(
        self, name: str, fixed: Sequence[Tuple[str, str]], layers: Callable[[], List[Tuple[str, str]]]
    ) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setMinimumContentsLength(8)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._fixed, self._layers = list(fixed), layers
        self._fill(self._fixed)

    def showPopup(self) -> None:
        self.look()
        super().showPopup()

    def look(self) -> None:
        """See which layers there are; what is chosen stays chosen."""
        value = self.currentData()
        rows = [*self._fixed, *self._layers()]
        if value not in [row for row, _ in rows]:
            rows.append((value, GONE))
        self._fill(rows)
        self.setCurrentIndex(self.findData(value))

    def choose(self, value: str) -> None:
        if self.findData(value) < 0:
            self.addItem(next((title for row, title in self._layers() if row == value), GONE), value)
        self.setCurrentIndex(self.findData(value))

    def _fill(self, rows: Sequence[Tuple[str, str]]) -> None:
        self.clear()
        for value, title in rows:
            self.addItem(title, value)


class AimBox(QWidget):
    """`changed` tells that the painter chose something else."""

    changed = pyqtSignal()

    def __init__(
        self,
        layers: Callable[[], List[Tuple[str, str]]],
        masks: Callable[[], List[Tuple[str, str]]],
        parent: Optional[Any] = None,
    ) -> None:
        super().__init__(parent)
        self._intents: Tuple[Intent, ...] = ()
        self._wanted = AUTOMATIC
        self.intent = QComboBox()
        self.intent.setObjectName("impasto_intent")
        self.intent.setMinimumContentsLength(8)
        self.intent.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.mask = _LayerList("impasto_mask", [("", "The selection")], masks)
        self.mask.setToolTip(
            "Where to inpaint: what is selected, or what is painted on a layer or a mask. Such a layer is not seen."
        )
        self.context = _LayerList("impasto_context", CONTEXTS, layers)
        self.context.setToolTip(
            "What the model sees of the picture: by itself the selection and its surroundings.\n"
            "More of it fits better, less of it gets finer.\n"
            "A layer stands for the rectangle around what is painted on it."
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for title, widget in (("For", self.intent), ("Mask", self.mask), ("Context", self.context)):
            row = QHBoxLayout()
            name = QLabel(title)
            name.setMinimumWidth(name.fontMetrics().horizontalAdvance("Context "))
            row.addWidget(name)
            row.addWidget(widget, 1)
            column.addLayout(row)
            widget.activated.connect(lambda *_: self._chosen())

    def _chosen(self) -> None:
        self._wanted = str(self.intent.currentData() or AUTOMATIC)
        self.changed.emit()

    def offer(self, intents: Sequence[Intent]) -> None:
        """What the server's inpainting can be for."""
        if tuple(intents) == self._intents:
            return
        self._intents = tuple(intents)
        self.intent.clear()
        for at, (value, title, tip) in enumerate(intent_choices(intents) if intents else ()):
            self.intent.addItem(title, value)
            self.intent.setItemData(at, tip, Qt.ItemDataRole.ToolTipRole)
        self.choose(self._wanted)

    def chosen(self) -> str:
        """The name of the intent, or AUTOMATIC."""
        return self._wanted

    def choose(self, name: str) -> None:
        """Before the server has told its intents, too."""
        self._wanted = name
        self.intent.setCurrentIndex(max(self.intent.findData(name), 0))

    def aim(self) -> Aim:
        """Where to paint and to look."""
        return Aim(str(self.mask.currentData() or ""), str(self.context.currentData() or ""))

    def set_aim(self, aim: Aim) -> None:
        self.mask.choose(aim.mask)
        self.context.choose(aim.context)

    def show_intent(self, intent: Optional[Intent]) -> None:
        """What is meant now: it says what it does, and that around the selection all of the picture is seen."""
        self.intent.setToolTip(intent.description if intent is not None else "")
        self.context.setEnabled(intent is None or not intent.params.get("invert"))
