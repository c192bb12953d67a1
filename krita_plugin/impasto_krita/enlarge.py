"""A document made larger with all that is in it, and a picture added on top. All of it runs on the main thread."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Set, Tuple

from impasto_protocol.geometry import Box, Size
from krita import InfoObject, Krita

from . import document as pixels
from .qt import QTimer

__all__ = ["Enlarger"]

FILTER = "Bicubic"
"""How the layers are resampled: what Krita itself takes for enlarging."""
UNDO, REDO = "edit_undo", "edit_redo"
TEXT_WAIT, TEXT_TRIES = 20, 15
"""Milliseconds between two looks whether the undo action tells of the scaling, and how many."""


@dataclass(frozen=True)
class _Joined:
    """Two steps of Krita's that are one for the painter: the scaling, and the layer over it. `scaling` is what the
    undo action says while only the first of them is done.
    """

    document: Any
    size: Size
    node: Any
    scaling: str

    def is_half(self) -> bool:
        """Is the document scaled, with nothing after that, and without the layer?"""
        document = self.document
        if (document.width(), document.height()) != self.size or self.node.parentNode() is not None:
            return False
        return _undo_text() == self.scaling


class Enlarger:
    """Enlarges documents, and remembers which steps belong together: Krita lets no plug-in join two of them, so that
    whoever undoes or redoes one of the pair has the other one undone or redone right after it.
    """

    def __init__(self) -> None:
        self._joined: List[_Joined] = []
        self._heard: Set[Tuple[int, str]] = set()

    def enlarge(self, document: Any, size: Size, picture: Tuple[str, Box, bytes], recipe: bytes, copy: bool) -> str:
        """Scale `document`, or with `copy` a copy of it in front, to `size` and add `picture` (name, box, pixels: sRGB,
        BGRA, straight alpha) on top. The layer comes some turns later than the scaling.

        Gives why it could not be done, or "".
        """
        document.waitForDone()
        changed = _opened_copy(document) if copy else document
        if changed is None:
            return "The copy could not be written to the disk; make room there, or choose a new document."
        before = _undo_text()
        horizontal, vertical = changed.xRes(), changed.yRes()
        changed.scaleImage(size.width, size.height, round(horizontal), round(vertical), FILTER)
        changed.waitForDone()
        if (horizontal, vertical) != (round(horizontal), round(vertical)):
            changed.setXRes(horizontal)  # scaleImage takes whole numbers alone
            changed.setYRes(vertical)

        def add(tries: int = TEXT_TRIES) -> None:
            if not pixels.is_open(changed):
                return
            # Krita names the newest step in the undo action some turns later.
            if _undo_text() == before and tries > 1:
                QTimer.singleShot(TEXT_WAIT, lambda: add(tries - 1))
                return
            scaling = _undo_text()
            (node_id,) = pixels.paste(changed, [picture])
            pixels.keep_recipe(changed, node_id, recipe)
            if changed == pixels.active_document():
                self._join(changed, size, node_id, scaling)

        QTimer.singleShot(TEXT_WAIT, add)
        return ""

    def _join(self, document: Any, size: Size, node_id: str, scaling: str) -> None:
        self._joined = [joined for joined in self._joined if pixels.is_open(joined.document)]
        node = pixels.layer_named(document, node_id)
        if node is not None:
            self._joined.append(_Joined(document, size, node, scaling))
        # Each main window has actions of its own.
        for name in (UNDO, REDO):
            action = Krita.instance().action(name)
            window = (int(Krita.instance().activeWindow().qwindow().winId()), name)
            if window not in self._heard:
                self._heard.add(window)
                action.triggered.connect(lambda *_, name=name: QTimer.singleShot(0, lambda: self._finish(name)))

    def _finish(self, name: str) -> None:
        """After an undo or a redo: where it stopped between two steps that belong together, do the other one too."""
        front = pixels.active_document()
        for joined in self._joined if front is not None else ():
            if joined.document == front:
                front.waitForDone()
                action = Krita.instance().action(name)
                if joined.is_half() and action.isEnabled():
                    action.trigger()
                    return


def _undo_text() -> str:
    return str(Krita.instance().action(UNDO).text())


def _opened_copy(document: Any) -> Any:
    """A copy of all that a document holds, in front. By way of a file: Krita forgets a cloned document at once."""
    app = Krita.instance()
    with tempfile.TemporaryDirectory(prefix="impasto-") as folder:
        path = str(Path(folder) / "copy.kra")
        quiet = document.batchmode()
        document.setBatchmode(True)
        try:
            saved = document.exportImage(path, InfoObject())
        finally:
            document.setBatchmode(quiet)
        copy = app.openDocument(path) if saved else None
    if copy is None:
        return None
    copy.setFileName("")  # saving it asks where to
    copy.setName(f"{document.name() or 'Picture'} (larger)")
    pixels.forget_identity(copy)
    (app.activeWindow() or app.windows()[0]).addView(copy)
    copy.setModified(True)
    return copy
