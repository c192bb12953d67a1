"""Do the borders of refined tiles show? The energy of the gradient along them over that elsewhere.

    python3 dev.py exec -- python benchmarks/seams.py [--seeds 4]

The starter model refines four pictures of 640 x 512 pixels at a strength of 0.3, in latent and in pixel tiles. The
ratio is that of the mean squared steps between neighbouring pixels within 8 pixels of the middle of what tiles share,
and of all others, over all seeds; divided by the same ratio in the picture that was given, where that has steps at all
(the flat one and the gradient have none worth that). 1 says that nothing tells the borders from the rest. A model that
repaints differs from place to place by itself: `apart` is how far the ratios of single seeds lie from each other.
Prints JSON, one line a case. The photograph is scikit-image's astronaut (NASA, public domain).
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.jobs import Job, Layer
from impasto_server.engine.modes import Refine
from impasto_server.engine.run import Engine
from impasto_server.engine.tiled import tile_spans

from starter.unpack import install

SIZE = Size(640, 512)
NATIVE, BAND = 128, 8
OVERLAPS = {"latent": 0.25, "pixel": 0.125}
LEAST = 0.2
"""Mean squared step below which a picture has no ratio of its own."""


def pictures() -> dict[str, np.ndarray]:
    from skimage import data

    y, x = np.mgrid[0 : SIZE.height, 0 : SIZE.width].astype(float)
    photo = np.asarray(data.astronaut()[: SIZE.height], float)
    ramps = (20 + 210 * x / SIZE.width, 230 - 170 * y / SIZE.height, np.full(x.shape, 120.0))
    return {
        "flat": np.full((SIZE.height, SIZE.width, 3), 128.0),
        "gradient": np.rint(np.dstack(ramps)),
        "photo": np.concatenate([photo, photo[:, ::-1][:, : SIZE.width - photo.shape[1]]], 1),
        "noise": np.random.default_rng(5).integers(0, 256, (SIZE.height, SIZE.width, 3)).astype(float),
    }


def borders(tiling: str) -> list[np.ndarray]:
    """Which steps between columns, and between rows, lie where two tiles meet."""
    found = []
    for length in SIZE:
        near = np.zeros(length - 1, bool)
        spans = tile_spans(length, NATIVE, round(NATIVE * OVERLAPS[tiling] / 8) * 8)
        for (_, end), (start, _) in itertools.pairwise(spans):
            middle = (start + end) // 2
            near[middle - BAND : middle + BAND] = True
        found.append(near)
    return found


def energies(picture: np.ndarray, near: list[np.ndarray]) -> tuple[float, float]:
    """Mean squared steps along the borders, and elsewhere."""
    steps = ((np.diff(picture, axis=1) ** 2).mean((0, 2)), (np.diff(picture, axis=0) ** 2).mean((1, 2)))
    along = np.concatenate([step[at] for step, at in zip(steps, near, strict=True)])
    elsewhere = np.concatenate([step[~at] for step, at in zip(steps, near, strict=True)])
    return float(along.mean()), float(elsewhere.mean())


def refined(engine: Engine, checkpoint: Path, picture: np.ndarray, tiling: str, seed: int) -> np.ndarray:
    image = np.dstack([picture, np.full(picture.shape[:2], 255)]).astype(np.uint8)
    params, layers = Refine(seed=seed, steps=8, strength=0.3, tiling=tiling), list[Layer]()
    job = Job("x", "refine", params, SIZE, Box.of_size(SIZE), str(checkpoint), image=image)
    engine.run(job, lambda event: layers.append(event) if isinstance(event, Layer) else None, lambda: False)
    return layers[0].pixels[..., :3].astype(float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    engine = Engine("cpu", "fp32")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = install(Path(folder))
        for name, picture in pictures().items():
            for tiling in OVERLAPS:
                near = borders(tiling)
                before = energies(picture, near)
                own = before[0] / before[1] if before[1] > LEAST else 1.0
                pairs = [energies(refined(engine, checkpoint, picture, tiling, s), near) for s in range(args.seeds)]
                along, elsewhere = np.mean(pairs, 0)
                each = [one / other / own for one, other in pairs]
                case = {"picture": name, "tiling": tiling, "along": along, "elsewhere": elsewhere}
                case |= {"ratio": along / elsewhere / own, "apart": max(each) - min(each)}
                print(
                    json.dumps({k: v if isinstance(v, str) else round(float(v), 3) for k, v in case.items()}),
                    flush=True,
                )


if __name__ == "__main__":
    main()
