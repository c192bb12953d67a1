"""The docker at work, as a picture. With IMPASTO_WRITE_DOCS=1 it becomes docs/images/krita-docker.png.

IMPASTO_DOCS_MODEL names a checkpoint that paints it; without it the pretended engine does. IMPASTO_DOCS_SCALE=2 draws
everything at twice the size, as on a screen of high resolution. IMPASTO_DOCS_SHOT names a file for the whole screen.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.krita import stub
from tests.krita.conftest import Painter

pytestmark = pytest.mark.krita

ROOT = Path(__file__).resolve().parents[2]
MODEL = os.environ.get("IMPASTO_DOCS_MODEL", "")
SCALE = os.environ.get("IMPASTO_DOCS_SCALE", "1")


PARTS = (
    # Several jobs wait.
    """
def gen():
    for words in ("a red apple", "a blue bird", "a green tree"):
        prompt(words)
        press("inpaint")
        yield 0.3
    yield (lambda: len(docker().panel.queue._rows) >= 3, 20)
    yield 0.3
    assert all(row.isVisible() and row.height() > 5 for row in docker().panel.queue._rows.values())
    docker().grab().save(path)
""",
    # At rest: a result, and what can be done with it.
    """
def gen():
    press("cancel_all")
    yield (idle, 60)
    prompt("happy face")
    yield 0.8
    docker().grab().save(path)
""",
    # Further settings, with a LoRA.
    """
def gen():
    panel = docker().panel
    panel.advanced.set_open(True)
    yield 0.3
    if widget("loras_add").isEnabled():
        press("loras_add")
    yield 0.3
    area = panel.findChild(QScrollArea)
    area.ensureWidgetVisible(panel.reset)
    yield 0.5
    docker().grab().save(path)
    panel.form.reset()
    panel.advanced.set_open(False)
    area.verticalScrollBar().setValue(0)
""",
)


@pytest.fixture(scope="module")
def launch() -> list[str]:
    return [sys.executable, "-m", "impasto_server.cli.main", "serve"] if MODEL else stub.launch_command()


@pytest.fixture(scope="module")
def model_files() -> list[Path]:
    return [Path(MODEL)] if MODEL else []


@pytest.fixture(scope="module")
def krita_env() -> dict[str, str]:
    return {"QT_SCALE_FACTOR": SCALE}


def test_the_docker_at_work(painter: Painter, tmp_path: Path) -> None:
    photo = ROOT / "tools/demo/coffee.jpg"
    picture = painter.krita.home / "coffee.png"
    Image.open(photo).convert("RGBA").save(picture)
    painter.run(
        f"picture, scale = {str(picture)!r}, {SCALE}"
        + """
def gen():
    global doc, hidden
    yield (connected, 60)
    yield from close_all()
    window.resize(int(1600 / scale), int(1000 / scale))
    doc = app.openDocument(picture)
    app.activeWindow().addView(doc)
    yield 0.5
    hidden = [d for d in app.dockers() if d.isVisible() and d.objectName() not in
              ("impasto_docker", "ToolBox", "KisLayerBox")]
    for d in hidden:
        d.hide()
    layer_box = next(d for d in app.dockers() if d.objectName() == "KisLayerBox")
    window.resizeDocks([docker()], [int(330 if scale == 1 else 300)], Qt.Orientation.Horizontal)
    window.resizeDocks([docker(), layer_box], [740, 200], Qt.Orientation.Vertical)
    w, h = doc.width(), doc.height()
    select(doc, int(.03 * w), int(.62 * h), int(.24 * w), int(.36 * h))
    prompt("happy face")
    docker().panel.strength.set_value(1.0)
    docker().panel.form.set_overrides({"steps": 20, "padding": 4})
    yield 0.5
    for seed in (1, 2):
        docker().panel.seed.set_seed(seed)
        count = widget("results").count()
        press("inpaint")
        yield (lambda: widget("results").count() > count and idle(), 150)  # a quick run may not be seen running
    docker().panel.seed.set_seed(-1)
""",
        timeout=300,
    )
    if not MODEL:
        painter.hold.touch()
    sizes = painter.run(
        """
def gen():
    docker().panel.form.set_overrides({"steps": 150, "padding": 4})
    press("inpaint")
    yield (lambda: (controller().running() is not None and controller().running().step >= 3
                    and controller().running().preview is not None), 60)
    yield 0.1
    out = []
    for area in docker().findChildren(QScrollArea):
        out.append([area.widget().width(), area.viewport().width()])
    return [out, shown("progress"), shown("picture"), widget("results").count()]
""",
        timeout=100,
    )
    shot = Path(os.environ.get("IMPASTO_DOCS_SHOT", tmp_path / "screen.png"))
    painter.krita.screenshot(shot)
    parts = [painter.krita.home / f"part {name}.png" for name in ("queue", "results", "settings")]
    for path, code in zip(parts, PARTS, strict=True):
        painter.hold.unlink(missing_ok=True) if path is parts[1] else None
        painter.run(f"path = {str(path)!r}{code}", timeout=200)
    painter.run("for d in hidden: d.show()")
    areas, progress, preview, results = sizes
    assert all(inner <= outer for inner, outer in areas), "the docker is wider than its place"
    assert progress and preview and results >= 2
    image = Image.open(shot).convert("RGB")
    assert len(image.getcolors(1 << 24) or []) > 100
    if os.environ.get("IMPASTO_WRITE_DOCS"):
        small = image.resize((1200, 750), Image.Resampling.LANCZOS)
        write("krita-docker.png", small)
        write("krita-panels.png", beside([Image.open(path).convert("RGB") for path in parts]))


def beside(pictures: list[Image.Image]) -> Image.Image:
    """The pictures side by side on white."""
    gap = 16
    width = sum(p.width for p in pictures) + gap * (len(pictures) - 1)
    whole = Image.new("RGB", (width, max(p.height for p in pictures)), "white")
    x = 0
    for picture in pictures:
        whole.paste(picture, (x, 0))
        x += picture.width + gap
    return whole


def write(name: str, picture: Image.Image) -> None:
    target = ROOT / "docs/images" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(200, dither=Image.Dither.NONE).save(target, optimize=True)
    assert target.stat().st_size < 320_000
