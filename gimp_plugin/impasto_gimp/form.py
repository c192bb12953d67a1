"""Settings generated from the server's description of its parameters: the widgets of the client's `FormModel`."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

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
from .toolkit import GimpUi, Gtk, column, label, row

__all__ = ["Form", "spin_scale"]

Layers = Callable[[], List[Tuple[str, str]]]


class Field:
    """One parameter's widget with a uniform way to read and write it."""

    def __init__(
        self, widget: Any, read: Callable[[], Any], write: Callable[[Any], None], signal: Any, titled: bool = False
    ) -> None:
        self.widget, self.read, self.write, self.signal = widget, read, write, signal
        self.titled = titled
        """Does it show its title itself?"""


class Form(Gtk.Box):
    """Editors for `params`, grouped; `overrides()` are the values that differ from the defaults."""

    def __init__(self, layers: Layers = list) -> None:
        """`layers()` are those of the image to work on: (value, title)."""
        super().__init__(orientation=Gtk.Orientation.VERTICAL, spacing=10)
        self._layers = layers
        self.changed: Callable[[], None] = lambda: None
        self.hinted: Callable[[int, Dict[str, Any], bool], None] = lambda at, entry, keep: None
        """As that of the list of control units."""
        self.model = FormModel()
        self.model.changed = lambda: self.changed()
        self._fields: Dict[str, Field] = {}
        self._rows: Dict[str, List[Any]] = {}
        """The widgets of each parameter."""
        self._groups: List[Any] = []
        self._quiet = False

    def set_params(self, params: Sequence[Param]) -> None:
        """Build the editors anew where the description changed; what the painter chose is kept."""
        if not self.model.set_params(params):
            return
        for child in self.get_children():
            child.destroy()
        self._fields, self._rows, self._groups = {}, {}, []
        for title, members in grouped(self.model.params):
            self._add_group(title, members)
        self.show_all()
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
        """Show a hint that the painter asked for, a Pixbuf."""
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
        box = column(spacing=4)
        if title:
            heading = label()
            heading.set_markup(f"<b>{title}</b>")
            box.pack_start(heading, False, False, 0)
        rows = Gtk.Grid(column_spacing=8, row_spacing=4)
        for line, p in enumerate(members):
            field = field_for(p, self.model.models, self._layers)
            field.widget.set_name(f"impasto_{p.name}")
            field.widget.set_tooltip_text(p.description or None)
            field.widget.set_hexpand(True)
            field.signal(lambda *_, name=p.name: self._edited(name))
            self._fields[p.name] = field
            if isinstance(field.widget, ListEditor):
                field.widget.hinted = lambda *wish: self.hinted(*wish)
                field.widget.set_advanced(self.model.advanced)
                field.widget.set_tooltip_text(None)
                titles = [] if p.title == title else [_beside(p)]
                whole = column(*titles, field.widget, spacing=2)
                rows.attach(whole, 0, line, 2, 1)
                self._rows[p.name] = [whole]
            elif field.titled:
                rows.attach(field.widget, 0, line, 2, 1)
                self._rows[p.name] = [field.widget]
            else:
                beside = _beside(p)
                rows.attach(beside, 0, line, 1, 1)
                rows.attach(field.widget, 1, line, 1, 1)
                self._rows[p.name] = [beside, field.widget]
        box.pack_start(rows, False, False, 0)
        self.pack_start(box, False, False, 0)
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
                widget.set_no_show_all(True)
                widget.set_visible(name in shown)
        for box, names in self._groups:
            box.set_no_show_all(True)
            box.set_visible(any(name in shown for name in names))


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


def _beside(p: Param) -> Any:
    """The title that stands beside or above a widget."""
    unit = f" ({p.ui['unit']})" if p.ui.get("unit") else ""
    made = label(p.title + unit, wrap=False)
    made.set_tooltip_text(p.description or None)
    return made


def field_for(p: Param, models: Sequence[Mapping[str, Any]], layers: Layers) -> Field:
    """The widget for a parameter, by its kind."""
    kind = kind_of(p)
    if kind == "picture":
        return _picture_choice(p, layers)
    if kind == "model":
        return _model_choice(p, models)
    if kind == "list":
        editor = ListEditor(p, models, lambda item, fresh: field_for(item, fresh, layers))
        return Field(editor, editor.value, editor.set_value, editor.listen)
    if kind == "choice":
        return _choice(p)
    if kind == "check":
        return _check(p)
    if kind == "slider":
        assert p.minimum is not None and p.maximum is not None
        scale = spin_scale(p.title, p.minimum, p.maximum, step_of(p), str(p.ui.get("unit", "")))
        cast = int if p.type == "integer" else float
        return Field(scale, lambda: cast(scale.read()), scale.write, scale.on_change, titled=True)
    if kind == "number":
        return _spin(p)
    entry = Gtk.Entry()
    return Field(entry, entry.get_text, lambda v: entry.set_text(str(v)), lambda heard: entry.connect("changed", heard))


def _check(p: Param) -> Field:
    check = Gtk.CheckButton(label=p.title)
    return Field(
        check,
        check.get_active,
        lambda v: check.set_active(bool(v)),
        lambda heard: check.connect("toggled", heard),
        titled=True,
    )


def _picture_choice(p: Param, layers: Layers) -> Field:
    """A layer of the image. The list is looked up whenever the pointer comes: GIMP does not tell when layers change."""
    combo = Gtk.ComboBoxText()

    def fill(wanted: str) -> None:
        offered = pictures_for(p, layers())
        if all(value != wanted for value, _ in offered):
            offered.append((wanted, "A layer of another image"))
        if [tuple(line)[:2] for line in combo.get_model()] != [(title, value) for value, title in offered]:
            combo.remove_all()
            for value, title in offered:
                combo.append(value, title)
        if combo.get_active_id() != wanted:
            combo.set_active_id(wanted)

    combo.connect("enter-notify-event", lambda *_: fill(combo.get_active_id() or ""))
    fill("")
    return Field(
        combo,
        lambda: combo.get_active_id() or "",
        lambda v: fill(str(v)),
        lambda heard: combo.connect("changed", lambda *_: heard() if combo.get_active_id() is not None else None),
    )


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
    for id, title in choices_of(p, models):
        combo.append(id, title)


def _choice(p: Param) -> Field:
    combo = Gtk.ComboBoxText()
    for value, title, _ in enum_choices(p):
        combo.append(value, title)
    reasons = {value: reason for value, _, reason in enum_choices(p)}

    def explain(*_: Any) -> None:
        combo.set_tooltip_text(reasons.get(combo.get_active_id() or "") or p.description)

    combo.connect("changed", explain)
    return Field(
        combo, combo.get_active_id, lambda v: combo.set_active_id(str(v)), lambda heard: combo.connect("changed", heard)
    )


def _spin(p: Param) -> Field:
    """A number field; with `auto` beside it that leaves it to the server."""
    whole, step = is_whole(p), step_of(p)
    low, high = range_of(p)
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
