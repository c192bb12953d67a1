"""PyQt5 or PyQt6, whichever Krita itself runs on. Only this module names them.

Importing `krita` loads the right one; asking for PyQt6 by an import could load a second Qt beside Krita's own.
Enums are always written with their scope (`Qt.AlignmentFlag.AlignLeft`), which both understand.
"""
# ruff: noqa: F401

import sys

import krita

IS_QT6 = "PyQt6.QtCore" in sys.modules

if IS_QT6:
    from PyQt6.QtCore import (
        QByteArray,
        QEvent,
        QMimeData,
        QModelIndex,
        QObject,
        QPointF,
        QRect,
        QRectF,
        QRegularExpression,
        QSize,
        QStringListModel,
        Qt,
        QTimer,
        QUrl,
        pyqtSignal,
    )
    from PyQt6.QtGui import (
        QBrush,
        QColor,
        QDesktopServices,
        QFontMetrics,
        QIcon,
        QImage,
        QPainter,
        QPainterPath,
        QPalette,
        QPen,
        QPixmap,
        QRegularExpressionValidator,
        QTextCursor,
    )
    from PyQt6.QtWidgets import (
        QAbstractItemView,
        QAbstractSpinBox,
        QApplication,
        QCheckBox,
        QComboBox,
        QCompleter,
        QDockWidget,
        QDoubleSpinBox,
        QFileDialog,
        QFormLayout,
        QFrame,
        QHBoxLayout,
        QLabel,
        QLineEdit,
        QListView,
        QListWidget,
        QListWidgetItem,
        QMenu,
        QPlainTextEdit,
        QProgressBar,
        QPushButton,
        QScrollArea,
        QSizePolicy,
        QSlider,
        QSpinBox,
        QToolButton,
        QVBoxLayout,
        QWidget,
    )
else:
    from PyQt5.QtCore import (
        QByteArray,
        QEvent,
        QMimeData,
        QModelIndex,
        QObject,
        QPointF,
        QRect,
        QRectF,
        QRegularExpression,
        QSize,
        QStringListModel,
        Qt,
        QTimer,
        QUrl,
        pyqtSignal,
    )
    from PyQt5.QtGui import (
        QBrush,
        QColor,
        QDesktopServices,
        QFontMetrics,
        QIcon,
        QImage,
        QPainter,
        QPainterPath,
        QPalette,
        QPen,
        QPixmap,
        QRegularExpressionValidator,
        QTextCursor,
    )
    from PyQt5.QtWidgets import (
        QAbstractItemView,
        QAbstractSpinBox,
        QApplication,
        QCheckBox,
        QComboBox,
        QCompleter,
        QDockWidget,
        QDoubleSpinBox,
        QFileDialog,
        QFormLayout,
        QFrame,
        QHBoxLayout,
        QLabel,
        QLineEdit,
        QListView,
        QListWidget,
        QListWidgetItem,
        QMenu,
        QPlainTextEdit,
        QProgressBar,
        QPushButton,
        QScrollArea,
        QSizePolicy,
        QSlider,
        QSpinBox,
        QToolButton,
        QVBoxLayout,
        QWidget,
    )
