"""The docker in a light theme, and at twice the size: nothing is cut off, every text can be read.

With IMPASTO_WRITE_DOCS=1 the pictures become docs/images/krita-themes.png.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.krita import stub
from tests.krita.painter import Painter, painting
from tests.krita.test_krita_look import beside, write

pytestmark = pytest.mark.krita

LEAST = 4.5
"""The contrast between a text and its ground that WCAG 2.1 asks for (1.4.3)."""
INSPECT = """
from collections import Counter

def luminance(value):
    parts = [(value >> shift & 255) / 255 for shift in (16, 8, 0)]
    r, g, b = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b

def contrast_of(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)

def contrast(w):
    # Of the pixel that differs most from the ground; the edge is left out, a frame is no text.
    image = w.grab().toImage().convertToFormat(QImage.Format.Format_RGB32)
    edge = round(4 * image.devicePixelRatio())
    image = image.copy(edge, edge // 2, image.width() - 2 * edge, image.height() - edge)
    bits = image.constBits()
    bits.setsize(image.width() * image.height() * 4)
    colours = Counter(memoryview(bytes(bits)).cast("I"))
    ground = colours.most_common(1)[0][0]
    return max(contrast_of(ground, colour) for colour in colours)

def inspect():
    # [what, the fault] of everything that is shown.
    wrong = []
    for w in docker().findChildren(QWidget):
        text = w.text() if isinstance(w, (QLabel, QAbstractButton)) else ""
        if not w.isVisible() or not text:
            continue
        name = f"{type(w).__name__} {w.objectName()} {text!r}"
        need, have = w.sizeHint(), w.size()
        if isinstance(w, QLabel) and w.wordWrap():
            if w.heightForWidth(w.width()) > have.height() + 1:
                wrong.append([name, f"needs a height of {w.heightForWidth(w.width())}, has {have.height()}"])
        else:
            free = w.sizePolicy().horizontalPolicy() == QSizePolicy.Policy.Ignored  # its tool tip says it whole
            if have.height() < need.height() or (have.width() < need.width() and not free):
                wrong.append([name, f"needs {need.width()} x {need.height()}, has {have.width()} x {have.height()}"])
        if w.isEnabled() and any(letter.isalnum() for letter in text):  # signs are no texts
            found = contrast(w)
            if found < LEAST:
                wrong.append([name, f"contrast {found:.1f}"])
    for area in docker().findChildren(QScrollArea):
        if area.widget().width() > area.viewport().width():
            wrong.append(["page", f"{area.widget().width()} wide in {area.viewport().width()}"])
    for slider in docker().findChildren(QWidget):
        if type(slider).__name__ == "FillSlider" and slider.isVisible():
            found = contrast(slider) if slider.isEnabled() else LEAST
            if found < LEAST:
                wrong.append([f"slider {slider.title}", f"contrast {found:.1f}"])
            if slider.height() < slider.sizeHint().height():
                wrong.append([f"slider {slider.title}", "is too low"])
    bar = widget("progress").palette()
    found = contrast_of(bar.highlight().color().rgb(), bar.highlightedText().color().rgb())
    if found < LEAST:
        wrong.append(["progress", f"contrast {found:.1f}"])
    return wrong
"""
PREPARE = """
def gen():
    global doc
    yield (connected, 60)
    window.resize(1300, 980)
    doc = yield from new_document()
    for d in app.dockers():
        if d.isVisible() and d.objectName() not in ("impasto_docker", "ToolBox"):
            d.hide()
    window.resizeDocks([docker()], [300], Qt.Orientation.Horizontal)
    select(doc, 40, 40, 100, 100)
    prompt("a red sailing boat at sea")
    docker().set_mode("inpaint")
    yield 0.5
    press("inpaint")
    yield (lambda: widget("results").count() and idle(), 60)
    yield 0.5
"""


@dataclass(frozen=True)
class Look:
    theme: str
    scale: int


LOOKS = {"light": Look("Krita bright", 1), "large": Look("Krita dark", 2), "light and large": Look("Krita bright", 2)}
pictures: dict[str, list[Path]] = {}
"""By look, those of this run."""


@pytest.fixture(scope="module", params=LOOKS)
def look(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def painter(warm_home: Path, look: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Painter]:
    folder = tmp_path_factory.mktemp("themes")
    home, how = folder / "home", LOOKS[look]
    shutil.copytree(warm_home, home, symlinks=True, ignore=shutil.ignore_patterns("bridge.sock", "run", "tmp"))
    with open(home / ".config/kritarc", "a") as kritarc:
        kritarc.write(f"\n[theme]\nTheme={how.theme}\n")
    env, screen = {"QT_SCALE_FACTOR": str(how.scale)}, f"{1350 * how.scale}x{1000 * how.scale}x24"
    with painting(home, folder / "impasto", stub.launch_command(), (), env, screen) as opened:
        opened.run(f"LEAST = {LEAST}\n{INSPECT}")
        opened.run(PREPARE, timeout=120)
        yield opened


def test_it_is_that_look(painter: Painter, look: str) -> None:
    lightness, ratio = painter.run(
        "result = [docker().palette().color(QPalette.ColorRole.Window).lightness(), docker().devicePixelRatioF()]"
    )
    assert (lightness > 128) == ("light" in look)
    assert ratio == LOOKS[look].scale


STATES = {
    "a result": "yield 0.1",
    "settings": "docker().panel.advanced.set_open(True)\n    widget('experts').setChecked(True)\n"
    "    docker().panel.negative_fold.set_open(True)\n    yield 0.6",
    "sketch": "docker().panel.advanced.set_open(False)\n    docker().panel.negative_fold.set_open(False)\n"
    "    docker().set_mode('sketch')\n    yield 0.6",
    "upscale": "docker().set_mode('upscale')\n    yield 0.6",
    "nothing to inpaint": "docker().set_mode('inpaint')\n    doc.setSelection(None)\n    yield 0.6",
    "an error": "select(doc, 40, 40, 100, 100)\n    yield 0.6\n    prompt('no memory')\n    press('inpaint')\n"
    "    yield (lambda: controller().notice is not None and controller().notice.is_error and idle(), 60)\n"
    "    yield 0.3",
}


def test_everything_can_be_read(painter: Painter, look: str) -> None:
    faults: dict[str, Any] = {}
    for state, code in STATES.items():
        picture = painter.krita.home / f"{state}.png"
        faults[state] = painter.run(
            f"def gen():\n    {code}\n    docker().grab().save({str(picture)!r})\n    return inspect()"
        )
        pictures.setdefault(look, []).append(picture)
    assert not any(faults.values()), "\n".join(f"{state}: {f}" for state, found in faults.items() for f in found)


def test_jobs_in_line_can_be_read(painter: Painter, look: str) -> None:
    painter.hold.touch()
    picture = painter.krita.home / "queue.png"
    faults = painter.run(
        f"path = {str(picture)!r}"
        + """
def gen():
    for words in ("a red apple", "a blue bird", "a green tree"):
        prompt(words)
        press("inpaint")
        yield 0.3
    yield (lambda: len(docker().panel.queue._rows) >= 3, 20)
    yield 0.3
    docker().grab().save(path)
    found = inspect()
    press("cancel_all")
    yield (idle, 60)
    return found
"""
    )
    pictures.setdefault(look, []).append(picture)
    assert not faults, "\n".join(map(str, faults))


def test_write_the_picture(look: str) -> None:
    """Both looks in one small picture, once the last of them was there."""
    if look == list(LOOKS)[-1] and os.environ.get("IMPASTO_WRITE_DOCS"):
        shots = [Image.open(pictures[name][0]).convert("RGB") for name in ("light", "large")]
        height = shots[0].height
        write("krita-themes.png", beside([shots[0], shots[1].crop((0, 0, shots[1].width, height))]))
