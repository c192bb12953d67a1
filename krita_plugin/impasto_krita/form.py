"""A panel generated from the server's description of its parameters.

Only what the painter changed is sent: everything else is left to the server and to the hints of the checkpoint.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from impasto_client.wording import pretty
from impasto_protocol.errors import RequestError
from impasto_protocol.schema import AUTO, Param, validate

from .qt import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
    pyqtSignal,
)
from .slider import FillSlider

__all__ = ["ParamForm"]

GROUPS = {"sampling": "Sampling", "mask": "Mask", "size": "Size"}
UNBOUNDED = 1_000_000


class Field:
    """One parameter's widget with a uniform way to read and write it."""

    def __init__(self, widget: Any, read: Callable[[], Any], write: Callable[[Any], None], signal: Any) -> None:
        self.widget, self.read, self.write, self.signal = widget, read, write, signal


class ParamForm(QWidget):
    """Editors for `params`, grouped; `overrides()` are the values that differ from the defaults."""

    changed = pyqtSignal()

    def __init__(self, parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self._params: List[Param] = []
        self._fields: Dict[str, Field] = {}
        self._defaults: Dict[str, Any] = {}
        self._chosen: Dict[str, Any] = {}
        self._models: List[Mapping[str, Any]] = []
        self._quiet = False
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)

    def set_params(self, params: Sequence[Param]) -> None:
        """Build the editors anew where the description changed; what the painter chose is kept."""
        params = [p for p in params if p.type != "array"]
        if params == self._params:
            return
        self._params = params
        while self._layout.count():
            self._layout.takeAt(0).widget().deleteLater()
        self._fields = {}
        groups: Dict[str, List[Param]] = {}
        for p in params:
            groups.setdefault(str(p.ui.get("group", "")), []).append(p)
        for name, members in groups.items():
            self._add_group(name, members)
        self._defaults = {p.name: p.default for p in params}
        self._chosen = {name: value for name, value in self._chosen.items() if self._allowed(name, value)}
        self._show()

    def set_models(self, models: Sequence[Mapping[str, Any]]) -> None:
        """What the parameters that take a model of the catalogue offer; what the painter chose is kept."""
        self._models = list(models)
        self._quiet = True
        for p in self._params:
            if _takes_model(p):
                _fill_models(self._fields[p.name].widget, p, self._models)
        self._show()

    def set_hints(self, hints: Mapping[str, Any]) -> None:
        """Defaults that the chosen checkpoint recommends."""
        self._defaults = {p.name: hints.get(p.name, p.default) for p in self._params}
        self._show()

    def overrides(self) -> Dict[str, Any]:
        """What the painter chose, by parameter name."""
        return {name: value for name, value in self._chosen.items() if name in self._fields}

    def set_overrides(self, values: Mapping[str, Any]) -> None:
        self._chosen = dict(values)
        self._show()

    def reset(self) -> None:
        """Back to the defaults."""
        self._chosen = {}
        self._show()
        self.changed.emit()

    # ---- inside

    def _allowed(self, name: str, value: Any) -> bool:
        """Values kept from another day may not be known to this server."""
        try:
            validate([p for p in self._params if p.name == name], {name: value})
        except RequestError:
            return False
        return True

    def _add_group(self, name: str, members: Sequence[Param]) -> None:
        box = QWidget()
        layout = QVBoxLayout(box)
        layout.setContentsMargins(0, 0, 0, 4)
        layout.setSpacing(4)
        if name:
            heading = QLabel(GROUPS.get(name, name.capitalize()))
            font = heading.font()
            font.setBold(True)
            heading.setFont(font)
            layout.addWidget(heading)
        rows = QFormLayout()
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setVerticalSpacing(4)
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        for p in members:
            field = _model_choice(p, self._models) if _takes_model(p) else _field(p)
            field.widget.setObjectName(f"impasto_{p.name}")
            field.widget.setToolTip(p.description)
            field.signal.connect(lambda *_, name=p.name: self._edited(name))
            field.widget.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            self._fields[p.name] = field
            if isinstance(field.widget, (FillSlider, QCheckBox)):
                rows.addRow(field.widget)
            else:
                label = QLabel(p.title)
                label.setToolTip(p.description)
                rows.addRow(label, field.widget)
        layout.addLayout(rows)
        self._layout.addWidget(box)

    def _edited(self, name: str) -> None:
        if self._quiet:
            return
        value = self._fields[name].read()
        if value == self._defaults.get(name):
            self._chosen.pop(name, None)
        else:
            self._chosen[name] = value
        self.changed.emit()

    def _show(self) -> None:
        self._quiet = True
        for name, field in self._fields.items():
            value = self._chosen.get(name, self._defaults.get(name))
            if value is not None:
                field.write(value)
        self._quiet = False


def _takes_model(p: Param) -> bool:
    return p.type == "string" and not p.enum and p.choices.get("from") == "models"


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
    combo.addItem(str(p.ui.get("none", "Automatic")), "")
    for model in models:
        if model.get("kind") == p.choices.get("kind") and model.get("usable", True):
            combo.addItem(str(model.get("title") or model["id"]), model["id"])


def _field(p: Param) -> Field:
    if p.enum:
        return _choice(p)
    if p.type == "boolean":
        check = QCheckBox(p.title)
        return Field(check, check.isChecked, lambda v: check.setChecked(bool(v)), check.toggled)
    if p.type in ("number", "integer"):
        if p.auto or p.minimum is None or p.maximum is None:
            return _spin(p)
        step = p.step or (1 if p.type == "integer" else 0.01)
        slider = FillSlider(p.title, p.minimum, p.maximum, step, str(p.ui.get("unit", "")))
        cast = int if p.type == "integer" else float
        return Field(slider, lambda: cast(slider.value), slider.set_value, slider.changed)
    line = QLineEdit()
    return Field(line, line.text, lambda v: line.setText(str(v)), line.textChanged)


def _combo() -> Any:
    combo = QComboBox()
    combo.setMinimumContentsLength(6)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return combo


def _choice(p: Param) -> Field:
    combo = _combo()
    for value in p.enum:
        combo.addItem(pretty(value), value)
    return Field(
        combo, combo.currentData, lambda v: combo.setCurrentIndex(combo.findData(v)), combo.currentIndexChanged
    )


def _spin(p: Param) -> Field:
    """A number field; with `auto` the step below the minimum reads "auto"."""
    whole = p.type == "integer" or p.ui.get("unit") == "px"
    step = p.step or (1 if whole else 0.1)
    low = -UNBOUNDED if p.minimum is None else p.minimum
    high = UNBOUNDED if p.maximum is None else p.maximum
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
