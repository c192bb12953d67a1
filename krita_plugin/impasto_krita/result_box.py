"""The part of the docker about results: one large with what can be done with it, and the strip of all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from impasto_client.controller import Controller
from impasto_client.further import FURTHER, offered
from impasto_client.gallery import Shown

from .icons import icon
from .qt import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QSizePolicy,
    Qt,
    QTimer,
    QToolButton,
    QVBoxLayout,
    QWidget,
    pyqtSignal,
)
from .results import ResultStrip
from .widgets import Picture, tint

__all__ = ["ResultBox"]

PICTURE_HEIGHT = 260
SEARCH_AFTER = 300
"""Milliseconds of silence after which what was typed is searched for."""
SCOPES = (
    ("document", "This document"),
    ("all", "All pictures"),
    ("starred", "With a star"),
)
PLACES = (
    ("top", "Add on top"),
    ("above", "Add above the active layer"),
    ("group", "Add in a new group"),
)


class ResultBox(QWidget):
    """`document()` is the one in front. `used` tells a result whose settings the painter wants to take over."""

    used = pyqtSignal(object)

    def __init__(self, controller: Controller, document: Callable[[], Any], parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self.controller, self._document = controller, document
        self._previewing = False
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for widget in (*self._large(), self._header(), self._strip()):
            column.addWidget(widget)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(SEARCH_AFTER)
        self._later.timeout.connect(self.look)
        self.refresh()

    # ---- widgets

    def _large(self) -> Any:
        self.picture = Picture(PICTURE_HEIGHT)
        self.picture.setObjectName("impasto_picture")
        self.title = QLabel()
        self.title.setObjectName("impasto_result_title")
        self.title.setTextFormat(Qt.TextFormat.PlainText)
        self.title.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.star = QToolButton()
        self.star.setObjectName("impasto_star")
        self.star.setAutoRaise(True)
        self.star.setCheckable(True)
        self.star.clicked.connect(self._star)
        self.compare = QPushButton("Compare")
        self.compare.setObjectName("impasto_compare")
        self.compare.setToolTip("Hold it down to see the place as it was. The document is not touched.")
        self.compare.pressed.connect(lambda: self.picture.compare(True))
        self.compare.released.connect(lambda: self.picture.compare(False))
        self.add = self._menu_button("Add layer", "add_again", self._add_to)
        self.add.setToolTip("Add this picture as a layer once more. Several: choose them with Ctrl in the strip.")
        self.again = self._menu_button("Make again", "make_again", self._again)
        self.again.setToolTip("Make the active layer, or this picture, once more over what is there now.")
        for place, text in PLACES:
            action = self.add.menu().addAction(text)
            action.triggered.connect(lambda *_, place=place: self._add_to(place))
        new_seed = self.again.menu().addAction("Make again with a new seed")
        new_seed.triggered.connect(lambda *_: self._again(new_seed=True))
        self.further = self._further()
        self.use = QPushButton("Use settings")
        self.use.setObjectName("impasto_use")
        self.use.setToolTip("Take over the prompt, the seed and all settings of this picture.")
        self.use.clicked.connect(self._use)
        self.save = QPushButton("Save…")
        self.save.setObjectName("impasto_save")
        self.save.setToolTip("Save this picture as a PNG file that says how it was made, as other programs read it.")
        self.save.clicked.connect(self._save)
        self.line = QWidget()
        rows = QVBoxLayout(self.line)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(4)
        for widgets in (
            (self.title, self.star),
            (self.add, self.again, self.further),
            (self.compare, self.use, self.save),
        ):
            row = QHBoxLayout()
            row.setSpacing(4)
            for widget in widgets:
                row.addWidget(widget, 1 if widget not in (self.star,) else 0)
            rows.addLayout(row)
        return self.picture, self.line

    def _menu_button(self, text: str, name: str, deed: Callable[[], None]) -> Any:
        """A button with further ways to do the same behind its arrow."""
        button = QToolButton()
        button.setObjectName(f"impasto_{name}")
        button.setText(text)
        button.setPopupMode(QToolButton.ToolButtonPopupMode.MenuButtonPopup)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        button.setMenu(QMenu(button))
        button.clicked.connect(lambda *_: deed())
        return button

    def _further(self) -> Any:
        """A button that is a menu: what can be made of the picture."""
        button = QToolButton()
        button.setObjectName("impasto_further")
        button.setText("Further")
        button.setToolTip("Go on from this picture: finer, refined, with a part repainted, or larger.")
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        menu = QMenu(button)
        button.setMenu(menu)
        self._ways: Dict[str, Any] = {}
        for way, text in FURTHER:
            self._ways[way] = menu.addAction(text)
            self._ways[way].triggered.connect(lambda *_, way=way: self._take_further(way))
        menu.aboutToShow.connect(self._offer_ways)
        return button

    def _header(self) -> Any:
        self.scope = QComboBox()
        self.scope.setObjectName("impasto_scope")
        self.scope.setToolTip("Which pictures are listed: the server keeps them, also from earlier days.")
        for scope, text in SCOPES:
            self.scope.addItem(text, scope)
        self.scope.currentIndexChanged.connect(lambda *_: self.look())
        self.search = QLineEdit()
        self.search.setObjectName("impasto_search")
        self.search.setPlaceholderText("Search prompts")
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(lambda *_: self._later.start())
        self.header = QWidget()
        row = QHBoxLayout(self.header)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self.scope, 1)
        row.addWidget(self.search, 1)
        return self.header

    def _strip(self) -> Any:
        self.strip = ResultStrip()
        self.strip.chosen.connect(self._show)
        self.strip.wanted.connect(lambda shown: self._apply([shown], ""))
        self.strip.older.connect(self.controller.gallery.show_more)
        return self.strip

    # ---- deeds

    def look(self) -> None:
        """List what the painter wants to see. Quick where that is what is listed: it is polled."""
        scope = self.scope.currentData()
        document = self._document() if scope == "document" else None
        self.controller.look_at(document, self.search.text(), scope == "starred")

    def _apply(self, chosen: List[Shown], place: str) -> None:
        self.controller.results.apply([shown.key for shown in chosen], self._document(), place)

    def _add_to(self, place: str = "") -> None:
        chosen = self.strip.selected()
        if chosen:
            self._apply(chosen, place or ("group" if len(chosen) > 1 else ""))

    def _again(self, new_seed: bool = False) -> None:
        self.controller.make_again(self._document(), self.strip.current(), new_seed)

    def _offer_ways(self) -> None:
        ways = offered(self.controller.catalog, self.strip.current())
        for way, action in self._ways.items():
            action.setEnabled(way in ways)

    def _take_further(self, way: str) -> None:
        shown = self.strip.current()
        if shown is not None:
            self.controller.further.ask(self._document(), shown, way)

    def _use(self) -> None:
        shown = self.strip.current()
        if shown is not None:
            self.used.emit(shown)

    def _star(self, on: bool) -> None:
        shown = self.strip.current()
        if shown is not None:
            self.controller.results.star(shown.key, on)

    def _save(self) -> None:
        shown = self.strip.current()
        if shown is None:
            return
        name = re.sub(r"[^\w\- ]+", "", shown.name).strip()[:60] or "picture"
        path, _ = QFileDialog.getSaveFileName(self, "Save picture", f"{Path.home() / name}.png", "PNG (*.png)")
        if path:
            file = Path(path)
            self.controller.results.save(shown.key, file if file.suffix else file.with_suffix(".png"))

    # ---- showing the state

    def preview(self, image: Optional[Any]) -> None:
        """What the running job's picture looks like now; None where none is running any more."""
        if image is not None:
            self._previewing = True
            self.picture.show_image(image)
            self.line.setVisible(False)
        elif self._previewing:
            self._previewing = False
            self._show(self.strip.current())

    def refresh(self) -> None:
        """Show what the gallery lists."""
        gallery = self.controller.gallery
        self.strip.show_items(gallery.visible, gallery.more)
        asked = gallery.query is not None and bool(gallery.query.search or gallery.query.starred)
        self.header.setVisible(bool(gallery.visible) or asked or self.scope.currentData() != "document")
        if not self._previewing:
            self._show(self.strip.current())

    def _show(self, shown: Optional[Shown]) -> None:
        if self._previewing:
            return
        self.picture.show_image(shown.small if shown is not None else None, shown.before if shown is not None else None)
        self.line.setVisible(shown is not None)
        if shown is None:
            return
        self.title.setText(shown.name)
        self.title.setToolTip(f"{shown.name}\nSeed {shown.seed}")
        self.star.setChecked(shown.starred)
        self.star.setText("★" if shown.starred else "☆")
        self.star.setToolTip(
            "Kept for good: the server never drops it to make room." if shown.starred else "Keep this picture for good."
        )
        self.compare.setEnabled(shown.before is not None)
        self.use.setEnabled(bool(shown.mode))
        self.further.setEnabled(bool(shown.mode))
        self.add.setText("Open again" if shown.stage == "upscale" else "Add layer")

    def style_by(self, palette: Any, quiet: Any) -> None:
        """Colours from the theme."""
        tint(self.title, quiet)
        self.add.setIcon(icon("layer", palette))
        self.strip.style_by(palette)
