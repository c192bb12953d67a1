"""Settings generated from the server's description of its parameters.

Only what the painter changed is sent: everything else is left to the server and to the hints of the checkpoint.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence

from impasto_client.wording import pretty
from impasto_protocol.errors import RequestError
from impasto_protocol.schema import AUTO, Param, validate

from .toolkit import GimpUi, Gtk, column, label, row

__all__ = ["Form", "spin_scale"]

GROUPS = {"sampling": "Sampling", "mask": "Mask", "size": "Size", "sketch": "Sketch"}
UNBOUNDED = 1_000_000


class Field:
    """One parameter's widget with a uniform way to read and write it."""

    def __init__(self, widget: Any, read: Callable[[], Any], write: Callable[[Any], None], signal: Any) -> None:
        self.widget, self.read, self.write, self.signal = widget, read, write, signal


class Form(Gtk.Box):
    """Editors for `params`, grouped; `overrides()` are the values that differ from the defaults."""

    def __init__(self) -> None:
        super().__init__(orientation=Gtk.Orientation.VERTICAL, spacing=10)
        self.changed: Callable[[], None] = lambda: None
        self._params: List[Param] = []
        self._fields: Dict[str, Field] = {}
        self._defaults: Dict[str, Any] = {}
        self._chosen: Dict[str, Any] = {}
        self._models: List[Mapping[str, Any]] = []
        self._quiet = False

    def set_params(self, params: Sequence[Param]) -> None:
        """Build the editors anew where the description changed; what the painter chose is kept."""
        params = [p for p in params if p.type != "array"]
        if params == self._params:
            return
        self._params = params
        for child in self.get_children():
            child.destroy()
        self._fields = {}
        groups: Dict[str, List[Param]] = {}
        for p in params:
            groups.setdefault(str(p.ui.get("group", "")), []).append(p)
        for name, members in groups.items():
            self._add_group(name, members)
        self._defaults = {p.name: p.default for p in params}
        self._chosen = {name: value for name, value in self._chosen.items() if self._allowed(name, value)}
        self._show()
        self.show_all()

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
        self.changed()

    # ---- inside

    def _allowed(self, name: str, value: Any) -> bool:
        """Values kept from another day may not be known to this server."""
        try:
            validate([p for p in self._params if p.name == name], {name: value})
        except RequestError:
            return False
        return True

    def _add_group(self, name: str, members: Sequence[Param]) -> None:
        box = column(spacing=4)
        if name:
            heading = label()
            heading.set_markup(f"<b>{GROUPS.get(name, name.capitalize())}</b>")
            box.pack_start(heading, False, False, 0)
        rows = Gtk.Grid(column_spacing=8, row_spacing=4)
        for line, p in enumerate(members):
            field = _model_choice(p, self._models) if _takes_model(p) else _field(p)
            field.widget.set_name(f"impasto_{p.name}")
            field.widget.set_tooltip_text(p.description or None)
            field.widget.set_hexpand(True)
            field.signal(lambda *_, name=p.name: self._edited(name))
            self._fields[p.name] = field
            if isinstance(field.widget, (GimpUi.SpinScale, Gtk.CheckButton)):
                rows.attach(field.widget, 0, line, 2, 1)
            else:
                unit = f" ({p.ui['unit']})" if p.ui.get("unit") else ""
                title = label(p.title + unit, wrap=False)
                title.set_tooltip_text(p.description or None)
                rows.attach(title, 0, line, 1, 1)
                rows.attach(field.widget, 1, line, 1, 1)
        box.pack_start(rows, False, False, 0)
        self.pack_start(box, False, False, 0)

    def _edited(self, name: str) -> None:
        if self._quiet:
            return
        value = self._fields[name].read()
        if value == self._defaults.get(name):
            self._chosen.pop(name, None)
        else:
            self._chosen[name] = value
        self.changed()

    def _show(self) -> None:
        self._quiet = True
        for name, field in self._fields.items():
            value = self._chosen.get(name, self._defaults.get(name))
            if value is not None:
                field.write(value)
        self._quiet = False


def spin_scale(title: str, minimum: float, maximum: float, step: float, unit: str = "") -> Any:
    """GIMP's own slider that carries its name and value, with `get` and `set` in the parameter's unit.

    With the unit "%" a value of 0..1 is shown and typed as 0..100.
    """
    factor = 100.0 if unit == "%" else 1.0
    digits = 0 if step * factor == int(step * factor) else 1 if round(step * factor * 10, 6).is_integer() else 2
    adjustment = Gtk.Adjustment.new(
        minimum * factor, minimum * factor, maximum * factor, step * factor, 10 * step * factor, 0
    )
    named = f"{title} ({unit})" if unit else title
    scale = GimpUi.SpinScale.new(adjustment, named, digits)

    def read() -> float:
        steps = round((adjustment.get_value() / factor - minimum) / step)
        return float(round(min(max(minimum + steps * step, minimum), maximum), 6))

    scale.read = read
    scale.write = lambda value: adjustment.set_value(float(value) * factor)
    scale.on_change = lambda heard: adjustment.connect("value-changed", heard)
    return scale


def _takes_model(p: Param) -> bool:
    return p.type == "string" and not p.enum and p.choices.get("from") == "models"


def _model_choice(p: Param, models: Sequence[Mapping[str, Any]]) -> Field:
    """A model of the catalogue by its id; one that is not there any more stays to be seen."""
    combo = Gtk.ComboBoxText()
    _fill_models(combo, p, models)

    def write(value: Any) -> None:
        if not combo.set_active_id(str(value)):
            combo.append(str(value), f"{value} (not found)")
            combo.set_active_id(str(value))

    return Field(combo, combo.get_active_id, write, lambda heard: combo.connect("changed", heard))


def _fill_models(combo: Any, p: Param, models: Sequence[Mapping[str, Any]]) -> None:
    combo.remove_all()
    combo.append("", str(p.ui.get("none", "Automatic")))
    for model in models:
        if model.get("kind") == p.choices.get("kind") and model.get("usable", True):
            combo.append(str(model["id"]), str(model.get("title") or model["id"]))


def _field(p: Param) -> Field:
    if p.enum:
        return _choice(p)
    if p.type == "boolean":
        check = Gtk.CheckButton(label=p.title)
        return Field(
            check, check.get_active, lambda v: check.set_active(bool(v)), lambda heard: check.connect("toggled", heard)
        )
    if p.type in ("number", "integer"):
        if p.auto or p.minimum is None or p.maximum is None:
            return _spin(p)
        step = p.step or (1 if p.type == "integer" else 0.01)
        scale = spin_scale(p.title, p.minimum, p.maximum, step, str(p.ui.get("unit", "")))
        cast = int if p.type == "integer" else float
        return Field(scale, lambda: cast(scale.read()), scale.write, scale.on_change)
    entry = Gtk.Entry()
    return Field(entry, entry.get_text, lambda v: entry.set_text(str(v)), lambda heard: entry.connect("changed", heard))


def _choice(p: Param) -> Field:
    combo = Gtk.ComboBoxText()
    for value in p.enum:
        combo.append(value, pretty(value))
    return Field(
        combo, combo.get_active_id, lambda v: combo.set_active_id(str(v)), lambda heard: combo.connect("changed", heard)
    )


def _spin(p: Param) -> Field:
    """A number field; with `auto` beside it that leaves it to the server."""
    whole = p.type == "integer" or p.ui.get("unit") == "px"
    step = p.step or (1 if whole else 0.1)
    low = -UNBOUNDED if p.minimum is None else p.minimum
    high = UNBOUNDED if p.maximum is None else p.maximum
    number = int if whole else float
    spin = Gtk.SpinButton.new_with_range(low, high, step)
    spin.set_digits(0 if whole else 1)
    spin.set_width_chars(5)
    if not p.auto:
        return Field(
            spin,
            lambda: number(spin.get_value()),
            lambda v: spin.set_value(float(v)),
            lambda heard: spin.connect("value-changed", heard),
        )
    automatic = Gtk.CheckButton(label="auto")
    automatic.connect("toggled", lambda *_: spin.set_sensitive(not automatic.get_active()))

    def write(value: Any) -> None:
        automatic.set_active(value == AUTO)
        if value != AUTO:
            spin.set_value(float(value))

    def listen(heard: Callable[..., None]) -> None:
        spin.connect("value-changed", heard)
        automatic.connect("toggled", heard)

    both = row(spin, automatic)
    return Field(both, lambda: AUTO if automatic.get_active() else number(spin.get_value()), write, listen)
