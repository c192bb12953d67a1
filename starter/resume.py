"""Lays out `starter/state/` from the packed weights, so that training goes on where the shipped version stopped.

    python -m starter.resume          # then starter.bank and starter.train_unet

The optimiser's state is not shipped; it starts afresh. The text encoder and the VAE are as they were, so a bank of
latents must be made by this VAE.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from starter import models
from starter.evaluate import read_networks
from starter.sources import WORK
from starter.unpack import install


def resume(
    folder: Path = WORK, single_file: Path | None = None, pictures: int = 0, shape: models.Shape = models.SHAPE
) -> None:
    """Writes vae.pt, text.pt and unet.pt into `folder`. Raises FileExistsError rather than replace a training state."""
    for name in ("vae.pt", "text.pt", "unet.pt"):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} is there already; move it away to start from the packed weights")
    with tempfile.TemporaryDirectory() as unpacked:
        net = read_networks(single_file or install(unpacked), shape)
    unet, text = net.unet.state_dict(), net.text.state_dict()
    models.save(folder / "vae.pt", {"vae": net.vae.state_dict(), "pictures": pictures})
    models.save(folder / "text.pt", {"text": text})
    models.save(
        folder / "unet.pt",
        {
            "unet": unet,
            "text": text,
            "ema_unet": unet,
            "ema_text": text,
            "pictures": pictures,
            "scale": net.scale,
        },
    )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, help="a single file (default: the packed weights)")
    p.add_argument("--pictures", type=int, default=112_000, help="what it was trained for")
    a = p.parse_args()
    resume(single_file=a.model, pictures=a.pictures)


if __name__ == "__main__":
    main()
