"""Impasto's real server with an engine that only pretends, as a process of its own that Krita can start and lose.

The pretended engine keeps what it was sent in `received.npz` of the user's folder. It paints the mask in COLOR with the
mask as alpha; a sketch becomes COLOR all over, and an upscale has each pixel several times. While a file `hold` lies in
that folder, it stops before the fourth of its eight steps; while a file `no memory` does, it refuses. The word `slow`
in a prompt makes each step take a moment.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

COLOR = (200, 30, 180)
"""RGB of every layer that the stub paints."""
STEPS = 8
HELD_BEFORE = 4
SOURCES = Path(__file__).resolve().parents[2]


class StubEngine:
    device_name = "a stub"

    def __init__(self, device: str, precision: str, memory_budget: int | None) -> None:
        self.home = Path(os.environ["IMPASTO_HOME"])

    def run(self, job, emit: Callable, cancelled: Callable[[], bool]):  # type: ignore[no-untyped-def]
        from impasto_protocol.errors import ResourceError
        from impasto_protocol.geometry import Box
        from impasto_server.engine.jobs import Cancelled, Layer, Preview, Progress, Result

        params = job.params
        prompt = getattr(params, "prompt", "")
        np.savez(
            self.home / "received.npz",
            image=np.zeros(0) if job.image is None else job.image,
            mask=np.zeros(0) if job.mask is None else job.mask,
            backdrop=np.zeros(0) if job.backdrop is None else job.backdrop,
            mode=job.mode,
            box=job.box,
            canvas=job.canvas,
            **{f"control_{at}": unit.image for at, unit in enumerate(job.control, 1) if unit.image is not None},
            params=json.dumps({k: getattr(params, k) for k in params.__dataclass_fields__}),
        )
        if "no memory" in prompt or (self.home / "no memory").exists():
            raise ResourceError("resource.out_of_memory", "There is not enough memory; choose a smaller region.")
        for step in range(1, STEPS + 1):
            while step == HELD_BEFORE and (self.home / "hold").exists() and not cancelled():
                time.sleep(0.02)
            if "slow" in prompt:
                time.sleep(0.05)
            if cancelled():
                raise Cancelled
            emit(Progress("denoise", step, STEPS, step / STEPS))
            if job.preview is not None:
                seen = np.zeros((64, 64, 4), np.uint8) if job.image is None else job.image
                emit(Preview(_jpeg(seen, step / STEPS), 64, 64, step))
        if job.mode == "upscale":
            times = int(params.scale)
            larger = job.image.repeat(times, 0).repeat(times, 1)
            box = Box(0, 0, larger.shape[1], larger.shape[0])
            emit(Layer(0, "upscale", "Upscaled", larger, box, "soft", 0, {"mode": "upscale"}))
            return Result((), {"upscale": 0.1}, {"device": self.device_name})
        layer = np.empty((job.box.height, job.box.width, 4), np.uint8)
        layer[..., :3] = COLOR
        layer[..., 3] = 255 if job.mask is None else job.mask
        seed = params.seed if params.seed >= 0 else 4711
        values = {**{k: getattr(params, k) for k in params.__dataclass_fields__}, "seed": seed}
        text = f"{params.prompt}\nSteps: {params.steps}, Seed: {seed}"
        info = {
            "mode": job.mode,
            "params": values,
            "parameters": text,
            "digital_source_type": "trainedAlgorithmicMedia",
        }
        emit(Layer(0, job.mode, f"Impasto: {params.prompt}"[:60], layer, job.box, "soft", seed, info))
        return Result((seed,), {"denoise": 0.1}, {"device": self.device_name})


def _jpeg(image: np.ndarray, done: float) -> bytes:
    apart = max(1, max(image.shape) // 512)  # a look at every pixel of a large picture would take long
    mixed = image[::apart, ::apart, :3] * (1 - done) + np.array(COLOR) * done
    out = io.BytesIO()
    Image.fromarray(mixed.astype(np.uint8)).resize((64, 64)).save(out, "JPEG")
    return out.getvalue()


def launch_command(worker: str = "thread") -> list[str]:
    """What goes into launch.json; with the worker "process" the engine runs in a process of its own."""
    return [sys.executable, str(Path(__file__).resolve()), worker]


def main(worker: str) -> None:
    from impasto_server.service.facts import Facts
    from impasto_server.service.home import ensure_home, ensure_token, single_instance, write_endpoint
    from impasto_server.service.server import Server
    from impasto_server.service.settings import Settings

    home = Path(os.environ["IMPASTO_HOME"])
    ensure_home(home)
    for name in ("painterly", "broken", "sharp", "ink", "grain", "easyneg", "lineart"):
        (home / "models" / f"{name}.safetensors").write_bytes(name.encode())

    def identify(path: Path) -> Facts:
        if path.stem == "broken":
            return Facts(
                "unknown", usable=False, reason="The file ends early; download it again.", code="model.corrupt"
            )
        if path.stem == "sharp":
            return Facts("upscaler", "esrgan", title="Sharp 4x")
        if path.stem in ("ink", "grain", "lcm"):
            return Facts("lora", "sd1", title=path.stem.capitalize())
        if path.stem == "lineart":
            return Facts("controlnet", "sd1", title="Line art")
        if path.stem == "easyneg":
            return Facts("embedding", "sd1", title="EasyNeg")
        return Facts("checkpoint", "sd1", title="Painterly", native_size=128)

    with single_instance(home):
        settings = Settings(home=home, engine="stub:StubEngine", worker=worker, starter=False)
        server = Server(settings, ensure_token(home), identify)
        asyncio.run(server.run(lambda endpoint: write_endpoint(home, endpoint)))


if __name__ == "__main__":
    sys.path[:0] = [str(SOURCES / "protocol"), str(SOURCES / "server")]
    main(*sys.argv[1:])
