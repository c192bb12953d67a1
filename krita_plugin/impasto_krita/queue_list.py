"""The jobs that have not ended, where there are several: which they are, and a button to cancel each."""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence

from impasto_client.jobs import JobState
from impasto_client.wording import describe, job_title

from .qt import QHBoxLayout, QLabel, QPushButton, QSizePolicy, Qt, QToolButton, QVBoxLayout, QWidget, pyqtSignal

__all__ = ["QueueList"]

MOST = 6
"""Jobs that are shown one by one."""


class QueueList(QWidget):
    """`cancelled` tells the id of a job, or "" for all of them."""

    cancelled = pyqtSignal(str)

    def __init__(self, parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self.setObjectName("impasto_queue")
        self._rows: Dict[str, Any] = {}
        self._labels: Dict[str, Any] = {}
        self._lines = QVBoxLayout()
        self._lines.setSpacing(0)
        self.rest = QLabel()
        self.all = QPushButton("Cancel all")
        self.all.setObjectName("impasto_cancel_all")
        self.all.setToolTip("End the running job, and drop those that wait.")
        self.all.clicked.connect(lambda *_: self.cancelled.emit(""))
        below = QHBoxLayout()
        below.addWidget(self.rest, 1)
        below.addWidget(self.all)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(self._lines)
        column.addLayout(below)
        self.setVisible(False)

    def show_jobs(self, jobs: Sequence[JobState]) -> None:
        """The jobs that have not ended, in the order in which they will be done; nothing where it is one alone."""
        shown = jobs[:MOST] if len(jobs) > 1 else ()
        wanted = [job.job_id for job in shown]
        if wanted != list(self._rows):
            for row in self._rows.values():
                row.hide()
                row.deleteLater()  # not at once: the click on its button is still being dealt with
            self._rows, self._labels = {}, {}
            for job in shown:
                self._rows[job.job_id] = row = self._row(job)
                self._lines.addWidget(row)
                row.show()  # not only in a later turn
        for job in shown:
            text = f"{job_title(job)}: {describe(job)}"
            if self._labels[job.job_id].text() != text:
                self._labels[job.job_id].setText(text)
                self._labels[job.job_id].setToolTip(text)
        more = len(jobs) - len(shown)
        self.rest.setText(f"and {more} more" if shown and more else "")
        self.setVisible(bool(shown))

    def _row(self, job: JobState) -> Any:
        row = QWidget()
        line = QHBoxLayout(row)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(2)
        label = self._labels[job.job_id] = QLabel()
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        cancel = QToolButton()
        cancel.setObjectName("impasto_cancel_one")
        cancel.setText("✕")
        cancel.setAutoRaise(True)
        cancel.setToolTip("Cancel this job")
        cancel.setAccessibleName(f"Cancel {job_title(job)}")
        cancel.clicked.connect(lambda *_: self.cancelled.emit(job.job_id))
        line.addWidget(label, 1)
        line.addWidget(cancel)
        return row
