"""Trains the VAE: L1, gradient L1, a perceptual term and a very small KL, on crops and whole pictures.

python -m starter.train_vae --minutes 25                 # resumes starter/state/vae.pt if it is there
python -m starter.train_vae --minutes 10 --decoder       # only the decoder: latents stay what they are

What the denoiser gives is never quite a latent of the encoder. The decoder alone is therefore trained on latents with
some noise, from none to `FORGIVING`, so that a small error is no blotch in the picture.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from starter import lite0, models
from starter.compose import compose
from starter.data import SIZE, held_out, load
from starter.linear_start import linear_start
from starter.parallel import Crew, run
from starter.sources import WORK

CHECKPOINT = WORK / "vae.pt"
LOG = WORK / "vae.jsonl"
KL = 1e-4
FORGIVING = 0.2  # largest noise that the decoder meets, in root mean squares of the latents
FEELING = 0.04  # weight of the perceptual term; it teaches no colour, so it comes late


def pictures(count: int, seed: int, wanted_held_out: bool) -> torch.Tensor:
    """Composed pictures uint8 [count, 3, 128, 128] of only held-out or only training concepts."""
    rng = np.random.default_rng(seed)
    concepts, sprites = load()
    pool = [k for k in sprites if held_out(k[0]) == wanted_held_out]
    odds = np.array([3.0 if concepts[i].core else 1.0 for i, _ in pool])
    out = torch.empty(count, 3, SIZE, SIZE, dtype=torch.uint8)
    for n in range(count):
        first, style = pool[int(rng.choice(len(pool), p=odds / odds.sum()))]
        second = next(i for i, s in (pool[int(j)] for j in rng.integers(len(pool), size=60)) if s == style)
        kind = str(rng.choice(["single", "small", "pair"], p=[0.7, 0.2, 0.1]))
        picture, _ = compose(rng, sprites, first, second, style, kind)
        out[n] = torch.from_numpy(picture).permute(2, 0, 1)
    return out


def batch(bank: torch.Tensor, size: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Random crops float [size, 3, side, side] in -1..1."""
    rows = torch.randint(len(bank), (size,), generator=generator)
    corner = torch.randint(SIZE - side + 1, (size, 2), generator=generator)
    crops = [bank[r, :, y : y + side, x : x + side] for r, (y, x) in zip(rows, corner.tolist(), strict=True)]
    return torch.stack(crops).float() / 127.5 - 1


def gradient_difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    d = a - b
    return (d[..., 1:, :] - d[..., :-1, :]).abs().mean() + (d[..., :, 1:] - d[..., :, :-1]).abs().mean()


def loss_of(vae, net, x: torch.Tensor, decoder_only: bool, feeling: float) -> tuple[torch.Tensor, dict]:
    with torch.autocast("cpu", torch.bfloat16):
        if decoder_only:
            with torch.no_grad():
                posterior = vae.encode(x).latent_dist
        else:
            posterior = vae.encode(x).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        noise = torch.exp(0.5 * logvar)
        if decoder_only:
            noise = FORGIVING * torch.rand(len(mean), 1, 1, 1) * mean.square().mean().sqrt()
        z = mean + torch.randn_like(mean) * noise
        y = vae.decode(z).sample
    y = y.float()
    feel = lite0.perceptual(net, y, x) if feeling else y.new_zeros(())
    pixel, edges = (y - x).abs().mean(), gradient_difference(y, x)
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    loss = pixel + 0.5 * edges + feeling * feel + (0 if decoder_only else KL * kl)
    return loss, {"l1": pixel.item(), "edges": edges.item(), "feel": feel.item(), "kl": kl.item()}


@torch.no_grad()
def psnr(vae, x: torch.Tensor) -> float:
    """Mean PSNR in dB over pictures [n, 3, h, w] in -1..1, through the mean latent, as 8 bit pictures."""
    values = []
    for part in x.split(16):
        y = vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1)
        y, part = ((y + 1) * 127.5).round(), ((part + 1) * 127.5).round()
        values.append(10 * torch.log10(255**2 / (y - part).square().mean((1, 2, 3)).clamp(min=1e-3)))
    return torch.cat(values).mean().item()


@torch.no_grad()
def sheet(vae, x: torch.Tensor, path: Path) -> None:
    """Pictures above, their reconstructions below, as one PNG."""
    y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
    rows = torch.cat([torch.cat(list(x), -1), torch.cat(list(y), -1)], -2)
    Image.fromarray(((rows + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(path)


def train(
    minutes: float,
    decoder_only: bool = False,
    shape: models.Shape = models.SHAPE,
    bank_size: int = 3600,
    size: int = 8,
    rate: float = 1e-3,
    folder: Path = WORK,
    steps: int | None = None,
    crew: Crew | None = None,
) -> float:
    """Trains for some minutes (or steps), returns the PSNR on held-out pictures in dB."""
    crew = crew or Crew()
    checkpoint, lines = folder / CHECKPOINT.name, folder / LOG.name
    generator = torch.Generator().manual_seed(int(time.time()) + crew.rank if steps is None else 0)
    vae, net = models.make_vae(shape), lite0.load()
    done = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        vae.load_state_dict(saved["vae"])
        done = saved["pictures"]
    bank = pictures(bank_size // crew.size, 100 + done + crew.rank, False)
    if not done:
        linear_start(vae, batch(bank, min(16, len(bank)), SIZE, generator))
    test = batch(pictures(min(64, bank_size), 7, True), min(64, bank_size), SIZE, torch.Generator().manual_seed(0))
    trained = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()] if decoder_only else [*vae.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    start = last = time.time()
    step, part = 0, 0.0
    crew.agree(trained)
    while True:
        if part >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part)))
        whole = step % 4 == 3 or (decoder_only and step % 2)
        x = batch(bank, max(1, size // 3) if whole else size, SIZE if whole else SIZE // 2, generator)
        loss, figures = loss_of(vae, net, x, decoder_only, FEELING if decoder_only or part > 0.3 else 0.0)
        loss.backward()
        part = crew.average(trained, (step + 1) / steps if steps else (time.time() - start) / (60 * minutes))
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        step, done = step + 1, done + len(x) * crew.size
        if step % 25 == 0 and crew.first:
            models.log(lines, step=step, pictures=done, seconds=time.time() - start, loss=loss.item(), **figures)
        if time.time() - last > 150 and crew.first:
            last = time.time()
            models.save(checkpoint, {"vae": vae.state_dict(), "pictures": done})
            models.log(lines, step=step, psnr=psnr(vae, test[:32]))
            sheet(vae, test[:10], folder / "vae.png")
    if not crew.first:
        return 0.0
    models.save(checkpoint, {"vae": vae.state_dict(), "pictures": done})
    result = psnr(vae, test)
    models.log(lines, step=step, psnr=result, final="decoder" if decoder_only else "all")
    sheet(vae, test[:10], folder / "vae.png")
    return result


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=25)
    p.add_argument("--decoder", action="store_true")
    p.add_argument("--rate", type=float, default=1e-3)
    p.add_argument("--processes", type=int, default=2)
    a = p.parse_args()
    run(train, a.processes, minutes=a.minutes, decoder_only=a.decoder, rate=a.rate)


if __name__ == "__main__":
    main()
