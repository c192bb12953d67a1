"""What each preprocessor costs beside decoding the picture that it sees, in turns, in one run.

    python3 dev.py exec -- python benchmarks/hints.py [--side 512] [--rounds 9] [--threads 2] [--own DIR] [--all]

The picture is scikit-image's astronaut; it is decoded from a PNG file in memory. Preprocessors whose networks are not
there are left out and named: `impasto models pull hed pose` fetches some, and in the folder --own the user's own files
are looked for. With --all what is missing of these runs on random numbers of the true size: time does not depend on
them. Networks are loaded before the clock runs, and nothing is kept. Prints medians in ms, and each beside a decode, as
JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from impasto_protocol.errors import ModelError
from impasto_protocol.geometry import Size
from impasto_server.engine.annotators.hed import Hed
from impasto_server.engine.annotators.lineart import AnimeLines, LineDrawing
from impasto_server.engine.annotators.loaded import WITH_NETWORKS
from impasto_server.engine.annotators.normals import NormalBae
from impasto_server.engine.hints import Hints
from impasto_server.engine.jobs import ControlUnit
from impasto_server.engine.params_control import INPAINTS, PREPROCESSORS
from impasto_server.service import facts
from impasto_server.service.catalogue import Catalogue
from impasto_server.service.preprocessors import annotators_for
from PIL import Image
from skimage import data

RANDOM: dict[str, tuple[type[torch.nn.Module], str, str]] = {
    "softedge": (Hed, "ControlNetHED.pth", ""),
    "lineart_realistic": (LineDrawing, "sk_model.pth", ""),
    "lineart_coarse": (LineDrawing, "sk_model2.pth", ""),
    "lineart_anime": (AnimeLines, "netG.pth", "module."),
    "normal_bae": (NormalBae, "scannet.pt", ""),
}
"""Preprocessor -> the network, and what its file is called, whose names begin with a prefix."""


def write_random(folder: Path) -> None:
    """Files of the true layouts, their numbers random."""
    for make, name, prefix in RANDOM.values():
        if not (folder / name).exists():
            network = make()
            torch.save({prefix + k: v for k, v in network.state_dict().items()}, folder / name)


def picture(side: int) -> tuple[np.ndarray, bytes]:
    """RGBA [side, side, 4] with a hole for those who want one, and the RGB picture as a PNG file."""
    rgb = Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    rgb.save(file, "PNG")
    image = np.dstack([np.asarray(rgb), np.full((side, side), 255, np.uint8)])
    return image, file.getvalue()


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--own", type=Path)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    image, file = picture(args.side)
    holed = image.copy()
    holed[: args.side // 3, : args.side // 3, 3] = 0
    size = Size(args.side, args.side)
    hints, left_out = Hints(budget_bytes=0), {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch)] if args.own is None else [args.own, Path(scratch)]
        if args.all:
            write_random(Path(scratch))
        catalogue = Catalogue(folders, facts.Identify(), kit=hints.kit.folder)
        catalogue.scan()
        works: dict[str, Callable[[], object]] = {"decode": lambda: np.asarray(Image.open(io.BytesIO(file)))}
        for name in PREPROCESSORS[1:]:
            try:
                own = annotators_for(catalogue, name, "", "it", "")
            except ModelError as error:
                left_out[name] = error.message
                continue
            shown = holed if name in INPAINTS else image
            unit = ControlUnit("it", "", "", shown, name, annotators=own)
            works[name] = lambda unit=unit: hints._made(unit, size)  # type: ignore[misc]
        found: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(args.rounds):
            for name, work in works.items():
                if name == "decode":
                    continue
                if name in WITH_NETWORKS:
                    work()  # loads its network: only one is held
                found[name].append(timed(work))
                found["decode"].append(timed(works["decode"]))
    medians: dict[str, Any] = {name: statistics.median(values) for name, values in found.items()}
    told = {n: {"ms": round(ms, 2), "beside a decode": round(ms / medians["decode"], 2)} for n, ms in medians.items()}
    json.dump({"side": args.side, "threads": args.threads, "hints": told, "left out": left_out}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
