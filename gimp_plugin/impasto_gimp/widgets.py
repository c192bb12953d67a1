"""The panel's own widgets: a prompt, a seed, a picture that compares, a strip of results."""

from __future__ import annotations

from typing import Any, Callable, List, Optional

from .toolkit import Gdk, GdkPixbuf, GLib, Gtk, fitted, label, over, row

__all__ = ["Picture", "Prompt", "Seed", "Strip"]

THUMB = 56
KEEP = 12
MAX_SEED = 2**32 - 1


class Prompt(Gtk.Overlay):
    """A text of several lines with a hint while it is empty. Ctrl+Return calls `submitted`, changes call `changed`."""

    def __init__(self, hint: str, lines: int, name: str) -> None:
        super().__init__()
        self.submitted: Callable[[], None] = lambda: None
        self.changed: Callable[[], None] = lambda: None
        self.view = Gtk.TextView(wrap_mode=Gtk.WrapMode.WORD_CHAR, accepts_tab=False)
        for side in ("left", "right", "top", "bottom"):
            getattr(self.view, f"set_{side}_margin")(6)
        self.view.set_name(name)
        self.view.set_tooltip_text("(word:1.2) stresses, [word] weakens. Ctrl+Return starts.")
        frame = Gtk.ScrolledWindow(shadow_type=Gtk.ShadowType.IN, hscrollbar_policy=Gtk.PolicyType.NEVER)
        frame.set_size_request(-1, 20 * lines + 12)
        frame.add(self.view)
        self.add(frame)
        self._hint = label(hint, css="impasto-quiet")
        self._hint.set_margin_start(8)
        self._hint.set_margin_top(7)
        self._hint.set_valign(Gtk.Align.START)
        self.add_overlay(self._hint)
        self.set_overlay_pass_through(self._hint, True)
        self.view.get_buffer().connect("changed", self._changed)
        self.view.connect("key-press-event", self._key)

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
        if event.keyval in (Gdk.KEY_Return, Gdk.KEY_KP_Enter) and event.state & Gdk.ModifierType.CONTROL_MASK:
            self.submitted()
            return True
        return False


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
    """Thumbnails of the last results, the newest first. `chosen` hears of a click, `wanted` of a double click."""

    def __init__(self) -> None:
        super().__init__(vscrollbar_policy=Gtk.PolicyType.NEVER)
        self.set_name("impasto_results")
        self.chosen: Callable[[Any], None] = lambda _: None
        self.wanted: Callable[[Any], None] = lambda _: None
        self.items: List[Any] = []
        self._buttons: List[Any] = []
        self._quiet = False
        self._row = row(spacing=2)
        self.add(self._row)
        self.set_no_show_all(True)
        self._row.show()

    def add_item(self, item: Any, pixbuf: Any, tip: str, last: bool = False) -> None:
        """Put a new result in front and choose it; with `last`, at the end."""
        button = Gtk.ToggleButton()
        button.get_style_context().add_class("impasto-thumb")
        button.add(Gtk.Image.new_from_pixbuf(_square(pixbuf, THUMB)))
        button.set_tooltip_text(tip)
        button.connect("toggled", self._toggled)
        button.connect("button-press-event", self._pressed)
        button.show_all()
        at = len(self.items) if last else 0
        self.items.insert(at, item)
        self._buttons.insert(at, button)
        self._row.pack_start(button, False, False, 0)
        self._row.reorder_child(button, at)
        while len(self.items) > KEEP:
            self.items.pop()
            self._buttons.pop().destroy()
        self.show()
        if not last or self.current() is None:
            self._choose(self._buttons[at])
        if not last:
            self.get_hadjustment().set_value(0)

    def current(self) -> Optional[Any]:
        """The result that is looked at."""
        return next((item for item, b in zip(self.items, self._buttons) if b.get_active()), None)

    def choose(self, index: int) -> None:
        """Look at another result, as a click does."""
        self._choose(self._buttons[index])

    def _choose(self, button: Any) -> None:
        self._quiet = True
        for other in self._buttons:
            other.set_active(other is button)
        self._quiet = False
        item = self.items[self._buttons.index(button)]
        self.chosen(item)

    def _toggled(self, button: Any) -> None:
        if not self._quiet:
            self._choose(button)

    def _pressed(self, button: Any, event: Any) -> bool:
        if event.type == Gdk.EventType.DOUBLE_BUTTON_PRESS and button in self._buttons:
            self.wanted(self.items[self._buttons.index(button)])
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
