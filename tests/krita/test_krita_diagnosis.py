"""The menu entry that copies what `impasto doctor` says."""

from __future__ import annotations

import pytest

from tests.krita.conftest import Painter

pytestmark = pytest.mark.krita


def test_the_diagnosis_goes_to_the_clipboard(painter: Painter) -> None:
    """The doctor runs in a process of its own, and Krita is not held meanwhile."""
    text, message = painter.run(
        """
def gen():
    yield (connected, 60)
    QApplication.clipboard().setText("")
    docker().panel.diagnose.trigger()
    yield (lambda: bool(QApplication.clipboard().text()), 240)
    yield 0.2
    return [QApplication.clipboard().text(), widget("message").text()]
""",
        timeout=300,
    )
    assert "impasto   Impasto" in text and "torch" in text and "modes" in text
    assert "in the clipboard" in message
