"""Which server the plug-in uses: another computer's, by its address and the code that it shows, or this one's."""

from __future__ import annotations

from typing import Any, Optional, Tuple

from impasto_client.servers import PAIRING_HELP

from .toolkit import GimpUi, Gtk, column, label, style

__all__ = ["ServerDialog", "ask_server"]

OWN = 1
"""The response of the button that goes back to this computer's own server."""


def ask_server(known: Tuple[str, ...]) -> Optional[Tuple[str, str]]:
    """Address and code; two empty ones are this computer's own server, None is no wish."""
    GimpUi.init("impasto_gimp")
    style()
    dialog = ServerDialog(known)
    GimpUi.window_set_transient(dialog)
    wish = dialog.wish(dialog.run())
    dialog.destroy()
    return wish


class ServerDialog(Gtk.Dialog):
    """Two fields; a server of the list needs no code."""

    def __init__(self, known: Tuple[str, ...]) -> None:
        super().__init__(title="Connect to another server")
        self._known = known
        self.set_name("impasto_server")
        self.add_button("Use this computer's server", OWN).set_name("impasto_server_own")
        self.add_button("Cancel", Gtk.ResponseType.CANCEL).set_name("impasto_server_cancel")
        self.go = self.add_button("Connect", Gtk.ResponseType.OK)
        self.go.set_name("impasto_server_connect")
        self.set_default_response(Gtk.ResponseType.OK)
        self.address = Gtk.ComboBoxText.new_with_entry()
        self.address.set_name("impasto_server_address")
        for name in known:
            self.address.append_text(name)
        self.address.get_child().set_placeholder_text("192.168.1.20:7867")
        self.code = Gtk.Entry(placeholder_text="K7QX-M2RD; not for one that is known", activates_default=True)
        self.code.set_name("impasto_server_code")
        page = column(label(PAIRING_HELP), label("Address"), self.address, label("Code"), self.code)
        page.set_border_width(10)
        self.get_content_area().add(page)
        self.address.connect("changed", self._look)
        self.code.connect("changed", self._look)
        self._look()
        self.show_all()

    def wish(self, response: int) -> Optional[Tuple[str, str]]:
        """What was answered: address and code, two empty ones for this computer's own server, None for nothing."""
        if response == OWN:
            return "", ""
        return self.typed() if response == Gtk.ResponseType.OK else None

    def typed(self) -> Tuple[str, str]:
        """Address and code."""
        return str(self.address.get_child().get_text()).strip(), str(self.code.get_text()).strip()

    def _look(self, *_: Any) -> None:
        address, code = self.typed()
        self.go.set_sensitive(bool(address and (code or address in self._known)))
