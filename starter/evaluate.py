"""Measures the shipped model: does it draw what is asked, in the style asked, how sharp, how fast, how large.

    python -m starter.evaluate                 # prints, and writes docs/starter-evaluation.json
    python -m starter.evaluate --model FILE    # another single file of the same layout

What is asked is drawn with unseen seeds on a white background and looked up among all training pictures
(every concept in both styles, on white) in EfficientNet-Lite0's feature space, which nothing here was
trained in beyond its early layers serving the VAE's perceptual loss. A hit is a prompt whose concept is
among the ten nearest pictures. It is asked three times: for the favourites (those with a star in core.txt), for all of
core.txt, and for every concept there is."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from starter import lite0, models, stfile
from starter.compose import article
from starter.data import SIZE, core_labels, first_labels, load
from starter.export import CLIP, SCALING, unet_name, vae_name
from starter.sample import Networks, pictures
from starter.train_vae import batch, psnr
from starter.train_vae import pictures as composed
from starter.unpack import install

DOCS = Path(__file__).parent.parent / "docs"
NEAREST = 10


def read_networks(path: Path, shape: models.Shape = models.SHAPE) -> Networks:
    """The networks of a single file, float32."""
    return networks_of(stfile.read(path.read_bytes())[0], shape)


def networks_of(stored: Mapping[str, np.ndarray], shape: models.Shape = models.SHAPE) -> Networks:
    """The networks of a single file's tensors, float32, found by the names that `starter.export` gives."""
    text, unet, vae = models.make_text(shape), models.make_unet(shape), models.make_vae(shape)
    names = (
        (unet, lambda n: "model.diffusion_model." + unet_name(n, len(shape.unet_channels), shape.unet_layers)),
        (vae, lambda n: "first_stage_model." + vae_name(n, len(shape.vae_channels))),
        (text, lambda n: CLIP + n.removeprefix("text_model.")),
    )
    for module, name in names:
        state = module.state_dict()
        for key, old in state.items():
            if not key.endswith("position_ids"):
                new = torch.from_numpy(stored[name(key)].astype(np.float32))
                state[key] = new.view(old.shape)
        module.load_state_dict(state)
        module.eval()
    return Networks(text, unet, vae, SCALING)


@torch.no_grad()
def features(net: lite0.Lite0, images: torch.Tensor) -> torch.Tensor:
    """Unit vectors [n, 1280] of pictures uint8 [n, 3, 128, 128]."""
    parts = [F.normalize(net.embed(part.float() / 127.5 - 1), dim=-1) for part in images.split(100)]
    return torch.cat(parts)


def references() -> tuple[torch.Tensor, list[int], list[str]]:
    """Every sprite on white, filling most of the picture: uint8 [n, 3, 128, 128], its concept and its style."""
    _, sprites = load()
    out, which, style = [], [], []
    for (index, name), sprite in sprites.items():
        part = torch.from_numpy(sprite.astype(np.float32) / 255).permute(2, 0, 1)[None]
        part = torch.cat([part[:, :3] * part[:, 3:], part[:, 3:]], 1)
        part = F.interpolate(part, size=(108, 108), mode="bilinear", antialias=True, align_corners=False)[0]
        picture = torch.ones(3, SIZE, SIZE)
        picture[:, 10:118, 10:118] = picture[:, 10:118, 10:118] * (1 - part[3:]) + part[:3]
        out.append((picture.clamp(0, 1) * 255).round().byte())
        which.append(index)
        style.append(name)
    return torch.stack(out), which, style


def style_probe(vectors: torch.Tensor, style: list[str]) -> tuple[torch.Tensor, float]:
    """A linear reading of the style (positive: 3d), and its accuracy on a fifth that it was not fitted to."""
    x = torch.cat([vectors, torch.ones(len(vectors), 1)], 1).double()
    y = torch.tensor([1.0 if s == "3d" else -1.0 for s in style]).double()
    test = torch.arange(len(y)) % 5 == 0
    fit = x[~test]
    weights = torch.linalg.solve(fit.T @ fit + 0.3 * torch.eye(x.shape[1]).double(), fit.T @ y[~test])
    right = ((x[test] @ weights).sign() == y[test]).double().mean().item()
    return weights.float(), right


def ask(words: str, style: str) -> str:
    text = f"{article(words)} {words}, 3d" if style == "3d" else f"flat drawing of {article(words)} {words}"
    return f"{text} on a white background"


def recognised(
    net: Networks, judge: lite0.Lite0, known: dict, labels: Collection[str] | None, count: int, cfg: float
) -> dict:
    """Hits among `count` prompts drawn from the concepts of these labels (None: all), by style and by name."""
    concepts, sprites = load()
    rng = np.random.default_rng(20260 + len(labels or ()))
    pool = [k for k in sprites if labels is None or concepts[k[0]].label in labels]
    chosen = [pool[int(i)] for i in rng.permutation(len(pool))[:count]]
    prompts = [ask(concepts[i].label, style) for i, style in chosen]
    drawn = pictures(net, prompts, [900_000 + n for n in range(len(prompts))], cfg=cfg)
    vectors = features(judge, drawn)
    near = (vectors @ known["vectors"].T).topk(NEAREST).indices
    which = torch.tensor(known["which"])
    hits = [bool((which[row] == i).any()) for row, (i, _) in zip(near, chosen, strict=True)]
    said = torch.cat([vectors, torch.ones(len(vectors), 1)], 1) @ known["probe"] > 0
    obeyed = [bool(a) == (style == "3d") for a, (_, style) in zip(said, chosen, strict=True)]
    return {
        "prompts": len(prompts),
        "recognised": sum(hits) / len(hits),
        "style_obeyed": sum(obeyed) / len(obeyed),
        "hits": sorted(p for p, hit in zip(prompts, hits, strict=True) if hit),
    }


_TIMED = """
import json, resource, sys, time, torch
from pathlib import Path
torch.set_num_threads(2)
from starter.evaluate import read_networks
from starter.sample import pictures
start = time.time()
net = read_networks(Path(sys.argv[1]))
loaded = time.time() - start
times = []
for n in range(4):
    start = time.time()
    pictures(net, ["red apple"], [n])
    times.append(time.time() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"load_s": loaded, "first_s": times[0], "best_s": min(times), "peak_mib": peak}))
"""


def timed(path: Path) -> dict:
    """Seconds of a guided 20-step picture on two threads and peak memory in MiB, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", _TIMED, str(path)], capture_output=True, text=True, check=True)
    return {k: round(v, 2) for k, v in json.loads(done.stdout.splitlines()[-1]).items()}


def evaluate(path: Path, count: int = 200, cfg: float = 4.0) -> dict:
    """All figures of one single file."""
    start = time.time()
    net, judge = read_networks(path), lite0.load()
    images, which, style = references()
    vectors = features(judge, images)
    probe, reading = style_probe(vectors, style)
    known = {"vectors": vectors, "which": which, "probe": probe}
    test = batch(composed(64, 7, True), 64, SIZE, torch.Generator().manual_seed(0))
    result = {
        "pictures": len(which),
        "cfg": cfg,
        "favourites": recognised(net, judge, known, first_labels(), count, cfg),
        "concentrated": recognised(net, judge, known, core_labels().keys(), count, cfg),
        "all_concepts": recognised(net, judge, known, None, count, cfg),
        "style_reader_accuracy": reading,
        "vae_psnr_db": psnr(net.vae, test),
        "speed": timed(path),
        "evaluation_s": time.time() - start,
        "evaluation_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    return result


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, help="a single file (default: the packed weights)")
    p.add_argument("--count", type=int, default=200)
    p.add_argument("--cfg", type=float, default=4.0)
    p.add_argument("--out", type=Path, default=DOCS / "starter-evaluation.json")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = evaluate(a.model or install(folder), a.count, a.cfg)
    a.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    short = {k: {n: v for n, v in d.items() if n != "hits"} if isinstance(d, dict) else d for k, d in result.items()}
    print(json.dumps(short, indent=1))


if __name__ == "__main__":
    main()
