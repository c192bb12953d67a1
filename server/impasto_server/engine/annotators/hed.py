"""Soft edges: HED (Xie and Tu, "Holistically-Nested Edge Detection", 2015) in the form that ControlNet was taught with.

Five blocks of VGG16's convolutions, an edge map from each; their mean through a sigmoid is the hint.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..jobs import Pixels
from .running import Floats, blurred, filled, looked_at, resized_map

__all__ = ["Hed", "load_hed", "scribbled", "soft_edges"]

BLOCKS = ((3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3))
"""Channels in, channels out and convolutions of each."""


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, count: int) -> None:
        super().__init__()
        first = [nn.Conv2d(channels, width, 3, padding=1)]
        self.convs = nn.ModuleList(first + [nn.Conv2d(width, width, 3, padding=1) for _ in range(count - 1)])
        self.projection = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for conv in self.convs:
            x = torch.relu(conv(x))
        return x, self.projection(x)


class Hed(nn.Module):
    """RGB [1, 3, h, w] in 0..255 -> five edge maps [1, 1, h / 2^i, w / 2^i] before the sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        for number, shape in enumerate(BLOCKS, 1):
            setattr(self, f"block{number}", _Block(*shape))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x, maps = x - self.norm, []
        for number in range(1, len(BLOCKS) + 1):
            if number > 1:
                x = nn.functional.max_pool2d(x, 2)
            x, edges = getattr(self, f"block{number}")(x)
            maps.append(edges)
        return maps


def load_hed(path: str | Path, device: torch.device) -> Hed:
    """The network of ControlNetHED.pth, or of the kit's pulled `hed`. Raises ModelError as `filled` does."""
    return filled(Hed, path, device, lambda name: name, "HED edge detector")


def soft_edges(network: Hed, picture: Pixels, *, safe: bool = False) -> NDArray[np.uint8]:
    """How surely each pixel of RGB [h, w, 3] lies on an edge, [h, w] 0..255; `safe` in a few steps only, which keeps
    what the edges hide from being read out of them."""

    def see(shown: Pixels) -> Floats:
        height, width = shown.shape[:2]
        device = network.norm.device
        values = torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1))).float()[None].to(device)
        with torch.inference_mode():
            maps = [m[0, 0].float().cpu().numpy() for m in network(values)]
        mean = np.mean([resized_map(m, width, height) for m in maps], axis=0)
        # In double precision: what is all but 1 is to stay below it.
        return np.asarray(1 / (1 + np.exp(-mean.astype(np.float64))))

    edges = looked_at(picture, 64, see)
    if safe:
        edges = np.asarray((edges.astype(np.float32) * 3).astype(np.int32), np.float32) / np.float32(2)
    return (edges * 255).clip(0, 255).astype(np.uint8)


def scribbled(edges: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Strokes [h, w] of 0 and 255 along the ridges of soft edges, as if drawn by hand (ControlNet's scribble)."""
    smooth = blurred(edges.astype(np.float32), 3.0, 12)
    padded = np.pad(smooth, 1, mode="constant", constant_values=-1.0)
    height, width = smooth.shape

    def shifted(dy: int, dx: int) -> Floats:
        return padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    ridge = np.zeros(smooth.shape, bool)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        ridge |= (smooth >= shifted(dy, dx)) & (smooth >= shifted(-dy, -dx))
    lines = np.where(ridge & (smooth > 127), np.float32(255), np.float32(0))
    # Rounded as an 8-bit picture is blurred.
    return np.where(np.rint(blurred(lines, 3.0, 9)) > 4, np.uint8(255), np.uint8(0))
