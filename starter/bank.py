"""The latent bank: composed pictures, encoded once by the frozen encoder, in shards that training picks up.

    python -m starter.bank --shards 8        # starter/state/bank/0000.npz ... with 1,000 pictures each

A shard holds mean and logvar float16 [n, 4, 16, 16] (not yet scaled) and what each picture shows. The first
shard also fixes `scale.json`: the vae_scaling_factor that brings the latents to unit mean square."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from starter import models
from starter.compose import Scene, compose
from starter.data import first_labels, load
from starter.sources import WORK

FOLDER = WORK / "bank"
SHARES = {"first": 0.92, "core": 0.07, "rest": 0.01}
KINDS = {"steady": 0.8, "single": 0.1, "small": 0.07, "pair": 0.03}
STYLE_SHARE = {"3d": 0.58, "flat": 0.42}


def pools() -> dict[str, np.ndarray]:
    """Concepts by how often they are drawn; each is in one pool."""
    concepts, _ = load()
    first = first_labels()
    tier = ["first" if c.label in first else "core" if c.core else "rest" for c in concepts]
    return {name: np.array([i for i, t in enumerate(tier) if t == name]) for name in SHARES}


def choose(
    rng: np.random.Generator,
    by_tier: dict[str, np.ndarray],
    sprites: dict,
    shares: dict[str, float] = SHARES,
    kinds: dict[str, float] = KINDS,
) -> tuple[int, int, str, str]:
    """First and second concept, style and kind of one picture."""
    names = [n for n in shares if len(by_tier[n])]
    odds = np.array([shares[n] for n in names])
    while True:
        first, second = (int(rng.choice(by_tier[str(rng.choice(names, p=odds / odds.sum()))])) for _ in range(2))
        style = str(rng.choice(list(STYLE_SHARE), p=list(STYLE_SHARE.values())))
        kind = str(rng.choice(list(kinds), p=list(kinds.values())))
        if (first, style) in sprites and (second, style) in sprites:
            return first, second if kind == "pair" else -1, style, kind


@torch.no_grad()
def shard(vae, number: int, count: int) -> dict[str, np.ndarray]:
    """Composes and encodes `count` pictures; the seed is the shard's number."""
    rng = np.random.default_rng(1000 + number)
    _, sprites = load()
    by_tier = pools()
    means, logvars, scenes = [], [], []
    for start in range(0, count, 50):
        pictures = []
        for _ in range(min(50, count - start)):
            picture, scene = compose(rng, sprites, *choose(rng, by_tier, sprites))
            pictures.append(picture)
            scenes.append((scene.first, scene.second, scene.style, scene.colour, scene.kind))
        x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(x).latent_dist
        means.append(posterior.mean.half().numpy())
        logvars.append(posterior.logvar.half().numpy())
    return {
        "mean": np.concatenate(means),
        "logvar": np.concatenate(logvars),
        "scenes": np.array([json.dumps(s) for s in scenes]),
    }


def fill(
    shards: int,
    count: int = 1000,
    folder: Path = FOLDER,
    vae_file: Path = WORK / "vae.pt",
    shape: models.Shape = models.SHAPE,
    first: int = 0,
) -> None:
    """Writes the shards that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    vae = models.make_vae(shape)
    vae.load_state_dict(torch.load(vae_file, weights_only=True)["vae"])
    vae.eval()
    for number in range(first, first + shards):
        path = folder / f"{number:04d}.npz"
        if path.exists():
            continue
        arrays = shard(vae, number, count)
        if not (folder / "scale.json").exists():
            square = (arrays["mean"].astype(np.float32) ** 2 + np.exp(arrays["logvar"].astype(np.float32))).mean()
            per_channel = arrays["mean"].astype(np.float32).transpose(1, 0, 2, 3).reshape(4, -1)
            (folder / "scale.json").write_text(
                json.dumps(
                    {
                        "vae_scaling_factor": float(1 / np.sqrt(square)),
                        "channel_mean": per_channel.mean(1).tolist(),
                        "channel_std": per_channel.std(1).tolist(),
                        "noise_std": float(np.exp(0.5 * arrays["logvar"].mean())),
                    }
                )
            )
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, **arrays)
        temporary.replace(path)
        print(path.name, flush=True)


class Bank:
    """All shards of a folder in memory; `refresh` takes up new ones."""

    def __init__(self, folder: Path = FOLDER):
        self.folder, self.names = folder, set()
        self.mean = torch.empty(0, 4, 0, 0, dtype=torch.float16)
        self.logvar = self.mean
        self.scenes: list[Scene] = []
        self.refresh()
        self.scale = json.loads((folder / "scale.json").read_text())["vae_scaling_factor"]

    def refresh(self) -> None:
        for path in sorted(self.folder.glob("[0-9]*.npz")):
            if path.name in self.names or ".tmp" in path.name:
                continue
            arrays = np.load(path)
            mean, logvar = torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["logvar"])
            self.mean = torch.cat([self.mean, mean]) if self.names else mean
            self.logvar = torch.cat([self.logvar, logvar]) if self.names else logvar
            self.scenes += [Scene(*json.loads(s)) for s in arrays["scenes"]]
            self.names.add(path.name)

    def latents(self, rows: torch.Tensor) -> torch.Tensor:
        """Scaled latents float [n, 4, 16, 16], drawn from the encoder's distribution."""
        mean, logvar = self.mean[rows].float(), self.logvar[rows].float()
        return (mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)) * self.scale


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shards", type=int, default=10)
    p.add_argument("--first", type=int, default=0)
    p.add_argument("--count", type=int, default=1000)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    fill(a.shards, a.count, first=a.first)


if __name__ == "__main__":
    main()
