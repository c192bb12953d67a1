"""What GIMP is told: the procedures, their arguments and menu entries, and which function runs each of them."""

from __future__ import annotations

import sys
from typing import Any, List

import gi

gi.require_version("Gegl", "0.4")
gi.require_version("Gimp", "3.0")

from gi.repository import Gimp, GObject  # noqa: E402

from . import names  # noqa: E402
from .arguments import add_arguments, built_in_modes  # noqa: E402

__all__ = ["Impasto", "main"]

MENU = "<Image>/Filters/Impasto"


class Impasto(Gimp.PlugIn):
    """GIMP makes one of these in every process of the plug-in."""

    def do_set_i18n(self, name: str) -> bool:
        return False

    def do_query_procedures(self) -> List[str]:
        return [*(action.procedure for action in names.ACTIONS), names.AGAIN, names.PANEL, names.CONNECT]

    def do_create_procedure(self, name: str) -> Any:
        for action in names.ACTIONS:
            if name == action.procedure:
                return self._action(action)
        if name == names.CONNECT:
            return self._connect()
        return self._again() if name == names.AGAIN else self._panel()

    def _action(self, action: names.Action) -> Any:
        # Imported here: when GIMP only asks for the procedures, nothing of the network is loaded.
        def run(*call: Any) -> Any:
            from .procedures import run_action

            return run_action(action, *call)

        procedure = self._procedure(action.procedure, run, action.label, action.tip, action.help)
        add_arguments(procedure, built_in_modes()[action.mode])
        if action.mode == "upscale":
            flags = GObject.ParamFlags.READWRITE
            procedure.add_image_return_value(
                "new-image", "New image", "The larger image; the given one where that was resized", True, flags
            )
        else:
            self._returns_layers(procedure)
        return procedure

    def _again(self) -> Any:
        def run(*call: Any) -> Any:
            from .procedures import run_again

            return run_again(*call)

        text = (
            "Makes the picture of the active layer again from the recipe that it carries: the same prompt, settings "
            "and seed over what is now below it, as a new layer above."
        )
        procedure = self._procedure(names.AGAIN, run, "Make Layer A_gain", "Make an Impasto layer again", text)
        flags = GObject.ParamFlags.READWRITE
        procedure.add_boolean_argument("new-seed", "New seed", "Draw a new seed instead of the layer's", False, flags)
        self._returns_layers(procedure)
        return procedure

    def _panel(self) -> Any:
        def run(*call: Any) -> Any:
            from .panel_process import run_panel

            return run_panel(*call)

        tip = "A window that stays open beside the image"
        text = "Opens the panel: prompt, settings, progress with a picture, and the last results."
        procedure = self._procedure(names.PANEL, run, "_Panel", tip, text)
        procedure.set_sensitivity_mask(Gimp.ProcedureSensitivityMask.ALWAYS)
        return procedure

    def _connect(self) -> Any:
        def run(*call: Any) -> Any:
            from .server_choice import run_connect

            return run_connect(*call)

        tip = "Paint with the graphics card of another computer"
        text = (
            "Pairs with the Impasto server at an address by the code that `impasto pair` shows on its computer, and "
            "uses it from now on. Without a code it is a server that was paired with before; without an address this "
            "computer's own server is used again."
        )
        procedure = self._procedure(names.CONNECT, run, "_Connect to Another Server...", tip, text)
        procedure.set_sensitivity_mask(Gimp.ProcedureSensitivityMask.ALWAYS)
        flags = GObject.ParamFlags.READWRITE
        procedure.add_string_argument("address", "Address", "Where the server listens, as 192.168.1.20:7867", "", flags)
        procedure.add_string_argument("code", "Code", "What `impasto pair` shows there", "", flags)
        return procedure

    def _procedure(self, name: str, run: Any, label: str, tip: str, text: str) -> Any:
        procedure = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, run)
        procedure.set_image_types("*")
        mask = Gimp.ProcedureSensitivityMask
        procedure.set_sensitivity_mask(mask.DRAWABLE | mask.DRAWABLES | mask.NO_DRAWABLES)
        procedure.set_menu_label(label)
        procedure.add_menu_path(MENU)
        procedure.set_documentation(tip, text, name)
        procedure.set_attribution("Impasto", "Impasto, GPL-3.0-or-later", "2026")
        return procedure

    def _returns_layers(self, procedure: Any) -> None:
        flags = GObject.ParamFlags.READWRITE
        procedure.add_core_object_array_return_value("layers", "Layers", "The new layers", Gimp.Layer, flags)


def main() -> None:
    """Speak with the GIMP that started this process."""
    Gimp.main(Impasto.__gtype__, sys.argv)
