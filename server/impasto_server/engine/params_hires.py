"""The parameters of the hires pass, which paints a finished picture once more with more pixels. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from impasto_protocol.geometry import Size

from .fields import STRENGTH, param
from .params_common import SAMPLERS, SCHEDULES

__all__ = ["LATENT_UPSCALERS", "SAME", "Hires", "HiresSize", "hires_sizes", "second_pass"]

LATENT_UPSCALERS = {
    "latent": "Latent",
    "latent_antialiased": "Latent (antialiased)",
    "latent_bicubic": "Latent (bicubic)",
    "latent_bicubic_antialiased": "Latent (bicubic antialiased)",
    "latent_nearest": "Latent (nearest)",
    "latent_nearest_exact": "Latent (nearest-exact)",
}
"""Those that enlarge the latents themselves -> A1111's name."""

SAME = "same"
"""The value that takes what the first pass has."""

_CELL = 8
"""Pixels of one latent, in A1111's arithmetic of sizes."""


@dataclass(frozen=True, kw_only=True)
class Hires:
    """A second pass over the enlarged picture."""

    hires: bool = param(
        False,
        "Hires fix",
        "Enlarge the finished picture and paint it once more, with more detail.",
        ui={"group": "hires"},
    )
    hires_scale: float = param(
        2.0,
        "Scale",
        "How many times as wide and as high.",
        minimum=1.0,
        maximum=4.0,
        step=0.05,
        ui={"widget": "slider", "group": "hires", "unit": "×"},
    )
    hires_upscaler: str = param(
        "",
        "Upscaler",
        "What enlarges the picture before it is painted again: an upscaler of the catalogue, a latent one, or Lanczos. "
        "Latent ones need a strength of 0.5 and above.",
        maximum=500,
        ui={"widget": "model", "group": "hires", "none": "Lanczos"},
        choices={"from": "models", "kind": "upscaler", "also": list(LATENT_UPSCALERS)},
    )
    hires_strength: float = param(
        0.4,
        "Hires strength",
        "How much is painted anew; 0 only enlarges.",
        **{**STRENGTH, "ui": {**STRENGTH["ui"], "group": "hires"}},
    )
    hires_steps: int = param(
        0,
        "Hires steps",
        "Denoising steps of the hires pass; 0 takes as many as the first one.",
        minimum=0,
        maximum=150,
        ui={"widget": "slider", "group": "hires", "advanced": True},
    )
    hires_sampler: str = param(
        SAME,
        "Hires sampler",
        "same takes that of the first pass.",
        enum=(SAME, *SAMPLERS),
        ui={"widget": "choice", "group": "hires", "advanced": True},
    )
    hires_schedule: str = param(
        SAME,
        "Hires schedule",
        "same takes that of the first pass.",
        enum=(SAME, *SCHEDULES),
        ui={"widget": "choice", "group": "hires", "advanced": True},
    )
    hires_prompt: str = param(
        "",
        "Hires prompt",
        "Empty takes the prompt.",
        maximum=10_000,
        ui={"widget": "prompt", "group": "hires", "advanced": True},
    )
    hires_negative_prompt: str = param(
        "",
        "Hires negative prompt",
        "Empty takes the negative prompt.",
        maximum=10_000,
        ui={"widget": "prompt", "group": "hires", "advanced": True},
    )
    hires_model: str = param(
        "",
        "Hires model",
        "A checkpoint of the same family that paints the hires pass; empty takes the model.",
        maximum=500,
        ui={"widget": "model", "group": "hires", "none": "The same", "advanced": True},
        choices={"from": "models", "kind": "checkpoint"},
    )
    hires_keep_first: bool = param(
        False,
        "Keep the first pass",
        "The picture before the hires pass becomes a layer of its own, too.",
        ui={"group": "hires", "advanced": True},
    )


@dataclass(frozen=True, kw_only=True)
class HiresSize(Hires):
    """The hires pass of a picture without a place of its own: its size may be said, too."""

    hires_width: int = param(
        0,
        "Hires width",
        "Instead of the scale; 0 follows from the height. With both the picture is cut to their aspect.",
        minimum=0,
        maximum=8192,
        step=8,
        ui={"unit": "px", "group": "hires", "advanced": True},
    )
    hires_height: int = param(
        0,
        "Hires height",
        "Instead of the scale; 0 follows from the width.",
        minimum=0,
        maximum=8192,
        step=8,
        ui={"unit": "px", "group": "hires", "advanced": True},
    )


def hires_sizes(params: Hires, first: Size) -> tuple[Size, Size]:
    """(the size to which the picture of the first pass is enlarged, the size of its middle that is painted again).

    Both in pixels, multiples of 8, from the size of the first pass. With `hires_width` and `hires_height` the picture
    covers their area and what lies over is cut off; with one of them it keeps its aspect. A1111's arithmetic.
    """
    width, height = (params.hires_width, params.hires_height) if isinstance(params, HiresSize) else (0, 0)
    if not width and not height:
        scaled = Size(int(first.width * params.hires_scale), int(first.height * params.hires_scale))
    elif not height or (width and first.width * height < width * first.height):
        scaled = Size(width, width * first.height // first.width)
    else:
        scaled = Size(height * first.width // first.height, height)
    cells = Size(max(scaled.width // _CELL, 1), max(scaled.height // _CELL, 1))
    kept = cells
    if width and height:
        over = Size((scaled.width - width) // _CELL, (scaled.height - height) // _CELL)
        kept = Size(max(cells.width - over.width, 1), max(cells.height - over.height, 1))
    return _in_pixels(cells), _in_pixels(kept)


def _in_pixels(cells: Size) -> Size:
    return Size(cells.width * _CELL, cells.height * _CELL)


def second_pass(params: Hires) -> dict[str, Any]:
    """The parameters of the hires pass where they differ from those of the first one, by the first one's names."""
    own = {
        "steps": params.hires_steps,
        "sampler": params.hires_sampler if params.hires_sampler != SAME else "",
        "schedule": params.hires_schedule if params.hires_schedule != SAME else "",
        "prompt": params.hires_prompt,
        "negative_prompt": params.hires_negative_prompt,
    }
    return {name: value for name, value in own.items() if value}
