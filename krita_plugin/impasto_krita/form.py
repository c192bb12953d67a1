"""A panel generated from the server's description of its parameters: the widgets of the client's `FormModel`."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from impasto_client.form_model import (
    FormModel,
    choices_of,
    enum_choices,
    grouped,
    is_whole,
    kind_of,
    pictures_for,
    range_of,
    step_of,
)
from impasto_client.hint_layers import HintWish, makes_hints
from impasto_protocol.schema import AUTO, Param

from .form_list import ListEditor
from .qt import (
    QCheckBox,
    QComboBox,
    QCompleter,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QSpinBox,
    Qt,
    QVBoxLayout,
    QWidget,
    pyqtSignal,
)
from .slider import FillSlider

__all__ = ["ParamForm"]

Layers = Callable[[], List[Tuple[str, str]]]
WIDEST_LABEL = 110
"""Points that the titles of a group take at most before they stand out of line."""
SEARCHED = 15
"""A list of models that is longer than this can be searched by typing."""


class Field:
    """One parameter's widget with a uniform way to read and write it."""

    def __init__(
        self, widget: Any, read: Callable[[], Any], write: Callable[[Any], None], signal: Any, titled: bool = False
    ) -> None:
        self.widget, self.read, self.write, self.signal = widget, read, write, signal
        self.titled = titled
        """Does it show its title itself?"""


class ParamForm(QWidget):
    """Editors for `params`, grouped; `overrides()` are the values that differ from the defaults."""

    changed = pyqtSignal()
    hinted = pyqtSignal(int, object, bool)
    """As that of the list of control units."""

    def __init__(self, layers: Layers = list, parent: Optional[Any] = None) -> None:
        """`layers()` are those of the document in front: (value, title)."""
        super().__init__(parent)
        self.model = FormModel()
        self._layers = layers
        self.model.changed = self.changed.emit
        self._fields: Dict[str, Field] = {}
        self._rows: Dict[str, List[Any]] = {}
        """The widgets of each parameter."""
        self._groups: List[Any] = []
        self._quiet = False
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)

    def set_params(self, params: Sequence[Param]) -> None:
        """Build the editors anew where the description changed; what the painter chose is kept."""
        if not self.model.set_params(params):
            return
        while self._layout.count():
            self._layout.takeAt(0).widget().deleteLater()
        self._fields, self._rows, self._groups = {}, {}, []
        for title, members in grouped(self.model.params):
            self._add_group(title, members)
        self._show()

    def set_models(self, models: Sequence[Mapping[str, Any]]) -> None:
        """What the parameters that take a model of the catalogue offer; what the painter chose is kept."""
        self.model.models = list(models)
        self._quiet = True
        for p in self.model.params:
            widget = self._fields[p.name].widget
            if kind_of(p) == "model":
                _fill_models(widget, p, self.model.models)
            elif isinstance(widget, ListEditor):
                widget.set_models(self.model.models)
        self._show()

    def set_hints(self, hints: Mapping[str, Any]) -> None:
        """Defaults that the chosen checkpoint recommends."""
        self.model.set_hints(hints)
        self._show()

    def overrides(self) -> Dict[str, Any]:
        """What the painter chose, by parameter name."""
        return self.model.overrides()

    def chosen(self) -> Dict[str, Any]:
        """The same with what another mode has."""
        return self.model.chosen()

    def set_overrides(self, values: Mapping[str, Any]) -> None:
        self.model.set_overrides(values)
        self._show()

    def show_values(self) -> None:
        """Show what the model holds, after something else than these editors changed it."""
        self._show()

    def bind_hint(self, wish: HintWish, layer: str) -> None:
        """A hint that the painter asked for is a layer now."""
        for editor in self._hint_lists():
            editor.bind(wish, layer)

    def show_hint(self, wish: HintWish, picture: Any) -> None:
        """Show a hint that the painter asked for, a QImage."""
        for editor in self._hint_lists():
            editor.show_hint(wish, picture)

    def _hint_lists(self) -> List[ListEditor]:
        widgets = [field.widget for field in self._fields.values()]
        return [widget for widget in widgets if isinstance(widget, ListEditor) and makes_hints(widget.param)]

    def reset(self) -> None:
        """Back to the defaults."""
        self.model.reset()
        self._show()

    def set_advanced(self, on: bool) -> None:
        """Show the settings for experts too, or no longer."""
        self.model.advanced = on
        for field in self._fields.values():
            if isinstance(field.widget, ListEditor):
                field.widget.set_advanced(on)
        self._show()

    # ---- inside

    def _add_group(self, title: str, members: Sequence[Param]) -> None:
        box = QWidget()
        layout = QVBoxLayout(box)
        layout.setContentsMargins(0, 0, 0, 4)
        layout.setSpacing(4)
        if title:
            heading = QLabel(title)
            font = heading.font()
            font.setBold(True)
            heading.setFont(font)
            layout.addWidget(heading)
        labels: List[Any] = []
        for p in members:
            field = field_for(p, self.model.models, self._layers)
            field.widget.setObjectName(f"impasto_{p.name}")
            if kind_of(p) != "list":
                field.widget.setToolTip(p.description)
            field.signal.connect(lambda *_, name=p.name: self._edited(name))
            field.widget.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            self._fields[p.name] = field
            if isinstance(field.widget, ListEditor):
                field.widget.hinted.connect(self.hinted)
                field.widget.set_advanced(self.model.advanced)
            label = QLabel(p.title)
            label.setToolTip(p.description)
            self._rows[p.name] = [label, field.widget]
            if isinstance(field.widget, ListEditor) and p.title != title:
                layout.addWidget(label)
                layout.addWidget(field.widget)
            elif isinstance(field.widget, ListEditor) or field.titled:
                self._rows[p.name] = [field.widget]
                layout.addWidget(field.widget)
            else:
                # A widget of its own for each line: where it is hidden, no gap is left.
                line = QWidget()
                row = QHBoxLayout(line)
                row.setContentsMargins(0, 0, 0, 0)
                row.addWidget(label)
                row.addWidget(field.widget, 1)
                layout.addWidget(line)
                labels.append(label)
                self._rows[p.name] = [line]
        width = max([label.sizeHint().width() for label in labels], default=0)
        for label in labels:
            label.setMinimumWidth(min(width, WIDEST_LABEL))
        self._layout.addWidget(box)
        self._groups.append((box, [p.name for p in members]))

    def _edited(self, name: str) -> None:
        if not self._quiet:
            self.model.edited(name, self._fields[name].read())
            self._reveal()

    def _show(self) -> None:
        self._quiet = True
        for name, field in self._fields.items():
            value = self.model.value(name)
            if value is not None:
                field.write(value)
        self._quiet = False
        self._reveal()

    def _reveal(self) -> None:
        """Show what is to be shown, and no heading without anything below it."""
        shown = self.model.shown()
        for name, widgets in self._rows.items():
            for widget in widgets:
                widget.setVisible(name in shown)
        for box, names in self._groups:
            box.setVisible(any(name in shown for name in names))


def field_for(p: Param, models: Sequence[Mapping[str, Any]], layers: Layers) -> Field:
    """The widget for a parameter, by its kind."""
    kind = kind_of(p)
    if kind == "picture":
        return _picture_choice(p, layers)
    if kind == "model":
        return _model_choice(p, models)
    if kind == "list":
        editor = ListEditor(p, models, lambda item, fresh: field_for(item, fresh, layers))
        return Field(editor, editor.value, editor.set_value, editor.changed)
    if kind == "choice":
        return _choice(p)
    if kind == "check":
        check = QCheckBox(p.title)
        return Field(check, check.isChecked, lambda v: check.setChecked(bool(v)), check.toggled, titled=True)
    if kind == "slider":
        assert p.minimum is not None and p.maximum is not None
        slider = FillSlider(p.title, p.minimum, p.maximum, step_of(p), str(p.ui.get("unit", "")))
        cast = int if p.type == "integer" else float
        return Field(slider, lambda: cast(slider.value), slider.set_value, slider.changed, titled=True)
    if kind == "number":
        return _spin(p)
    line = QLineEdit()
    return Field(line, line.text, lambda v: line.setText(str(v)), line.textChanged)


class LayerChoice(QComboBox):
    """A list of layers that is looked up when it is opened: Krita does not tell when layers come and go."""

    def __init__(self, p: Param, layers: Layers) -> None:
        super().__init__()
        self._param, self._layers = p, layers
        self.setMinimumContentsLength(6)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.fill("")

    def fill(self, wanted: str) -> None:
        """List the layers that are there now, and choose one; one that is gone stays to be seen."""
        quiet = self.blockSignals(True)
        self.clear()
        for value, title in pictures_for(self._param, self._layers()):
            self.addItem(title, value)
        if self.findData(wanted) < 0:
            self.addItem("A layer of another document", wanted)
        self.setCurrentIndex(self.findData(wanted))
        self.blockSignals(quiet)

    def showPopup(self) -> None:
        self.fill(self.currentData() or "")
        super().showPopup()


def _picture_choice(p: Param, layers: Layers) -> Field:
    combo = LayerChoice(p, layers)
    return Field(combo, combo.currentData, lambda v: combo.fill(str(v)), combo.currentIndexChanged)


def _model_choice(p: Param, models: Sequence[Mapping[str, Any]]) -> Field:
    """A model of the catalogue by its id; one that is not there any more stays to be seen."""
    combo = _combo()
    _fill_models(combo, p, models)

    def write(value: Any) -> None:
        at = combo.findData(value)
        if at < 0:
            combo.addItem(f"{value} (not found)", value)
            at = combo.count() - 1
        combo.setCurrentIndex(at)

    return Field(combo, combo.currentData, write, combo.currentIndexChanged)


def _fill_models(combo: Any, p: Param, models: Sequence[Mapping[str, Any]]) -> None:
    combo.clear()
    for id, title in choices_of(p, models):
        combo.addItem(title, id)
    if combo.count() > SEARCHED:
        _search(combo)


def _search(combo: Any) -> None:
    """A long list is searched by typing any part of a name."""
    combo.setEditable(True)
    combo.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
    completer = combo.completer()
    completer.setFilterMode(Qt.MatchFlag.MatchContains)
    completer.setCompletionMode(QCompleter.CompletionMode.PopupCompletion)
    # What was typed and is no name in the list is let go.
    combo.lineEdit().editingFinished.connect(lambda: combo.setEditText(combo.itemText(combo.currentIndex())))


def _combo() -> Any:
    combo = QComboBox()
    combo.setMinimumContentsLength(6)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return combo


def _choice(p: Param) -> Field:
    combo = _combo()
    for row, (value, title, reason) in enumerate(enum_choices(p)):
        combo.addItem(title, value)
        combo.setItemData(row, reason, Qt.ItemDataRole.ToolTipRole)
    return Field(
        combo, combo.currentData, lambda v: combo.setCurrentIndex(combo.findData(v)), combo.currentIndexChanged
    )


def _spin(p: Param) -> Field:
    """A number field; with `auto` the step below the minimum reads "auto"."""
    whole, step = is_whole(p), step_of(p)
    low, high = range_of(p)
    spin: Any = QSpinBox() if whole else QDoubleSpinBox()
    number = int if whole else float
    auto_at = number(low - step)
    spin.setRange(auto_at if p.auto else number(low), number(high))
    spin.setSingleStep(number(step))
    if p.ui.get("unit"):
        spin.setSuffix(f" {p.ui['unit']}")
    if p.auto:
        spin.setSpecialValueText("auto")

    def read() -> Any:
        return AUTO if p.auto and spin.value() == auto_at else number(spin.value())

    def write(value: Any) -> None:
        spin.setValue(auto_at if value == AUTO else number(value))

    return Field(spin, read, write, spin.valueChanged)
