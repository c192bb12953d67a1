"""Draws what the kit sees in photographs into docs/kit.jpg.

    python3 dev.py exec -- python tools/kit_sheet.py [OUT]

The photographs are scikit-image's: the astronaut (NASA), the cameraman, faces of LFW, a motorcycle, a cat.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from impasto_server.engine.kit.faces import detect_faces
from impasto_server.engine.kit.landmarks import FACE_OVAL, LEFT_EYE, LIPS, RIGHT_EYE, face_mesh
from impasto_server.engine.kit.lines import draw_lines, straight_lines
from impasto_server.engine.kit.people import segment_person
from impasto_server.engine.kit.runtime import Kit, installed
from impasto_server.engine.upscaler import load_upscaler
from PIL import Image, ImageDraw
from skimage import data

SIDE = 384


def cell(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def room() -> np.ndarray:
    """Faces of several sizes before a busy background."""
    picture = Image.fromarray(data.stereo_motorcycle()[0]).crop((120, 0, 620, 500)).resize((1200, 1200))
    for side, at in ((360, (40, 60)), (200, (620, 90)), (120, (960, 860)), (84, (420, 700))):
        astronaut = Image.fromarray(data.astronaut()[:300, 90:390])
        picture.paste(astronaut.resize((side, side), Image.Resampling.LANCZOS), at)
    for i, face in enumerate(data.lfw_subset()[[3, 10, 25, 40]]):
        grey = Image.fromarray((face * 255).astype(np.uint8)).resize((110, 110), Image.Resampling.BICUBIC)
        picture.paste(grey.convert("RGB"), (60 + 150 * i, 1000))
    return np.asarray(picture)


def boxes(kit: Kit, image: np.ndarray, width: int, smallest: float = 0.025) -> Image.Image:
    drawn = Image.fromarray(image).copy()
    draw = ImageDraw.Draw(drawn)
    for face in detect_faces(kit, image, smallest=smallest):
        x, y, w, h = (float(v) for v in face.box)
        draw.rectangle((x, y, x + w, y + h), outline="yellow", width=width)
        for px, py in face.points:
            draw.ellipse((px - width, py - width, px + width, py + width), fill="red")
    return drawn


def mesh(kit: Kit, image: np.ndarray) -> Image.Image:
    scale = 3
    drawn = Image.fromarray(image).resize((512 * scale, 512 * scale), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(drawn)
    for face in detect_faces(kit, image):
        points = face_mesh(kit, image, face).points[:, :2] * scale
        for x, y in points:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(80, 255, 80))
        for ring in (FACE_OVAL, LEFT_EYE, RIGHT_EYE, LIPS):
            draw.polygon([tuple(map(float, points[i])) for i in ring], outline="yellow", width=2)
    return drawn.crop((110 * scale, 10 * scale, 350 * scale, 250 * scale))


def person(kit: Kit, image: np.ndarray) -> Image.Image:
    mask = segment_person(kit, image)[:, :, None]
    return Image.fromarray((image * mask + np.array([40, 90, 200]) * (1 - mask)).astype(np.uint8))


def lines(kit: Kit, image: np.ndarray) -> Image.Image:
    ends, _ = straight_lines(kit, image)
    hint = draw_lines(ends, image.shape[1], image.shape[0])
    return Image.fromarray(np.maximum(image // 3, hint))


def enlarged(path: Path, part: np.ndarray) -> tuple[Image.Image, Image.Image]:
    """Four times as large: by Lanczos, by the network."""
    model = load_upscaler(path, device=torch.device("cpu"), dtype=torch.float32)
    values = torch.from_numpy(part.copy()).permute(2, 0, 1)[None].float() / 255
    found = (model(values)[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    plain = Image.fromarray(part).resize((part.shape[1] * 4, part.shape[0] * 4), Image.Resampling.LANCZOS)
    return plain, Image.fromarray(found)


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "kit.jpg"
    astronaut = data.astronaut()
    camera = np.repeat(data.camera()[:, :, None], 3, axis=2)
    with tempfile.TemporaryDirectory() as folder:
        kit = Kit(Path(folder))
        upscaler = installed("realesr-animevideov3-x4", kit.folder)
        plain, better = enlarged(upscaler, data.chelsea()[60:156, 130:226])
        cells = [
            boxes(kit, astronaut, 3),
            mesh(kit, astronaut),
            boxes(kit, room(), 4),
            person(kit, astronaut),
            lines(kit, camera),
            lines(kit, np.asarray(Image.fromarray(data.stereo_motorcycle()[0]).crop((120, 0, 620, 500)))),
            plain,
            better,
        ]
    grid = [np.concatenate([cell(c) for c in cells[i : i + 4]], axis=1) for i in (0, 4)]
    Image.fromarray(np.concatenate(grid)).save(out, quality=82)
    print(out, out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
