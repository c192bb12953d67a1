"""Which server the docker uses: another computer's, by its address and the code that it shows, or this one's."""

from __future__ import annotations

from typing import Any, Optional

from impasto_client.servers import PAIRING_HELP, Servers

from .qt import QComboBox, QDialog, QFormLayout, QHBoxLayout, QLabel, QLineEdit, QPushButton, Qt, QVBoxLayout

__all__ = ["ServerDialog"]


class ServerDialog(QDialog):
    """Hands the choice over and closes; what came of it is the docker's message."""

    def __init__(self, servers: Servers, parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self._servers, self._known = servers, servers.known()
        self.setObjectName("impasto_server")
        self.setWindowTitle("Connect to another server")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        told = QLabel(PAIRING_HELP)
        told.setWordWrap(True)
        self.address = QComboBox()
        self.address.setObjectName("impasto_server_address")
        self.address.setEditable(True)
        self.address.addItems(["", *self._known])
        self.address.lineEdit().setPlaceholderText("192.168.1.20:7867")
        self.code = QLineEdit()
        self.code.setObjectName("impasto_server_code")
        self.code.setPlaceholderText("K7QX-M2RD; not for one that is known")
        fields = QFormLayout()
        fields.addRow("Address", self.address)
        fields.addRow("Code", self.code)
        self.connect_ = self._button("Connect", "impasto_server_connect", self._connect)
        self.connect_.setDefault(True)
        self.own = self._button("Use this computer's server", "impasto_server_own", self._use_own)
        buttons = QHBoxLayout()
        buttons.addWidget(self.own)
        buttons.addStretch(1)
        buttons.addWidget(self._button("Cancel", "impasto_server_cancel", self.reject))
        buttons.addWidget(self.connect_)
        whole = QVBoxLayout(self)
        whole.addWidget(told)
        whole.addLayout(fields)
        whole.addLayout(buttons)
        self.address.editTextChanged.connect(self._look)
        self.code.textChanged.connect(self._look)
        self._look()

    def _button(self, text: str, name: str, deed: Any) -> Any:
        button = QPushButton(text)
        button.setObjectName(name)
        button.setAutoDefault(False)
        button.clicked.connect(lambda *_: deed())
        return button

    def _look(self, *_: Any) -> None:
        address = self.address.currentText().strip()
        self.connect_.setEnabled(bool(address and (self.code.text().strip() or address in self._known)))

    def _connect(self) -> None:
        self._servers.change(self.address.currentText(), self.code.text())
        self.accept()

    def _use_own(self) -> None:
        self._servers.change("")
        self.accept()
