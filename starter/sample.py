"""A plain sampler over the networks, for sheets and for measuring. Not the product's sampler."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from starter.data import SIZE
from starter.vocabulary import encode


def alphas() -> torch.Tensor:
    """Cumulative alphas [1000] of SD 1.x: betas whose roots are evenly spaced from .00085 to .012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


@dataclass
class Networks:
    """What makes pictures. `scale` is the vae_scaling_factor, predictions are v."""

    text: torch.nn.Module
    unet: torch.nn.Module
    vae: torch.nn.Module
    scale: float


def quick(device: torch.device) -> torch.autocast:
    """bf16 where the processor computes in it; where it only could, as if, that is nine times slower than float32."""
    able = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=able)


def device_of(module: torch.nn.Module) -> torch.device:
    return next(module.parameters()).device


def karras(steps: int, table: torch.Tensor, rho: float = 7.0) -> torch.Tensor:
    """Sigmas [steps + 1] from the table's largest to its smallest, then 0."""
    low, high = table[0] ** (1 / rho), table[-1] ** (1 / rho)
    ramp = torch.linspace(0, 1, steps)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1)])


@torch.no_grad()
def latents(
    net: Networks, prompts: list[str], seeds: list[int], steps: int = 20, cfg: float = 4.0, second: bool = True
) -> torch.Tensor:
    """Scaled latents [n, 4, 16, 16]; each picture's noise comes from its own seed.

    `second`: DPM-Solver++ of second order (2M), else Euler, both over Karras sigmas.
    """
    a = alphas()
    table = ((1 - a) / a).sqrt()
    sigmas = karras(steps, table)
    side = SIZE // 8
    x = torch.stack([torch.randn(4, side, side, generator=torch.Generator().manual_seed(s)) for s in seeds])
    device = device_of(net.unet)
    x = x.to(device) * sigmas[0].item()
    states = net.text(encode([*prompts, *[""] * len(prompts)]).to(device)).last_hidden_state
    grid_of_logs, before, last_step = table.log().numpy(), None, 0.0
    for i in range(steps):
        now, after = sigmas[i].item(), sigmas[i + 1].item()
        t = torch.tensor(np.interp(math.log(now), grid_of_logs, np.arange(1000.0)), dtype=torch.float32)
        scaled = x / math.sqrt(now**2 + 1)
        with quick(device):
            v = net.unet(scaled.repeat(2, 1, 1, 1), t, states).sample.float()
        wanted, free = v.chunk(2)
        v = free + cfg * (wanted - free)
        x0 = x / (now**2 + 1) - v * now / math.sqrt(now**2 + 1)
        if after == 0:
            return x0
        step = math.log(now / after)
        aim = x0 if before is None or not second else x0 + (x0 - before) * step / (2 * last_step)
        x = x * (after / now) - math.expm1(-step) * aim if second else x + (x - x0) / now * (after - now)
        before, last_step = x0, step
    return x


@torch.no_grad()
def pictures(net: Networks, prompts: list[str], seeds: list[int], **settings) -> torch.Tensor:
    """uint8 [n, 3, 128, 128]."""
    out = []
    for i in range(0, len(prompts), 25):
        z = latents(net, prompts[i : i + 25], seeds[i : i + 25], **settings)
        y = net.vae.decode(z / net.scale).sample.clamp(-1, 1)
        out.append(((y + 1) * 127.5).round().byte().cpu())
    return torch.cat(out)


def grid(batch: torch.Tensor, columns: int) -> Image.Image:
    """Pictures uint8 [n, 3, h, w] as one sheet, in reading order."""
    n, _, h, w = batch.shape
    sheet = Image.new("RGB", (columns * w, -(-n // columns) * h), "white")
    for i, picture in enumerate(batch):
        sheet.paste(Image.fromarray(picture.permute(1, 2, 0).numpy()), (i % columns * w, i // columns * h))
    return sheet
