"""The panel's own widgets: a prompt, a seed, a picture that compares, a strip of results."""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Sequence

from impasto_client.gallery import Key
from impasto_client.prompt_edit import is_settings, shift_weight

from .completion_list import CompletionList
from .toolkit import Gdk, GdkPixbuf, GLib, Gtk, fitted, label, over, row

__all__ = ["Picture", "Prompt", "Seed", "Strip"]

THUMB = 56
MAX_SEED = 2**32 - 1
WEIGHTS = {Gdk.KEY_Up: 1, Gdk.KEY_KP_Up: 1, Gdk.KEY_Down: -1, Gdk.KEY_KP_Down: -1}
"""With Ctrl: steps by which the weight of words changes."""


class Prompt(Gtk.Overlay):
    """A text of several lines with a hint while it is empty. Ctrl+Return calls `submitted`, changes call `changed`;
    Ctrl+Up and Ctrl+Down weigh the words that are selected or under the caret. Names of the catalogue are completed.
    """

    def __init__(self, hint: str, lines: int, name: str) -> None:
        super().__init__()
        self.submitted: Callable[[], None] = lambda: None
        self.changed: Callable[[], None] = lambda: None
        self.pasted: Callable[[str], None] = lambda text: None
        """What was pasted is the text of a whole picture's settings, and not words for this one."""
        self.view = Gtk.TextView(wrap_mode=Gtk.WrapMode.WORD_CHAR, accepts_tab=False)
        for side in ("left", "right", "top", "bottom"):
            getattr(self.view, f"set_{side}_margin")(6)
        self.view.set_name(name)
        self.view.set_tooltip_text(
            "(word:1.2) stresses, [word] weakens. Ctrl+Return starts;\n"
            "Ctrl+Up and Ctrl+Down weigh the words that are selected or under the caret."
        )
        frame = Gtk.ScrolledWindow(shadow_type=Gtk.ShadowType.IN, hscrollbar_policy=Gtk.PolicyType.NEVER)
        frame.set_size_request(-1, 20 * lines + 12)
        frame.add(self.view)
        self.add(frame)
        self._hint = label(hint, css="impasto-quiet")
        self._hint.set_margin_start(8)
        self._hint.set_margin_top(7)
        self._hint.set_valign(Gtk.Align.START)
        self._hint.show()
        self._hint.set_no_show_all(True)  # it is there only while there is no text
        self.add_overlay(self._hint)
        self.set_overlay_pass_through(self._hint, True)
        self.view.get_buffer().connect("changed", self._changed)
        self.completions = CompletionList(self.view)
        self.view.connect("key-press-event", self._key)
        self.view.connect("paste-clipboard", self._paste)

    @property
    def text(self) -> str:
        buffer = self.view.get_buffer()
        return str(buffer.get_text(buffer.get_start_iter(), buffer.get_end_iter(), False))

    @text.setter
    def text(self, text: str) -> None:
        self.view.get_buffer().set_text(text)

    def _changed(self, *_: Any) -> None:
        self._hint.set_visible(not self.text)
        self.changed()

    def _key(self, _: Any, event: Any) -> bool:
        if not event.state & Gdk.ModifierType.CONTROL_MASK:
            return self.completions.key(event.keyval)
        if event.keyval in (Gdk.KEY_Return, Gdk.KEY_KP_Enter):
            self.submitted()
            return True
        if event.keyval in WEIGHTS:
            self._weigh(WEIGHTS[event.keyval])
            return True
        return False

    def _paste(self, view: Any) -> None:
        text = Gtk.Clipboard.get(Gdk.SELECTION_CLIPBOARD).wait_for_text()
        if text and is_settings(text):
            view.stop_emission_by_name("paste-clipboard")
            self.pasted(text)

    def _weigh(self, steps: int) -> None:
        buffer = self.view.get_buffer()
        start, end = buffer.get_iter_at_mark(buffer.get_insert()), buffer.get_iter_at_mark(buffer.get_selection_bound())
        edit = shift_weight(self.text, start.get_offset(), end.get_offset(), steps)
        if edit.text != self.text:
            buffer.set_text(edit.text)
        buffer.select_range(buffer.get_iter_at_offset(edit.end), buffer.get_iter_at_offset(edit.start))


class Seed(Gtk.Box):
    """The seed: empty draws a new one each time; the lock takes that of the last picture."""

    def __init__(self) -> None:
        super().__init__(spacing=4)
        self.changed: Callable[[], None] = lambda: None
        self._last: Optional[int] = None
        self.entry = Gtk.Entry(placeholder_text="New for every picture", width_chars=10)
        self.entry.set_name("impasto_seed")
        self.entry.set_tooltip_text(
            "The noise that a picture starts from. The same seed and settings give the same picture."
        )
        self.entry.connect("changed", self._changed)
        self.lock = _tool("changes-prevent-symbolic", "Keep the seed of the last picture", self._lock)
        self.lock.set_name("impasto_seed_lock")
        self.new = _tool("edit-clear-symbolic", "A new seed for every picture", lambda: self.set_seed(-1))
        self.pack_start(self.entry, True, True, 0)
        self.pack_start(self.lock, False, False, 0)
        self.pack_start(self.new, False, False, 0)
        self._changed()

    def seed(self) -> int:
        """The number in the field, or -1 for a new one."""
        digits = self.entry.get_text().strip()
        return min(int(digits), MAX_SEED) if digits.isdigit() else -1

    def set_seed(self, seed: int) -> None:
        self.entry.set_text("" if seed < 0 else str(seed))

    def set_last(self, seed: int) -> None:
        """Remember the seed of the newest picture for the lock."""
        self._last = seed
        self._changed()

    def _lock(self) -> None:
        if self._last is not None:
            self.set_seed(self._last)

    def _changed(self, *_: Any) -> None:
        text = self.entry.get_text()
        digits = "".join(c for c in text if c in "0123456789")[:10]
        if digits != text:
            self.entry.set_text(digits)
            return
        self.new.set_sensitive(bool(digits))
        self.lock.set_sensitive(self._last is not None and self.seed() != self._last)
        self.changed()


class Picture(Gtk.EventBox):
    """A picture that fits its width. Where it has a `before`, holding the mouse button down on it shows that."""

    def __init__(self, tallest: int) -> None:
        super().__init__()
        self.set_name("impasto_picture")
        self._tallest = tallest
        self._after: Optional[Any] = None
        self._before: Optional[Any] = None
        self._comparing = False
        self._width = 0
        self._image = Gtk.Image()
        # In a scrolled window without bars the picture does not hold its window at its own width.
        room = Gtk.ScrolledWindow(hscrollbar_policy=Gtk.PolicyType.EXTERNAL, vscrollbar_policy=Gtk.PolicyType.NEVER)
        room.add(self._image)
        self.add(room)
        self.set_no_show_all(True)
        room.show_all()
        self.connect("size-allocate", self._sized)
        self.connect("button-press-event", lambda *_: self.compare(True))
        self.connect("button-release-event", lambda *_: self.compare(False))

    def show_picture(self, after: Optional[Any], before: Optional[Any] = None) -> None:
        """Pixbufs, or None to hide."""
        self._after, self._before, self._comparing = after, before, False
        self.set_tooltip_text("Hold the mouse button down to see it as it was." if before is not None else None)
        self.set_visible(after is not None)
        self._draw()

    @property
    def comparing(self) -> bool:
        """Is it the picture before that is shown?"""
        return self._comparing

    def compare(self, on: bool) -> bool:
        """Show the picture before, or the one after again."""
        self._comparing = on and self._before is not None
        self._draw()
        return True

    def _sized(self, _: Any, allocation: Any) -> None:
        if allocation.width != self._width:
            self._width = allocation.width
            GLib.idle_add(self._draw)

    def _draw(self) -> bool:
        shown = self._before if self._comparing else self._after
        if shown is None:
            self._image.clear()
        else:
            self._image.set_from_pixbuf(fitted(shown, max(64, self._width), self._tallest))
        return False


class Strip(Gtk.ScrolledWindow):
    """Thumbnails of results, the newest first. `chosen` hears of a click, `wanted` of a double click, `older` of the
    wish to see more. With Ctrl several are selected.
    """

    def __init__(self) -> None:
        super().__init__(vscrollbar_policy=Gtk.PolicyType.NEVER)
        self.set_name("impasto_results")
        self.chosen: Callable[[Any], None] = lambda _: None
        self.wanted: Callable[[Any], None] = lambda _: None
        self.older: Callable[[], None] = lambda: None
        self.items: List[Any] = []
        self._buttons: List[Any] = []
        self._current: Optional[Key] = None
        self._quiet = False
        self._row = row(spacing=2)
        self._more = Gtk.Button(label="Older…")
        self._more.set_name("impasto_older")
        self._more.connect("clicked", lambda *_: self.older())
        self.add(self._row)
        self.set_no_show_all(True)
        self._row.show()

    def show_items(self, items: Sequence[Any], more: bool) -> None:
        """List these; the one that is looked at stays so, but a new one in front is looked at."""
        old = [shown.key for shown in self.items]
        keys = [shown.key for shown in items]
        smalls = [id(shown.small) for shown in self.items]
        self.items = list(items)
        if keys != old:
            for child in self._row.get_children():
                self._row.remove(child)
            kept = dict(zip(old, self._buttons))
            self._buttons = [kept.get(key) or self._button(key) for key in keys]
            for button in self._buttons:
                self._row.pack_start(button, False, False, 0)
            self._row.pack_start(self._more, False, False, 0)
            smalls = []
        self._more.set_visible(more)
        for at, shown in enumerate(self.items):
            button = self._buttons[at]
            if at >= len(smalls) or smalls[at] != id(shown.small):
                self._dress(button, shown)
            star = "★ " if shown.starred else ""
            button.set_tooltip_text(f"{star}{shown.name}\nSeed {shown.seed}. Double click adds it as a layer.")
        fresh = bool(keys) and bool(old) and keys[0] not in old and keys[1:2] == old[:1]
        if fresh or self._current not in keys:
            self._current = keys[0] if keys else None
            self._select()
            self.get_hadjustment().set_value(0)
        self.set_visible(bool(keys))

    def _button(self, key: Key) -> Any:
        button = Gtk.ToggleButton()
        button.get_style_context().add_class("impasto-thumb")
        button.key = key
        button.connect("button-press-event", self._pressed)
        button.connect("toggled", self._toggled)
        button.show()
        return button

    def _dress(self, button: Any, shown: Any) -> None:
        if button.get_child() is not None:
            button.remove(button.get_child())
        if shown.small is None:
            picture = Gtk.Image.new_from_icon_name("image-loading", Gtk.IconSize.DND)
            picture.set_size_request(THUMB, THUMB)
        else:
            picture = Gtk.Image.new_from_pixbuf(_square(over(shown.before, shown.small), THUMB))
        picture.show()
        button.add(picture)

    def current(self) -> Optional[Any]:
        """The result that is looked at."""
        return next((item for item in self.items if item.key == self._current), None)

    def selected(self) -> List[Any]:
        """All that are chosen, in the order of the strip."""
        return [item for item, button in zip(self.items, self._buttons) if button.get_active()]

    def choose(self, index: int) -> None:
        """Look at another result, as a click does."""
        self._look_at(self.items[index].key)

    def _look_at(self, key: Key, more: bool = False) -> None:
        self._current = key
        self._select(more)
        item = self.current()
        if item is not None:
            self.chosen(item)

    def _select(self, more: bool = False) -> None:
        self._quiet = True
        for button in self._buttons:
            button.set_active(button.key == self._current or (more and button.get_active()))
        self._quiet = False

    def _toggled(self, button: Any) -> None:
        if not self._quiet:
            self._look_at(button.key)

    def _pressed(self, button: Any, event: Any) -> bool:
        if event.type == Gdk.EventType.DOUBLE_BUTTON_PRESS:
            item = next((item for item in self.items if item.key == button.key), None)
            if item is not None:
                self.wanted(item)
            return True
        if event.state & Gdk.ModifierType.CONTROL_MASK and event.type == Gdk.EventType.BUTTON_PRESS:
            self._look_at(button.key, more=True)
            return True
        return False


def _tool(icon: str, tip: str, deed: Callable[[], None]) -> Any:
    button = Gtk.Button.new_from_icon_name(icon, Gtk.IconSize.MENU)
    button.set_relief(Gtk.ReliefStyle.NONE)
    button.set_tooltip_text(tip)
    button.connect("clicked", lambda *_: deed())
    return button


def _square(pixbuf: Any, side: int) -> Any:
    """The middle of the picture as a square of `side` pixels."""
    width, height = pixbuf.get_width(), pixbuf.get_height()
    scale = side / min(width, height)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    scaled = pixbuf.scale_simple(size[0], size[1], GdkPixbuf.InterpType.BILINEAR)
    part = scaled.new_subpixbuf((size[0] - side) // 2, (size[1] - side) // 2, side, side)
    return over(None, part) if part.get_has_alpha() else part
