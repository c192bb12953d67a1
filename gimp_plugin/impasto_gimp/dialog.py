"""The dialog of a menu procedure, built from the server's description while the server is asked for it."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from impasto_client.events import CatalogChanged, ConnectionChanged, Event
from impasto_client.tasks import Runner
from impasto_protocol.schema import Mode

from .job import host_name
from .names import Action
from .toolkit import GimpUi, GLib, Gtk, label, style
from .wishes import Wishes

__all__ = ["ask_params"]

SETTINGS_HEIGHT = 380
"""Points that the further settings take before they scroll."""


def ask_params(action: Action, mode: Mode, params: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
    """Show `params` for changing; what the painter wants, or None where the dialog was cancelled."""
    GimpUi.init("impasto_gimp")
    style()
    dialog = Gtk.Dialog(title=f"Impasto: {action.title}", resizable=True)
    dialog.set_name("impasto_dialog")
    dialog.add_button("_Cancel", Gtk.ResponseType.CANCEL)
    go = dialog.add_button(action.button, Gtk.ResponseType.OK)
    go.get_style_context().add_class("suggested-action")
    dialog.set_default_response(Gtk.ResponseType.OK)
    wishes = Wishes({mode.name: mode})
    wishes.show_mode(mode.name)
    if params:
        wishes.set_params(params)
    wishes.submitted = lambda: dialog.response(Gtk.ResponseType.OK)
    state = label(css="impasto-quiet")
    state.set_name("impasto_connection")
    area = dialog.get_content_area()
    area.set_spacing(8)
    area.set_border_width(10)
    room = Gtk.ScrolledWindow(hscrollbar_policy=Gtk.PolicyType.NEVER, propagate_natural_height=True)
    room.add(wishes.more)
    wishes.fold.connect("notify::expanded", lambda fold, _: _make_room(dialog, room, fold.get_expanded()))
    for widget in (wishes.top, room, state):
        area.pack_start(widget, False, True, 0)
    dialog.set_default_size(380, -1)
    runner = Runner(host_name(), lambda event: GLib.idle_add(_take, event, wishes, state), preview=None)
    runner.start()
    GimpUi.window_set_transient(dialog)
    area.show_all()
    wishes.show_mode(mode.name)
    wishes.prompt.view.grab_focus()
    try:
        accepted = dialog.run() == Gtk.ResponseType.OK
        return wishes.params() if accepted else None
    finally:
        runner.stop()
        dialog.destroy()
        # Let the window vanish before the work begins.
        while Gtk.events_pending():
            Gtk.main_iteration()


def _make_room(dialog: Any, room: Any, expanded: bool) -> None:
    """The dialog grows with its settings until they scroll, and shrinks again without them."""
    room.set_min_content_height(SETTINGS_HEIGHT if expanded else -1)
    if not expanded:
        dialog.resize(dialog.get_size().width, 1)


def _take(event: Event, wishes: Wishes, state: Any) -> bool:
    """An event of the runner, on the main thread."""
    if isinstance(event, CatalogChanged):
        wishes.set_catalog(event.catalog)
    elif isinstance(event, ConnectionChanged):
        words = {"starting": "Starting the server…", "connecting": "Connecting…", "connected": ""}
        state.set_text(words.get(event.state, event.message))
        state.set_visible(bool(state.get_text()))
    return False
