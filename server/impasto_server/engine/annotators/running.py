"""What all annotators share: a picture brought to a size that they can look at, and their answer brought back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..jobs import Pixels
from ..load import Filler
from ..modelfile import open_model

__all__ = ["Floats", "blurred", "filled", "looked_at", "normalised", "resized_map"]

Floats = NDArray[np.floating[Any]]
M = TypeVar("M", bound=torch.nn.Module)

MOST_PIXELS = 1024 * 1024
"""Larger pictures are looked at in this size: no network was taught on more, and memory grows with it."""


def filled(
    make: Callable[[], M], path: str | Path, device: torch.device, to_file: Callable[[str], str], what: str
) -> M:
    """A network, made without numbers, that is given those of the file at `path` in fp32, ready to run.

    `to_file` gives the name in the file for that of a parameter. Raises ModelError `model.corrupt` and what
    `open_model` raises.
    """
    with torch.device("meta"):
        network = make()
    with open_model(path) as tensors:
        filler = Filler(Path(path), tensors, device, what=what)
        filler.names &= {to_file(name) for name in network.state_dict()} | {"norm"}
        filler.fill(network, "", to_file, torch.float32)
    return network


def looked_at(picture: Pixels, multiple: int, see: Callable[[Pixels], Floats]) -> Floats:
    """What `see` says of RGB [h, w, 3], as [h, w] or [h, w, c].

    It is shown the picture with at most MOST_PIXELS, its rim repeated up to multiples of `multiple`.
    """
    height, width = picture.shape[:2]
    factor = min((MOST_PIXELS / (height * width)) ** 0.5, 1.0)
    inner = (max(round(width * factor), 1), max(round(height * factor), 1))
    shown = picture if factor == 1 else np.asarray(Image.fromarray(picture).resize(inner, Image.Resampling.BOX))
    down, right = -inner[1] % multiple, -inner[0] % multiple
    found = see(np.pad(shown, ((0, down), (0, right), (0, 0)), mode="edge"))[: inner[1], : inner[0]]
    return found if factor == 1 else resized_map(found, width, height)


def resized_map(values: Floats, width: int, height: int) -> Floats:
    """[h, w] or [h, w, c] at another size, bilinear, pixel centres at .5 (as OpenCV's and torch's)."""
    tensor = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    flat = tensor[None, None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)[None]
    grown = torch.nn.functional.interpolate(flat, (height, width), mode="bilinear", align_corners=False)[0]
    found: Floats = (grown[0] if tensor.ndim == 2 else grown.permute(1, 2, 0)).numpy()
    return found


def normalised(picture: Pixels, mean: tuple[float, ...], deviation: tuple[float, ...]) -> torch.Tensor:
    """[1, 3, h, w]: 0..1, less the mean, by the deviation."""
    values = (picture.astype(np.float32) / 255 - np.array(mean, np.float32)) / np.array(deviation, np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), np.float32))[None]


def blurred(values: Floats, sigma: float, radius: int) -> Floats:
    """[h, w] through a Gaussian of that many pixels to each side, mirrored at the rim (OpenCV's default)."""
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-(at**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).float()
    # A picture may be smaller than the mirror is wide.
    padded = np.pad(values.astype(np.float32), radius, mode="reflect" if min(values.shape) > radius else "edge")
    tensor = torch.from_numpy(padded)[None, None]
    tensor = torch.nn.functional.conv2d(tensor, kernel.view(1, 1, -1, 1))
    found: Floats = torch.nn.functional.conv2d(tensor, kernel.view(1, 1, 1, -1))[0, 0].numpy()
    return found
