"""The strip of the last results: small pictures, the newest first."""

from __future__ import annotations

from typing import Any, List, Optional

from impasto_client.controller import Shown

from .qt import (
    QAbstractItemView,
    QIcon,
    QImage,
    QListView,
    QListWidget,
    QListWidgetItem,
    QPalette,
    QPixmap,
    QSize,
    QSizePolicy,
    Qt,
    pyqtSignal,
)

__all__ = ["ResultStrip", "scaled_image"]

THUMB = 56
KEEP = 12


def scaled_image(pixels: Any, width: int, height: int, longest: int) -> Any:
    """BGRA pixels as a QImage of its own, scaled down to at most `longest` pixels a side."""
    image = QImage(pixels, width, height, 4 * width, QImage.Format.Format_ARGB32)
    if max(width, height) <= longest:
        return image.copy()
    if max(width, height) > 2 * longest:
        # Two steps: smooth scaling of a very large picture would hold up the painter.
        image = image.scaled(QSize(2 * longest, 2 * longest), Qt.AspectRatioMode.KeepAspectRatio)
    return image.scaled(
        QSize(longest, longest), Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    )


def _square(image: Any, side: int) -> Any:
    """The middle of the picture as a square of `side` pixels."""
    filled = image.scaled(
        QSize(side, side),
        Qt.AspectRatioMode.KeepAspectRatioByExpanding,
        Qt.TransformationMode.SmoothTransformation,
    )
    return filled.copy((filled.width() - side) // 2, (filled.height() - side) // 2, side, side)


class ResultStrip(QListWidget):
    """One row of thumbnails. `chosen` tells which one is looked at, `wanted` which is to be added again."""

    chosen = pyqtSignal(object)
    wanted = pyqtSignal(object)

    def __init__(self, parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self.setObjectName("impasto_results")
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setWrapping(False)
        self.setMovement(QListView.Movement.Static)
        self.setIconSize(QSize(THUMB, THUMB))
        self.setSpacing(2)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFrameShape(QListWidget.Shape.NoFrame)
        self.horizontalScrollBar().rangeChanged.connect(lambda *_: self._fit())
        self.style_by(self.palette())
        self.items: List[Shown] = []
        self.currentRowChanged.connect(self._chosen)
        self.itemDoubleClicked.connect(lambda item: self.wanted.emit(self.items[self.row(item)]))
        self.setVisible(False)

    def add(self, shown: Shown, last: bool = False) -> None:
        """Put a new result in front and choose it; with `last`, put an old one at the end."""
        ratio = self.devicePixelRatioF()
        side = round(THUMB * ratio)
        pixmap = QPixmap.fromImage(_square(shown.small, side))
        pixmap.setDevicePixelRatio(ratio)
        item = QListWidgetItem(QIcon(pixmap), "")
        item.setSizeHint(QSize(THUMB + 8, THUMB + 8))
        item.setToolTip(f"{shown.result.name}\nSeed {shown.result.seed}. Double click adds it as a layer again.")
        row = len(self.items) if last else 0
        self.items.insert(row, shown)
        self.insertItem(row, item)
        while self.count() > KEEP:
            self.takeItem(self.count() - 1)
            self.items.pop()
        self.setVisible(True)
        if not last:
            self.setCurrentRow(0)
            self.scrollToTop()

    def style_by(self, palette: Any) -> None:
        """Colours from the theme: the chosen one has a frame."""
        high = palette.color(QPalette.ColorRole.Highlight).name()
        self.setStyleSheet(
            "QListWidget { background: transparent; }"
            "QListWidget::item { border: 2px solid transparent; border-radius: 2px; }"
            f"QListWidget::item:selected {{ border-color: {high}; background: transparent; }}"
        )
        self._fit()

    def _fit(self) -> None:
        bar = self.horizontalScrollBar()
        more = bar.sizeHint().height() if bar.maximum() > bar.minimum() else 0
        self.setFixedHeight(THUMB + 14 + more)

    def current(self) -> Optional[Shown]:
        """The result that is looked at."""
        row = self.currentRow()
        return self.items[row] if 0 <= row < len(self.items) else None

    def _chosen(self, row: int) -> None:
        if 0 <= row < len(self.items):
            self.chosen.emit(self.items[row])
