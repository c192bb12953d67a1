"""The hires pass: the picture of the first pass enlarged and painted once more, as AUTOMATIC1111 does it."""

from __future__ import annotations

from dataclasses import replace

import torch
from impasto_protocol.geometry import Size

from .jobs import Pixels
from .params_hires import LATENT_UPSCALERS, Hires
from .pictures import resize
from .planning import HiresPlan
from .stages import Passed
from .work import Work

__all__ = ["LATENT_MODES", "cropped", "enlarge_latents", "paint_again"]

LATENT_MODES: dict[str, tuple[str, bool]] = {
    "latent": ("bilinear", False),
    "latent_antialiased": ("bilinear", True),
    "latent_bicubic": ("bicubic", False),
    "latent_bicubic_antialiased": ("bicubic", True),
    "latent_nearest": ("nearest", False),
    "latent_nearest_exact": ("nearest-exact", False),
}
"""Upscaler -> torch's mode, and whether it smooths before."""


def paint_again(first: Work, passed: Passed | None) -> Passed:
    """Enlarge, add noise by the strength, denoise in as many steps as were asked for.

    The noise is new, of the same seeds at the new size. The first pass's checkpoint decodes what pixels enlarge, the
    second one encodes it. Opaque pictures only.
    """
    assert passed is not None and isinstance(first.params, Hires) and first.plan.hires is not None
    params, planned, latents = first.params, first.plan.hires, passed.latents
    pictures: tuple[Pixels, ...] = ()
    if params.hires_upscaler in LATENT_UPSCALERS:
        with first.report.stage("upscale"):
            # On the host: it is little, and no device does it otherwise.
            latents = enlarge_latents(latents.cpu(), params.hires_upscaler, _cells(first, planned.scaled))
    else:
        pictures = _enlarged(first, latents, planned)
    work = first.following(planned)
    with work.report.stage("encode"):
        if pictures:
            latents = torch.cat([work.encode(picture) for picture in pictures])
        latents = cropped(latents.to(work.components.device), _cells(work, planned.working))
        denoiser = None if planned.steps == 0 else work.denoiser(params.hires_strength, work.whole_channels())
    if denoiser is not None:
        latents = work.sample(denoiser, denoiser, latents + work.noise() * denoiser.sigmas[0])
    return replace(passed, work=work, latents=latents)


def enlarge_latents(latents: torch.Tensor, upscaler: str, cells: Size) -> torch.Tensor:
    """[pictures, channels, h, w] at the size `cells`, by one of LATENT_MODES."""
    mode, smooth = LATENT_MODES[upscaler]
    return torch.nn.functional.interpolate(latents, (cells.height, cells.width), mode=mode, antialias=smooth)


def cropped(latents: torch.Tensor, cells: Size) -> torch.Tensor:
    """The middle of them; of an odd surplus the larger part is cut off at the right and below."""
    down, right = latents.shape[-2] - cells.height, latents.shape[-1] - cells.width
    return latents[..., down // 2 : down // 2 + cells.height, right // 2 : right // 2 + cells.width]


def _enlarged(first: Work, latents: torch.Tensor, planned: HiresPlan) -> tuple[Pixels, ...]:
    """RGB pictures of the enlarged size."""
    params = first.params
    assert isinstance(params, Hires)
    count = len(latents)
    made = []
    with first.report.stage("upscale", count):
        for index in range(count):
            picture = first.pixels(latents[index : index + 1])
            if params.hires_upscaler and first.enlarge is not None:
                made.append(first.enlarge(picture, planned.scaled))
            else:
                made.append(resize(picture, planned.scaled))
            first.report.progress("upscale", index + 1, count)
    return tuple(made)


def _cells(work: Work, size: Size) -> Size:
    factor = work.components.latent_factor
    return Size(size.width // factor, size.height // factor)
