"""Does a reference move what is painted towards itself? Measured and drawn with the starter model.

    python3 dev.py exec -- python tools/reference_sheet.py [OUT] [--seeds 3] [--steps 16]

For each reference, prompt and seed a picture without and with it. Two distances to the reference tell how far its
manner is: `colour` is that of mean and spread of L, a and b (CIELAB); `texture` that of how much of the light's change
lies at each scale (a Laplacian pyramid, in logarithms). Prints, for each kind of reference, the medians without and
with it and how often it came nearer, as JSON; OUT (docs/images/references.jpg) is the sheet."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.jobs import Job, Layer, ReferenceUnit
from impasto_server.engine.modes import parse_params
from impasto_server.engine.recolor import to_lab
from impasto_server.engine.run import Engine
from PIL import Image, ImageDraw

from starter import export
from starter.unpack import install

NATIVE = Size(128, 128)
REFERENCES = (("full moon face", 3), ("watermelon", 1))
"""Prompt and seed, of the starter model itself."""
PROMPTS = ("a red apple", "a cat face", "house")
KINDS = ("attention", "adain", "both")


def color_of(picture: np.ndarray) -> np.ndarray:
    """Mean and spread of L, a and b, of RGB [h, w, 3]."""
    lab = to_lab(picture)
    return np.concatenate([lab.mean((0, 1)), lab.std((0, 1))])


def texture_of(picture: np.ndarray) -> np.ndarray:
    """The logarithm of the light's change at each of five scales."""
    light = to_lab(picture)[..., 0]
    found = []
    for _ in range(5):
        small = light.reshape(light.shape[0] // 2, 2, -1, 2).mean((1, 3))
        found.append(np.log(0.1 + (light - np.repeat(np.repeat(small, 2, 0), 2, 1)).std()))
        light = small
    return np.array(found)


MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"colour": color_of, "texture": texture_of}


def distance(measure: str, a: np.ndarray, b: np.ndarray) -> float:
    """How far apart two pictures are by a measure."""
    of = MEASURES[measure]
    return float(np.linalg.norm(of(a) - of(b)))


class Painter:
    """The starter model at work."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.engine, self.checkpoint, self.steps = Engine("cpu", "fp32"), install(folder), steps

    def __call__(self, prompt: str, seed: int, reference: np.ndarray | None = None, kind: str = "both") -> np.ndarray:
        """RGB [128, 128, 3]."""
        values = {**export.HINTS, "prompt": prompt, "seed": seed, "steps": self.steps, "width": 128, "height": 128}
        job = Job(
            "sheet",
            "txt2img",
            parse_params("txt2img", values),
            NATIVE,
            Box.of_size(NATIVE),
            str(self.checkpoint),
        )
        if reference is not None:
            image = np.dstack([reference, np.full(reference.shape[:2], 255, np.uint8)])
            unit = ReferenceUnit("reference 1", "params.references[0]", image, kind)
            job = replace(job, references=(unit,))
        layers: list[Layer] = []
        self.engine.run(job, lambda event: layers.append(event) if isinstance(event, Layer) else None, lambda: False)
        return layers[-1].pixels[..., :3].copy()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).parents[1] / "docs/images/references.jpg")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=16)
    args = parser.parse_args()
    without: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    along = {kind: {measure: list[float]() for measure in MEASURES} for kind in KINDS}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paint = Painter(Path(folder), args.steps)
        for prompt, seed in REFERENCES:
            reference = paint(prompt, seed)
            for wanted in PROMPTS:
                for number in range(args.seeds):
                    plain = paint(wanted, number + 1)
                    guided = {kind: paint(wanted, number + 1, reference, kind) for kind in KINDS}
                    for measure in MEASURES:
                        without[measure].append(distance(measure, plain, reference))
                        for kind, picture in guided.items():
                            along[kind][measure].append(distance(measure, picture, reference))
                    if number == 0:
                        rows.append(np.concatenate([reference, plain, *guided.values()], 1))
    told = {
        kind: {
            measure: {
                "without": round(statistics.median(without[measure]), 2),
                "with": round(statistics.median(values), 2),
                "nearer": f"{sum(a > b for a, b in zip(without[measure], values, strict=True))} of {len(values)}",
            }
            for measure, values in measures.items()
        }
        for kind, measures in along.items()
    }
    sheet = Image.fromarray(np.concatenate(rows))
    whole = Image.new("RGB", (sheet.width, sheet.height + 16), "white")
    whole.paste(sheet, (0, 16))
    draw = ImageDraw.Draw(whole)
    for column, title in enumerate(("reference", "without", *KINDS)):
        draw.text((128 * column + 4, 2), title, fill="black")
    whole.save(args.out, quality=88)
    json.dump(told, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
