"""The demo: a server of its own, a photograph inpainted, a sketch made a picture and scaled up, over the real wire.

    python3 dev.py demo [--out DIR] [--model FILE] [--keep-server]

Does what the Krita plug-in does, with Pillow in the place of Krita: plan, read the box, upload, submit, follow, fetch,
paste. Uses a private folder, so that it meets no server and no history of yours.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from impasto_client.client import Client
from impasto_client.launch import find_or_start
from impasto_protocol import messages as wire
from impasto_protocol.errors import ImpastoError
from impasto_protocol.geometry import Box, Size
from impasto_server.service.home import ensure_home, write_launch
from PIL import Image, ImageDraw, ImageFilter

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Task:
    """One inpaint of the photograph: an ellipse (left, top, right, bottom) and what shall be in it."""

    name: str
    ellipse: tuple[int, int, int, int]
    prompt: str
    seed: int


TASKS = (
    Task("table", (430, 20, 585, 175), "happy face", 2),
    Task("corner", (14, 246, 154, 386), "sunflower", 2),
)
SHEET = (
    "red apple", "happy face", "cat", "rocket", "sunflower", "pizza", "owl", "house",
)  # fmt: skip


class Follower:
    """The events of one job at a time, printed as a line of progress."""

    def __init__(self) -> None:
        self.events: queue.Queue[wire.Message | ImpastoError] = queue.Queue()

    def follow(self, job: str) -> tuple[list[wire.Output], wire.Finished, bytes]:
        """Wait for the end of `job`: its outputs, the terminal event, and the last preview (JPEG)."""
        outputs: list[wire.Output] = []
        preview = b""
        while True:
            event = self.events.get(timeout=600)
            if isinstance(event, ImpastoError):
                raise event
            if getattr(event, "job", None) != job:
                continue
            if isinstance(event, wire.Progress):
                print(f"\r  {event.stage:<8} {event.fraction:4.0%}", end="", file=sys.stderr, flush=True)
            elif isinstance(event, wire.Preview):
                preview = bytes(event.image)
            elif isinstance(event, wire.Output):
                outputs.append(event)
            elif isinstance(event, wire.Finished):
                print(file=sys.stderr)
                return outputs, event, preview
            elif isinstance(event, wire.Failed):
                raise event.error.exception()
            elif isinstance(event, wire.Cancelled):
                raise SystemExit("demo: the job was cancelled")


def inpaint(
    client: Client, follower: Follower, picture: Image.Image, task: Task, native: int, partner: bool = True
) -> tuple[Image.Image, Image.Image]:
    """The RGBA result as large as the picture, and the mask that was selected. With `partner` the checkpoint's
    inpainting partner paints, where there is one.
    """
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).ellipse(task.ellipse, fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(2))
    left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
    params: dict[str, object] = {"prompt": task.prompt, "seed": task.seed}
    if native < 256:
        params["padding"] = 4  # the starter model learned things that fill its picture
    canvas = Size(*picture.size)
    if not partner:
        params["use_partner"] = False
    plan = client.plan("inpaint", params, canvas, Box(left, top, right - left, bottom - top))
    for said in plan.warnings:
        print(f"  {said}", file=sys.stderr)
    box = plan.box
    area = (box.x, box.y, box.right, box.bottom)
    inputs = {}
    for name, image, pixel_format in (("image", picture.convert("RGBA"), "rgba8"), ("mask", mask, "l8")):
        digest = client.upload(image.crop(area).tobytes())
        inputs[name] = wire.InputPicture(digest, box.width, box.height, pixel_format, box.x, box.y)
    job = uuid.uuid4().hex
    client.submit(job, "inpaint", params, canvas, inputs, preview=wire.PreviewWish(256, 0))
    outputs, _, _ = follower.follow(job)
    layer = Image.new("RGBA", picture.size, 0)
    layer.paste(fetch(client, outputs[0]), tuple(outputs[0].placement[:2]))
    return layer, mask


def drawn_sketch(side: int) -> Image.Image:
    """What a painter dashes off for an apple: a red blob, a brown stalk and a green leaf on a transparent layer."""
    unit = side / 64
    large = Image.new("RGBA", (4 * side, 4 * side))  # drawn larger and scaled down, for smooth edges
    draw = ImageDraw.Draw(large)

    def scaled(*numbers: float) -> list[float]:
        return [4 * unit * number for number in numbers]

    draw.ellipse(scaled(12, 20, 36, 56), fill=(206, 32, 40, 255))
    draw.ellipse(scaled(27, 20, 52, 56), fill=(206, 32, 40, 255))
    draw.ellipse(scaled(18, 27, 25, 36), fill=(240, 120, 120, 255))
    draw.line(scaled(32, 24, 35, 10), fill=(96, 60, 30, 255), width=round(4 * 3 * unit))
    draw.ellipse(scaled(35, 8, 50, 17), fill=(60, 150, 50, 255))
    return large.resize((side, side), Image.Resampling.LANCZOS)


def transform(
    client: Client, follower: Follower, mode: str, picture: Image.Image, params: dict[str, object]
) -> Image.Image:
    """The whole picture through a mode that takes one picture: sketch or upscale."""
    canvas = Size(*picture.size)
    client.plan(mode, params, canvas)
    image = wire.InputPicture(client.upload(picture.convert("RGBA").tobytes()), *picture.size, "rgba8", 0, 0)
    job = uuid.uuid4().hex
    client.submit(job, mode, params, canvas, {"image": image})
    outputs, _, _ = follower.follow(job)
    return fetch(client, outputs[0])


def generate(client: Client, follower: Follower, prompt: str, seed: int) -> Image.Image:
    """A picture from words alone, at the model's own size."""
    job = uuid.uuid4().hex
    params = {"prompt": prompt, "seed": seed}
    plan = client.plan("txt2img", params, Size(512, 512))
    canvas = plan.working
    client.submit(job, "txt2img", params, canvas)
    outputs, _, _ = follower.follow(job)
    return fetch(client, outputs[0])


def fetch(client: Client, output: wire.Output) -> Image.Image:
    pixels = client.fetch(output.digest, output.width * output.height * 4)
    array = np.frombuffer(pixels, np.uint8).reshape(output.height, output.width, 4)
    return Image.fromarray(array.copy(), "RGBA")


def outlined(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with the selection's outline, as a painter sees it."""
    shown = picture.copy()
    edge = mask.point(lambda v: 255 if v > 127 else 0)
    ring = Image.fromarray(np.asarray(edge.filter(ImageFilter.MaxFilter(3))) - np.asarray(edge))
    shown.paste((255, 255, 255), mask=ring)
    return shown


def contact_sheet(rows: list[list[tuple[str, Image.Image]]], width: int) -> Image.Image:
    """Labelled pictures in rows, each row scaled to `width` pixels."""
    bands = []
    for row in rows:
        cell = (width - 8 * (len(row) + 1)) // len(row)
        height = max(round(cell * image.height / image.width) for _, image in row)
        band = Image.new("RGB", (width, height + 30), (38, 38, 38))
        draw = ImageDraw.Draw(band)
        for i, (label, image) in enumerate(row):
            x = 8 + i * (cell + 8)
            band.paste(image.convert("RGB").resize((cell, round(cell * image.height / image.width))), (x, 8))
            draw.text((x + 2, height + 12), label, fill=(230, 230, 230))
        bands.append(band)
    sheet = Image.new("RGB", (width, sum(b.height for b in bands)))
    y = 0
    for band in bands:
        sheet.paste(band, (0, y))
        y += band.height
    return sheet


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo", help="where the pictures go")
    parser.add_argument("--model", type=Path, help="a folder of checkpoints to use in place of the starter model")
    parser.add_argument("--keep-server", action="store_true", help="leave the server running")
    parser.add_argument("--setup-seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    began = time.monotonic()
    home = args.out / "home"
    args.out.mkdir(parents=True, exist_ok=True)
    ensure_home(home)
    command = [sys.executable, "-m", "impasto_server.cli.main", "serve"]
    if args.model:
        command += ["--models", str(args.model.resolve())]
    write_launch(home, command)
    os.environ["IMPASTO_HOME"] = str(home)
    print("demo: starting a server", file=sys.stderr)
    endpoint = find_or_start(timeout=120, home=home)
    follower = Follower()
    client = Client.connect(
        endpoint, wire.ClientInfo("impasto-demo", "0.1.0"), follower.events.put, follower.events.put
    )
    try:
        return show(client, follower, args, time.monotonic() - began)
    finally:
        if not args.keep_server:
            client.shutdown()
        client.close()


def show(client: Client, follower: Follower, args: argparse.Namespace, start: float) -> int:
    timings = {"set-up": args.setup_seconds, "server start": start}
    catalog = client.catalog()
    models = [m for m in catalog.models if m["kind"] == "checkpoint" and m["usable"]] if catalog else []
    if not models:
        print("demo: no usable checkpoint; see `impasto models list` for the reasons", file=sys.stderr)
        return 1
    print(f"demo: the model is {models[0]['title']}", file=sys.stderr)
    native = int(models[0].get("native_size") or 512)
    photo = Image.open(ROOT / "tools" / "demo" / "coffee.jpg").convert("RGB")
    photo.save(args.out / "before.png")
    result, ordinary, masks = photo, photo, []
    for task in TASKS:
        print(f"demo: inpainting {task.prompt!r} into the {task.name}", file=sys.stderr)
        began = time.monotonic()
        layer, mask = inpaint(client, follower, result, task, native)
        timings[f"inpaint {task.name}"] = time.monotonic() - began
        layer.save(args.out / f"layer-{task.name}.png")
        masks.append(mask)
        if task is TASKS[-1]:
            print("demo: the same by the ordinary checkpoint", file=sys.stderr)
            began = time.monotonic()
            plain, _ = inpaint(client, follower, result, task, native, partner=False)
            timings["without the partner"] = time.monotonic() - began
            plain.save(args.out / "layer-ordinary.png")
            ordinary = Image.alpha_composite(result.convert("RGBA"), plain).convert("RGB")
        result = Image.alpha_composite(result.convert("RGBA"), layer).convert("RGB")
    result.save(args.out / "after.png")
    both = Image.fromarray(np.maximum(*(np.asarray(m) for m in masks)))
    print("demo: a sketch becomes a picture, and that a larger one", file=sys.stderr)
    began = time.monotonic()
    sketch = drawn_sketch(native)
    made = transform(client, follower, "sketch", sketch, {"prompt": "red apple", "seed": 2, "strength": 0.6})
    timings["sketch"] = time.monotonic() - began
    led, line = None, next((m["id"] for m in catalog.models if m["kind"] == "controlnet" and "canny" in m["id"]), None)
    if line is not None:
        print(f"demo: the same sketch, more freely and with {line}", file=sys.stderr)
        began = time.monotonic()
        unit = {"model": line, "preprocessor": "canny", "image": ""}
        held = {"prompt": "red apple", "seed": 2, "strength": 0.9, "control": [unit]}
        led = transform(client, follower, "sketch", sketch, held)
        timings["sketch with control"] = time.monotonic() - began
        led.save(args.out / "from-sketch-control.png")
    began = time.monotonic()
    larger = transform(client, follower, "upscale", made, {"scale": 2})
    timings["upscale"] = time.monotonic() - began
    for name, image in (("sketch", sketch), ("from-sketch", made), ("upscaled", larger)):
        image.save(args.out / f"{name}.png")
    paper = Image.alpha_composite(Image.new("RGBA", sketch.size, "white"), sketch)
    print("demo: pictures from words alone", file=sys.stderr)
    began = time.monotonic()
    drawn = [(prompt, generate(client, follower, prompt, 11 + i)) for i, prompt in enumerate(SHEET)]
    timings[f"{len(SHEET)} pictures"] = time.monotonic() - began
    photos = [("selected", outlined(photo, both)), ("inpainted", result), ("corner: ordinary checkpoint", ordinary)]
    enlarged = [
        ("sketch", paper),
        ("from the sketch, strength 0.6", made),
        (f"upscaled to {larger.width} x {larger.height}", larger),
    ]
    if led is not None:
        enlarged.insert(2, ("strength 0.9 with a canny ControlNet", led))
    sheet = contact_sheet([photos, enlarged, drawn], width=1216)
    sheet.save(args.out / "contact-sheet.png")
    print("Pictures:")
    layers = [f"layer-{task.name}.png" for task in TASKS]
    if led is not None:
        layers.append("from-sketch-control.png")
    layers.append("layer-ordinary.png")
    names = ("before.png", "after.png", *layers, "sketch.png", "from-sketch.png", "upscaled.png", "contact-sheet.png")
    for name in names:
        print(f"  {args.out / name}")
    print("Seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in timings.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
