"""Trains the UNet on the latent bank under the text encoder's states: v-prediction, soft min-SNR weights, EMA.

    python -m starter.train_unet --minutes 60      # resumes starter/state/unet.pt if it is there

Matrices and convolutions are trained by Muon (Jordan et al. 2024), the rest by AdamW. The learning rate falls to
nearly nothing over the run; a run that resumes starts again at `--rate`.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.nn import functional as F

from starter import models
from starter.bank import Bank
from starter.compose import caption, rare_tags
from starter.data import load
from starter.parallel import Crew, run
from starter.sample import Networks, alphas, grid, pictures
from starter.sources import WORK
from starter.vocabulary import encode

DROPPED = 0.1
SOFT = 5.0  # signal to noise ratio above which steps count less: shapes are decided below it
SHEET = (
    "red apple",
    "grinning face",
    "cat",
    "dog",
    "red heart",
    "rocket",
    "pizza",
    "sunflower",
    "penguin",
    "house",
    "flat red apple",
    "flat cat",
    "flat rocket",
    "flat tulip",
    "a small strawberry, 3d",
    "banana on a blue background",
    "dragon",
    "tree",
    "car",
    "guitar",
)


class Captions:
    """Token ids of captions, made once per wording."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.concepts, _ = load()
        self.rare = rare_tags(self.concepts)
        self.known: dict[str, torch.Tensor] = {"": encode([""])[0]}

    def ids(self, scenes: list) -> torch.Tensor:
        """int64 [n, 77]; one in ten is the empty caption."""
        words = ["" if self.rng.random() < DROPPED else caption(self.rng, self.concepts, s, self.rare) for s in scenes]
        new = [w for w in set(words) if w not in self.known]
        if new:
            self.known.update(zip(new, encode(new), strict=True))
        return torch.stack([self.known[w] for w in words])


def loss_of(unet, text, z: torch.Tensor, ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Weighted v loss of scaled latents [n, 4, 16, 16] under captions [n, 77]; noisy steps come more often."""
    n = len(z)
    t = (((torch.rand(()) + torch.randperm(n)) % n / n).sqrt() * 1000).long().clamp(0, 999)
    a = table[t].view(-1, 1, 1, 1)
    noise = torch.randn_like(z)
    x, v = a.sqrt() * z + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * z
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            states = text(ids).last_hidden_state
        said = unet(x, t, states).sample
    snr = table[t] / (1 - table[t])
    weight = 1 / (1 + snr / SOFT)
    return (F.mse_loss(said.float(), v, reduction="none").mean((1, 2, 3)) * weight).mean()


@torch.no_grad()
def far_error(unet, text, bank: Bank, captions: Captions, table: torch.Tensor, t: int = 750, count: int = 64) -> float:
    """How wrong the picture is that is seen through nearly only noise, where the words must say what is there.

    Mean square error of the scaled latents (their mean square is 1) over the bank's first single pictures.
    """
    rows = [i for i, scene in enumerate(bank.scenes[: 4 * count]) if scene.kind == "steady"][:count]
    rng = torch.Generator().manual_seed(0)
    z = bank.mean[rows].float() * bank.scale
    words = [captions.concepts[bank.scenes[i].first].label for i in rows]
    flat = [bank.scenes[i].style == "flat" for i in rows]
    ids = encode([f"flat {w}" if f else w for w, f in zip(words, flat, strict=True)])
    a = table[t]
    x = a.sqrt() * z + (1 - a).sqrt() * torch.randn(z.shape, generator=rng)
    with torch.autocast("cpu", torch.bfloat16):
        v = unet(x, torch.tensor(t), text(ids).last_hidden_state).sample
    return (a.sqrt() * x - (1 - a).sqrt() * v.float() - z).square().mean().item()


@torch.no_grad()
def calm(unet) -> None:
    """Lets every residual branch and the output start at (or near) zero, as LDM does."""
    unet.conv_out.weight.zero_()
    for name, weight in unet.named_parameters():
        if ".conv2." in name:
            weight.zero_()
        elif ".proj_out." in name:
            weight.mul_(0.2)


def load_networks(folder: Path = WORK, shape: models.Shape = models.SHAPE, ema: bool = True) -> Networks:
    """The networks as trained so far."""
    saved = torch.load(folder / "unet.pt", weights_only=True)
    unet, text, vae = models.make_unet(shape), models.make_text(shape), models.make_vae(shape)
    unet.load_state_dict(saved["ema_unet" if ema else "unet"])
    text.load_state_dict(saved["ema_text" if ema else "text"])
    vae.load_state_dict(torch.load(folder / "vae.pt", weights_only=True)["vae"])
    return Networks(text.eval(), unet.eval(), vae.eval(), saved["scale"])


class Optimisers:
    """Muon for inner matrices and convolutions (a row an output channel), AdamW for what is small or at the ends.

    After the same CPU time Muon's loss on unseen pictures had fallen 1.4 times as far as AdamW's, although its
    steps cost a fifth more.
    """

    def __init__(self, unet: nn.Module, rate: float):
        named = list(unet.named_parameters())
        inner = [p for n, p in named if p.ndim > 1 and min(p[0].numel(), len(p)) >= 16 and not n.startswith("conv_")]
        chosen = {id(p) for p in inner}
        self.views = [(p, nn.Parameter(p.data.view(len(p), -1))) for p in inner]  # Muon takes matrices alone
        self.parts = (
            torch.optim.Muon(
                [v for _, v in self.views], lr=rate, weight_decay=0.01, ns_steps=4, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(
                [p for _, p in named if id(p) not in chosen], lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
            ),
        )

    def step(self, rate: float) -> None:
        """One step at this rate, after which there are no gradients."""
        for parameter, view in self.views:
            view.grad = None if parameter.grad is None else parameter.grad.view(view.shape)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad()
        for parameter, _ in self.views:
            parameter.grad = None

    def state(self) -> list[dict]:
        return [part.state_dict() for part in self.parts]

    def load(self, state: list[dict]) -> None:
        for part, saved in zip(self.parts, state, strict=True):
            part.load_state_dict(saved)


@torch.no_grad()
def follow(average: list[torch.Tensor], now: list[torch.Tensor], decay: float) -> None:
    torch._foreach_lerp_(average, now, 1 - decay)


def train(
    minutes: float,
    shape: models.Shape = models.SHAPE,
    folder: Path = WORK,
    size: int = 32,
    rate: float = 1.5e-3,
    floor: float = 0.02,
    steps: int | None = None,
    sheets: bool = True,
    crew: Crew | None = None,
) -> float:
    """Trains for some minutes (or steps) and returns the mean loss of the last steps."""
    crew = crew or Crew()
    path = folder / "unet.pt"
    torch.manual_seed(0)
    unet, text = models.make_unet(shape), models.make_text(shape)
    unet.set_attn_processor(AttnProcessor())  # torch's fused attention is slower here: 25 pictures a second, not 36
    calm(unet)
    text.load_state_dict(torch.load(folder / "text.pt", weights_only=True)["text"])
    text.requires_grad_(False)  # stays as its teacher left it: trained along, it forgets the marks after the end
    averages = copy.deepcopy(unet).requires_grad_(False), copy.deepcopy(text).requires_grad_(False)
    trained, smooth = [*unet.parameters()], [*averages[0].parameters()]
    optimisers = Optimisers(unet, rate)
    seen = 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        for module, key in (
            (unet, "unet"),
            (text, "text"),
            (averages[0], "ema_unet"),
            (averages[1], "ema_text"),
        ):
            module.load_state_dict(saved[key])
        if "optimisers" in saved:
            optimisers.load(saved["optimisers"])
        seen = saved["pictures"]
    crew.agree(trained)
    torch.manual_seed(seen + crew.rank)
    bank, captions, table = Bank(folder / "bank"), Captions(seen + crew.rank), alphas()
    print(
        f"unet {models.parameters(unet) / 1e6:.2f} M, bank {len(bank.scenes)}, scale {bank.scale:.4f}",
        flush=True,
    )

    def keep() -> None:
        models.save(
            path,
            {
                "unet": unet.state_dict(),
                "text": text.state_dict(),
                "ema_unet": averages[0].state_dict(),
                "ema_text": averages[1].state_dict(),
                "optimisers": optimisers.state(),
                "pictures": seen,
                "scale": bank.scale,
            },
        )

    start = last_kept = last_sheet = last_look = time.time()
    step, part, recent = 0, 0.0, []
    while True:
        if part >= 1:
            break
        fall = 1 if part < 0.3 else floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (part - 0.3) / 0.7))
        rows = torch.randint(len(bank.scenes), (size,))
        ids = captions.ids([bank.scenes[i] for i in rows.tolist()])
        loss = loss_of(unet, text, bank.latents(rows), ids, table)
        loss.backward()
        part = crew.average(trained, (step + 1) / steps if steps else (time.time() - start) / (60 * minutes))
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimisers.step(rate * min(1, (step + 1) / 40) * fall)
        step, seen = step + 1, seen + size * crew.size
        follow(smooth, trained, min(0.998, (done := seen / size / crew.size) / (done + 9)))
        recent = [*recent[-99:], loss.item()]
        if step % 50 == 0 and crew.first:
            models.log(
                folder / "unet.jsonl",
                step=step,
                pictures=seen,
                seconds=time.time() - start,
                loss=sum(recent[-50:]) / len(recent[-50:]),
                far_error=far_error(unet, text, bank, captions, table),
                bank=len(bank.scenes),
            )
        now = time.time()
        if now - last_look > 60:
            last_look = now
            bank.refresh()
        if now - last_kept > 240 and crew.first:
            last_kept = now
            keep()
        if sheets and now - last_sheet > 400 and crew.first:
            last_sheet = now
            draw(folder, shape, Networks(averages[1], averages[0], None, bank.scale), f"sheet-{seen:07d}.png")
    if not crew.first:
        return 0.0
    keep()
    if sheets:
        draw(folder, shape, Networks(averages[1], averages[0], None, bank.scale), f"sheet-{seen:07d}.png")
    return sum(recent) / max(1, len(recent))


def draw(folder: Path, shape: models.Shape, net: Networks, name: str) -> None:
    """Writes a sheet of the fixed prompts with the VAE as it is on disk."""
    net.vae = models.make_vae(shape).eval()
    net.vae.load_state_dict(torch.load(folder / "vae.pt", weights_only=True)["vae"])
    grid(pictures(net, list(SHEET), list(range(len(SHEET))), cfg=4.0), 10).save(folder / name)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=60)
    p.add_argument("--rate", type=float, default=1.5e-3)
    p.add_argument("--floor", type=float, default=0.02)
    p.add_argument("--size", type=int, default=32, help="pictures in a step, for each process")
    p.add_argument("--processes", type=int, default=2)
    a = p.parse_args()
    run(train, a.processes, minutes=a.minutes, rate=a.rate, floor=a.floor, size=a.size)


if __name__ == "__main__":
    main()
