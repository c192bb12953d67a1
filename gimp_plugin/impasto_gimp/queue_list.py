"""The jobs that have not ended, where there are several, with a button to cancel each; and where the log lies."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence

from impasto_client.jobs import JobState
from impasto_client.wording import describe, job_title
from impasto_protocol.home import home_folder, log_file

from .toolkit import Gdk, GLib, Gtk, label, row

__all__ = ["QueueList", "help_button", "to_clipboard"]

MOST = 6
"""Jobs that are shown one by one."""


class QueueList(Gtk.Box):
    """`cancelled` hears the id of a job, or "" for all of them."""

    def __init__(self) -> None:
        super().__init__(orientation=Gtk.Orientation.VERTICAL, spacing=2)
        self.set_name("impasto_queue")
        self.cancelled: Callable[[str], None] = lambda id: None
        self._ids: List[str] = []
        self._labels: Dict[str, Any] = {}
        self._lines = Gtk.Box(orientation=Gtk.Orientation.VERTICAL)
        self.rest = label(css="impasto-quiet", wrap=False)
        self.all = Gtk.Button(label="Cancel all")
        self.all.set_name("impasto_cancel_all")
        self.all.set_tooltip_text("End the running job, and drop those that wait.")
        self.all.connect("clicked", lambda *_: self.cancelled(""))
        self.pack_start(self._lines, False, True, 0)
        self.pack_start(row(self.rest, self.all), False, True, 0)
        self.show_all()
        self.set_no_show_all(True)
        self.hide()

    def show_jobs(self, jobs: Sequence[JobState]) -> None:
        """The jobs that have not ended, in the order in which they will be done; nothing where it is one alone."""
        shown = jobs[:MOST] if len(jobs) > 1 else ()
        wanted = [job.job_id for job in shown]
        if wanted != self._ids:
            for line in self._lines.get_children():
                line.destroy()
            self._ids, self._labels = wanted, {}
            for job in shown:
                self._lines.pack_start(self._line(job), False, True, 0)
        for job in shown:
            text = f"{job_title(job)}: {describe(job)}"
            if self._labels[job.job_id].get_text() != text:
                self._labels[job.job_id].set_text(text)
                self._labels[job.job_id].set_tooltip_text(text)
        more = len(jobs) - len(shown)
        self.rest.set_text(f"and {more} more" if shown and more else "")
        self.set_visible(bool(shown))

    def _line(self, job: JobState) -> Any:
        text = self._labels[job.job_id] = label(wrap=False)
        cancel = Gtk.Button.new_from_icon_name("window-close-symbolic", Gtk.IconSize.MENU)
        cancel.set_relief(Gtk.ReliefStyle.NONE)
        cancel.set_name("impasto_cancel_one")
        cancel.set_tooltip_text("Cancel this job")
        cancel.connect("clicked", lambda *_: self.cancelled(job.job_id))
        line = row(text, cancel, spacing=2)
        line.show_all()
        return line


def to_clipboard(text: str) -> None:
    """Put the text where Ctrl+V finds it."""
    Gtk.Clipboard.get(Gdk.SELECTION_CLIPBOARD).set_text(text, -1)


def help_button(
    take_settings: Callable[[], None], choose_server: Callable[[], None], diagnose: Callable[[], None]
) -> Any:
    """A button with what is seldom wanted."""
    log = str(log_file(home_folder()))
    menu = Gtk.Menu()
    for text, deed in (
        ("Take settings from a picture…", take_settings),
        ("Connect to another server…", choose_server),
        ("Open the server's log", lambda: Gtk.show_uri_on_window(None, GLib.filename_to_uri(log), 0)),
        ("Copy the log's place", lambda: to_clipboard(log)),
        ("Copy a diagnosis", diagnose),
    ):
        entry = Gtk.MenuItem(label=text)
        entry.connect("activate", lambda _, deed=deed: deed())
        menu.append(entry)
    menu.show_all()
    button = Gtk.MenuButton(popup=menu, relief=Gtk.ReliefStyle.NONE, label="…")
    button.set_name("impasto_help")
    button.set_tooltip_text("Settings from an old picture; another server; the log, for when something goes wrong.")
    return button
