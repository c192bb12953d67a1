"""A list of maps in the form: a block for each entry, with the widgets that the schema's `items` give."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

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

from .toolkit import Gtk, column, label, row

__all__ = ["ListEditor"]

OWN = "As set below"
"""The strength of an entry whose values are none of those in words."""


class ListEditor(Gtk.Box):
    """`value()` is a list of maps. `make` gives the widget of a parameter (see form.py)."""

    def __init__(self, p: Param, models: Sequence[Mapping[str, Any]], make: Any) -> None:
        super().__init__(orientation=Gtk.Orientation.VERTICAL, spacing=4)
        self.changed: Callable[..., None] = lambda *_: None
        self.hinted: Callable[[int, Dict[str, Any], bool], None] = lambda at, entry, keep: None
        """The painter wants the hint of entry n, as it is now: to keep as a layer, or to look at."""
        self.param, self._models, self._make = p, list(models), make
        self._entries: List[Dict[str, Any]] = []
        self._fields: List[Dict[str, Any]] = []
        self._extras: List[_Extras] = []
        self._lines: List[Dict[str, List[Any]]] = []
        """The widgets of each field of each entry."""
        self._advanced = False
        self._quiet = False
        self._blocks = column(spacing=4)
        self.add_button = Gtk.Button(label=f"Add {entry_title(p)}")
        self.add_button.set_name(f"impasto_{p.name}_add")
        self.add_button.connect("clicked", lambda *_: self._add())
        self.pack_start(self._blocks, False, False, 0)
        self.pack_start(self.add_button, False, False, 0)
        self._allow()

    def listen(self, heard: Callable[..., None]) -> None:
        """`heard` is called when the painter changes the list."""
        self.changed = heard

    def value(self) -> List[Dict[str, Any]]:
        return [dict(entry) for entry in self._entries]

    def set_value(self, value: Any) -> None:
        entries = [dict(entry) for entry in value]
        if entries == self._entries:
            return
        same = len(entries) == len(self._entries)
        self._entries = entries
        (self._show if same else self._build)()

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
                    widget.set_visible(self._advanced or not is_extra(item, entry))

    def bind(self, wish: HintWish, layer: str) -> None:
        """The hint of an entry is a layer now, which takes the place of its picture."""
        if wish.is_of(self._entries):
            self._take(wish.at, {"image": layer, "preprocessor": "none"})

    def show_hint(self, wish: HintWish, picture: Any) -> None:
        """Show the hint of an entry, a Pixbuf, unless it has been changed since."""
        if wish.is_of(self._entries):
            self._extras[wish.at].show_hint(picture)

    def _take(self, at: int, values: Mapping[str, Any]) -> None:
        self._entries[at].update(values)
        self._show()
        self.changed()

    def _allow(self) -> None:
        reason = lacks(self.param, self._models)
        full = self.param.maximum is not None and len(self._entries) >= self.param.maximum
        self.add_button.set_sensitive(not reason and not full)
        self.add_button.set_tooltip_text(reason or self.param.description or None)

    def _add(self) -> None:
        self._entries.append(new_entry(self.param, self._models))
        self._build()
        self.changed()

    def _remove(self, at: int) -> None:
        del self._entries[at]
        self._build()
        self.changed()

    def _build(self) -> None:
        for block in self._blocks.get_children():
            block.destroy()
        self._fields, self._extras, self._lines = [], [], []
        for at in range(len(self._entries)):
            self._blocks.pack_start(self._block(at), False, False, 0)
        self._blocks.show_all()
        self._show()
        self._allow()

    def _block(self, at: int) -> Any:
        """The first widget with the button that removes the entry beside it, the others below."""
        title = entry_title(self.param)
        remove = Gtk.Button.new_from_icon_name("edit-delete-symbolic", Gtk.IconSize.MENU)
        remove.set_relief(Gtk.ReliefStyle.NONE)
        remove.set_name(f"impasto_{self.param.name}_{at}_remove")
        remove.set_tooltip_text(f"Remove this {title}")
        remove.connect("clicked", lambda *_: self._remove(at))
        rows = Gtk.Grid(column_spacing=8, row_spacing=4, border_width=4)
        fields: Dict[str, Any] = {}
        lines: Dict[str, List[Any]] = {}
        extras, line = _Extras(self.param, at), 0
        for item in entry_params(self.param):
            field = fields[item.name] = self._make(item, self._models)
            field.widget.set_name(f"impasto_{self.param.name}_{at}_{item.name}")
            field.widget.set_tooltip_text(item.description or None)
            field.widget.set_hexpand(True)
            field.signal(self._edited(at, item.name))
            if item.name in extras.sets:
                rows.attach(label("How strongly", wrap=False), 0, line, 1, 1)
                rows.attach(extras.strength, 1, line, 1, 1)
                extras.sets, line = (), line + 1
            lines[item.name] = [field.widget]
            if line == 0:
                rows.attach(row(field.widget, remove, spacing=2), 0, line, 2, 1)
            elif field.titled:
                rows.attach(field.widget, 0, line, 2, 1)
            else:
                beside = label(item.title, wrap=False)
                beside.set_tooltip_text(item.description or None)
                rows.attach(beside, 0, line, 1, 1)
                rows.attach(field.widget, 1, line, 1, 1)
                lines[item.name].append(beside)
            line += 1
            if item.name == "preprocessor" and makes_hints(self.param):
                rows.attach(extras.hint, 0, line, 2, 1)
                line += 1
        extras.chosen = lambda values: self._take(at, values)
        extras.wanted = lambda keep: self.hinted(at, dict(self._entries[at]), keep)
        self._extras.append(extras)
        self._lines.append(lines)
        self._fields.append(fields)
        block = Gtk.Frame()
        block.add(rows)
        return block

    def _edited(self, at: int, name: str) -> Callable[..., None]:
        def heard(*_: Any) -> None:
            if not self._quiet:
                self._entries[at][name] = self._fields[at][name].read()
                self._extras[at].tell(self._entries[at])
                self._reveal()
                self.changed()

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


class _Extras:
    """What an entry has beside its parameters: how strongly it counts, in words, and its hint."""

    def __init__(self, p: Param, at: int) -> None:
        self.chosen: Callable[[Mapping[str, Any]], None] = lambda values: None
        self.wanted: Callable[[bool], None] = lambda keep: None
        self._param, self._quiet = p, False
        self.sets: Tuple[str, ...] = tuple({name for _, values in strengths_of(p) for name in values})
        """The fields that the strength sets; it stands before the first of them."""
        self.strength = Gtk.ComboBoxText(hexpand=True)
        self.strength.set_name(f"impasto_{p.name}_{at}_strength")
        self.strength.set_tooltip_text("Weight, start and end that belong together.")
        for title in (OWN, *(title for title, _ in strengths_of(p))):
            self.strength.append_text(title)
        self.strength.connect("changed", self._choose)
        self._buttons: List[Any] = []
        if makes_hints(p):
            for name, text, keep in (("preview", "Show hint", False), ("layer", "Hint as layer", True)):
                button = Gtk.Button(label=text, hexpand=True)
                button.set_name(f"impasto_{p.name}_{at}_{name}")
                button.connect("clicked", lambda _, keep=keep: self.wanted(keep))
                self._buttons.append(button)
        self.picture = Gtk.Image()
        self.picture.set_name(f"impasto_{p.name}_{at}_hint")
        self.picture.set_no_show_all(True)
        self.hint = column(row(*self._buttons), self.picture)

    def tell(self, entry: Mapping[str, Any]) -> None:
        """Show what an entry has now; a hint of what it was before is no longer of use."""
        self._quiet = True
        self.strength.set_active(strength_of(self._param, entry) + 1)
        self._quiet = False
        reason = no_hint(entry)
        tips = (
            "See what the network would be shown.",
            "Make it a layer: correct it there, it guides the next picture.",
        )
        for button, tip in zip(self._buttons, tips):
            button.set_sensitive(not reason)
            button.set_tooltip_text(reason or tip)
        self.picture.hide()

    def show_hint(self, picture: Any) -> None:
        """Show a hint, a Pixbuf."""
        self.picture.set_from_pixbuf(picture)
        self.picture.show()

    def _choose(self, *_: Any) -> None:
        at = self.strength.get_active() - 1
        if not self._quiet and at >= 0:
            self.chosen(strengths_of(self._param)[at][1])
