"""The strip of results: small pictures, the newest first."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

from impasto_client.gallery import Key, Shown

from .qt import (
    QAbstractItemView,
    QColor,
    QIcon,
    QImage,
    QListView,
    QListWidget,
    QListWidgetItem,
    QPainter,
    QPalette,
    QPixmap,
    QSize,
    QSizePolicy,
    Qt,
    pyqtSignal,
)

__all__ = ["ResultStrip", "laid_over", "scaled_image"]

THUMB = 56


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


def laid_over(before: Optional[Any], image: Any) -> Any:
    """A result as it lies over what was there before, where that is known and of its size."""
    if before is None or before.size() != image.size():
        return image
    mixed = before.copy()
    painter = QPainter(mixed)
    painter.drawImage(0, 0, image)
    painter.end()
    return mixed


def _square(image: Any, side: int) -> Any:
    """The middle of the picture as a square of `side` pixels."""
    filled = image.scaled(
        QSize(side, side),
        Qt.AspectRatioMode.KeepAspectRatioByExpanding,
        Qt.TransformationMode.SmoothTransformation,
    )
    return filled.copy((filled.width() - side) // 2, (filled.height() - side) // 2, side, side)


class ResultStrip(QListWidget):
    """One row of thumbnails. `chosen` tells which one is looked at, `wanted` which is to be added again, `older` that
    the painter wants to see more.
    """

    chosen = pyqtSignal(object)
    wanted = pyqtSignal(object)
    older = pyqtSignal()

    def __init__(self, parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self.setObjectName("impasto_results")
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setWrapping(False)
        self.setMovement(QListView.Movement.Static)
        self.setIconSize(QSize(THUMB, THUMB))
        self.setSpacing(2)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFrameShape(QListWidget.Shape.NoFrame)
        self.horizontalScrollBar().rangeChanged.connect(lambda *_: self._fit())
        self.style_by(self.palette())
        self.items: List[Shown] = []
        self._icons: Dict[Key, Tuple[int, Any]] = {}
        self._quiet = False
        self.currentRowChanged.connect(self._chosen)
        self.itemClicked.connect(lambda item: self._chosen(self.row(item)))
        self.itemDoubleClicked.connect(self._wanted)
        self.setVisible(False)

    def show_items(self, items: Sequence[Shown], more: bool) -> None:
        """List these; the one that is looked at stays so, but a new one in front is looked at."""
        old, looked_at = [shown.key for shown in self.items], self.current()
        keys = [shown.key for shown in items]
        self.items = list(items)
        if keys == old and self.count() == len(keys) + more:
            for row, shown in enumerate(self.items):
                self._dress(self.item(row), shown)
            return
        self._quiet = True
        self.clear()
        for shown in self.items:
            item = QListWidgetItem("")
            item.setSizeHint(QSize(THUMB + 8, THUMB + 8))
            self._dress(item, shown)
            self.addItem(item)
        if more:
            item = QListWidgetItem("older…")
            item.setSizeHint(QSize(THUMB + 8, THUMB + 8))
            item.setFlags(Qt.ItemFlag.ItemIsEnabled)
            self.addItem(item)
        self._icons = {key: kept for key, kept in self._icons.items() if key in keys}
        fresh = bool(keys) and bool(old) and keys[0] not in old and keys[1:2] == old[:1]
        row = 0 if fresh or looked_at is None or looked_at.key not in keys else keys.index(looked_at.key)
        if keys:
            self.setCurrentRow(row)
        if row == 0:
            self.scrollToTop()
        self._quiet = False
        self.setVisible(bool(keys))

    def _dress(self, item: Any, shown: Shown) -> None:
        """The small picture of an item, drawn once."""
        kept = self._icons.get(shown.key)
        if kept is None or kept[0] != id(shown.small):
            ratio = self.devicePixelRatioF()
            side = round(THUMB * ratio)
            if shown.small is None:
                pixmap = QPixmap(side, side)
                pixmap.fill(QColor(128, 128, 128, 60))
            else:
                pixmap = QPixmap.fromImage(_square(laid_over(shown.before, shown.small), side))
            pixmap.setDevicePixelRatio(ratio)
            self._icons[shown.key] = (id(shown.small), QIcon(pixmap))
            item.setIcon(self._icons[shown.key][1])
        elif item.icon().isNull():
            item.setIcon(kept[1])
        star = "★ " if shown.starred else ""
        item.setToolTip(f"{star}{shown.name}\nSeed {shown.seed}. Double click adds it as a layer again.")

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

    def selected(self) -> List[Shown]:
        """All that are chosen, in the order of the strip."""
        rows = sorted(self.row(item) for item in self.selectedItems())
        return [self.items[row] for row in rows if row < len(self.items)]

    def _chosen(self, row: int) -> None:
        if self._quiet:
            return
        if 0 <= row < len(self.items):
            self.chosen.emit(self.items[row])
        elif row >= len(self.items) > 0:
            self.older.emit()

    def _wanted(self, item: Any) -> None:
        if self.row(item) < len(self.items):
            self.wanted.emit(self.items[self.row(item)])
