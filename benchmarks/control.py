"""What control units cost: a step with one, two and three beside one without, and a hint that a second job asks for
again.

    python3 dev.py exec -- python benchmarks/control.py [--model FILE --control FILE] [--steps 8] [--rounds 7]

Without files the tiny test model and ControlNet are taken; what they cost beside the network is about what real ones
do: a ControlNet is a copy of half of it. Runs are in turns; a step's time is that of the stage "denoise" by its steps.
The hint is HED's or, where that was not pulled, shuffle's, of a large picture. Prints medians in ms and ratios, as
JSON."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from impasto_protocol.errors import ModelError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.hints import Hints
from impasto_server.engine.identify import ModelInfo, identify_file
from impasto_server.engine.jobs import ControlUnit, Job
from impasto_server.engine.kit.runtime import installed
from impasto_server.engine.modes import Txt2Img
from impasto_server.engine.run import Engine
from PIL import Image
from skimage import data

UNITS = (0, 1, 2, 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--control", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        told = {"step": steps(args, Path(scratch)), "hint": again(args.rounds)}
    json.dump(told, sys.stdout, indent=1)
    print()


def steps(args: argparse.Namespace, scratch: Path) -> dict[str, object]:
    model, control = args.model, args.control
    if model is None or control is None:
        from tests.control import write_tiny_controlnet
        from tests.tiny import write_tiny_checkpoint

        model = write_tiny_checkpoint(scratch / "tiny.safetensors")
        control = write_tiny_controlnet(scratch / "control.safetensors")
    info = identify_file(model)
    assert isinstance(info, ModelInfo), info
    size = Size(info.native_size, info.native_size)
    image = np.dstack([data.astronaut(), np.full((512, 512), 255, np.uint8)])
    engine = Engine("cpu", "fp32")

    def step(count: int) -> float:
        units = tuple(
            ControlUnit(f"control unit {i + 1}", f"params.control[{i}]", str(control), image, "canny")
            for i in range(count)
        )
        job = Job(
            "j", "txt2img", Txt2Img(prompt="a cat", steps=args.steps, seed=1), size, Box.of_size(size), str(model),
            control=units,
        )  # fmt: skip
        result = engine.run(job, lambda event: None, lambda: False)
        return 1000 * result.timings["denoise"] / args.steps

    for count in UNITS:
        step(count)
    found: dict[int, list[float]] = {count: [] for count in UNITS}
    for _ in range(args.rounds):
        for count in UNITS:
            found[count].append(step(count))
    ms = {count: statistics.median(values) for count, values in found.items()}
    return {str(count): {"ms": round(ms[count], 2), "beside none": round(ms[count] / ms[0], 2)} for count in UNITS} | {
        "model": model.name,
        "size": list(size),
    }


def again(rounds: int) -> dict[str, object]:
    """The first time and the second time that a hint is asked for."""
    hints = Hints()
    try:
        installed("hed", hints.kit.folder)
        preprocessor = "softedge"
    except ModelError:
        preprocessor = "shuffle"
    rgb = np.asarray(Image.fromarray(data.astronaut()).resize((1024, 1024)))
    times: dict[str, list[float]] = {"first": [], "again": []}
    for number in range(rounds + 1):
        image = np.dstack([rgb, np.full((1024, 1024), 255, np.uint8)])
        image[0, 0, 0] = number  # another picture
        unit = ControlUnit("control unit 1", "", "", image, preprocessor)
        for name in ("first", "again"):
            start = time.perf_counter()
            hints.of(unit, Size(1024, 1024))
            times[name].append(1000 * (time.perf_counter() - start))
    ms = {name: statistics.median(values[1:]) for name, values in times.items()}
    return {
        "preprocessor": preprocessor,
        "first, ms": round(ms["first"], 2),
        "again, ms": round(ms["again"], 2),
        "again beside first": round(ms["again"] / ms["first"], 4),
    }


if __name__ == "__main__":
    main()
