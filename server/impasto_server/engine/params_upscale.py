"""The parameters of enlarging. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from impasto_protocol.geometry import Box, Size

from .fields import param

__all__ = ["Upscale"]


@dataclass(frozen=True, kw_only=True)
class Upscale:
    """Upscale: the picture with `scale` times the pixels on each side, or of width x height, by upscaler models or by
    Lanczos."""

    scale: float = param(
        2.0,
        "Scale",
        "How many times as wide and as high.",
        minimum=1.0,
        maximum=8.0,
        step=0.5,
        ui={"widget": "slider", "group": "size", "unit": "×"},
    )
    upscaler: str = param(
        "",
        "Upscaler",
        "An upscaler of the catalogue; empty resamples by Lanczos, which invents nothing.",
        maximum=500,
        ui={"widget": "model", "group": "size", "none": "Lanczos"},
        choices={"from": "models", "kind": "upscaler"},
    )
    second_upscaler: str = param(
        "",
        "Second upscaler",
        "Another upscaler, whose result is laid over that of the first one; empty is Lanczos.",
        maximum=500,
        ui={"widget": "model", "group": "size", "none": "Lanczos", "advanced": True},
        choices={"from": "models", "kind": "upscaler"},
    )
    second_share: float = param(
        0.0,
        "Share of the second",
        "How much of the second upscaler is seen: 0 does not run it, 1 shows it alone.",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        ui={"widget": "slider", "group": "size", "unit": "%", "advanced": True},
    )
    width: int = param(
        0,
        "Width",
        "Instead of the scale; 0 follows from the height. With both, what lies over their aspect is cut off.",
        minimum=0,
        maximum=100_000,
        ui={"unit": "px", "group": "size", "advanced": True},
    )
    height: int = param(
        0,
        "Height",
        "Instead of the scale; 0 follows from the width.",
        minimum=0,
        maximum=100_000,
        ui={"unit": "px", "group": "size", "advanced": True},
    )

    def crop_of(self, size: Size) -> Box:
        """The middle of a picture of `size` that is enlarged: all of it, but for the aspect of width x height."""
        if not self.width or not self.height:
            return Box.of_size(size)
        scale = max(self.width / size.width, self.height / size.height)
        width = min(max(round(self.width / scale), 1), size.width)
        height = min(max(round(self.height / scale), 1), size.height)
        return Box((size.width - width) // 2, (size.height - height) // 2, width, height)

    def target(self, size: Size) -> Size:
        """The size of the result for a picture of `size`, whole pixels, at least one a side."""
        if self.width and self.height:
            return Size(self.width, self.height)
        scale = self.scale
        if self.width:
            scale = self.width / size.width
        elif self.height:
            scale = self.height / size.height
        width = self.width or max(math.floor(size.width * scale + 0.5), 1)
        return Size(width, self.height or max(math.floor(size.height * scale + 0.5), 1))
