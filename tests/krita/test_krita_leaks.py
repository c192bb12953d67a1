"""Many jobs in a row in one Krita: memory stays flat, no widget is left behind. IMPASTO_MANY is their number."""

from __future__ import annotations

import os

import pytest

from tests.krita.conftest import Painter

pytestmark = pytest.mark.krita

MANY = int(os.environ.get("IMPASTO_MANY", "40"))
"""Jobs; the first half warms up."""
GROWTH = 24.0
"""MB that the second half may take: the strip's small pictures, undo steps and layers of 64 x 48 are far below."""


def test_many_jobs_leave_nothing_behind(painter: Painter) -> None:
    halves, layers, strip, windows = painter.run(
        f"many = {MANY}"
        + """
def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

def gen():
    yield (connected, 60)
    doc = yield from new_document(64, 48)
    select(doc, 8, 8, 32, 24)
    docker().set_mode("inpaint")
    halves = []
    for number in range(1, many + 1):
        prompt(f"picture {number}")
        yield (lambda: widget("inpaint").isEnabled(), 10)
        yield from begin(lambda: press("inpaint"))
        yield (idle, 30)
        app.action("edit_undo").trigger()
        yield 0.05
        if number in (many // 2, many):
            yield 0.8
            halves.append([memory(), len(docker().findChildren(QObject)), len(QApplication.topLevelWidgets())])
    return [halves, layers(doc), [s.name for s in strip().items][:2], QApplication.activeModalWidget() is not None]
""",
        timeout=600,
    )
    (before, objects_before, tops_before), (after, objects_after, tops_after) = halves
    assert after - before < GROWTH, f"{before:.0f} MB after {MANY // 2} jobs, {after:.0f} MB after {MANY}"
    assert objects_after <= objects_before + 4 and tops_after <= tops_before + 1
    assert "Impasto: picture 1" not in layers and not windows
    assert strip == [f"Impasto: picture {MANY}", f"Impasto: picture {MANY - 1}"]
