"""The pictures that the variants are trained on: composed once, with their hints and wordings, by all cores.

    python -m starter.variants.gallery --count 36000     # starter/state/gallery: one .npy of each kind

A concept that `starter.data.held_out` keeps from the VAE's training is kept from the variants' as well, so that
`starter.evaluate_variants` can measure on it."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from starter.bank import STYLE_SHARE
from starter.compose import Scene, caption, compose, rare_tags
from starter.data import SIZE, first_labels, held_out, load
from starter.sources import WORK
from starter.vocabulary import encode

FOLDER = WORK / "gallery"
SHARES = {"first": 0.7, "core": 0.2, "rest": 0.1}
KINDS = {"steady": 0.5, "single": 0.2, "small": 0.22, "pair": 0.08}
WORDINGS = 2
CHUNK = 500
Picture = np.ndarray
"""uint8 [128, 128, 3]; hints are bool [128, 128]."""


def pools(held: bool = False) -> dict[str, np.ndarray]:
    """Concepts by how often they are drawn: those that training may see, or those that are held out."""
    concepts, _ = load()
    first = first_labels()
    tier = ["first" if c.label in first else "core" if c.core else "rest" for c in concepts]
    found = {n: [i for i, t in enumerate(tier) if t == n and held_out(i) == held] for n in SHARES}
    return {name: np.array(rows) for name, rows in found.items() if rows}


def drawn(rng: np.random.Generator, held: bool = False) -> tuple[Picture, Scene]:
    """One composed picture and what it shows."""
    _, sprites = load()
    by_tier = pools(held)
    odds = np.array([SHARES[n] for n in by_tier])
    while True:
        first, second = (
            int(rng.choice(by_tier[str(rng.choice(list(by_tier), p=odds / odds.sum()))])) for _ in range(2)
        )
        style = str(rng.choice(list(STYLE_SHARE), p=list(STYLE_SHARE.values())))
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        if (first, style) in sprites and (second, style) in sprites:
            return compose(rng, sprites, first, second if kind == "pair" else -1, style, kind)


def edges(picture: Picture, low: float = 100.0, high: float = 200.0) -> np.ndarray:
    """The engine's own canny, so that training sees what users will give."""
    from impasto_server.engine.canny import canny

    return np.asarray(canny(picture, low, high)) > 0


def scribble(rng: np.random.Generator, picture: Picture) -> np.ndarray:
    """Strokes as a hand or the scribble preprocessor makes them: broader than edges, displaced, some missing."""
    from impasto_server.engine.jobs import ControlUnit
    from impasto_server.engine.preprocess import PREPROCESS

    if rng.random() < 0.25:
        unit = ControlUnit("", "", "", None, "scribble", threshold_low=float(rng.uniform(16, 48)))
        return PREPROCESS["scribble"](picture, unit)[..., 0] > 0
    soft = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(float(rng.uniform(0.8, 1.6)))))
    low = float(rng.uniform(40, 110))
    lines = Image.fromarray(edges(soft, low, 2 * low).astype(np.uint8) * 255)
    width = int(rng.choice([1, 3, 5], p=[0.2, 0.5, 0.3]))
    if width > 1:
        lines = lines.filter(ImageFilter.MaxFilter(width))
    turn, size, shift = rng.normal(0, 1.2), 1 + rng.normal(0, 0.015), rng.normal(0, 1.2, 2)
    cos, sin, middle = np.cos(np.radians(turn)) / size, np.sin(np.radians(turn)) / size, SIZE / 2
    across = middle - cos * middle - sin * middle + shift[0]
    down = middle + sin * middle - cos * middle + shift[1]
    move = (cos, sin, across, -sin, cos, down)
    values = np.asarray(lines.transform((SIZE, SIZE), Image.Transform.AFFINE, move, Image.Resampling.BILINEAR)) > 96
    if rng.random() < 0.5:
        values &= holes(rng) < rng.uniform(0.7, 0.95)
    return values


def holes(rng: np.random.Generator) -> np.ndarray:
    """Smooth noise in 0..1, [128, 128], whose highest places are where a line is left out."""
    coarse = Image.fromarray(rng.random((9, 9), np.float32)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse), 0, 1)


def mask(rng: np.random.Generator) -> np.ndarray:
    """Where an inpainting network is to paint, bool [128, 128]: halves, boxes, ellipses, strokes, everything."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE - 0.5
    kind = rng.random()
    if kind < 0.08:
        return np.ones((SIZE, SIZE), bool)
    if kind < 0.36:  # a half, straight or at an angle
        angle = rng.choice([0, 0.25, 0.5, 0.75]) if rng.random() < 0.6 else rng.random()
        return np.cos(angle * 2 * np.pi) * x + np.sin(angle * 2 * np.pi) * y > rng.uniform(-0.25, 0.25)
    cx, cy, w, h = *rng.uniform(-0.35, 0.35, 2), *rng.uniform(0.08, 0.42, 2)
    if kind < 0.56:
        found = (np.abs(x - cx) < w) & (np.abs(y - cy) < h)
    elif kind < 0.78:
        found = ((x - cx) / w) ** 2 + ((y - cy) / h) ** 2 < 1
    else:
        found = np.zeros((SIZE, SIZE), bool)
        at, heading, broad = rng.uniform(-0.35, 0.35, 2), rng.uniform(0, 2 * np.pi), rng.uniform(0.04, 0.12)
        for _ in range(int(rng.integers(4, 14))):
            found |= (x - at[0]) ** 2 + (y - at[1]) ** 2 < broad**2
            heading += rng.normal(0, 0.7)
            at = np.clip(at + broad * np.array([np.cos(heading), np.sin(heading)]), -0.45, 0.45)
    return ~found if rng.random() < 0.08 and found.any() else found


def chunk(number: int, count: int = CHUNK) -> dict[str, np.ndarray]:
    """So many pictures with all that goes with them; the seed is the chunk's number."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(50_000 + number)
    concepts, _ = load()
    rare = rare_tags(concepts)
    pictures, scenes = zip(*(drawn(rng) for _ in range(count)), strict=True)
    thresholds = rng.uniform((60, 120), (120, 240), (count, 2))
    words = [caption(rng, concepts, s, rare) for s in scenes for _ in range(WORDINGS)]
    return {
        "pictures": np.stack(pictures),
        "canny": np.stack([edges(p, *t) for p, t in zip(pictures, thresholds, strict=True)]),
        "scribble": np.stack([scribble(rng, p) for p in pictures]),
        "masks": np.stack([mask(rng) for _ in range(count)]),
        "ids": encode(words).view(count, WORDINGS, -1).numpy().astype(np.int32),
    }


def fill(count: int, folder: Path = FOLDER, processes: int | None = None) -> None:
    """Writes the gallery. The processes are forks, so that the sprites are read once."""
    folder.mkdir(parents=True, exist_ok=True)
    load(), encode([""])
    size = min(CHUNK, count)
    numbers, found = range(count // size), []
    processes = processes or os.cpu_count() or 1
    if processes == 1:
        found = [chunk(n, size) for n in numbers]
    else:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            found = pool.starmap(chunk, [(n, size) for n in numbers], chunksize=1)
    for name in found[0]:
        np.save(folder / f"{name}.npy", np.concatenate([part[name] for part in found]))
    (folder / "count.json").write_text(json.dumps(size * len(found)))


@dataclass
class Gallery:
    """All of it on one device, and rows of it as batches."""

    pictures: torch.Tensor
    canny: torch.Tensor
    scribble: torch.Tensor
    masks: torch.Tensor
    ids: torch.Tensor
    empty: torch.Tensor
    """Token ids of no words, int64 [77]."""

    @classmethod
    def read(cls, folder: Path, device: torch.device) -> Gallery:
        parts = {n: torch.from_numpy(np.load(folder / f"{n}.npy")) for n in ("canny", "scribble", "masks", "ids")}
        pictures = torch.from_numpy(np.load(folder / "pictures.npy")).permute(0, 3, 1, 2).contiguous()
        moved = {name: value.to(device) for name, value in parts.items()}
        return cls(pictures.to(device), **moved, empty=encode([""])[0].to(device))

    def __len__(self) -> int:
        return len(self.pictures)

    def rows(self, size: int) -> torch.Tensor:
        return torch.randint(len(self), (size,), device=self.pictures.device)

    def shown(self, rows: torch.Tensor) -> torch.Tensor:
        """float32 [n, 3, 128, 128] in -1..1."""
        return self.pictures[rows].float() / 127.5 - 1

    def wordings(self, rows: torch.Tensor, dropped: float) -> torch.Tensor:
        """Token ids int64 [n, 77], a share of them those of no words."""
        which = torch.randint(self.ids.shape[1], rows.shape, device=rows.device)
        ids = self.ids[rows, which].long()
        return torch.where(torch.rand(len(rows), 1, device=rows.device) < dropped, self.empty, ids)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--count", type=int, default=36_000)
    p.add_argument("--folder", type=Path, default=FOLDER)
    p.add_argument("--processes", type=int, help="default: one for each core")
    a = p.parse_args()
    fill(a.count, a.folder, a.processes)


if __name__ == "__main__":
    main()
