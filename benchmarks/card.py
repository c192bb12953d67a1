"""A full-size Stable Diffusion 1.5 on a card: our engine's pictures beside those of diffusers' pipeline, in turns.

    python3 dev.py exec -- python benchmarks/card.py [--device cuda] [--precision fp16] [--rounds 5] [--steps 20]
                                                    [--sizes 512 1024]

The checkpoint has random weights (benchmarks/full_size.py writes it). Both hold it on the card at the same time, each
its own; both use DPM++ 2M Karras with guidance, from the words to the pixels. Prints medians as JSON: seconds of a
picture, and the peak of allocated memory above what both hold between the pictures. The first round does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from full_size import tokenizer, write
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.jobs import Job
from impasto_server.engine.modes import Txt2Img
from impasto_server.engine.run import Engine

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def ours(engine: Engine, path: Path, size: int, steps: int, seed: int) -> None:
    canvas = Size(size, size)
    params = Txt2Img(
        prompt="a red apple on a table", width=size, height=size, steps=steps, seed=seed, schedule="karras", cfg=7.0
    )
    layers: list[Any] = []
    engine.run(
        Job(f"card-{seed}", "txt2img", params, canvas, Box.of_size(canvas), str(path)), layers.append, lambda: False
    )
    (pixels,) = (event.pixels for event in layers if hasattr(event, "pixels"))
    assert pixels.shape[:2] == (size, size)


def theirs(path: Path, dtype: torch.dtype, device: str) -> Callable[[int, int, int], None]:
    pipeline = StableDiffusionPipeline.from_single_file(
        str(path),
        config=str(path.parents[2] / "config"),
        local_files_only=True,
        torch_dtype=dtype,
        tokenizer=tokenizer(),
        safety_checker=None,
    ).to(device)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, use_karras_sigmas=True)
    pipeline.set_progress_bar_config(disable=True)

    def picture(size: int, steps: int, seed: int) -> None:
        # Words of its own would need a tokenizer with CLIP's words; the text encoder's time is in it all the same.
        ids = torch.randint(0, 49000, (2, 77), generator=torch.Generator().manual_seed(seed)).to(device)
        positive, negative = pipeline.text_encoder(ids)[0].chunk(2)
        pipeline(
            prompt_embeds=positive,
            negative_prompt_embeds=negative,
            width=size,
            height=size,
            num_inference_steps=steps,
            guidance_scale=7.0,
            generator=torch.Generator(device).manual_seed(seed),
        )

    return picture


def measured(device: torch.device, run: Callable[[], None]) -> tuple[float, float]:
    """Seconds, and MiB at the peak above what was held before."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    held, start = torch.cuda.memory_allocated(device), time.perf_counter()
    run()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start, (torch.cuda.max_memory_allocated(device) - held) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="fp16", choices=tuple(DTYPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    args = parser.parse_args()
    device = torch.device(args.device)
    with tempfile.TemporaryDirectory(prefix="impasto-card-") as folder, torch.inference_mode():
        path = Path(folder) / "models" / "Stable-diffusion" / "full.safetensors"
        write(path)
        engine = Engine(args.device, args.precision)
        start = time.perf_counter()
        ours(engine, path, args.sizes[0], 1, 0)
        first = time.perf_counter() - start
        held = torch.cuda.memory_allocated(device) / 2**20
        picture = theirs(path, DTYPES[args.precision], args.device)
        told: dict[str, Any] = {
            "card": torch.cuda.get_device_name(device),
            "precision": args.precision,
            "steps": args.steps,
            "first picture, loading and one step, seconds": round(first, 2),
            "held by us, MiB": round(held),
            "held by diffusers, MiB": round(torch.cuda.memory_allocated(device) / 2**20 - held),
        }
        for size in args.sizes:
            rounds: list[tuple[tuple[float, float], tuple[float, float]]] = []
            for seed in range(1 + args.rounds):
                one = measured(device, lambda s=size, n=seed: ours(engine, path, s, args.steps, n))
                two = measured(device, lambda s=size, n=seed: picture(s, args.steps, n))
                rounds.append((one, two))
            del rounds[0]
            told[f"{size} x {size}"] = {
                "seconds": round(statistics.median(one[0] for one, _ in rounds), 3),
                "seconds, diffusers": round(statistics.median(two[0] for _, two in rounds), 3),
                "ratio": round(statistics.median(one[0] / two[0] for one, two in rounds), 3),
                "peak above held, MiB": round(statistics.median(one[1] for one, _ in rounds)),
                "peak above held, diffusers, MiB": round(statistics.median(two[1] for _, two in rounds)),
            }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
