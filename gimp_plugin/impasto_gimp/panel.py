"""The panel: what the painter sees. It shows the controller's state and hands over what the painter asked for."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from gi.repository import Gimp
from impasto_client.document import ResultLayer
from impasto_client.targets import ANNOTATE
from impasto_client.wording import describe, describe_connection, describe_plan

from . import kept
from .arguments import built_in_modes
from .controller import Controller
from .names import ACTIONS
from .queue_list import QueueList, help_button, to_clipboard
from .result_box import ResultBox
from .server_dialog import ServerDialog
from .toolkit import Gdk, GdkPixbuf, GLib, Gtk, column, label, row, with_menu
from .wishes import Wishes

__all__ = ["Panel"]

POLL = 300
"""Milliseconds between two looks at the images and the selection: GIMP does not tell when they change."""
SAVE_AFTER = 800
LAMPS = {"connected": "#6db37c", "connecting": "#c9a24a", "starting": "#c9a24a", "failed": "#d0604a", "lost": "#d0604a"}


class Panel(Gtk.Window):
    """One window for all images; the one it works on is chosen at its top where there are several."""

    def __init__(self) -> None:
        super().__init__(title="Impasto")
        self.controller = Controller()
        self.mode = ACTIONS[0].mode
        self._catalog_shown = ""
        self._preview_shown: Optional[bytes] = None
        self._images: Dict[int, str] = {}
        self._saving = 0
        self.set_name("impasto_panel")
        self.set_type_hint(Gdk.WindowTypeHint.UTILITY)
        self.set_default_size(340, 800)
        self.wishes = Wishes(built_in_modes(), lambda: self.controller.layers(self.current_image()))
        self._build()
        self._restore()
        self.wishes.show_mode(self.mode)
        self.modes[self.mode].set_active(True)
        self._show_mode()
        self._listen()
        self.poll()
        GLib.timeout_add(POLL, self.poll)
        self.controller.start()

    # ---- widgets

    def _build(self) -> None:
        self.image = Gtk.ComboBoxText()
        self.image.set_name("impasto_image")
        self.image.set_tooltip_text("The image to work on.")
        self.image.set_no_show_all(True)
        self.results = ResultBox(self.controller, self.current_image)
        self.strip, self.picture = self.results.strip, self.results.picture
        page = column(self._choice(), self.image, self.wishes.top, *self._action(), self.results, self.wishes.more)
        page.set_border_width(8)
        scroll = Gtk.ScrolledWindow(hscrollbar_policy=Gtk.PolicyType.NEVER)
        scroll.add(page)
        whole = Gtk.Box(orientation=Gtk.Orientation.VERTICAL)
        whole.pack_start(scroll, True, True, 0)
        whole.pack_start(self._footer(), False, False, 0)
        self.add(whole)

    def _choice(self) -> Any:
        """Which of the actions the button starts: one of a row of buttons."""
        self.modes: Dict[str, Any] = {}
        lines = [Gtk.Box(homogeneous=True) for _ in range(2)]
        for line in lines:
            for name in ("linked", "impasto-modes"):
                line.get_style_context().add_class(name)
        first = None
        for action in ACTIONS:
            button = Gtk.RadioButton.new_with_label_from_widget(first, action.title)
            button.set_mode(False)
            button.set_name(f"impasto_mode_{action.mode}")
            button.set_tooltip_text(action.tip)
            lines[len(self.modes) * len(lines) // len(ACTIONS)].pack_start(button, True, True, 0)
            self.modes[action.mode] = button
            first = first or button
        return column(*lines, spacing=0)

    def _action(self) -> Any:
        self.button = Gtk.Button()
        self.button.set_name("impasto_go")
        for name in ("suggested-action", "impasto-go"):
            self.button.get_style_context().add_class(name)
        self.cancel = Gtk.Button(label="Cancel")
        self.cancel.set_name("impasto_cancel")
        self.hint = label(name="impasto_hint", css="impasto-quiet")
        self.progress = Gtk.ProgressBar(show_text=True)
        self.progress.set_name("impasto_progress")
        self.message = label(name="impasto_message")
        self.message.set_selectable(True)
        self.queue = QueueList()
        start = with_menu(
            self.button,
            "places",
            [
                ("Start before the jobs that wait", lambda: self.ask("front")),
                ("Start instead of the jobs that wait", lambda: self.ask("replace")),
            ],
        )
        self.places = start.get_children()[-1]
        self.places.set_tooltip_text("More ways to start: before the jobs that wait, or instead of them.")
        for widget in (self.cancel, self.hint, self.progress, self.message):
            widget.set_no_show_all(True)
        return row(start, self.cancel), self.hint, self.progress, self.queue, self.message

    def _footer(self) -> Any:
        self.lamp = Gtk.Label(label="●")
        self.lamp.get_style_context().add_class("impasto-lamp")
        self.state = label(name="impasto_connection", css="impasto-quiet")
        self.retry = Gtk.Button(label="Try again")
        self.retry.set_name("impasto_retry")
        self.retry.set_no_show_all(True)
        footer = row(self.state)
        footer.pack_start(self.lamp, False, False, 0)
        footer.reorder_child(self.lamp, 0)
        footer.pack_start(self.retry, False, False, 0)
        self.help = help_button(self._take_from_file, self.choose_server, self.controller.diagnose)
        footer.pack_start(self.help, False, False, 0)
        footer.set_border_width(6)
        return footer

    def _listen(self) -> None:
        self.connect("destroy", self._closed)
        self.connect("configure-event", lambda *_: self._touched())
        self.button.connect("clicked", lambda *_: self.ask())
        self.cancel.connect("clicked", lambda *_: self.controller.cancel())
        self.retry.connect("clicked", lambda *_: self.controller.try_again())
        self.image.connect("changed", lambda *_: self._look())
        self.results.used = lambda shown: self._use_settings(shown.mode, shown.params)
        self.controller.taken = self.controller.further.taken = self._use_settings
        self.wishes.preset.told = self.controller.tell
        self.controller.diagnosed = to_clipboard
        self.wishes.pasted = self.controller.read_settings
        self.drag_dest_set(Gtk.DestDefaults.ALL, [], Gdk.DragAction.COPY)
        self.drag_dest_add_uri_targets()
        self.drag_dest_add_text_targets()
        self.connect("drag-data-received", self._dropped)
        self.queue.cancelled = lambda id: self.controller.cancel(id) if id else self.controller.cancel_all()
        self.wishes.form.hinted = self._hint
        self.controller.hints.bound = self.wishes.form.bind_hint
        self.controller.hints.shown = self.wishes.form.show_hint
        self.wishes.submitted = self.ask
        for prompt in (self.wishes.prompt, self.wishes.negative):
            prompt.completions.use(self.controller.vocabulary)
        self.wishes.changed = self._touched
        for mode, button in self.modes.items():
            button.connect("toggled", functools.partial(self._mode_clicked, mode))
        self.controller.changed = self.refresh
        self.controller.added = self._add_result

    # ---- which image

    def poll(self) -> bool:
        """Look which images are open and what is selected; a few short calls."""
        if not self.get_realized() and self._images:
            return True
        found = {image.get_id(): image.get_name() for image in Gimp.get_images()}
        if found != self._images:
            fresh = [id for id in found if id not in self._images]
            before = self.image.get_active_id()
            self._images = found
            self.image.remove_all()
            for id, name in found.items():
                self.image.append(str(id), name)
            newest = str(max(fresh)) if fresh and before is not None else None
            self.image.set_active_id(newest or before)
            if self.image.get_active_id() is None and found:
                self.image.set_active_id(str(max(found)))
            self.image.set_visible(len(found) > 1)
        self._look()
        return True

    def _look(self) -> None:
        self._refresh_action()
        self.results.look()

    def current_image(self) -> Optional[Any]:
        """The image to work on, or None."""
        chosen = self.image.get_active_id()
        image = Gimp.Image.get_by_id(int(chosen)) if chosen else None
        return image if image is not None and image.is_valid() else None

    def take_image(self, image_id: int) -> None:
        """Work on this image from now on: it was in front when the menu was used."""
        self.poll()
        if image_id in self._images:
            self.image.set_active_id(str(image_id))

    # ---- deeds

    def ask_for(self, image_id: int, mode: str) -> bool:
        """What the menu and the shortcuts ask for while the panel is open; an empty mode only shows the panel."""
        self.take_image(image_id)
        if mode:
            self.modes[mode].set_active(True)
            if not self.ask():
                self.present()
        else:
            self.present()
        return False

    def _hint(self, at: int, entry: Dict[str, Any], keep: bool) -> None:
        catalog = self.controller.catalog
        mode = catalog.mode(ANNOTATE) if catalog is not None else None
        self.controller.hints.ask(self.current_image(), mode, at, entry, keep)

    def ask(self, place: str = "back") -> bool:
        """Start a job with what the panel shows; where that cannot be, say why."""
        return self.controller.ask(self.mode, self.current_image(), self.wishes.params(), place)

    def _mode_clicked(self, mode: str, button: Any) -> None:
        if button.get_active() and mode != self.mode:
            self.mode = mode
            self.wishes.show_mode(mode)
            self._show_mode()
            self.refresh()
            self._touched()

    def _show_mode(self) -> None:
        action = next(action for action in ACTIONS if action.mode == self.mode)
        self.button.set_label(action.button)
        self.button.set_tooltip_text(action.tip)

    def _use_settings(self, mode: str, params: Mapping[str, Any]) -> None:
        """Take over how a picture was made."""
        if mode in self.modes:
            self.modes[mode].set_active(True)
            self.wishes.set_params(params)

    def _dropped(self, _: Any, context: Any, x: int, y: int, data: Any, info: int, time: int) -> None:
        """A picture, or a text, was let fall on the panel."""
        files = [GLib.filename_from_uri(uri)[0] for uri in data.get_uris() if uri.startswith("file:")]
        text = data.get_text()
        if files:
            self.controller.read_settings(Path(files[0]))
        elif text:
            self.controller.read_settings(text)

    def _take_from_file(self) -> None:
        chooser = Gtk.FileChooserDialog(title="Take settings from a picture", action=Gtk.FileChooserAction.OPEN)
        chooser.set_transient_for(self)
        chooser.add_buttons("_Cancel", Gtk.ResponseType.CANCEL, "_Open", Gtk.ResponseType.ACCEPT)
        accepted, path = chooser.run() == Gtk.ResponseType.ACCEPT, chooser.get_filename()
        chooser.destroy()
        if accepted and path:
            self.controller.read_settings(Path(path))

    def choose_server(self) -> None:
        """Ask for another server; the message says what came of it."""
        dialog = ServerDialog(self.controller.servers.known())
        dialog.set_transient_for(self)
        dialog.connect("response", self._server_chosen)

    def _server_chosen(self, dialog: ServerDialog, response: int) -> None:
        wish = dialog.wish(response)
        dialog.destroy()
        if wish is not None:
            self.controller.servers.change(*wish)

    # ---- showing the state

    def _add_result(self, result: ResultLayer) -> None:
        self.wishes.seed.set_last(result.seed)

    def refresh(self) -> None:
        """Show everything that the controller knows."""
        catalog = self.controller.catalog
        if catalog is not None and catalog.rev != self._catalog_shown:
            self._catalog_shown = catalog.rev
            self.wishes.set_catalog(catalog)
        self._refresh_action()
        self._refresh_job()
        self._refresh_footer()

    def _refresh_action(self) -> None:
        image = self.current_image()
        text = self.controller.obstacle(self.mode, image)
        self.button.set_sensitive(not text)
        self.places.set_sensitive(not text)
        self.controller.expect(self.mode, image, {} if text else self.wishes.params())
        estimate = self.controller.estimate
        if not text and estimate.error is not None:
            text = estimate.error.message
        elif not text and estimate.plan is not None:
            text = describe_plan(estimate.plan)
        self.hint.set_text(text)
        self.hint.set_visible(bool(text))

    def _refresh_job(self) -> None:
        job, active = self.controller.running(), self.controller.jobs.active
        self.cancel.set_visible(job is not None)
        self.progress.set_visible(job is not None)
        self.queue.show_jobs(active)
        if job is not None:
            waiting = len(active) - 1
            self.progress.set_text(describe(job) + (f" ({waiting} more waiting)" if waiting else ""))
            if job.state in ("running", "fetching"):
                self.progress.set_fraction(job.fraction)
            else:
                self.progress.pulse()
            if job.preview is not None and job.preview is not self._preview_shown:
                self._preview_shown = job.preview
                self.results.preview(_decoded(job.preview))
        else:
            self._preview_shown = None
            self.results.preview(None)
        notice = self.controller.notice
        self.message.set_visible(notice is not None)
        if notice is not None:
            self.message.set_text(notice.text)
            style = self.message.get_style_context()
            for name, wanted in (("impasto-error", notice.is_error), ("impasto-quiet", not notice.is_error)):
                (style.add_class if wanted else style.remove_class)(name)

    def _refresh_footer(self) -> None:
        connection = self.controller.connection
        self.state.set_text(describe_connection(connection, self.controller.catalog))
        color = LAMPS.get(connection.state, "#808080")
        self.lamp.set_markup(f'<span foreground="{color}">●</span>')
        self.retry.set_visible(connection.state in ("failed", "lost", "idle"))
        self.retry.set_label("Start server" if connection.state == "idle" else "Try again")

    # ---- what is kept between sessions

    def _touched(self, *_: Any) -> bool:
        if not self._saving:
            self._saving = GLib.timeout_add(SAVE_AFTER, self._save)
        return False

    def _save(self) -> bool:
        self._saving = 0
        position, size = self.get_position(), self.get_size()
        kept.save({"mode": self.mode, "window": [*position, *size], **self.wishes.state()})
        return False

    def _restore(self) -> None:
        found = kept.load()
        try:
            self.wishes.restore(found)
            if found.get("mode") in self.modes:
                self.mode = found["mode"]
            if "window" in found:
                x, y, width, height = (int(v) for v in found["window"])
                self.move(x, y)
                self.resize(width, height)
        except (ValueError, TypeError, AttributeError):
            return  # a damaged file: the defaults hold

    def _closed(self, *_: Any) -> None:
        if self._saving:
            GLib.source_remove(self._saving)
            self._save()
        self.controller.stop()
        Gtk.main_quit()


def _decoded(jpeg: bytes) -> Optional[Any]:
    loader = GdkPixbuf.PixbufLoader()
    try:
        loader.write(jpeg)
        loader.close()
    except GLib.Error:
        return None  # the next one comes soon
    return loader.get_pixbuf()
