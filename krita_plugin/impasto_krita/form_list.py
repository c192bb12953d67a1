"""A list of maps in the form: a block for each entry, with the widgets that the schema's `items` give."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from impasto_client.form_model import (
    entry_params,
    entry_title,
    is_extra,
    lacks,
    new_entry,
    strength_of,
    strengths_of,
)
from impasto_client.hint_layers import HintWish, makes_hints, no_hint
from impasto_protocol.schema import Param

from .qt import (
    QComboBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPixmap,
    QPushButton,
    Qt,
    QToolButton,
    QVBoxLayout,
    QWidget,
    pyqtSignal,
)

__all__ = ["ListEditor"]

OWN = "As set below"
"""The strength of an entry whose values are none of those in words."""


class ListEditor(QWidget):
    """`value()` is a list of maps. `make` gives the widget of a parameter and refills it with models (see form.py)."""

    changed = pyqtSignal()
    hinted = pyqtSignal(int, object, bool)
    """The painter wants the hint of entry n, as it is now: to keep as a layer, or to look at."""

    def __init__(self, p: Param, models: Sequence[Mapping[str, Any]], make: Any, parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self.param, self._models, self._make = p, list(models), make
        self._entries: List[Dict[str, Any]] = []
        self._fields: List[Dict[str, Any]] = []
        self._extras: List[_Extras] = []
        self._lines: List[Dict[str, List[Any]]] = []
        """The widgets of each field of each entry."""
        self._advanced = False
        self._quiet = False
        self._blocks = QVBoxLayout()
        self._blocks.setContentsMargins(0, 0, 0, 0)
        self._blocks.setSpacing(4)
        self.add = QPushButton(f"Add {entry_title(p)}")
        self.add.setObjectName(f"impasto_{p.name}_add")
        self.add.clicked.connect(self._add)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(self._blocks)
        column.addWidget(self.add)
        self._allow()

    def value(self) -> List[Dict[str, Any]]:
        return [dict(entry) for entry in self._entries]

    def set_value(self, value: Any) -> None:
        entries = [dict(entry) for entry in value]
        if entries == self._entries:
            return
        if len(entries) != len(self._entries):
            self._entries = entries
            self._build()
            return
        self._entries = entries
        self._show()

    def set_models(self, models: Sequence[Mapping[str, Any]]) -> None:
        """What the entries' lists of models offer."""
        if list(models) != self._models:
            self._models = list(models)
            self._build()

    def set_advanced(self, on: bool) -> None:
        """Show the fields for experts too, or no longer."""
        self._advanced = on
        self._reveal()

    def _reveal(self) -> None:
        for entry, lines in zip(self._entries, self._lines):
            for item in entry_params(self.param):
                for widget in lines[item.name]:
                    widget.setVisible(self._advanced or not is_extra(item, entry))

    def bind(self, wish: HintWish, layer: str) -> None:
        """The hint of an entry is a layer now, which takes the place of its picture."""
        if wish.is_of(self._entries):
            self._take(wish.at, {"image": layer, "preprocessor": "none"})

    def show_hint(self, wish: HintWish, picture: Any) -> None:
        """Show the hint of an entry, a QImage, unless it has been changed since."""
        if wish.is_of(self._entries):
            self._extras[wish.at].show_hint(picture)

    def _allow(self) -> None:
        reason = lacks(self.param, self._models)
        full = self.param.maximum is not None and len(self._entries) >= self.param.maximum
        self.add.setEnabled(not reason and not full)
        self.add.setToolTip(reason or self.param.description)

    def _add(self) -> None:
        self._entries.append(new_entry(self.param, self._models))
        self._build()
        self.changed.emit()

    def _remove(self, at: int) -> None:
        del self._entries[at]
        self._build()
        self.changed.emit()

    def _build(self) -> None:
        while self._blocks.count():
            block = self._blocks.takeAt(0).widget()
            block.hide()
            block.deleteLater()  # not at once: the click on its button is still being dealt with
        self._fields, self._extras, self._lines = [], [], []
        for at in range(len(self._entries)):
            self._blocks.addWidget(self._block(at))
        self._show()
        self._allow()

    def _block(self, at: int) -> Any:
        """The first widget with the button that removes the entry beside it, the others below."""
        block = QFrame()
        block.setFrameShape(QFrame.Shape.StyledPanel)
        rows = QFormLayout(block)
        rows.setContentsMargins(4, 4, 4, 4)
        rows.setVerticalSpacing(4)
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        title = entry_title(self.param)
        remove = QToolButton()
        remove.setObjectName(f"impasto_{self.param.name}_{at}_remove")
        remove.setText("✕")
        remove.setAutoRaise(True)
        remove.setToolTip(f"Remove this {title}")
        remove.setAccessibleName(f"Remove {title} {at + 1}")
        remove.clicked.connect(lambda *_: self._remove(at))
        fields: Dict[str, Any] = {}
        lines: Dict[str, List[Any]] = {}
        extras = _Extras(self.param, at)
        for item in entry_params(self.param):
            field = fields[item.name] = self._make(item, self._models)
            field.widget.setObjectName(f"impasto_{self.param.name}_{at}_{item.name}")
            field.widget.setToolTip(item.description)
            field.signal.connect(self._edited(at, item.name))
            if extras.strength is not None and item.name in extras.sets:
                rows.addRow("How strongly", extras.strength)
                extras.sets = ()
            line: Any = field.widget
            if len(fields) == 1:
                line = QWidget()
                beside = QHBoxLayout(line)
                beside.setContentsMargins(0, 0, 0, 0)
                beside.setSpacing(2)
                beside.addWidget(field.widget, 1)
                beside.addWidget(remove)
            lines[item.name] = [line]
            if field.titled or len(fields) == 1:
                rows.addRow(line)
            else:
                label = QLabel(item.title)
                label.setToolTip(item.description)
                rows.addRow(label, line)
                lines[item.name].append(label)
            if item.name == "preprocessor" and makes_hints(self.param):
                rows.addRow(extras)
        extras.chosen.connect(lambda values: self._take(at, values))
        extras.wanted.connect(lambda keep: self.hinted.emit(at, dict(self._entries[at]), keep))
        self._fields.append(fields)
        self._extras.append(extras)
        self._lines.append(lines)
        return block

    def _take(self, at: int, values: Mapping[str, Any]) -> None:
        self._entries[at].update(values)
        self._show()
        self.changed.emit()

    def _edited(self, at: int, name: str) -> Callable[..., None]:
        def heard(*_: Any) -> None:
            if not self._quiet:
                self._entries[at][name] = self._fields[at][name].read()
                self._extras[at].tell(self._entries[at])
                self._reveal()
                self.changed.emit()

        return heard

    def _show(self) -> None:
        self._quiet = True
        for entry, extras, fields in zip(self._entries, self._extras, self._fields):
            extras.tell(entry)
            for name, field in fields.items():
                if entry.get(name) is not None:
                    field.write(entry[name])
        self._quiet = False
        self._reveal()


class _Extras(QWidget):
    """What an entry has beside its parameters: how strongly it counts, in words, and its hint."""

    chosen = pyqtSignal(object)
    """Values that belong together."""
    wanted = pyqtSignal(bool)
    """The hint: to keep as a layer, or to look at."""

    def __init__(self, p: Param, at: int) -> None:
        super().__init__()
        self._param = p
        self.strength: Optional[Any] = None
        self.sets: Tuple[str, ...] = tuple({name for _, values in strengths_of(p) for name in values})
        """The fields that the strength sets; it stands before the first of them."""
        if strengths_of(p):
            self.strength = QComboBox()
            self.strength.setObjectName(f"impasto_{p.name}_{at}_strength")
            self.strength.setToolTip("Weight, start and end that belong together.")
            self.strength.addItem(OWN, None)
            for title, values in strengths_of(p):
                self.strength.addItem(title, values)
            self.strength.activated.connect(lambda *_: self._choose())
        self._buttons: List[Any] = []
        self.picture = QLabel()
        self.picture.setObjectName(f"impasto_{p.name}_{at}_hint")
        self.picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.picture.hide()
        if makes_hints(p):
            for name, text, keep in (("preview", "Show hint", False), ("layer", "Hint as layer", True)):
                button = QPushButton(text)
                button.setObjectName(f"impasto_{p.name}_{at}_{name}")
                button.clicked.connect(lambda *_, keep=keep: self.wanted.emit(keep))
                self._buttons.append(button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        line = QHBoxLayout()
        for button in self._buttons:
            line.addWidget(button)
        column.addLayout(line)
        column.addWidget(self.picture)

    def tell(self, entry: Mapping[str, Any]) -> None:
        """Show what an entry has now; a hint of what it was before is no longer of use."""
        if self.strength is not None:
            self.strength.setCurrentIndex(strength_of(self._param, entry) + 1)
        reason = no_hint(entry)
        tips = (
            "See what the network would be shown.",
            "Make it a layer: correct it there, it guides the next picture.",
        )
        for button, tip in zip(self._buttons, tips):
            button.setEnabled(not reason)
            button.setToolTip(reason or tip)
        self.picture.hide()

    def show_hint(self, picture: Any) -> None:
        """Show a hint, a QImage."""
        self.picture.setPixmap(QPixmap.fromImage(picture))
        self.picture.show()

    def _choose(self) -> None:
        values = self.strength.currentData() if self.strength is not None else None
        if values is not None:
            self.chosen.emit(values)
