"""GTK 3 and GIMP's own widgets, and the few helpers that all of ours need. Only in processes that show something."""

from __future__ import annotations

from typing import Any, Optional

import gi

for module, version in (("Gdk", "3.0"), ("GdkPixbuf", "2.0"), ("Gtk", "3.0"), ("GimpUi", "3.0")):
    gi.require_version(module, version)

from gi.repository import Gdk, GdkPixbuf, GimpUi, GLib, Gtk, Pango  # noqa: E402

__all__ = [
    "GLib",
    "Gdk",
    "GdkPixbuf",
    "GimpUi",
    "Gtk",
    "Pango",
    "column",
    "label",
    "pixbuf_of",
    "row",
    "style",
    "with_menu",
]

CSS = b"""
.impasto-modes button { padding: 4px 6px; }
.impasto-go { padding: 6px 10px; font-weight: bold; }
.impasto-small { padding: 4px 6px; }
.impasto-error { color: #e0694f; }
.impasto-quiet { opacity: 0.7; }
.impasto-lamp { font-size: 11px; }
.impasto-thumb { padding: 1px; border: 2px solid transparent; background: none; box-shadow: none; }
.impasto-thumb:checked { border-color: #d98a3d; }
"""


def style() -> None:
    """Our few colours on top of GIMP's theme; once, after GimpUi.init."""
    provider = Gtk.CssProvider()
    provider.load_from_data(CSS)
    priority = Gtk.STYLE_PROVIDER_PRIORITY_USER + 1
    Gtk.StyleContext.add_provider_for_screen(Gdk.Screen.get_default(), provider, priority)


def column(*widgets: Any, spacing: int = 6, name: str = "") -> Any:
    """Widgets below each other."""
    return _box(Gtk.Orientation.VERTICAL, widgets, spacing, name)


def row(*widgets: Any, spacing: int = 6, name: str = "") -> Any:
    """Widgets beside each other; the first one takes the room that is left."""
    box = _box(Gtk.Orientation.HORIZONTAL, widgets, spacing, name)
    if widgets:
        box.child_set_property(widgets[0], "expand", True)
        box.child_set_property(widgets[0], "fill", True)
    return box


def _box(orientation: Any, widgets: Any, spacing: int, name: str) -> Any:
    box = Gtk.Box(orientation=orientation, spacing=spacing)
    if name:
        box.set_name(name)
    for widget in widgets:
        box.pack_start(widget, False, True, 0)
    return box


def label(text: str = "", name: str = "", css: str = "", wrap: bool = True) -> Any:
    """A text at the left that never makes its window wider."""
    made = Gtk.Label(label=text, xalign=0.0, wrap=wrap, width_chars=10, max_width_chars=30)
    made.set_line_wrap_mode(Pango.WrapMode.WORD_CHAR)
    if not wrap:
        made.set_ellipsize(Pango.EllipsizeMode.END)
    if name:
        made.set_name(name)
    if css:
        made.get_style_context().add_class(css)
    return made


def with_menu(button: Any, name: str, entries: Any) -> Any:
    """The button with further ways to do the same behind an arrow."""
    menu = Gtk.Menu()
    for text, deed in entries:
        entry = Gtk.MenuItem(label=text)
        entry.connect("activate", lambda _, deed=deed: deed())
        menu.append(entry)
    menu.show_all()
    arrow = Gtk.MenuButton(popup=menu)
    arrow.set_name(f"impasto_{name}")
    both = Gtk.Box()
    both.get_style_context().add_class("linked")
    both.pack_start(button, True, True, 0)
    both.pack_start(arrow, False, False, 0)
    return both


def pixbuf_of(pixels: bytes, width: int, height: int, longest: int = 0) -> Any:
    """RGBA pixels as a Pixbuf; with `longest`, scaled down to at most that many pixels a side."""
    whole = GdkPixbuf.Pixbuf.new_from_bytes(
        GLib.Bytes.new(pixels), GdkPixbuf.Colorspace.RGB, True, 8, width, height, 4 * width
    )
    return fitted(whole, longest, longest) if longest and max(width, height) > longest else whole


def fitted(pixbuf: Any, width: int, height: int) -> Any:
    """The Pixbuf scaled to fit into width x height."""
    scale = min(width / pixbuf.get_width(), height / pixbuf.get_height())
    size = [max(1, round(side * scale)) for side in (pixbuf.get_width(), pixbuf.get_height())]
    kind = GdkPixbuf.InterpType.BILINEAR if scale < 1 or scale > 2 else GdkPixbuf.InterpType.HYPER
    return pixbuf.scale_simple(size[0], size[1], kind)


def over(below: Optional[Any], above: Any) -> Any:
    """`above` laid over `below` (of the same size), or over a grey board where there is none."""
    width, height = above.get_width(), above.get_height()
    if below is None or (below.get_width(), below.get_height()) != (width, height):
        return above.composite_color_simple(width, height, GdkPixbuf.InterpType.NEAREST, 255, 8, 0xFF808080, 0xFF989898)
    mixed = below.copy()
    above.composite(mixed, 0, 0, width, height, 0, 0, 1, 1, GdkPixbuf.InterpType.NEAREST, 255)
    return mixed
