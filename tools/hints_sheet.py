"""Draws what preprocessors make of photographs into docs/images/hints.jpg.

    impasto models pull hed pose
    python3 dev.py exec -- python tools/hints_sheet.py [OUT]

The photographs are scikit-image's: the astronaut (NASA), the cameraman, a cat, a cup of coffee.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from impasto_protocol.geometry import Size
from impasto_server.engine.hints import Hints
from impasto_server.engine.jobs import ControlUnit
from PIL import Image, ImageDraw
from skimage import data

SIDE, SHOWN = 512, 168
SHEET = (
    ("none", "canny", "lineart", "scribble", "softedge", "scribble_hed", "mlsd", "openpose_full"),
    ("none", "canny", "lineart", "scribble", "softedge", "scribble_hed", "person", "openpose_full"),
    ("none", "shuffle", "color_grid", "blur", "recolor_luminance", "threshold", "invert", "softedge_safe"),
)


def photographs() -> list[np.ndarray]:
    grey = np.repeat(data.camera()[..., None], 3, 2)
    return [data.astronaut(), grey, data.chelsea()]


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs/images/hints.jpg"
    hints, rows = Hints(), []
    for picture, names in zip(photographs(), SHEET, strict=True):
        image = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
        cells = []
        for name in names:
            unit = ControlUnit("the sheet", "", "", image, name)
            cell = Image.fromarray(hints.of(unit, Size(SIDE, SIDE)).pixels)
            cell = cell.resize((SHOWN, SHOWN), Image.Resampling.LANCZOS)
            if name != "none":
                draw = ImageDraw.Draw(cell)
                draw.rectangle((0, SHOWN - 14, 8 + draw.textlength(name), SHOWN), fill=(0, 0, 0))
                draw.text((4, SHOWN - 13), name, fill=(255, 255, 255))
            cells.append(np.asarray(cell))
        rows.append(np.concatenate(cells, 1))
    Image.fromarray(np.concatenate(rows)).save(out, quality=85)
    print(out, out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
