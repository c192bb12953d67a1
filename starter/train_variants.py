"""Trains everything that goes with the starter model, on a GPU if there is one: minutes on a large one.

    python -m starter.variants.gallery                # the pictures, once
    python -m starter.train_variants --minutes 4.5    # -> starter/state/variants/NAME.pt
    python -m starter.train_variants --part lora --minutes 1      # one alone, in this process

The small networks leave a GPU idle between their kernels, so the parts run beside each other as processes: each in a
lane, one after another within it, with their shares of the time. Every part writes what it has now and then.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from starter import models
from starter.evaluate import read_networks
from starter.sources import WORK
from starter.unpack import install
from starter.variants.gallery import FOLDER, Gallery
from starter.variants.parts import PARTS
from starter.variants.training import Base, train

OUT = WORK / "variants"
LANES = ({"inpaint": 1.0}, {"canny": 1.0}, {"scribble": 1.0}, {"lora": 0.5, "preview": 0.3, "embedding": 0.2})
SIZES = {"inpaint": 384, "canny": 384, "scribble": 384, "lora": 192, "embedding": 128, "preview": 96}


def device_here() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def lane(
    shares: dict[str, float],
    seconds: float,
    gallery: Path = FOLDER,
    out: Path = OUT,
    single_file: Path | None = None,
    shape: models.Shape = models.SHAPE,
    steps: int | None = None,
    sizes: dict[str, int] | None = None,
) -> dict[str, float]:
    """Trains some parts one after another and returns their last losses."""
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    start, device = time.time(), device_here()
    with tempfile.TemporaryDirectory() as unpacked:
        net = read_networks(single_file or install(unpacked), shape)
    base = Base.of(net, shape, Gallery.read(gallery, device), device)
    left = seconds - (time.time() - start)
    print(f"{', '.join(shares)}: {len(base.gallery)} pictures on {device}, {left:.0f} s left", flush=True)
    losses = {}
    for name, share in shares.items():
        part = PARTS[name](base, (sizes or SIZES)[name])
        losses[name] = train(part, out, left * share / sum(shares.values()), steps)
    return losses


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=4.5)
    p.add_argument("--part", action="append", choices=list(PARTS), help="only this, in this process")
    p.add_argument("--gallery", type=Path, default=FOLDER)
    p.add_argument("--out", type=Path, default=OUT)
    p.add_argument("--steps", type=int, help="so many steps instead of minutes")
    p.add_argument("--size", type=int, help="pictures in a step")
    a = p.parse_args()
    sizes = {**SIZES, **(dict.fromkeys(SIZES, a.size) if a.size else {})}
    if a.part:
        shares = {name: next(found[name] for found in LANES if name in found) for name in a.part}
        lane(shares, 60 * a.minutes, a.gallery, a.out, steps=a.steps, sizes=sizes)
        return
    fixed = ["--minutes", str(a.minutes), "--gallery", str(a.gallery), "--out", str(a.out)]
    fixed += [*(["--steps", str(a.steps)] if a.steps else []), *(["--size", str(a.size)] if a.size else [])]
    running = []
    for shares in LANES:
        named = [word for name in shares for word in ("--part", name)]
        running.append(subprocess.Popen([sys.executable, "-m", "starter.train_variants", *named, *fixed]))
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit("A part failed; what the others learned is kept.")


if __name__ == "__main__":
    main()
