"""The part of the panel about results: one large with what can be done with it, and the strip of all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from impasto_client.controller import Controller
from impasto_client.further import FURTHER, offered
from impasto_client.gallery import Shown

from .names import ACTIONS
from .toolkit import GLib, Gtk, label, over, row, with_menu
from .widgets import Picture, Strip

__all__ = ["ResultBox"]

PICTURE_HEIGHT = 240
SCOPES = (("document", "This image"), ("all", "All pictures"), ("starred", "With a star"))
PLACES = (("top", "Add on top"), ("above", "Add above the active layer"), ("group", "Add in a new group"))


class ResultBox(Gtk.Box):
    """`image()` is the one to work on; `used` hears of a result whose settings the painter wants to take over."""

    def __init__(self, controller: Controller, image: Callable[[], Any]) -> None:
        super().__init__(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        self.used: Callable[[Shown], None] = lambda shown: None
        self.controller, self._image = controller, image
        self._previewing = False
        self.picture = Picture(PICTURE_HEIGHT)
        self.strip = Strip()
        self.strip.chosen = self._show
        self.strip.wanted = lambda shown: self._apply([shown], "")
        self.strip.older = controller.gallery.show_more
        for widget in (self.picture, self._line(), self._header(), self.strip):
            self.pack_start(widget, False, True, 0)
        controller.gallery.changed = self.refresh
        self.refresh()

    # ---- widgets

    def _line(self) -> Any:
        self.title = label(css="impasto-quiet", wrap=False)
        self.star = Gtk.ToggleButton(label="☆", relief=Gtk.ReliefStyle.NONE)
        self.star.set_name("impasto_star")
        self.star.connect("toggled", self._star)
        self.compare = _button("compare", "Compare", "Hold it down to see it as it was. The image is not touched.")
        self.compare.connect("pressed", lambda *_: self.picture.compare(True))
        self.compare.connect("released", lambda *_: self.picture.compare(False))
        self.use = _button("use", "Use settings", "Take over the prompt, the seed and all settings of this picture.")
        self.use.connect("clicked", lambda *_: self._use())
        self.add_layer = _button("apply", "Add layer", "Add this picture as a layer. Several: choose them with Ctrl.")
        self.add_layer.connect("clicked", lambda *_: self._add_to())
        self.again = _button(
            "make_again", "Make again", "Make the active layer, or this picture, once more over what is there now."
        )
        self.again.connect("clicked", lambda *_: self._again())
        self.save = _button("save", "Save…", "Save this picture as a PNG file that says how it was made.")
        self.save.connect("clicked", lambda *_: self._save())
        places = [(text, lambda place=place: self._add_to(place)) for place, text in PLACES]
        seeds = [("Make again with a new seed", lambda: self._again(new_seed=True))]
        self.line = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=4)
        self.line.set_name("impasto_result")
        self.line.pack_start(row(self.title, self.star), False, True, 0)
        add, again = with_menu(self.add_layer, "places", places), with_menu(self.again, "seeds", seeds)
        self.line.pack_start(_evenly(add, again, self._further()), False, True, 0)
        self.line.pack_start(_evenly(self.compare, self.use, self.save), False, True, 0)
        self.line.show_all()
        self.line.set_no_show_all(True)
        self.line.hide()
        return self.line

    def _further(self) -> Any:
        """A button that is a menu: what can be made of the picture with what the panel has."""
        menu = Gtk.Menu()
        self._ways: Dict[str, Any] = {}
        here = ["hires", *(action.mode for action in ACTIONS)]
        for way, text in FURTHER:
            if way in here:
                self._ways[way] = entry = Gtk.MenuItem(label=text)
                entry.connect("activate", lambda _, way=way: self._take_further(way))
                menu.append(entry)
        menu.show_all()
        menu.connect("show", lambda *_: self._offer_ways())
        self.further = Gtk.MenuButton(label="Further", popup=menu)
        self.further.set_name("impasto_further")
        self.further.set_tooltip_text("Go on from this picture: finer, with a part repainted, or larger.")
        self.further.get_style_context().add_class("impasto-small")
        return self.further

    def _header(self) -> Any:
        self.scope = Gtk.ComboBoxText()
        self.scope.set_name("impasto_scope")
        self.scope.set_tooltip_text("Which pictures are listed: the server keeps them, also from earlier days.")
        for scope, text in SCOPES:
            self.scope.append(scope, text)
        self.scope.set_active_id("document")
        self.scope.connect("changed", lambda *_: self.look())
        self.search = Gtk.SearchEntry(placeholder_text="Search prompts", width_chars=10)
        self.search.set_name("impasto_search")
        self.search.connect("search-changed", lambda *_: self.look())
        self.header = _evenly(self.scope, self.search)
        self.header.show_all()
        self.header.set_no_show_all(True)
        return self.header

    # ---- deeds

    def look(self) -> None:
        """List what the painter wants to see. Quick where that is what is listed: it is polled."""
        scope = self.scope.get_active_id()
        image = self._image() if scope == "document" else None
        self.controller.look_at(image, self.search.get_text(), scope == "starred")

    def _apply(self, chosen: List[Shown], place: str) -> None:
        self.controller.results.apply([shown.key for shown in chosen], self._image(), place)

    def _add_to(self, place: str = "") -> None:
        chosen = self.strip.selected()
        if chosen:
            self._apply(chosen, place or ("group" if len(chosen) > 1 else ""))

    def _again(self, new_seed: bool = False) -> None:
        self.controller.make_again(self._image(), self.strip.current(), new_seed)

    def _offer_ways(self) -> None:
        ways = offered(self.controller.catalog, self.strip.current())
        for way, entry in self._ways.items():
            entry.set_sensitive(way in ways)

    def _take_further(self, way: str) -> None:
        shown = self.strip.current()
        if shown is not None:
            self.controller.further.ask(self._image(), shown, way)

    def _use(self) -> None:
        shown = self.strip.current()
        if shown is not None:
            self.used(shown)

    def _star(self, button: Any) -> None:
        shown = self.strip.current()
        if shown is not None and button.get_active() != shown.starred:
            self.controller.results.star(shown.key, button.get_active())

    def _save(self) -> None:
        shown = self.strip.current()
        if shown is None:
            return
        chooser = Gtk.FileChooserDialog(title="Save picture", action=Gtk.FileChooserAction.SAVE)
        chooser.set_name("impasto_save_dialog")
        chooser.set_transient_for(self.get_toplevel())
        chooser.add_buttons("_Cancel", Gtk.ResponseType.CANCEL, "_Save", Gtk.ResponseType.ACCEPT)
        chooser.set_do_overwrite_confirmation(True)
        name = re.sub(r"[^\w\- ]+", "", shown.name).strip()[:60] or "picture"
        chooser.set_current_folder(GLib.get_user_special_dir(GLib.UserDirectory.DIRECTORY_PICTURES) or str(Path.home()))
        chooser.set_current_name(f"{name}.png")
        accepted = chooser.run() == Gtk.ResponseType.ACCEPT
        path = chooser.get_filename()
        chooser.destroy()
        if accepted and path:
            file = Path(path)
            self.controller.results.save(shown.key, file if file.suffix else file.with_suffix(".png"))

    # ---- showing the state

    def preview(self, pixbuf: Optional[Any]) -> None:
        """What the running job's picture looks like now; None where none is running any more."""
        if pixbuf is not None:
            self._previewing = True
            self.picture.show_picture(pixbuf)
            self.line.hide()
        elif self._previewing:
            self._previewing = False
            self._show(self.strip.current())

    def refresh(self) -> None:
        """Show what the gallery lists."""
        gallery = self.controller.gallery
        self.strip.show_items(gallery.visible, gallery.more)
        asked = gallery.query is not None and bool(gallery.query.search or gallery.query.starred)
        self.header.set_visible(bool(gallery.visible) or asked or self.scope.get_active_id() != "document")
        self._show(self.strip.current())

    def _show(self, shown: Optional[Shown]) -> None:
        if self._previewing:
            return
        if shown is None or shown.small is None:
            self.picture.show_picture(None)
        else:
            self.picture.show_picture(over(shown.before, shown.small), shown.before)
        self.line.set_visible(shown is not None)
        if shown is None:
            return
        self.title.set_text(shown.name)
        self.star.set_active(shown.starred)
        self.star.set_label("★" if shown.starred else "☆")
        kept = "Kept for good: the server never drops it to make room."
        self.star.set_tooltip_text(kept if shown.starred else "Keep this picture for good.")
        self.compare.set_sensitive(shown.before is not None)
        self.use.set_sensitive(bool(shown.mode))
        self.further.set_sensitive(bool(shown.mode))
        self.add_layer.set_label("Open again" if shown.stage == "upscale" else "Add layer")


def _button(name: str, text: str, tip: str) -> Any:
    button = Gtk.Button(label=text)
    button.set_name(f"impasto_{name}")
    button.set_tooltip_text(tip)
    button.get_style_context().add_class("impasto-small")
    return button


def _evenly(*widgets: Any) -> Any:
    box = Gtk.Box(spacing=4)
    for widget in widgets:
        box.pack_start(widget, True, True, 0)
    return box
