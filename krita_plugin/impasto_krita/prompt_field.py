"""The field for a prompt: it grows, weighs words by a key and completes names of the catalogue and tags."""

from __future__ import annotations

from typing import Any, Optional

from impasto_client.completion import Completions
from impasto_client.prompt_edit import is_settings, shift_weight
from impasto_client.vocabulary import Vocabulary

from .qt import (
    QCompleter,
    QEvent,
    QModelIndex,
    QPlainTextEdit,
    QSizePolicy,
    QStringListModel,
    Qt,
    QTextCursor,
    pyqtSignal,
)

__all__ = ["PromptEdit"]

WEIGHTS = {Qt.Key.Key_Up: 1, Qt.Key.Key_Down: -1}
"""With Ctrl: steps by which the weight of words changes."""
FOR_THE_LIST = (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Tab, Qt.Key.Key_Backtab, Qt.Key.Key_Escape)
"""Keys that the list of completions takes while it is open."""


class PromptEdit(QPlainTextEdit):
    """A text field that grows with its text. Ctrl+Return asks for the job, Ctrl+Up and Ctrl+Down weigh the words that
    are selected or under the caret; Return makes a line. `<`, `__`, names of embeddings and tags are completed.
    """

    submitted = pyqtSignal()
    pasted = pyqtSignal(str)
    """What was pasted is the text of a whole picture's settings, and not words for this one."""

    def __init__(self, placeholder: str, lines: int, most: int, parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self.lines, self.most = lines, most
        self._vocabulary = Vocabulary()
        self._offered = Completions(0)
        self._typed_at = -1
        """Where the caret was after the last letter that was typed; -1 where it may be elsewhere now."""
        self._list = QStringListModel(self)
        self.completer = QCompleter(self._list, self)
        self.completer.setCompletionMode(QCompleter.CompletionMode.UnfilteredPopupCompletion)
        self.completer.setWidget(self)
        self.completer.popup().setObjectName("impasto_completions")
        self.completer.activated[QModelIndex].connect(self._take)
        self.setPlaceholderText(placeholder)
        self.setTabChangesFocus(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.document().documentLayout().documentSizeChanged.connect(self._fit)
        self._fit()

    def use(self, vocabulary: Vocabulary) -> None:
        """Complete from these words."""
        self._vocabulary = vocabulary
        heard = self._heard
        vocabulary.listeners.append(heard)
        self.destroyed.connect(lambda *_: vocabulary.listeners.remove(heard))

    def _heard(self) -> None:
        """The server has found more; the list is for the one who still types there."""
        if self.hasFocus() and self.textCursor().position() == self._typed_at:
            self._offer()

    def _fit(self, *_: Any) -> None:
        # A plain text document counts its height in (wrapped) lines.
        wanted = min(max(self.lines, int(self.document().size().height())), self.most)
        margins = 2 * int(self.document().documentMargin()) + 2 * self.frameWidth()
        self.setFixedHeight(wanted * self.fontMetrics().lineSpacing() + margins + 2)

    def keyPressEvent(self, event: Any) -> None:
        popup = self.completer.popup()
        control = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        if popup.isVisible() and event.key() in FOR_THE_LIST and not control:
            event.ignore()  # the list's own
            return
        if control:
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                popup.hide()
                self.submitted.emit()
                return
            if event.key() in WEIGHTS:
                self._weigh(WEIGHTS[event.key()])
                return
        super().keyPressEvent(event)
        if (event.text() and event.text().isprintable()) or event.key() == Qt.Key.Key_Backspace:
            self._typed_at = self.textCursor().position()
            self._offer()
        else:
            self._typed_at = -1
            popup.hide()

    def dragEnterEvent(self, event: Any) -> None:
        if event.mimeData().hasUrls():
            event.ignore()  # a picture is the panel's
            return
        super().dragEnterEvent(event)

    def insertFromMimeData(self, source: Any) -> None:
        if source.hasText() and is_settings(source.text()):
            self.pasted.emit(source.text())
            return
        super().insertFromMimeData(source)

    def _offer(self) -> None:
        """Show what can be meant by what stands before the caret."""
        self._offered = self._vocabulary.offer(self.toPlainText(), self.textCursor().position())
        if not self._offered.suggestions or self.textCursor().hasSelection():
            self.completer.popup().hide()
            return
        self._list.setStringList([suggestion.shown for suggestion in self._offered.suggestions])
        place = self.cursorRect()
        place.setWidth(min(self.width(), self.completer.popup().sizeHintForColumn(0) + 30))
        self.completer.complete(place)
        self.completer.popup().setCurrentIndex(self._list.index(0, 0))

    def _take(self, index: Any) -> None:
        suggestion, self._typed_at = self._offered.suggestions[index.row()], -1
        cursor = self.textCursor()
        cursor.setPosition(self._offered.start, QTextCursor.MoveMode.KeepAnchor)
        cursor.insertText(suggestion.text)
        self.setTextCursor(cursor)

    def _weigh(self, steps: int) -> None:
        """One step up or down; Ctrl+Z in the field takes it back."""
        cursor, text = self.textCursor(), self.toPlainText()
        edit = shift_weight(text, cursor.selectionStart(), cursor.selectionEnd(), steps)
        if edit.text != text:
            cursor.beginEditBlock()
            cursor.select(QTextCursor.SelectionType.Document)
            cursor.insertText(edit.text)
            cursor.endEditBlock()
        cursor.setPosition(edit.start)
        cursor.setPosition(edit.end, QTextCursor.MoveMode.KeepAnchor)
        self.setTextCursor(cursor)

    def event(self, event: Any) -> bool:
        # Krita's one-key shortcuts must not take the letters that are typed here.
        if event.type() == QEvent.Type.ShortcutOverride:
            control = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
            if not control or event.key() in WEIGHTS:
                event.accept()
                return True
        return bool(super().event(event))
