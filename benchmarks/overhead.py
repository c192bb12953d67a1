"""What the engine itself costs: the time of a 512 x 512 inpaint at 20 steps minus its network, text and VAE time.

    python3 dev.py exec -- python benchmarks/overhead.py [--rounds 7] [--checkpoint FILE] [--precision P] [--stand-ins]

Without a checkpoint a tiny random one is used, at a native size of 512: what is left after its networks' own time is
ours (noise, schedule, guidance, blending, masks, fill, colour match, composition, previews). Prints medians over the
rounds as JSON, in wall time and in processor time; the first run, which loads, does not count. On a machine that does
other work the processor time is the one to believe: it leaves out what others took in between. With --stand-ins the
networks answer at once with noise, so that the whole takes seconds; their caches are then warmer than in a real job.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.jobs import Job, PreviewRequest
from impasto_server.engine.load import Components
from impasto_server.engine.modes import Inpaint
from impasto_server.engine.run import Engine

SIDE = 512
STEPS = 20
ENCODES = 2
"""The picture, and the picture with what is masked filled."""


@dataclass
class Clock:
    """Time inside the networks: calls, seconds on the wall and of the processor, by network."""

    calls: dict[str, int] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def watching(self, name: str, owner: Any, method: str) -> Iterator[None]:
        """Add the time inside `owner.method` to `name`."""
        original: Callable[..., Any] = getattr(owner, method)

        def measured(*args: Any, **kwargs: Any) -> Any:
            wall, processor = time.perf_counter(), time.process_time()
            try:
                return original(*args, **kwargs)
            finally:
                self.calls[name] = self.calls.get(name, 0) + 1
                self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
                self.processor[name] = self.processor.get(name, 0.0) + time.process_time() - processor

        setattr(owner, method, measured)
        try:
            yield
        finally:
            setattr(owner, method, original)


@dataclass(frozen=True)
class Round:
    """Milliseconds of one job: the whole, and what is not inside a network."""

    job: float
    overhead: float
    overhead_processor: float


def job(checkpoint: Path, previews: bool, picture: int = 0) -> Job:
    """Another picture for each run: what the VAE made of one that is known is kept."""
    random = np.random.default_rng(picture)
    image = random.integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    image[..., 3] = 255
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[160:352, 128:384] = 255
    return Job(
        id="overhead",
        mode="inpaint",
        params=Inpaint(prompt="a red apple", seed=1, steps=STEPS, area="whole"),
        canvas=Size(SIDE, SIDE),
        box=Box(0, 0, SIDE, SIDE),
        checkpoint=str(checkpoint),
        image=image,
        mask=mask,
        preview=PreviewRequest(256, 0.0) if previews else None,
    )


def components_of(engine: Engine, one: Job) -> Components:
    return engine._components.get(one.checkpoint, device=engine.device, dtype=engine.dtype).components


def stand_in(components: Components) -> None:
    """Replace the networks by what takes no time and gives noise of the right shape."""
    latents, picture = torch.randn(1, 8, SIDE // 8, SIDE // 8), torch.randn(1, 3, SIDE, SIDE)
    components.unet.forward = lambda sample, *_, **__: (sample * 0.5,)
    components.vae._encode = lambda pixels: latents
    components.vae.decode = lambda *_, **__: (picture,)


def measure(engine: Engine, one: Job) -> Round:
    components = components_of(engine, one)
    clock = Clock()
    with (
        clock.watching("unet", components.unet, "forward"),
        clock.watching("encode", components.vae, "_encode"),
        clock.watching("decode", components.vae, "decode"),
    ):
        wall, processor = time.perf_counter(), time.process_time()
        engine.run(one, lambda event: None, lambda: False)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    # Otherwise a network is entered by another door than those above, and its time would pass for ours.
    expected = {"unet": STEPS, "encode": ENCODES, "decode": 1}
    if clock.calls != expected:
        raise SystemExit(f"overhead.py: the networks were called {clock.calls} times, not {expected}")
    ours = wall - sum(clock.wall.values())
    return Round(1000 * wall, 1000 * ours, 1000 * (processor - sum(clock.processor.values())))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--stand-ins", action="store_true")
    args = parser.parse_args()
    engine = Engine(device="cpu", precision=args.precision)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint
        if checkpoint is None:
            sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
            from tests.tiny import tiny_metadata, write_tiny_checkpoint

            checkpoint = write_tiny_checkpoint(
                Path(folder) / "tiny.safetensors", metadata=tiny_metadata(native_size=SIDE)
            )
        figures: dict[str, Any] = {}
        engine.run(job(checkpoint, previews=True), lambda event: None, lambda: False)
        if args.stand_ins:
            stand_in(components_of(engine, job(checkpoint, previews=False)))
        for name, previews in (("no previews", False), ("a preview each step", True)):
            rounds = [measure(engine, job(checkpoint, previews, 1 + i + 1000 * previews)) for i in range(args.rounds)]
            figures[name] = {
                "job ms": round(statistics.median(r.job for r in rounds), 1),
                "overhead ms": round(statistics.median(r.overhead for r in rounds), 1),
                "overhead processor ms": round(statistics.median(r.overhead_processor for r in rounds), 1),
                "rounds": args.rounds,
            }
    facts: dict[str, Any] = {
        "side": SIDE,
        "steps": STEPS,
        "device": engine.device_name,
        "threads": torch.get_num_threads(),
    }
    facts["networks"] = "stand-ins" if args.stand_ins else "real"
    print(json.dumps({**facts, **figures}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
