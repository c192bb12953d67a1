"""The list of names and tags below the caret of a prompt, as the client's `vocabulary` finds them."""

from __future__ import annotations

from typing import Any, Sequence

from impasto_client.completion import Completions
from impasto_client.vocabulary import Vocabulary

from .toolkit import Gdk, Gtk, label

__all__ = ["CompletionList"]

_TAKE = (Gdk.KEY_Return, Gdk.KEY_KP_Enter, Gdk.KEY_Tab)
_MOVE = {Gdk.KEY_Up: -1, Gdk.KEY_Down: 1}


class CompletionList:
    """Belongs to a text view, which keeps the keyboard: `key` says whether a key was the list's own."""

    def __init__(self, view: Any) -> None:
        self._vocabulary = Vocabulary()
        self._view = view
        self._offered = Completions(0)
        self._typed = False
        self._typed_at = -1
        """Where the caret was after the last letter that was typed; -1 where it may be elsewhere now."""
        self._rows = Gtk.ListBox(selection_mode=Gtk.SelectionMode.BROWSE)
        self._rows.connect("row-activated", lambda _, row: self._take(row.get_index()))
        self._popover = Gtk.Popover(relative_to=view, modal=False, position=Gtk.PositionType.BOTTOM)
        self._popover.set_name("impasto_completions")
        self._popover.add(self._rows)
        self._rows.show()
        view.get_buffer().connect_after("changed", lambda *_: self._changed())
        view.connect("focus-out-event", lambda *_: self.hide())

    def use(self, vocabulary: Vocabulary) -> None:
        """Complete from these words."""
        self._vocabulary = vocabulary
        vocabulary.listeners.append(self._heard)

    def _heard(self) -> None:
        """The server has found more; the list is for the one who still types there."""
        buffer = self._view.get_buffer()
        caret = buffer.get_iter_at_mark(buffer.get_insert()).get_offset()
        if self._view.is_focus() and caret == self._typed_at:
            self._typed = True
            self._changed()

    @property
    def offered(self) -> Sequence[str]:
        """What the open list shows; nothing while it is closed."""
        return [s.shown for s in self._offered.suggestions] if self._popover.get_visible() else []

    def hide(self) -> bool:
        self._popover.hide()
        return False

    def key(self, keyval: int) -> bool:
        """A key was pressed in the view."""
        self._typed = True
        if not self._popover.get_visible():
            return False
        if keyval in _TAKE:
            row = self._rows.get_selected_row()
            self._take(row.get_index() if row is not None else 0)
            return True
        if keyval == Gdk.KEY_Escape:
            return not self.hide()
        if keyval in _MOVE:
            row = self._rows.get_selected_row()
            at = (row.get_index() if row is not None else -1) + _MOVE[keyval]
            self._rows.select_row(self._rows.get_row_at_index(at % len(self._offered.suggestions)))
            return True
        return False

    def _changed(self) -> None:
        """The text is another one; a list is shown only where that was typed."""
        typed, self._typed = self._typed, False
        buffer = self._view.get_buffer()
        caret = buffer.get_iter_at_mark(buffer.get_insert())
        text = buffer.get_text(buffer.get_start_iter(), buffer.get_end_iter(), False)
        self._typed_at = caret.get_offset() if typed else -1
        self._offered = self._vocabulary.offer(text, caret.get_offset()) if typed else Completions(0)
        if not self._offered.suggestions:
            self.hide()
            return
        for child in self._rows.get_children():
            child.destroy()
        for suggestion in self._offered.suggestions:
            self._rows.add(label(suggestion.shown, wrap=False))
        self._rows.show_all()
        self._rows.select_row(self._rows.get_row_at_index(0))
        place = self._view.get_iter_location(caret)
        place.x, place.y = self._view.buffer_to_window_coords(Gtk.TextWindowType.WIDGET, place.x, place.y)
        self._popover.set_pointing_to(place)
        self._popover.show()

    def _take(self, at: int) -> None:
        buffer = self._view.get_buffer()
        suggestion = self._offered.suggestions[at]
        self.hide()
        start = buffer.get_iter_at_offset(self._offered.start)
        buffer.delete(start, buffer.get_iter_at_mark(buffer.get_insert()))
        buffer.insert_at_cursor(suggestion.text)
