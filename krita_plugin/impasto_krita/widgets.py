"""Small building blocks of the docker; none of them knows jobs, documents or the server."""

from __future__ import annotations

from typing import Any, Optional

from .colors import READABLE, contrast
from .icons import icon
from .qt import (
    QColor,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPalette,
    QPixmap,
    QRegularExpression,
    QRegularExpressionValidator,
    QSize,
    QSizePolicy,
    Qt,
    QToolButton,
    QVBoxLayout,
    QWidget,
    pyqtSignal,
)
from .results import laid_over

__all__ = ["Fold", "Picture", "SeedField", "quiet_color", "tint", "warning_color"]

MAX_SEED = 2**32 - 1


def quiet_color(palette: Any) -> Any:
    """The colour of secondary texts: between the text and the ground, as near to the ground as can be read."""
    text, ground = palette.color(QPalette.ColorRole.WindowText), palette.color(QPalette.ColorRole.Window)
    for share in (0.65, 0.75, 0.85):
        mixed = QColor(*[round(share * a + (1 - share) * b) for a, b in zip(text.getRgb()[:3], ground.getRgb()[:3])])
        if contrast(mixed, ground) >= READABLE:
            return mixed
    return text


def warning_color(palette: Any) -> Any:
    """An amber that can be read on the ground of the theme."""
    ground = palette.color(QPalette.ColorRole.Window)
    ambers = ("#e0a030", "#f2bc58", "#ffd890") if ground.lightness() < 128 else ("#8a5200", "#6e4000", "#4a2a00")
    readable = (QColor(amber) for amber in ambers if contrast(QColor(amber), ground) >= READABLE)
    return next(readable, QColor(ambers[-1]))


def tint(label: Any, color: Any) -> None:
    """Give a label's text this colour and leave its font alone, which a style sheet would not."""
    palette = label.palette()
    if palette.color(QPalette.ColorRole.WindowText) != color:
        palette.setColor(QPalette.ColorRole.WindowText, color)
        label.setPalette(palette)


class Fold(QWidget):
    """A heading that shows or hides what is below it."""

    toggled = pyqtSignal(bool)

    def __init__(self, title: str, parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self.button = QToolButton()
        self.button.setText(title)
        self.button.setCheckable(True)
        self.button.setAutoRaise(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setArrowType(Qt.ArrowType.RightArrow)
        self.button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.style_by(self.palette())
        self.button.toggled.connect(self.set_open)
        self.body = QWidget()
        self.body.setVisible(False)
        self.inside = QVBoxLayout(self.body)
        self.inside.setContentsMargins(0, 2, 0, 4)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.button)
        layout.addWidget(self.body)

    def style_by(self, palette: Any) -> None:
        """Colours from the theme; a style sheet does not follow a change of it by itself."""
        ink = palette.color(QPalette.ColorRole.WindowText).name()
        self.button.setStyleSheet(f"QToolButton {{ border: none; text-align: left; padding: 2px 0; color: {ink}; }}")

    def set_open(self, is_open: bool) -> None:
        self.button.setChecked(is_open)
        self.button.setArrowType(Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow)
        self.body.setVisible(is_open)
        self.toggled.emit(is_open)

    def is_open(self) -> bool:
        return bool(self.button.isChecked())


class SeedField(QWidget):
    """The seed: new for every picture (an empty field), or locked to the number that is shown."""

    changed = pyqtSignal()

    def __init__(self, parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self.edit = QLineEdit()
        self.edit.setObjectName("impasto_seed")
        self.edit.setPlaceholderText("new for every picture")
        self.edit.setValidator(QRegularExpressionValidator(QRegularExpression("[0-9]{0,10}"), self.edit))
        self.edit.setToolTip("The noise that a picture starts from. The same seed and settings give the same picture.")
        self.edit.textChanged.connect(self._changed)
        self.dice = QToolButton()
        self.dice.setObjectName("impasto_seed_random")
        self.dice.setAutoRaise(True)
        self.dice.setToolTip("A new seed for every picture")
        self.dice.clicked.connect(self.edit.clear)
        self.lock = QToolButton()
        self.lock.setObjectName("impasto_seed_lock")
        self.lock.setAutoRaise(True)
        self.lock.setToolTip("Keep the seed of the last picture")
        self.lock.clicked.connect(self._lock_last)
        self.last: Optional[int] = None
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.edit, 1)
        layout.addWidget(self.lock)
        layout.addWidget(self.dice)
        self.refresh()

    def seed(self) -> int:
        """The number in the field, or -1 for a new one."""
        text = self.edit.text()
        return min(int(text), MAX_SEED) if text else -1

    def set_seed(self, seed: int) -> None:
        self.edit.setText("" if seed < 0 else str(seed))

    def set_last(self, seed: int) -> None:
        """Remember the seed of the newest picture for the lock."""
        self.last = seed
        self.refresh()

    def _lock_last(self) -> None:
        if self.last is not None:
            self.set_seed(self.last)

    def _changed(self) -> None:
        self.refresh()
        self.changed.emit()

    def refresh(self) -> None:
        self.dice.setIcon(icon("dice", self.palette()))
        self.lock.setIcon(icon("lock", self.palette()))
        self.dice.setEnabled(bool(self.edit.text()))
        self.lock.setEnabled(self.last is not None and self.seed() != self.last)


class Picture(QFrame):
    """A picture that fits its width, sharp on every screen; pressing it shows what was there before."""

    def __init__(self, most: int, parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self.most = most
        self.image: Optional[Any] = None
        self._before: Optional[Any] = None
        self.comparing = False
        self.label = QLabel()
        self.label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.label)
        self.setVisible(False)

    def show_image(self, image: Optional[Any], before: Optional[Any] = None) -> None:
        """A QImage, laid over `before` where that is known; None to hide."""
        there = image is not None and not image.isNull()
        self.image = laid_over(before, image) if there else None
        self._before = before
        self.comparing = False
        self.setToolTip("Hold the mouse button down to see it as it was." if before is not None else "")
        self.setVisible(there)
        self._fit()

    def compare(self, on: bool) -> None:
        """Show what was there before, or the picture again."""
        self.comparing = on and self._before is not None
        self._fit()

    def resizeEvent(self, event: Any) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        image = self._before if self.comparing else self.image
        if image is None:
            self.label.clear()
            return
        ratio = self.devicePixelRatioF()
        room = QSize(max(16, self.width()), self.most) * ratio
        scaled = image.scaled(room, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation)
        pixmap = QPixmap.fromImage(scaled)
        pixmap.setDevicePixelRatio(ratio)
        self.label.setPixmap(pixmap)
        self.label.setFixedHeight(round(scaled.height() / ratio))

    def mousePressEvent(self, event: Any) -> None:
        self.compare(True)

    def mouseReleaseEvent(self, event: Any) -> None:
        self.compare(False)
