"""Draws what a hires pass and soft inpainting do, with the starter model, into docs/images.

    python3 dev.py exec -- python tools/further_sheets.py [OUT]

docs/images/hires.jpg     a first pass scaled up, and hires passes over it
docs/images/soft.jpg      a feathered selection repainted, hard and soft
docs/images/variants.png  a contact sheet, as `--sheet` makes it
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from impasto_protocol.geometry import Box, Size
from impasto_server.cli.sheet import contact_sheet
from impasto_server.engine.jobs import Cell, Job, Layer
from impasto_server.engine.modes import parse_params
from impasto_server.engine.planning import plan
from impasto_server.engine.run import Engine
from impasto_server.engine.variants import variants_of
from PIL import Image, ImageDraw, ImageFont

from starter import export
from starter.unpack import install

NATIVE = Size(128, 128)
SIDE = 256
HINTS = dict(export.HINTS)


def run(engine: Engine, job: Job) -> list[Layer]:
    layers: list[Layer] = []
    engine.run(job, lambda event: layers.append(event) if isinstance(event, Layer) else None, lambda: False)
    return layers


def painted(engine: Engine, checkpoint: Path, canvas: Size, **params: Any) -> Image.Image:
    values = parse_params("txt2img", {"width": 128, "height": 128, **HINTS, **params})
    job = Job("sheet", "txt2img", values, canvas, Box.of_size(canvas), str(checkpoint))
    return Image.fromarray(run(engine, job)[-1].pixels[..., :3].copy())


def row(pictures: list[tuple[str, Image.Image]]) -> Image.Image:
    font = ImageFont.load_default(13)
    sheet = Image.new("RGB", (len(pictures) * (SIDE + 8) + 8, SIDE + 32), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (title, picture) in enumerate(pictures):
        x = 8 + index * (SIDE + 8)
        draw.text((x, 6), title, "black", font)
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, 26))
    return sheet


def stacked(rows: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), "white")
    top = 0
    for one in rows:
        sheet.paste(one, (0, top))
        top += one.height
    return sheet


def hires_sheet(engine: Engine, checkpoint: Path) -> Image.Image:
    rows = []
    for prompt, seed in (("red apple", 11), ("grinning face", 12)):
        base: dict[str, Any] = {"prompt": prompt, "seed": seed}
        again = {**base, "hires": True}
        twice = Size(256, 256)
        rows.append(
            row(
                [
                    (f"{prompt}: first pass, scaled", painted(engine, checkpoint, NATIVE, **base)),
                    ("Lanczos, strength 0.25", painted(engine, checkpoint, twice, **again, hires_strength=0.25)),
                    ("Lanczos, strength 0.4", painted(engine, checkpoint, twice, **again)),
                    (
                        "latent, strength 0.5",
                        painted(engine, checkpoint, twice, **again, hires_upscaler="latent", hires_strength=0.5),
                    ),
                ]
            )
        )
    return stacked(rows)


def soft_sheet(engine: Engine, checkpoint: Path) -> Image.Image:
    """A feathered round selection over a picture, repainted; the layer composed as an editor does."""
    y, x = np.mgrid[:128, :128]
    distance = np.hypot(x - 64, y - 70)
    mask = np.clip(255 * (52 - distance) / 36, 0, 255).astype(np.uint8)
    rows = []
    for first, then, seed in (("red apple", "green apple", 11), ("grinning face", "red apple", 12)):
        before = painted(engine, checkpoint, NATIVE, prompt=first, seed=seed)
        pixels = np.concatenate([np.asarray(before), np.full((128, 128, 1), 255, np.uint8)], -1)
        made = [("before", before), ("the selection", Image.fromarray(mask).convert("RGB"))]
        for title, more in (("hard", {}), ("soft", {"soft": True})):
            values = parse_params(
                "inpaint",
                {**HINTS, "prompt": then, "seed": 3, "strength": 0.85, "exact": True, "area": "whole", **more},
            )
            box = plan("inpaint", values, NATIVE, Box(0, 0, 128, 128), 128).box
            job = Job("sheet", "inpaint", values, NATIVE, box, str(checkpoint), image=pixels, mask=mask)
            (layer,) = run(engine, job)
            after = before.convert("RGBA")
            after.alpha_composite(Image.fromarray(layer.pixels.copy(), "RGBA"), (layer.box.x, layer.box.y))
            alpha = Image.new("L", NATIVE, 0)
            alpha.paste(Image.fromarray(layer.pixels[..., 3].copy()), (layer.box.x, layer.box.y))
            made += [(f"{title}: {then}", after.convert("RGB")), (f"{title}: the layer's alpha", alpha.convert("RGB"))]
        rows.append(row(made))
    return stacked(rows)


def variants_sheet(engine: Engine, checkpoint: Path) -> Image.Image:
    vary = [
        {"param": "prompt", "values": "red apple\ngreen apple\ngrinning face"},
        {"param": "cfg", "values": "2-8 (+3)"},
    ]
    base = {**HINTS, "seed": 11, "width": 128, "height": 128, "vary": vary}
    cells = tuple(
        Cell(variant, parse_params("txt2img", variant.params), str(checkpoint))
        for variant in variants_of("txt2img", base)
    )
    job = Job("sheet", "txt2img", cells[0].params, NATIVE, Box.of_size(NATIVE), str(checkpoint), cells=cells)
    layers = run(engine, replace(job))
    return contact_sheet([Image.fromarray(each.pixels.copy(), "RGBA") for each in layers], [e.info for e in layers])


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs/images")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(install(Path(folder)))
        engine = Engine("cpu", "fp32")
        soft_sheet(engine, checkpoint).save(out / "soft.jpg", quality=88)
        hires_sheet(engine, checkpoint).save(out / "hires.jpg", quality=88)
        variants_sheet(engine, checkpoint).save(out / "variants.png", optimize=True)


if __name__ == "__main__":
    main()
