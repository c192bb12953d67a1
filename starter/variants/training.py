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
        for rows in torch.arange(len(gallery), device=device).split(100):
            posterior = net.vae.encode(gallery.shown(rows)).latent_dist
            means.append(posterior.mean * net.scale)
            spreads.append(torch.exp(0.5 * posterior.logvar) * net.scale)
        return cls(net, shape, gallery, torch.cat(means), torch.cat(spreads), alphas().to(device))

    def latents(self, rows: torch.Tensor) -> torch.Tensor:
        mean = self.mean[rows]
        return mean + torch.randn_like(mean) * self.spread[rows]

    @torch.no_grad()
    def encoded(self, x: torch.Tensor) -> torch.Tensor:
        """Scaled latents of pictures in -1..1."""
        return self.net.vae.encode(x).latent_dist.mean * self.net.scale

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
    """One thing to be trained. `kept` makes what is saved of the averaged values of `trained`."""

    name: str
    trained: dict[str, nn.Parameter]
    loss: Callable[[], torch.Tensor]
    rate: float
    kept: Callable[[Tensors], Tensors]
    decay: float = 0.998


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

    AdamW; the rate rises over 100 steps and falls as half a cosine. Saved is an exponential average of the values.
    Returns the mean loss of the last steps.
    """
    parameters = list(part.trained.values())
    if (out / f"{part.name}.pt").exists():
        saved = torch.load(out / f"{part.name}.pt", weights_only=True)
        if saved.keys() == part.trained.keys():  # what is kept under other names begins anew
            with torch.no_grad():
                for name, parameter in part.trained.items():
                    parameter.copy_(saved[name])
    average = [p.detach().clone() for p in parameters]
    fused = parameters[0].is_cuda
    optimiser = torch.optim.AdamW(parameters, lr=part.rate, betas=(0.9, 0.99), weight_decay=0.0, fused=fused or None)
    start = kept = time.time()
    step, recent = 0, torch.zeros((), device=parameters[0].device)
    last = math.nan

    def keep() -> None:
        with torch.no_grad():
            values = part.kept(dict(zip(part.trained, average, strict=True)))
        models.save(out / f"{part.name}.pt", {k: v.detach().to("cpu").contiguous().clone() for k, v in values.items()})

    while (done := step / steps if steps else (time.time() - start) / seconds) < 1:
        fall = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = part.rate * min(1, (step + 1) / 100) * fall
        loss = part.loss()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        with torch.no_grad():
            decay = min(part.decay, step / (step + 9))
            torch._foreach_lerp_(average, parameters, 1 - decay)
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
