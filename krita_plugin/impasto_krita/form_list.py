"""A list of maps in the form: a block for each entry, with the widgets that the schema's `items` give."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from impasto_client.form_model import entry_params, entry_title, lacks, new_entry
from impasto_protocol.schema import Param

from .qt import QFormLayout, QFrame, QHBoxLayout, QLabel, QPushButton, QToolButton, QVBoxLayout, QWidget, pyqtSignal

__all__ = ["ListEditor"]


class ListEditor(QWidget):
    """`value()` is a list of maps. `make` gives the widget of a parameter and refills it with models (see form.py)."""

    changed = pyqtSignal()

    def __init__(self, p: Param, models: Sequence[Mapping[str, Any]], make: Any, parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self.param, self._models, self._make = p, list(models), make
        self._entries: List[Dict[str, Any]] = []
        self._fields: List[Dict[str, Any]] = []
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
        self._models = list(models)
        self._build()

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
        self._fields = []
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
        for item in entry_params(self.param):
            field = fields[item.name] = self._make(item, self._models)
            field.widget.setObjectName(f"impasto_{self.param.name}_{at}_{item.name}")
            field.widget.setToolTip(item.description)
            field.signal.connect(self._edited(at, item.name))
            line: Any = field.widget
            if len(fields) == 1:
                line = QWidget()
                beside = QHBoxLayout(line)
                beside.setContentsMargins(0, 0, 0, 0)
                beside.setSpacing(2)
                beside.addWidget(field.widget, 1)
                beside.addWidget(remove)
            if field.titled or len(fields) == 1:
                rows.addRow(line)
            else:
                label = QLabel(item.title)
                label.setToolTip(item.description)
                rows.addRow(label, line)
        self._fields.append(fields)
        return block

    def _edited(self, at: int, name: str) -> Callable[..., None]:
        def heard(*_: Any) -> None:
            if not self._quiet:
                self._entries[at][name] = self._fields[at][name].read()
                self.changed.emit()

        return heard

    def _show(self) -> None:
        self._quiet = True
        for entry, fields in zip(self._entries, self._fields):
            for name, field in fields.items():
                if entry.get(name) is not None:
                    field.write(entry[name])
        self._quiet = False
