"""A list of maps in the form: a block for each entry, with the widgets that the schema's `items` give."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence

from impasto_client.form_model import entry_params, entry_title, lacks, new_entry
from impasto_protocol.schema import Param

from .toolkit import Gtk, column, label, row

__all__ = ["ListEditor"]


class ListEditor(Gtk.Box):
    """`value()` is a list of maps. `make` gives the widget of a parameter (see form.py)."""

    def __init__(self, p: Param, models: Sequence[Mapping[str, Any]], make: Any) -> None:
        super().__init__(orientation=Gtk.Orientation.VERTICAL, spacing=4)
        self.changed: Callable[..., None] = lambda *_: None
        self.param, self._models, self._make = p, list(models), make
        self._entries: List[Dict[str, Any]] = []
        self._fields: List[Dict[str, Any]] = []
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
        self._models = list(models)
        self._build()

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
        self._fields = []
        for at in range(len(self._entries)):
            self._blocks.pack_start(self._block(at), False, False, 0)
        self._show()
        self._blocks.show_all()
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
        for line, item in enumerate(entry_params(self.param)):
            field = fields[item.name] = self._make(item, self._models)
            field.widget.set_name(f"impasto_{self.param.name}_{at}_{item.name}")
            field.widget.set_tooltip_text(item.description or None)
            field.widget.set_hexpand(True)
            field.signal(self._edited(at, item.name))
            if line == 0:
                rows.attach(row(field.widget, remove, spacing=2), 0, line, 2, 1)
            elif field.titled:
                rows.attach(field.widget, 0, line, 2, 1)
            else:
                beside = label(item.title, wrap=False)
                beside.set_tooltip_text(item.description or None)
                rows.attach(beside, 0, line, 1, 1)
                rows.attach(field.widget, 1, line, 1, 1)
        self._fields.append(fields)
        block = Gtk.Frame()
        block.add(rows)
        return block

    def _edited(self, at: int, name: str) -> Callable[..., None]:
        def heard(*_: Any) -> None:
            if not self._quiet:
                self._entries[at][name] = self._fields[at][name].read()
                self.changed()

        return heard

    def _show(self) -> None:
        self._quiet = True
        for entry, fields in zip(self._entries, self._fields):
            for name, field in fields.items():
                if entry.get(name) is not None:
                    field.write(entry[name])
        self._quiet = False
