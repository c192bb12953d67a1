"""A full-size Stable Diffusion 1.5 with random weights in an A1111 web UI's folder: identified, loaded, run; beside
reading the file and beside diffusers' from_single_file, in one run.

    python3 dev.py exec -- python benchmarks/full_size.py [--rounds 3] [--size 256] [--steps 2]

The file (2 GB, fp16, all tensors of the original with its shapes) is written to a temporary folder and deleted at the
end. Each measurement is a process of its own that has imported everything before its clock runs; the file is in the
page cache. `read` reads the file into memory that was used before. diffusers gets a folder of configurations and a
tokenizer, so that it asks nobody. Memory is anonymous memory (not the mapped file) at its peak, above what there was
after the imports, beside the bytes of the weights that are held at the end. Prints medians as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

AIM = 1.15
"""Peak of anonymous memory by the weights held."""


def anonymous() -> int:
    """Bytes of this process's anonymous memory (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise SystemExit("the memory of a process is read as Linux tells it")


class Peak:
    """The highest anonymous memory while it is open, looked at every few milliseconds."""

    def __enter__(self) -> Peak:
        self.base = self.highest = anonymous()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.highest = max(self.highest, anonymous())

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.highest = max(self.highest, anonymous())


def read(path: Path) -> dict[str, Any]:
    """The whole file, 16 MiB at a time into the same memory."""
    buffer = bytearray(16 << 20)
    start, processor = time.perf_counter(), time.process_time()
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return {"seconds": time.perf_counter() - start, "processor": time.process_time() - processor}


def load(path: Path, precision: str) -> dict[str, Any]:
    import torch
    from impasto_server.engine.load import load_checkpoint
    from impasto_server.engine.memory import choose_dtype

    warm_up()
    device = torch.device("cpu")
    dtype = choose_dtype(device, precision)
    with Peak() as peak:
        start, processor = time.perf_counter(), time.process_time()
        components = load_checkpoint(path, device=device, dtype=dtype)
        seconds = time.perf_counter() - start, time.process_time() - processor
    return told(*seconds, peak, components.size_bytes, dtype)


def diffusers(path: Path, precision: str) -> dict[str, Any]:
    import torch
    from diffusers import StableDiffusionPipeline
    from impasto_server.engine.memory import choose_dtype

    warm_up()
    dtype = choose_dtype(torch.device("cpu"), precision)
    with Peak() as peak:
        start, processor = time.perf_counter(), time.process_time()
        pipeline = StableDiffusionPipeline.from_single_file(
            str(path),
            config=str(path.parents[2] / "config"),
            local_files_only=True,
            torch_dtype=dtype,
            tokenizer=tokenizer(),
            safety_checker=None,
        )
        seconds = time.perf_counter() - start, time.process_time() - processor
    modules = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    held = sum(v.numel() * v.element_size() for m in modules for v in (*m.parameters(), *m.buffers()))
    return told(*seconds, peak, held, dtype)


def told(seconds: float, processor: float, peak: Peak, held: int, dtype: Any) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "processor": processor,
        "peak": peak.highest - peak.base,
        "held": held,
        "dtype": str(dtype).removeprefix("torch."),
    }


def warm_up() -> None:
    """What the first use of the libraries imports, outside of the clock."""
    import torch
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    assert AutoencoderKL and StableDiffusionPipeline and UNet2DConditionModel
    with torch.device("meta"):
        CLIPTextModel(CLIPTextConfig(num_hidden_layers=1))


def tokenizer() -> Any:
    from impasto_server.engine.tokenizer import load_tokenizer
    from transformers import CLIPTokenizer

    ours = load_tokenizer()
    assert ours is not None
    return CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[])


def run(path: Path, size: int, steps: int) -> dict[str, Any]:
    """What the catalogue says of it, and a picture by the engine."""
    from impasto_protocol.geometry import Box, Size
    from impasto_server.engine.jobs import Job
    from impasto_server.engine.modes import Txt2Img
    from impasto_server.engine.run import Engine
    from impasto_server.service.catalogue import Catalogue
    from impasto_server.service.facts import Identify
    from impasto_server.service.model_folders import a1111_folders

    catalogue = Catalogue(a1111_folders(path.parents[2]), Identify())
    start = time.perf_counter()
    catalogue.scan()
    identified = time.perf_counter() - start
    (model,) = catalogue.models
    params = Txt2Img(prompt="a red apple on a table", width=size, height=size, steps=steps, seed=1)
    canvas = Size(size, size)
    job = Job("full", "txt2img", params, canvas, Box.of_size(canvas), str(model.path))
    layers: list[Any] = []
    start = time.perf_counter()
    result = Engine("cpu").run(job, layers.append, lambda: False)
    seconds = time.perf_counter() - start
    pixels = next(event.pixels for event in layers if hasattr(event, "pixels"))
    return {
        "model": f"{model.facts.kind} {model.facts.family} {model.facts.variant}",
        "identified": identified,
        "seconds": seconds,
        "timings": {name: round(value, 3) for name, value in result.timings.items()},
        "picture": list(pixels.shape),
        "ran": {name: result.ran[name] for name in ("device", "dtype", "steps")},
    }


def write(path: Path) -> None:
    """The file, and beside it the configurations that diffusers wants."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from lora import TEXT, UNET, VAE, write_full

    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
    path.parent.mkdir(parents=True)
    write_full(path)
    config = path.parents[2] / "config"
    parts = {
        "unet": json.loads(unet.to_json_string()),
        "vae": json.loads(vae.to_json_string()),
        "text_encoder": {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], **TEXT},
        "scheduler": {"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "skip_prk_steps": True},
    }
    names = {"unet": "config", "vae": "config", "text_encoder": "config", "scheduler": "scheduler_config"}
    for part, values in parts.items():
        (config / part).mkdir(parents=True)
        (config / part / f"{names[part]}.json").write_text(json.dumps(values))
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (config / "model_index.json").write_text(json.dumps(index))


def measured(what: str, path: Path, *more: str) -> dict[str, Any]:
    """In a process of its own."""
    command = [sys.executable, __file__, "--only", what, "--file", str(path), *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: round(statistics.median(each[name] for each in rounds), 3) if not isinstance(value, str) else value
        for name, value in rounds[0].items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--only", choices=("read", "load", "diffusers", "run"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        ways: dict[str, Callable[[], dict[str, Any]]] = {
            "read": lambda: read(args.file),
            "load": lambda: load(args.file, args.precision),
            "diffusers": lambda: diffusers(args.file, args.precision),
            "run": lambda: run(args.file, args.size, args.steps),
        }
        print(json.dumps(ways[args.only]()))
        return 0
    with tempfile.TemporaryDirectory(prefix="impasto-full-") as folder:
        path = Path(folder) / "models" / "Stable-diffusion" / "full.safetensors"
        write(path)
        size = path.stat().st_size
        found: dict[str, list[dict[str, Any]]] = {"read": [], "load": [], "diffusers": []}
        for _ in range(args.rounds):
            for what, rounds in found.items():
                rounds.append(measured(what, path, "--precision", args.precision))
        ran = measured("run", path, "--size", str(args.size), "--steps", str(args.steps))
    told = {what: medians(rounds) for what, rounds in found.items()}
    ours, theirs = told["load"], told["diffusers"]
    ratios = {
        "load by read": round(ours["seconds"] / told["read"]["seconds"], 2),
        "diffusers by load": round(theirs["seconds"] / ours["seconds"], 2),
        "peak by held": round(ours["peak"] / ours["held"], 3),
        "peak by held, diffusers": round(theirs["peak"] / theirs["held"], 3),
    }
    met = {"peak by held": ratios["peak by held"] <= AIM}
    print(json.dumps({"bytes": size, **told, "run": ran, "ratios": ratios, "aim": AIM, "met": met}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
