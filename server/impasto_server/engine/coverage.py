"""Layers as masks: where a control, an IP-Adapter or a prompt of its own counts."""

from __future__ import annotations

import numpy as np
import torch
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box, Size
from PIL import Image

from .fitting import fitted
from .jobs import Pixels

__all__ = ["at_tokens", "coverage", "masked"]


def coverage(
    picture: Pixels, size: Size, window: Box | None, latent_size: tuple[int, int], name: str, path: str
) -> torch.Tensor:
    """Where the RGBA picture says "here", float32 [1, 1, h, w] in 0..1 at latent size.

    A picture that is transparent somewhere says it by its alpha, whatever its colours; an opaque one by its brightness,
    as masks in files do. It is stretched to `size`, that of the run in pixels: it lies where the job's picture lies;
    `window` is the part of it that is asked for.
    Raises RequestError `request.empty_selection` for one that says it nowhere; `name` and `path` tell whose it is.
    """
    alpha = picture[..., 3]
    if (alpha < 255).any():
        values = alpha
    else:
        values = np.asarray(Image.fromarray(np.ascontiguousarray(picture[..., :3])).convert("L"))
    if not values.any():
        raise RequestError(
            "request.empty_selection",
            f"The mask of {name} is empty: paint on its layer where it is to count, or leave the mask out.",
            path=path,
        )
    grown = fitted(np.ascontiguousarray(np.repeat(values[..., None], 3, 2)), size, "stretch", Image.Resampling.BOX)[
        ..., 0
    ]
    if window is not None:
        grown = grown[window.y : window.bottom, window.x : window.right]
    pixels = torch.from_numpy(grown.astype(np.float32) / 255)[None, None]
    return torch.nn.functional.adaptive_avg_pool2d(pixels, latent_size)


def at_tokens(mask: torch.Tensor, tokens: int) -> torch.Tensor:
    """A mask [1, 1, h, w] at the places that a layer looks from, [tokens, 1]: the latents, halved some times."""
    height, width = mask.shape[2:]
    while height * width > tokens:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != tokens:
        raise ValueError(f"{tokens} places are not the latents {tuple(mask.shape[2:])} halved")
    return torch.nn.functional.adaptive_avg_pool2d(mask, (height, width)).flatten()[:, None]


def masked(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """[rows, channels, h, w] times the mask [1, 1, .., ..] at that size; as they are where there is none."""
    if mask is None:
        return values
    return values * torch.nn.functional.adaptive_avg_pool2d(mask, (values.shape[2], values.shape[3])).to(values)
