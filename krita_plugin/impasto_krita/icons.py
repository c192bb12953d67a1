"""A few icons drawn as paths: sharp at every scale, in the colours of the theme."""

from __future__ import annotations

from typing import Any

from .qt import QIcon, QPainter, QPainterPath, QPalette, QPen, QPixmap, QPointF, QRectF, Qt

__all__ = ["dot", "icon"]

SIZE = 32


def icon(name: str, palette: Any) -> Any:
    """The icon `dice`, `lock` or `layer` as a QIcon, with a paler one for disabled buttons."""
    result = QIcon()
    for mode, group in (
        (QIcon.Mode.Normal, QPalette.ColorGroup.Active),
        (QIcon.Mode.Disabled, QPalette.ColorGroup.Disabled),
    ):
        pixmap, painter = _canvas()
        _DRAW[name](painter, palette.color(group, QPalette.ColorRole.ButtonText))
        painter.end()
        result.addPixmap(pixmap, mode)
    return result


def dot(color: Any, ratio: float) -> Any:
    """A round mark of 8 points as a QPixmap for a screen with this device pixel ratio."""
    pixmap = QPixmap(round(10 * ratio), round(10 * ratio))
    pixmap.setDevicePixelRatio(ratio)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(color)
    painter.drawEllipse(QRectF(1, 1, 8, 8))
    painter.end()
    return pixmap


def _canvas() -> Any:
    pixmap = QPixmap(2 * SIZE, 2 * SIZE)
    pixmap.setDevicePixelRatio(2)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    return pixmap, painter


def _dice(painter: Any, ink: Any) -> None:
    painter.setPen(QPen(ink, 2.4))
    painter.drawRoundedRect(QRectF(4, 4, 24, 24), 5, 5)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(ink)
    for x, y in ((10.5, 10.5), (21.5, 10.5), (16, 16), (10.5, 21.5), (21.5, 21.5)):
        painter.drawEllipse(QPointF(x, y), 2.3, 2.3)


def _lock(painter: Any, ink: Any) -> None:
    arch = QPainterPath()
    arch.moveTo(10, 15)
    arch.lineTo(10, 10)
    arch.cubicTo(10, 2, 22, 2, 22, 10)
    arch.lineTo(22, 15)
    painter.setPen(QPen(ink, 2.6))
    painter.drawPath(arch)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(ink)
    painter.drawRoundedRect(QRectF(6, 14, 20, 14), 2.5, 2.5)


def _layer(painter: Any, ink: Any) -> None:
    painter.setPen(QPen(ink, 2.4))
    painter.drawRoundedRect(QRectF(4, 9, 19, 19), 2, 2)
    painter.drawLine(QPointF(25, 3), QPointF(25, 13))
    painter.drawLine(QPointF(20, 8), QPointF(30, 8))


_DRAW = {"dice": _dice, "lock": _lock, "layer": _layer}
