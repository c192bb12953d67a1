"""Trains the UNet on from the packed weights, on a GPU: minutes, millions of pictures. What it changes is packed as a
refinement of the base.

    python -m starter.resume                       # starter/state from the packed weights
    python -m starter.refine --minutes 4.5         # starter/state/unet.pt, refine.jsonl
    python -m starter.export --exact out.safetensors
    python -m starter.pack --refinement out.safetensors

All cores compose pictures while the GPU trains on those that are there. In the second half the network sees its weights
as the refinement will bring them (`starter.stacks`), so that it learns to do with coarse steps.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from starter import bank, models
from starter.compose import caption, compose, rare_tags
from starter.data import load
from starter.evaluate import networks_of
from starter.pack import STEP
from starter.sample import Networks, alphas, device_of, grid
from starter.sample import pictures as drawn
from starter.sources import WORK
from starter.stacks import Stacks
from starter.train_unet import DROPPED, SHEET, SOFT
from starter.unpack import WEIGHTS, unpacked
from starter.vocabulary import encode

SHARES = {"first": 0.3, "core": 0.3, "rest": 0.4}
KINDS = {"steady": 0.66, "single": 0.14, "small": 0.13, "pair": 0.07}
WORDINGS = 2
CHUNK = 500
NOISY = 0.6
"""Steps are drawn as even numbers to this power: below 1, noisy steps come more often."""


def chunk(number: int, count: int = CHUNK) -> dict[str, np.ndarray]:
    """Composed pictures uint8 [n, 128, 128, 3] and token ids [n, WORDINGS, 77]; the seed is the chunk's number."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(70_000 + number)
    concepts, sprites = load()
    rare, by_tier = rare_tags(concepts), bank.pools()
    made = [compose(rng, sprites, *bank.choose(rng, by_tier, sprites, SHARES, KINDS)) for _ in range(count)]
    words = [caption(rng, concepts, scene, rare) for _, scene in made for _ in range(WORDINGS)]
    return {
        "pictures": np.stack([picture for picture, _ in made]),
        "ids": encode(words).view(count, WORDINGS, -1).numpy().astype(np.int32),
    }


def _numbered(job: tuple[int, int]) -> dict[str, np.ndarray]:
    return chunk(*job)


@contextmanager
def composed(count: int, processes: int | None) -> Iterator[Callable[[bool], dict[str, np.ndarray] | None]]:
    """Chunks as they are made by forks of this process: a function that gives the next one, or None where none is there
    (or, if told to wait, where no more come). Must be entered before CUDA is used."""
    size = min(CHUNK, count)
    jobs = [(n, size) for n in range(count // size)]
    processes = processes or os.cpu_count() or 1
    load(), encode([""])
    if processes == 1:
        made = (chunk(*job) for job in jobs)
        yield lambda _wait: next(made, None)
        return
    ready: queue.Queue = queue.Queue()
    with multiprocessing.get_context("fork").Pool(processes) as pool:

        def collect() -> None:
            for part in pool.imap_unordered(_numbered, jobs):
                ready.put(part)
            ready.put(None)

        threading.Thread(target=collect, daemon=True).start()
        over = False

        def next_one(wait: bool) -> dict[str, np.ndarray] | None:
            nonlocal over
            if over or (not wait and ready.empty()):
                return None
            part = ready.get()
            over = part is None
            return part

        yield next_one


@dataclass
class Pictures:
    """Latents and what is said about them, on the device; `filled` of them so far."""

    mean: torch.Tensor
    spread: torch.Tensor
    states: torch.Tensor
    """Text states [n, WORDINGS, 77, width]."""
    empty: torch.Tensor
    filled: int = 0

    @classmethod
    def of(cls, count: int, net: Networks, width: int, dtype: torch.dtype) -> Pictures:
        device = device_of(net.unet)
        side = (count, 4, 16, 16)
        mean, spread = (torch.empty(side, dtype=torch.float16, device=device) for _ in range(2))
        states = torch.empty(count, WORDINGS, 77, width, dtype=dtype, device=device)
        with torch.no_grad():
            empty = net.text(encode([""]).to(device)).last_hidden_state[0].to(dtype)
        return cls(mean, spread, states, empty)

    @torch.no_grad()
    def take(self, part: dict[str, np.ndarray], net: Networks) -> None:
        """Encodes a chunk, pictures and words, and adds it."""
        device, n = self.mean.device, len(part["ids"])
        x = torch.from_numpy(part["pictures"]).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        rows = slice(self.filled, self.filled + n)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = net.vae.encode(x).latent_dist
        self.mean[rows] = posterior.mean * net.scale
        self.spread[rows] = torch.exp(0.5 * posterior.logvar.float()) * net.scale
        ids = torch.from_numpy(part["ids"]).to(device).long().view(n * WORDINGS, -1)
        self.states[rows] = net.text(ids).last_hidden_state.view(n, WORDINGS, *self.states.shape[2:]).to(self.states)
        self.filled += n

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled latents float32 [size, 4, 16, 16], and states, one in ten those of no words."""
        device = self.mean.device
        rows = torch.randint(self.filled, (size,), device=device)
        states = self.states[rows, torch.randint(WORDINGS, (size,), device=device)]
        none = torch.rand(size, 1, 1, device=device) < DROPPED
        mean = self.mean[rows].float()
        return mean + torch.randn_like(mean) * self.spread[rows].float(), torch.where(none, self.empty, states)


def loss_of(unet: Callable, z: torch.Tensor, states: torch.Tensor, table: torch.Tensor, noisy: float) -> torch.Tensor:
    """Weighted v loss, as the base's training has it."""
    n = len(z)
    even = (torch.rand((), device=z.device) + torch.randperm(n, device=z.device)) % n / n
    t = (even**noisy * 1000).long().clamp(0, 999)
    a = table[t].view(-1, 1, 1, 1)
    noise = torch.randn_like(z)
    x, v = a.sqrt() * z + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * z
    said = unet(x.to(states.dtype), t, states)
    weight = 1 / (1 + table[t] / (1 - table[t]) / SOFT)
    return (F.mse_loss(said.float(), v, reduction="none").mean((1, 2, 3)) * weight).mean()


def start_of(weights: Path, shape: models.Shape) -> dict[str, torch.Tensor]:
    """The UNet's values in the packed base, without any refinement."""
    return networks_of(unpacked(weights, refine=False)[0], shape).unet.state_dict()


def train(
    minutes: float,
    shape: models.Shape = models.SHAPE,
    folder: Path = WORK,
    weights: Path = WEIGHTS,
    count: int = 130_000,
    size: int = 512,
    rate: float = 1.5e-3,
    step: float = STEP,
    coarse_from: float = 0.5,
    steps: int | None = None,
    processes: int | None = None,
    compiled: bool | None = None,
    sheets: bool = True,
) -> dict[str, float]:
    """Trains `folder/unet.pt` on for some minutes (or steps); what is written there then is best coarse.

    Returns the loss on pictures of training, of which the noise is always the same: of masters and averages, as they
    are and coarse. Default of `compiled`: where there is a GPU.
    """
    begun = time.time()
    models.log(folder / "refine.jsonl", start=begun, minutes=minutes, size=size, count=count, rate=rate, step=step)
    with composed(count, processes) as chunks:
        saved = torch.load(folder / "unet.pt", weights_only=True)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(saved["pictures"])
        unet, text, vae = models.make_unet(shape), models.make_text(shape), models.make_vae(shape)
        unet.load_state_dict(saved["unet"])
        text.load_state_dict(saved["text"])
        vae.load_state_dict(torch.load(folder / "vae.pt", weights_only=True)["vae"])
        for module in (text, vae):
            module.requires_grad_(False).eval()
        net = Networks(text.to(device), unet.to(device), vae.to(device), saved["scale"])
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        stacks = Stacks(dict(unet.named_parameters()), start_of(weights, shape), dtype)
        pictures, table = Pictures.of(count, net, shape.text_width, dtype), alphas().to(device)

        def said(x: torch.Tensor, t: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
            return unet(x, t, states).sample

        run = torch.compile(said) if (device.type == "cuda" if compiled is None else compiled) else said
        while pictures.filled < min(count, 16 * size) and (part := chunks(True)) is not None:
            pictures.take(part, net)
        print(f"first {pictures.filled} pictures after {time.time() - begun:.0f} s", flush=True)
        loss_of(run, *pictures.batch(size), table, NOISY).backward()  # compiles
        seen, total, recent, last_kept = saved["pictures"], 0, torch.zeros((), device=device), time.time()
        for s in stacks.stacks:
            s.grad.zero_()
        ready, number = time.time(), 0
        left = 60 * minutes - (ready - begun)
        print(f"ready after {ready - begun:.0f} s", flush=True)
        while (done := number / steps if steps else (time.time() - ready) / max(left, 1e-3)) < 1:
            fall = 1 if done < 0.3 else 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done - 0.3) / 0.7))
            loss = loss_of(run, *pictures.batch(size), table, NOISY)
            loss.backward()
            coarse = step if done >= coarse_from else 0.0
            stacks.step(rate * min(1, (number + 1) / 100) * fall, coarse)
            number, total = number + 1, total + size
            recent += loss.detach()
            if number % 4 == 0 and (part := chunks(False)) is not None:
                pictures.take(part, net)
            if number % 200 == 0 or number == steps:
                value = recent.item() / (number % 200 or 200)
                facts = {"step": number, "pictures": total, "seconds": time.time() - begun, "loss": value}
                models.log(folder / "refine.jsonl", **facts, coarse=coarse, bank=pictures.filled)
                recent.zero_()
            if time.time() - last_kept > 80:
                last_kept = time.time()
                keep(folder, stacks.values(), saved, seen + total)
        losses = judged(unet, stacks, pictures, table, step)
        best = min((True, False), key=lambda average: losses["average_coarse" if average else "master_coarse"])
        keep(folder, stacks.values(best), saved, seen + total)
        models.log(folder / "refine.jsonl", pictures=total, seconds=time.time() - begun, **losses)
        stacks.settle(step, best)
        if sheets:
            unet.float()
            grid(drawn(net, list(SHEET), list(range(len(SHEET)))), 10).save(folder / "refined.png")
    return losses


def keep(folder: Path, values: dict[str, torch.Tensor], saved: dict, seen: int) -> None:
    """Writes the state that `starter.export` and this script read."""
    unet = {n: v.cpu().clone() for n, v in values.items()}
    text = {"text": saved["text"], "ema_text": saved["text"]}
    models.save(folder / "unet.pt", {"unet": unet, "ema_unet": unet, **text, "pictures": seen, "scale": saved["scale"]})


@torch.no_grad()
def judged(
    unet: nn.Module, stacks: Stacks, pictures: Pictures, table: torch.Tensor, step: float, count: int = 4096
) -> dict[str, float]:
    """Losses under the same noise of masters and averages, as they are and rounded."""
    found = {}
    for average in (True, False):
        for coarse in (0.0, step):
            stacks.settle(coarse, average)
            torch.manual_seed(0)
            size = min(count, pictures.filled, 512)
            losses = [
                loss_of(lambda x, t, s: unet(x, t, s).sample, *pictures.batch(size), table, NOISY).item()
                for _ in range(max(1, count // 512))
            ]
            found[("average" if average else "master") + ("_coarse" if coarse else "")] = float(np.mean(losses))
    return found


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=4.5, help="all of it, composing and compiling too")
    p.add_argument("--rate", type=float, default=1.5e-3)
    p.add_argument("--size", type=int, default=512, help="pictures in a step")
    p.add_argument("--count", type=int, default=130_000, help="composed pictures")
    p.add_argument("--step", type=float, default=STEP, help="how coarse the refinement is")
    p.add_argument("--eager", action="store_true", help="without torch.compile")
    a = p.parse_args()
    compiled = False if a.eager else None
    train(a.minutes, rate=a.rate, size=a.size, count=a.count, step=a.step, compiled=compiled)


if __name__ == "__main__":
    main()
