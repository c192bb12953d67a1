"""What the trainers of the variants share: the frozen base, the loss, and a loop that is over when its time is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from starter import models
from starter.sample import Networks, alphas
from starter.stacks import Stacks
from starter.train_unet import SOFT
from starter.variants.gallery import Gallery

Tensors = dict[str, torch.Tensor]


@dataclass
class Base:
    """The starter model, frozen, on one device, with the gallery beside it and the latents of its pictures."""

    net: Networks
    shape: models.Shape
    gallery: Gallery
    mean: torch.Tensor
    """Scaled latents [n, 4, 16, 16], and how much they scatter."""
    spread: torch.Tensor
    table: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, net: Networks, shape: models.Shape, gallery: Gallery, device: torch.device) -> Base:
        for module in (net.text, net.unet, net.vae):
            module.to(device).requires_grad_(False).eval()
        means, spreads = [], []
        for rows in torch.arange(len(gallery), device=device).split(250):
            with torch.autocast(device.type, torch.bfloat16):
                posterior = net.vae.encode(gallery.shown(rows)).latent_dist
            means.append(posterior.mean.float() * net.scale)
            spreads.append(torch.exp(0.5 * posterior.logvar.float()) * net.scale)
        return cls(net, shape, gallery, torch.cat(means), torch.cat(spreads), alphas().to(device))

    def latents(self, rows: torch.Tensor) -> torch.Tensor:
        mean = self.mean[rows]
        return mean + torch.randn_like(mean) * self.spread[rows]

    @torch.no_grad()
    def encoded(self, x: torch.Tensor) -> torch.Tensor:
        """Scaled latents of pictures in -1..1."""
        with torch.autocast(x.device.type, torch.bfloat16):
            mean = self.net.vae.encode(x).latent_dist.mean
        return mean.float() * self.net.scale

    @property
    def dtype(self) -> torch.dtype:
        """What large networks compute with here."""
        return torch.bfloat16 if self.mean.is_cuda else torch.float32

    @torch.no_grad()
    def states(self, ids: torch.Tensor) -> torch.Tensor:
        return self.net.text(ids).last_hidden_state


@dataclass
class Noised:
    """Latents under noise: what the network sees and at which step, what it should say, how much that counts."""

    x: torch.Tensor
    t: torch.Tensor
    v: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of(cls, z: torch.Tensor, table: torch.Tensor) -> Noised:
        """Noisy steps come more often, as in the base's own training."""
        n = len(z)
        even = (torch.rand((), device=z.device) + torch.randperm(n, device=z.device)) % n / n
        t = (even.sqrt() * 1000).long().clamp(0, 999)
        a = table[t].view(-1, 1, 1, 1)
        noise = torch.randn_like(z)
        x, v = a.sqrt() * z + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * z
        snr = table[t] / (1 - table[t])
        return cls(x, t, v, 1 / (1 + snr / SOFT))

    def loss(self, said: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
        """Mean weighted square error; `where` [n, 1, h, w] weighs places."""
        error = F.mse_loss(said.float(), self.v, reduction="none")
        if where is None:
            each = error.mean((1, 2, 3))
        else:
            each = (error * where).sum((1, 2, 3)) / (where.sum((1, 2, 3)) * error.shape[1])
        return (each * self.weight).mean()


@dataclass
class Part:
    """One thing to be trained. `kept` makes what is saved of the averaged values of `trained`.

    `start` has the values that a packed difference is taken to, in steps of `coarse` (see `starter.pack.stepped`);
    `dtype` is what the network computes with.
    """

    name: str
    trained: dict[str, nn.Parameter]
    loss: Callable[[], torch.Tensor]
    rate: float
    kept: Callable[[Tensors], Tensors]
    decay: float = 0.998
    start: Tensors | None = None
    coarse: float = 0.0
    dtype: torch.dtype = torch.float32
    muon: bool = False


def fast(run: Callable) -> Callable:
    """Compiled where there is a GPU; on a CPU a short run does not earn what compiling costs."""
    return torch.compile(run) if torch.cuda.is_available() else run


def train(
    part: Part,
    out: Path,
    seconds: float,
    steps: int | None = None,
    save_every: float = 40.0,
    floor: float = 0.02,
) -> float:
    """Trains until the time (or the steps) are over; `out/NAME.pt` is written now and then and at the end. It
    goes on from one that is there.

    The rate rises over 100 steps and falls as half a cosine. Saved is an exponential average of the values. In the
    second half what is packed as a difference is trained in view of how coarse that is (`starter.stacks`). Returns the
    mean loss of the last steps.
    """
    if (out / f"{part.name}.pt").exists():
        saved = torch.load(out / f"{part.name}.pt", weights_only=True)
        if saved.keys() == part.trained.keys():  # what is kept under other names begins anew
            with torch.no_grad():
                for name, parameter in part.trained.items():
                    parameter.copy_(saved[name])
    stacks = Stacks(part.trained, part.start, part.dtype, part.muon)
    part.loss().backward()  # compiles, which is no part of the time's shape
    stacks.step(0.0)
    recent = torch.zeros((), device=stacks.stacks[0].master.device)
    start = kept = time.time()
    step, last = 0, math.nan

    def keep() -> None:
        with torch.no_grad():
            values = part.kept({k: v.detach() for k, v in stacks.values().items()})
        models.save(out / f"{part.name}.pt", {k: v.detach().to("cpu").contiguous().clone() for k, v in values.items()})

    while (done := step / steps if steps else (time.time() - start) / seconds) < 1:
        fall = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
        loss = part.loss()
        loss.backward()
        coarse = part.coarse if done >= 0.5 else 0.0
        stacks.step(part.rate * min(1, (step + 1) / 100) * fall, coarse, part.decay)
        step += 1
        with torch.no_grad():
            recent += loss.detach()
        if step % 100 == 0 or step == steps:
            last = recent.item() / (step % 100 or 100)
            recent.zero_()
            models.log(out / f"{part.name}.jsonl", part=part.name, step=step, seconds=time.time() - start, loss=last)
        if time.time() - kept > save_every:
            kept = time.time()
            keep()
    keep()
    return last
