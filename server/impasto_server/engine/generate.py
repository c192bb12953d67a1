"""The first stage of each mode: what a job brings becomes latents. One readable function a mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from impasto_protocol.geometry import Box
from PIL import Image

from .inpaint import (
    InpaintChannels,
    blend_denoise,
    compose_layer,
    fill_masked,
    forget,
    latent_mask,
    match_colors,
    settled,
)
from .inputs import mask_bounds
from .jobs import Pixels
from .masks import denoise_mask, within_reach
from .modes import Img2Img, Inpaint, Sketch, Txt2Img
from .noise import with_noise
from .pictures import flattened, opaque, resize, resize_mask
from .planning import resolve_mask
from .sampler_names import SAMPLER_INFO
from .soft import changed_alpha, soft_denoise, soft_mask
from .stages import Passed
from .tiled import Guided, TiledDenoiser
from .work import Work

__all__ = ["GENERATE"]


def _txt2img(run: Work) -> Passed:
    """Noise alone becomes a picture."""
    with run.report.stage("encode"):
        params = run.params
        assert isinstance(params, Txt2Img)
        if params.panorama:
            denoiser: Guided | TiledDenoiser = run.tiled_denoiser(1.0, params)
        else:
            denoiser = run.denoiser(1.0, run.whole_channels())
    x = run.noise() * denoiser.sigmas[0]
    return _opaque(run, run.sample(denoiser, denoiser, x))


def _img2img(run: Work) -> Passed:
    """The picture, with as much noise as the strength says, becomes another one."""
    assert run.job.image is not None
    return _repainted(run, flattened(run.job.image))


def _sketch(run: Work) -> Passed:
    """Image to image of the sketch, over white or over what the client says lies under it."""
    params, job = run.params, run.job
    assert isinstance(params, Sketch) and job.image is not None
    under = flattened(job.backdrop) if params.background == "document" and job.backdrop is not None else None
    return _repainted(run, flattened(job.image, under))


def _repainted(run: Work, picture: Pixels) -> Passed:
    """Opaque layers at the box, from an RGB picture of its size and noise by the strength."""
    params = run.params
    assert isinstance(params, Img2Img)
    with run.report.stage("encode"):
        latent = run.encode(resize(picture, run.plan.working))
        denoiser = run.denoiser(params.strength, run.whole_channels())
    x = with_noise(params, latent, run.noise(), denoiser.sigmas[0])
    return _opaque(run, run.sample(denoiser, denoiser, x))


def _inpaint(run: Work) -> Passed:
    """What is masked is repainted, guided by what is around it; the layer's alpha ends within the reach."""
    params, job, box = run.job.params, run.job, run.plan.box
    assert isinstance(params, Inpaint) and job.image is not None and job.mask is not None
    original = flattened(job.image)
    selection = 255 - job.mask if params.invert else job.mask
    with run.report.stage("encode"):
        numbers = resolve_mask(params, mask_bounds(job), run.native_size)
        strength_of = denoise_mask(selection, numbers)
        to_latent = soft_mask if params.soft else latent_mask
        mask = to_latent(strength_of, *run.latent_size).to(run.components.device)
        picture = resize(original, run.plan.working)
        latent, noise = run.encode(picture), run.noise()
        start = latent
        if params.content != "original":
            start = run.encode(fill_masked(picture, resize_mask(strength_of, run.plan.working) >= 0.5))
        if params.content in ("latent_noise", "latent_nothing"):
            start = forget(start, mask, noise if params.content == "latent_noise" else None)
        adapters = run.whole_channels() if run.edits else ()
        if run.has_inpaint_channels:
            hard = (mask > 0.5).float()
            hole = resize_mask(strength_of, run.plan.working)[..., None] > 0.5
            adapters = (InpaintChannels(hard, run.encode(np.where(hole, np.uint8(127), picture))),)
        if params.panorama:
            denoiser: Guided | TiledDenoiser = run.tiled_denoiser(
                params.strength, params, lambda _, box: tuple(channels.part(box) for channels in adapters)
            )
        else:
            denoiser = run.denoiser(params.strength, adapters)
    if params.soft:
        denoise = soft_denoise(denoiser, mask, latent, params)
    else:
        carries = SAMPLER_INFO[params.sampler].carries
        denoise = blend_denoise(denoiser, mask, latent, noise, denoiser.sigmas, at_once=carries)
    latents = run.sample(denoiser, denoise, with_noise(params, start, noise, denoiser.sigmas[0]))
    latents = settled(latents, mask, latent)
    touched = within_reach(selection, numbers.reach)

    def finish(index: int, picture: Pixels) -> tuple[Pixels, Box]:
        if params.match_color:
            picture = match_colors(picture, original, strength_of, touched)
        shown = None
        if params.soft:
            shown = changed_alpha(latents[index], latent[0], mask[0, 0], params, run.plan.working)
            shown = np.asarray(Image.fromarray(shown).resize((box.width, box.height), Image.Resampling.BILINEAR))
        return compose_layer(picture, box, selection, numbers, params.exact, shown)

    return Passed(run, latents, "soft", finish)


def _opaque(run: Work, latents: torch.Tensor) -> Passed:
    return Passed(run, latents, "opaque", lambda index, picture: (opaque(picture), run.plan.box))


GENERATE: Mapping[str, Callable[[Work], Passed]] = {
    "txt2img": _txt2img,
    "img2img": _img2img,
    "sketch": _sketch,
    "inpaint": _inpaint,
}
"""Mode -> its first stage."""
