"""The panel and the dialog at work, as pictures. With IMPASTO_WRITE_DOCS=1 they become docs/images/gimp-*.png.

They are painted by the starter model then, otherwise by the pretended engine. IMPASTO_DOCS_MODEL names a checkpoint
that paints them instead.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.gimp.conftest import OPEN, PANEL, Painter, painting, panel_of, serving
from tests.gimp.gdrive import until

pytestmark = pytest.mark.gimp

ROOT = Path(__file__).resolve().parents[2]
WRITE = bool(os.environ.get("IMPASTO_WRITE_DOCS"))
MODEL = os.environ.get("IMPASTO_DOCS_MODEL", "")
COLORS = 250


@pytest.fixture(scope="module")
def studio(
    warm_home: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Painter]:
    if not WRITE:
        yield request.getfixturevalue("desktop")
        return
    folder = tmp_path_factory.mktemp("studio")
    launch = [sys.executable, "-m", "impasto_server.cli.main", "serve"]
    models = [Path(MODEL)] if MODEL else []
    with serving(launch, folder / "impasto", models) as home, painting(warm_home, folder, home, ui=True) as started:
        yield started


def keep(shot: Path, name: str, box: tuple[int, int, int, int] | None = None, width: int = 1200) -> None:
    image = Image.open(shot).convert("RGB")
    assert len(image.getcolors(1 << 24) or []) > 100
    if not WRITE:
        return
    image = image.crop(box) if box else image
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    target = ROOT / "docs/images" / name
    image.quantize(COLORS, dither=Image.Dither.NONE).save(target, optimize=True)
    assert target.stat().st_size < 320_000


def test_the_panel_and_the_dialog_at_work(studio: Painter, tmp_path: Path) -> None:
    gimp = studio.gimp
    window = until(lambda: gimp.xdotool("search", "--onlyvisible", "--name", "^GNU Image Man|GIMP$").split("\n")[0], 60)
    picture = studio.files / "coffee.png"
    Image.open(ROOT / "tools/demo/coffee.jpg").convert("RGB").save(picture)
    studio.run(
        f"path = {str(picture)!r}"
        + """
image = Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, Gio.File.new_for_path(path))
DISPLAY = Gimp.Display.new(image)
w, h = image.get_width(), image.get_height()
image.select_ellipse(Gimp.ChannelOps.REPLACE, .03 * w, .62 * h, .24 * w, .36 * h)
Gimp.Selection.feather(image, 8)
Gimp.displays_flush()
"""
    )
    time.sleep(1)  # GIMP sizes its window by the picture
    gimp.xdotool("windowsize", "--sync", window, "1590", "970")
    gimp.xdotool("windowmove", window, "0", "0")
    gimp.xdotool("windowactivate", "--sync", window, "key", "--clearmodifiers", "ctrl+shift+j")  # fit it in
    for _ in range(6):
        gimp.xdotool("windowactivate", "--sync", window, "key", "--clearmodifiers", "ctrl+alt+i")
        try:
            panel = panel_of(studio, 15)
            break
        except AssertionError:
            continue
    panel.run(
        """
def gen():
    yield (connected, 60)
    panel().move(1130, 60)
    panel().resize(350, 860)
    panel().wishes.prompt.text = "sunflower"
    panel().wishes.strength.write(1.0)
    panel().wishes.form.set_overrides({"steps": 20, "padding": 4})
    for seed in (1, 2, 3):
        panel().wishes.seed.set_seed(seed)
        yield (lambda: widget("go").get_sensitive(), 30)
        newest = panel().strip.items[:1]  # the strip is full where many tests ran before: its length says nothing
        widget("go").clicked()
        yield (lambda: panel().strip.items[:1] not in ([], newest) and idle(), 150)  # a quick run is not seen running
    panel().wishes.seed.set_seed(-1)
""",
        timeout=400,
    )
    studio.run(
        "layers = image.get_layers()\nlayers[0].set_visible(False)\nlayers[1].set_visible(False)\nGimp.displays_flush()"
    )
    if not WRITE:
        studio.hold.touch()
    panel.run(
        """
def gen():
    panel().wishes.form.set_overrides({"steps": 60, "padding": 4})
    widget("go").clicked()
    yield (lambda: controller().running() is not None and controller().running().step >= 3
           and controller().running().preview is not None, 100)
    yield 0.3
""",
        timeout=150,
    )
    shown = panel.run(
        "w = panel()\nresult = [shown('progress'), shown('picture'), len(w.strip.items), w.get_size()[0],"
        " w.get_preferred_width()[0]]"
    )
    gimp.screenshot(tmp_path / "panel.png")
    studio.hold.unlink(missing_ok=True)
    panel.run("def gen():\n    widget('cancel').clicked()\n    yield (idle, 100)", 120)
    assert shown[:2] == [True, True] and shown[2] >= 3
    assert shown[4] <= shown[3] <= 360, "the panel is wider than it was made"
    keep(tmp_path / "panel.png", "gimp-panel.png")

    panel.run("def gen():\n    panel().wishes.fold.set_expanded(True)\n    yield 0.5")
    panel.run("from gi.repository import GLib\nGLib.idle_add(panel().destroy)")
    panel.close()
    until(lambda: not studio.run("result = Gimp.get_pdb().procedure_exists('plug-in-impasto-panel-ask')"), 10)
    for _ in range(6):
        gimp.xdotool("windowactivate", "--sync", window, "key", "--clearmodifiers", "ctrl+alt+Return")
        try:
            dialog = gimp.plug_in(OPEN.format("impasto_dialog"), 15)
            break
        except AssertionError:
            continue
    dialog.run(PANEL)
    place = dialog.run(
        """
def gen():
    yield (lambda: widget("model").get_active_id() is not None, 30)
    widget("more").set_expanded(True)
    yield 0.5
    window = top("impasto_dialog")
    window.move(500, 100)
    yield 0.5
    x, y = window.get_position()
    frame = window.get_window().get_frame_extents()
    return [frame.x, frame.y, frame.x + frame.width, frame.y + frame.height]
"""
    )
    gimp.xdotool("mousemove", "20", "900", "sleep", "0.7")  # no tip under the pointer
    gimp.screenshot(tmp_path / "dialog.png")
    hint = "p = widget('prompt').get_parent().get_parent()\nresult = p._hint.get_visible() == (p.text == '')"
    assert dialog.run(hint), "the prompt's hint lies over its text"
    dialog.run("top('impasto_dialog').response(Gtk.ResponseType.CANCEL)")
    dialog.close()
    assert place[2] - place[0] < 520 and place[3] - place[1] < 960
    keep(tmp_path / "dialog.png", "gimp-dialog.png", tuple(place), 480)
