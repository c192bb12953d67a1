"""A slider in the manner of Krita's own: a bar that carries its name and value, and can be typed into."""

from __future__ import annotations

from typing import Any, Optional

from .colors import ink_on_highlight
from .qt import QLineEdit, QPainter, QPalette, QRectF, QSize, QSizePolicy, Qt, QWidget, pyqtSignal

__all__ = ["FillSlider"]


class FillSlider(QWidget):
    """`value` from `minimum` to `maximum` in steps of `step`; shown as `title: value unit`.

    Drag or wheel to change it, the arrow keys for single steps, double click or Enter to type. With the unit "%" a
    value of 0..1 is shown and typed as 0..100.
    """

    changed = pyqtSignal(float)

    def __init__(
        self, title: str, minimum: float, maximum: float, step: float, unit: str = "", parent: Optional[Any] = None
    ) -> None:
        super().__init__(parent)
        self.title, self.minimum, self.maximum, self.step, self.unit = title, minimum, maximum, step, unit
        self.value = minimum
        self.editor: Optional[Any] = None
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.SizeHorCursor)
        self.setAccessibleName(title)

    def sizeHint(self) -> Any:
        metrics = self.fontMetrics()
        return QSize(metrics.horizontalAdvance(f"{self.title}: 0000 {self.unit}") + 16, int(metrics.height() * 1.6))

    def minimumSizeHint(self) -> Any:
        return QSize(60, self.sizeHint().height())

    def set_value(self, value: float) -> None:
        """Take the nearest allowed value; emits `changed` if it is another one."""
        steps = round((value - self.minimum) / self.step)
        value = round(min(max(self.minimum + steps * self.step, self.minimum), self.maximum), 6)
        if value != self.value:
            self.value = value
            self.changed.emit(value)
        self.update()

    def shown(self) -> str:
        """The value as the painter reads it, without the unit."""
        scaled = self.value * 100 if self.unit == "%" else self.value
        return f"{scaled:.10g}" if scaled != int(scaled) else str(int(scaled))

    # ---- painting

    def paintEvent(self, event: Any) -> None:
        palette = self.palette()
        group = QPalette.ColorGroup.Active if self.isEnabled() else QPalette.ColorGroup.Disabled
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        frame = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        painter.setPen(palette.color(group, QPalette.ColorRole.Mid))
        painter.setBrush(palette.color(group, QPalette.ColorRole.Base))
        painter.drawRoundedRect(frame, 2, 2)
        share = (self.value - self.minimum) / (self.maximum - self.minimum) if self.maximum > self.minimum else 0
        filled = QRectF(frame.x() + 1, frame.y() + 1, (frame.width() - 2) * share, frame.height() - 2)
        role = QPalette.ColorRole.Highlight if self.isEnabled() else QPalette.ColorRole.Mid
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(palette.color(group, role))
        painter.drawRect(filled)
        text = f"{self.title}: {self.shown()}" + (f" {self.unit}" if self.unit else "")
        # The text stands on two grounds and takes its colour from each.
        on_fill = palette.color(group, QPalette.ColorRole.HighlightedText)
        if self.isEnabled():
            on_fill = ink_on_highlight(palette)
        for clip, ink in ((filled, on_fill), (None, palette.color(group, QPalette.ColorRole.Text))):
            painter.save()
            rest = frame.adjusted(filled.width() + 1, 0, 0, 0)
            painter.setClipRect(clip if clip is not None else rest)
            painter.setPen(ink)
            painter.drawText(frame, Qt.AlignmentFlag.AlignCenter, text)
            painter.restore()
        if self.hasFocus():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(palette.color(group, QPalette.ColorRole.Highlight))
            painter.drawRoundedRect(frame, 2, 2)

    # ---- input

    def _set_from_x(self, x: float) -> None:
        share = (x - 1) / max(1, self.width() - 2)
        self.set_value(self.minimum + share * (self.maximum - self.minimum))

    def mousePressEvent(self, event: Any) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self._set_from_x(_x(event))

    def mouseMoveEvent(self, event: Any) -> None:
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._set_from_x(_x(event))

    def mouseDoubleClickEvent(self, event: Any) -> None:
        self._type()

    def wheelEvent(self, event: Any) -> None:
        if not self.hasFocus():
            # The wheel scrolls the docker until the painter has chosen this slider.
            event.ignore()
            return
        self.set_value(self.value + (self.step if event.angleDelta().y() > 0 else -self.step))
        event.accept()

    def keyPressEvent(self, event: Any) -> None:
        key = event.key()
        if key in (Qt.Key.Key_Right, Qt.Key.Key_Up):
            self.set_value(self.value + self.step)
        elif key in (Qt.Key.Key_Left, Qt.Key.Key_Down):
            self.set_value(self.value - self.step)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_F2):
            self._type()
        elif event.text().isdigit():
            self._type(event.text())
        else:
            super().keyPressEvent(event)

    def _type(self, start: str = "") -> None:
        if self.editor is not None:
            return
        self.editor = QLineEdit(start or self.shown(), self)
        self.editor.setGeometry(self.rect())
        self.editor.setAlignment(Qt.AlignmentFlag.AlignCenter)
        if not start:
            self.editor.selectAll()
        self.editor.editingFinished.connect(self._typed)
        self.editor.show()
        self.editor.setFocus()

    def _typed(self) -> None:
        editor, self.editor = self.editor, None
        if editor is None:
            return
        try:
            value = float(editor.text().replace(",", ".").rstrip("% "))
        except ValueError:
            value = None  # not a number: the old value stays
        editor.deleteLater()
        if value is not None and value == value:
            self.set_value(value / 100 if self.unit == "%" else value)


def _x(event: Any) -> float:
    """Qt6 has position(), Qt5 has x()."""
    return float(event.position().x()) if hasattr(event, "position") else float(event.x())
