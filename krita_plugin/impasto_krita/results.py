"""The strip of the last results: small pictures, the newest first."""

from __future__ import annotations

from typing import Any, List, Optional

from impasto_client.document import ResultLayer

from .qt import (
    QAbstractItemView,
    QIcon,
    QImage,
    QListView,
    QListWidget,
    QListWidgetItem,
    QPixmap,
    QSize,
    QSizePolicy,
    Qt,
    pyqtSignal,
)

__all__ = ["ResultStrip", "image_of"]

THUMB = 56
KEEP = 20


def image_of(result: ResultLayer, longest: int = 0) -> Any:
    """The result as a QImage with alpha; with `longest`, scaled down to at most that many pixels a side."""
    width, height = result.box.width, result.box.height
    image = QImage(result.pixels, width, height, 4 * width, QImage.Format.Format_ARGB32)
    if not longest or max(width, height) <= longest:
        return image.copy()
    if max(width, height) > 4 * longest:
        # Two steps: smooth scaling of a very large picture would hold up the painter.
        image = image.scaled(QSize(4 * longest, 4 * longest), Qt.AspectRatioMode.KeepAspectRatio)
    return image.scaled(
        QSize(longest, longest), Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    )


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
        self.setFixedHeight(THUMB + 14 + self.horizontalScrollBar().sizeHint().height())
        self.setFrameShape(QListWidget.Shape.NoFrame)
        self.results: List[ResultLayer] = []
        self.currentRowChanged.connect(self._chosen)
        self.itemDoubleClicked.connect(lambda item: self.wanted.emit(self.results[self.row(item)]))
        self.setVisible(False)

    def add(self, result: ResultLayer) -> None:
        """Put a new result in front and choose it."""
        ratio = self.devicePixelRatioF()
        pixmap = QPixmap.fromImage(image_of(result, round(THUMB * ratio)))
        pixmap.setDevicePixelRatio(ratio)
        item = QListWidgetItem(QIcon(pixmap), "")
        item.setSizeHint(QSize(THUMB + 6, THUMB + 6))
        item.setToolTip(f"{result.name}\nSeed {result.seed}. Double click adds it as a layer again.")
        self.results.insert(0, result)
        self.insertItem(0, item)
        while self.count() > KEEP:
            self.takeItem(self.count() - 1)
            self.results.pop()
        self.setVisible(True)
        self.setCurrentRow(0)
        self.scrollToTop()

    def current(self) -> Optional[ResultLayer]:
        """The result that is looked at."""
        row = self.currentRow()
        return self.results[row] if 0 <= row < len(self.results) else None

    def _chosen(self, row: int) -> None:
        if 0 <= row < len(self.results):
            self.chosen.emit(self.results[row])
