"""What the engine itself costs: the time of a 512 x 512 inpaint at 20 steps minus its network, text and VAE time.

    python3 dev.py exec -- python benchmarks/overhead.py [--rounds 7] [--checkpoint FILE]

Without a checkpoint a tiny random one is used, at a native size of 512: what is left after its networks' own time is
ours (noise, schedule, guidance, blending, masks, fill, colour match, composition, previews). Prints the median of
several rounds as JSON; the first round, which loads, does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.jobs import Job, PreviewRequest
from impasto_server.engine.modes import Inpaint
from impasto_server.engine.run import Engine

SIDE = 512


@contextmanager
def timed(spent: dict[str, float], name: str, owner: Any, method: str) -> Iterator[None]:
    """Add the time inside `owner.method` to `spent[name]`."""
    original: Callable[..., Any] = getattr(owner, method)

    def measured(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - began

    setattr(owner, method, measured)
    try:
        yield
    finally:
        delattr(owner, method)


def job(checkpoint: Path, previews: bool) -> Job:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    image[..., 3] = 255
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[160:352, 128:384] = 255
    return Job(
        id="overhead",
        mode="inpaint",
        params=Inpaint(prompt="a red apple", seed=1, steps=20, area="whole"),
        canvas=Size(SIDE, SIDE),
        box=Box(0, 0, SIDE, SIDE),
        checkpoint=str(checkpoint),
        image=image,
        mask=mask,
        preview=PreviewRequest(256, 0.0) if previews else None,
    )


def measure(engine: Engine, one: Job) -> tuple[float, dict[str, float]]:
    """Seconds of the whole job, and of what is inside the networks."""
    components = engine._components.get(one.checkpoint, device=engine.device, dtype=engine.dtype)
    spent: dict[str, float] = {}
    with (
        timed(spent, "unet", components.unet, "forward"),
        timed(spent, "vae encode", components.vae, "encode"),
        timed(spent, "vae decode", components.vae, "decode"),
        timed(spent, "text", components.text_encoder, "forward"),
    ):
        began = time.perf_counter()
        engine.run(one, lambda event: None, lambda: False)
        return time.perf_counter() - began, spent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--checkpoint", type=Path)
    args = parser.parse_args()
    engine = Engine(device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint
        if checkpoint is None:
            sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
            from tests.tiny import tiny_metadata, write_tiny_checkpoint

            checkpoint = write_tiny_checkpoint(
                Path(folder) / "tiny.safetensors", metadata=tiny_metadata(native_size=SIDE)
            )
        figures: dict[str, Any] = {}
        for name, previews in (("no previews", False), ("a preview each step", True)):
            one = job(checkpoint, previews)
            engine.run(one, lambda event: None, lambda: False)
            rounds = [measure(engine, one) for _ in range(args.rounds)]
            figures[name] = {
                "job ms": round(1000 * statistics.median(total for total, _ in rounds), 1),
                "networks ms": round(1000 * statistics.median(sum(s.values()) for _, s in rounds), 1),
                "overhead ms": round(1000 * statistics.median(total - sum(s.values()) for total, s in rounds), 1),
            }
    print(json.dumps({"side": SIDE, "steps": 20, "device": engine.device_name, **figures}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
