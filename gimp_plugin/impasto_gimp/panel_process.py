"""The process of the panel: it lives as long as the window, and hears the menu through a temporary procedure."""

from __future__ import annotations

from typing import Any, List

from gi.repository import Gimp, GLib, GObject

from .names import PANEL_ASK, RECONNECT
from .procedures import end, hand_to_panel
from .toolkit import GimpUi, Gtk, style

__all__ = ["run_panel"]


def run_panel(procedure: Any, run_mode: Any, image: Any, drawables: List[Any], config: Any, data: Any = None) -> Any:
    """Open the panel and stay until it is closed; where it is open already, bring it to the front."""
    if run_mode != Gimp.RunMode.INTERACTIVE:
        return end(
            procedure, Gimp.PDBStatusType.CALLING_ERROR, "The panel is for people; call the actions from scripts."
        )
    if hand_to_panel(image, ""):
        return end(procedure, Gimp.PDBStatusType.SUCCESS)
    GimpUi.init("impasto_gimp")
    style()
    from .panel import Panel

    panel = Panel()
    if image is not None:
        panel.take_image(image.get_id())
    _take_calls(procedure.get_plug_in(), panel)
    panel.show_all()
    GimpUi.window_set_transient(panel)
    panel.wishes.prompt.view.grab_focus()
    Gtk.main()
    # After a success GIMP notes the arguments in the image, with a message box where that has been closed meanwhile.
    return end(procedure, Gimp.PDBStatusType.CANCEL)


def _take_calls(plug_in: Any, panel: Any) -> None:
    """Let the menu procedures, which are processes of their own, reach the panel."""

    def ask(procedure: Any, config: Any, data: Any = None) -> Any:
        if config.get_property("mode") == RECONNECT:
            panel.controller.servers.look_again()
            return end(procedure, Gimp.PDBStatusType.SUCCESS)
        # Answered at once: the caller, and GIMP's menu with it, must not wait for the panel.
        GLib.idle_add(panel.ask_for, config.get_property("image-id"), config.get_property("mode"))
        return end(procedure, Gimp.PDBStatusType.SUCCESS)

    # GIMP 3.0 makes no action for a temporary procedure: without a menu entry.
    procedure = Gimp.Procedure.new(plug_in, PANEL_ASK, Gimp.PDBProcType.TEMPORARY, ask)
    procedure.set_documentation("Ask Impasto's panel", "Used by Impasto's own menu entries.", PANEL_ASK)
    flags = GObject.ParamFlags.READWRITE
    procedure.add_int_argument("image-id", "Image", "The image in front", 0, 2**31 - 1, 0, flags)
    procedure.add_string_argument("mode", "Mode", "What to start; empty: nothing", "", flags)
    plug_in.add_temp_procedure(procedure)
    plug_in.persistent_enable()
