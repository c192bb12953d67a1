"""Measures what goes with the starter model, through the engine, and draws the sheets of docs/starter.md.

    python -m starter.evaluate_variants                  # docs/starter-variants.json and docs/starter-*.jpg
    python -m starter.evaluate_variants --count 20       # fewer pictures

Inpainting: the right half of composed pictures of held-out concepts (training of the variants saw none of them) is
painted anew by the inpainting partner, by the ordinary checkpoint, and by OpenCV's inpaint where cv2 is installed.
`distance` is 1 - cosine of EfficientNet-Lite0's vectors of result and truth, `rim` how much larger the step across the
mask's rim is than in the truth (grey values), `pixels` the mean absolute error in the half, reported only.
Control: canny edges of the result against those of the picture that the hint was made from, F1 with a tolerance of two
pixels, with the control and without it.
Previews: PSNR against the VAE of the preview decoder and of the linear map that stands in without one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from impasto_protocol.geometry import Box, Size
from impasto_server.engine import vae
from impasto_server.engine.jobs import ControlUnit, Job, Layer
from impasto_server.engine.load import load_checkpoint
from impasto_server.engine.modes import parse_params
from impasto_server.engine.preview import colors_of
from impasto_server.engine.run import Engine
from impasto_server.engine.vae_files import load_vae
from PIL import Image, ImageFilter

from starter import lite0
from starter.data import SIZE, load
from starter.evaluate import DOCS, features
from starter.export import HINTS
from starter.sample import grid
from starter.unpack import NAME
from starter.unpack_variants import PARTS, install
from starter.variants.gallery import drawn, edges, scribble

NATIVE = Size(SIZE, SIZE)
Picture = np.ndarray
"""uint8 [128, 128, 3]."""


class Studio:
    """The engine with the starter model and what goes with it."""

    def __init__(self, folder: Path, steps: int = 20) -> None:
        self.engine, self.folder, self.steps = Engine(device="cpu", precision="fp32"), folder, steps

    def _layer(self, job: Job) -> Layer:
        layers: list[Layer] = []
        self.engine.run(job, lambda event: layers.append(event) if isinstance(event, Layer) else None, lambda: False)
        return layers[-1]

    def painted(self, prompt: str, seed: int, control: str = "", hint: Picture | None = None) -> Picture:
        """A picture from words; they may ask for the LoRA ("pencil") and the embedding ("impasto-trophy")."""
        values = parse_params("txt2img", {**HINTS, "steps": self.steps, "prompt": prompt, "seed": seed})
        units = ()
        if hint is not None:
            units = (ControlUnit(control, "params.control[0]", str(self.folder / PARTS[control]), opaque(hint)),)
        job = Job(
            "evaluate",
            "txt2img",
            values,
            NATIVE,
            Box.of_size(NATIVE),
            str(self.folder / NAME),
            control=units,
            loras={"pencil": str(self.folder / PARTS["lora"])},
            embeddings={"impasto-trophy": str(self.folder / PARTS["embedding"])},
        )
        return self._layer(job).pixels[..., :3].copy()

    def repainted(self, picture: Picture, mask: np.ndarray, prompt: str, seed: int, partner: bool) -> Picture:
        """The picture with what the mask (bool) covers painted anew, as an editor shows it."""
        given = {"prompt": prompt, "seed": seed, "strength": 1.0, "exact": True, "area": "whole"}
        values = parse_params("inpaint", {**HINTS, "steps": self.steps, **given})
        file = self.folder / (PARTS["inpainting"] if partner else NAME)
        hole, box = mask.astype(np.uint8) * 255, Box.of_size(NATIVE)
        layer = self._layer(Job("evaluate", "inpaint", values, NATIVE, box, str(file), opaque(picture), hole))
        whole = Image.fromarray(picture).convert("RGBA")
        whole.alpha_composite(Image.fromarray(layer.pixels.copy(), "RGBA"), (layer.box.x, layer.box.y))
        return np.asarray(whole.convert("RGB"))


def opaque(picture: Picture) -> np.ndarray:
    return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])


def white(lines: np.ndarray) -> Picture:
    return np.repeat(lines[..., None] * np.uint8(255), 3, 2)


def asked(scene) -> str:
    label = load()[0][scene.first].label
    return f"flat {label}" if scene.style == "flat" else label


def agreement(wanted: np.ndarray, found: np.ndarray, tolerance: int = 2) -> float:
    """F1 of two edge maps [h, w]; a pixel counts as met where the other has one within the tolerance."""

    def grown(lines: np.ndarray) -> np.ndarray:
        wide = Image.fromarray(lines.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(2 * tolerance + 1))
        return np.asarray(wide) > 0

    if not wanted.any() or not found.any():
        return float(wanted.any() == found.any())
    precision, recall = grown(wanted)[found].mean(), grown(found)[wanted].mean()
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def _tensor(pictures: Sequence[Picture]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def inpainting(studio: Studio, count: int, held: bool) -> tuple[dict, list[list[Picture]]]:
    """Figures by method, and some rows of pictures: truth, what is known, and each method's."""
    rng, judge = np.random.default_rng(9_000 + held), lite0.load()
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:, SIZE // 2 :] = True
    truth, results = [], {"partner": [], "ordinary": []}
    for number in range(count):
        picture, scene = drawn(rng, held)
        truth.append(picture)
        for name in ("partner", "ordinary"):
            results[name].append(studio.repainted(picture, mask, asked(scene), number, name == "partner"))
        if find_spec("cv2") is not None:
            import cv2

            hole = mask.astype(np.uint8) * 255
            results.setdefault("opencv", []).append(cv2.inpaint(picture, hole, 3, cv2.INPAINT_TELEA))
    real, at, figures = features(judge, _tensor(truth)), SIZE // 2, {}
    step = np.abs(np.stack(truth)[:, :, at].astype(int) - np.stack(truth)[:, :, at - 1]).mean()
    for name, made in results.items():
        stack = np.stack(made).astype(int)
        figures[name] = {
            "distance": 1 - float((features(judge, _tensor(made)) * real).sum(1).mean()),
            "rim": float(np.abs(stack[:, :, at] - stack[:, :, at - 1]).mean() - step),
            "pixels": float(np.abs(stack - np.stack(truth))[:, mask].mean()),
        }
    known = [np.where(mask[..., None], 127, p).astype(np.uint8) for p in truth]
    return figures, [truth[:8], known[:8], *(made[:8] for made in results.values())]


def control(studio: Studio, kind: str, count: int, weight: float = 1.0) -> tuple[dict, list[list[Picture]]]:
    """F1 with and without, and rows of pictures: hints, without, with."""
    rng, scores = np.random.default_rng(31), []
    rows: list[list[Picture]] = [[], [], []]
    for number in range(count):
        picture, scene = drawn(rng)
        hint = white(edges(picture) if kind == "canny" else scribble(rng, picture))
        free = studio.painted(asked(scene), number)
        led = studio.painted(asked(scene), number, kind, hint)
        scores.append([agreement(edges(picture), edges(p)) for p in (free, led)])
        for row, shown in zip(rows, (hint, free, led), strict=True):
            row.append(shown)
    without, with_it = np.mean(scores, 0).tolist()
    return {"without": without, "with": with_it}, [row[:8] for row in rows]


def previews(folder: Path, count: int) -> dict[str, float]:
    """PSNR in dB of what a preview shows of a latent against what the VAE makes of it: by the preview decoder, and by
    the linear map from latents to colours, enlarged as the previews are. The mean over `count` held-out pictures.
    """
    cpu = {"device": torch.device("cpu"), "dtype": torch.float32}
    whole = load_checkpoint(folder / NAME, **cpu)
    tiny = load_vae(folder / PARTS["preview"], **cpu).module
    factor = whole.info.vae_scaling_factor
    colors, rng, found = colors_of(whole.vae, factor), np.random.default_rng(77), []

    def decibels(made: torch.Tensor, wanted: torch.Tensor) -> float:
        return float(-10 * torch.log10(((made.clamp(0, 1) - wanted) ** 2).mean()))

    with torch.inference_mode():
        for _ in range(count):
            picture, _ = drawn(rng, held=True)
            latent = vae.encode(whole.vae, vae.from_images(torch.from_numpy(picture[None])), factor)
            wanted = (vae.decode(whole.vae, latent, factor).images + 1).clamp(0, 2) / 2
            linear = (latent.permute(0, 2, 3, 1) @ colors.matrix + colors.bias).clamp(0, 1).permute(0, 3, 1, 2)
            larger = torch.nn.functional.interpolate(linear, size=wanted.shape[-2:], mode="bicubic")
            by_decoder = (vae.decode_tiny(tiny, latent).images + 1) / 2
            found.append((decibels(by_decoder, wanted), decibels(larger, wanted)))
    decoder, linear_map = np.mean(found, 0).tolist()
    return {"decoder": decoder, "linear": linear_map}


def sheet(rows: list[list[Picture]], path: Path) -> None:
    grid(torch.cat([_tensor(row) for row in rows]), len(rows[0])).save(path, quality=86)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--count", type=int, default=100, help="held-out pictures that are inpainted; half as many controls")
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--only", choices=("inpainting", "control", "previews", "sheets"))
    p.add_argument("--out", type=Path, default=DOCS)
    a = p.parse_args()
    figures: dict = {"count": a.count, "steps": a.steps}
    with tempfile.TemporaryDirectory() as folder:
        install(folder)
        studio = Studio(Path(folder), a.steps)
        if a.only in (None, "control"):
            shown = []
            for kind in ("canny", "scribble"):
                figures[kind], rows = control(studio, kind, max(1, a.count // 2))
                shown += rows
                print(kind, figures[kind], flush=True)
            sheet(shown, a.out / "starter-control.jpg")
        if a.only in (None, "inpainting"):
            figures["inpainting"], rows = inpainting(studio, a.count, held=True)
            print(figures["inpainting"], flush=True)
            sheet(rows, a.out / "starter-inpaint.jpg")
        if a.only in (None, "previews"):
            figures["previews"] = previews(Path(folder), a.count)
            print(figures["previews"], flush=True)
        if a.only in (None, "sheets"):
            things = ("red apple", "cat face", "rocket", "penguin", "sunflower", "house")
            rows = [[studio.painted(t + w, 3) for t in things] for w in ("", " <lora:pencil:0.5>", " <lora:pencil:1>")]
            rows += [[studio.painted(w, s) for s in range(1, 7)] for w in ("trophy", "impasto-trophy")]
            sheet(rows, a.out / "starter-lora.jpg")
    if a.only is None:
        (a.out / "starter-variants.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
