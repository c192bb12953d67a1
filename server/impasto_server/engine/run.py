"""The engine: one job from a request to layers. One readable function a mode; everything else is plumbing."""

from __future__ import annotations

import os
import secrets
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from impasto_protocol.errors import RequestError, ResourceError
from impasto_protocol.geometry import Box

from .adapters import Adapter
from .addons import Addons, asked_loras, named_loras
from .attention import install
from .inpaint import InpaintChannels, blend_denoise, compose_layer, fill_masked, forget, latent_mask, match_colors
from .jobs import Emit, Job, Layer, Pixels, Result
from .load import Components, load_checkpoint
from .masks import bounds_of, denoise_mask, within_reach
from .memory import ComponentCache, choose_device, choose_dtype, free_bytes
from .modes import DiffusionParams, Img2Img, Inpaint, Sketch, Upscale
from .patch import Patcher
from .pictures import flattened, opaque, resize, resize_mask
from .planning import Plan, check_box, plan, resolve_mask
from .preview import LatentColors, colors_of
from .prompt_words import Words, resolve_words
from .text import TextCache
from .tiles import GRID, MIN_TILE, tile_side
from .upscale import upscale, upscale_by_model
from .upscaler import UpscalerModel, load_upscaler
from .work import Report, Work, dtype_name

__all__ = ["Engine"]


class Engine:
    """Runs jobs, one at a time; keeps what it loaded.

    `device` and `precision` are "auto" or names (cpu, cuda, mps, xpu; fp32, bf16, fp16); `memory_budget` in bytes
    bounds the components that are kept.
    """

    def __init__(self, device: str = "auto", precision: str = "auto", memory_budget: int | None = None) -> None:
        self.device = choose_device(device)
        self.dtype = choose_dtype(self.device, precision)
        budget = memory_budget if memory_budget is not None else _default_budget(self.device)
        self._components: ComponentCache[Patcher] = ComponentCache(budget, _load)
        # One of them is enough, and small beside a checkpoint.
        self._upscalers: ComponentCache[UpscalerModel] = ComponentCache(0, load_upscaler)
        self._texts = TextCache()
        self._addons = Addons()
        # By the VAE itself, so that the map goes when the checkpoint goes.
        self._colors: weakref.WeakKeyDictionary[Any, LatentColors] = weakref.WeakKeyDictionary()

    @property
    def device_name(self) -> str:
        """What it runs on, in words."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        return f"{name}, {dtype_name(self.dtype)}"

    def run(self, job: Job, emit: Emit, cancelled: Callable[[], bool]) -> Result:
        """Run one job to its end; its layers, progress and previews go to `emit`.

        Raises Cancelled at most one step after `cancelled()` turned true, and ImpastoError: RequestError for what
        does not fit together, ModelError for the checkpoint, its LoRAs and embeddings, ResourceError
        `resource.out_of_memory`.
        """
        report = Report(emit, cancelled)
        if isinstance(job.params, Upscale):
            return self._upscale(job, job.params, report)
        seeds = _seeds(job.params)
        words = tuple(resolve_words(job.params, job.words, seed) for seed in seeds)
        named_loras(job, asked_loras(job, words))
        try:
            return self._run(job, report, seeds, words, sequential=False)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        # Outside the handler, so that the traceback no longer holds the tensors that were too much.
        self._components.clear()
        try:
            return self._run(job, report, seeds, words, sequential=True)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise ResourceError(
                "resource.out_of_memory",
                f"There is not enough memory on {self.device_name} for this job, even in small steps; choose a "
                "smaller size or close other programs.",
                retryable=True,
            ) from error

    def _upscale(self, job: Job, params: Upscale, report: Report) -> Result:
        planned = _planned(job, 0)
        if not job.checkpoint:
            return upscale(job, params, planned, report)
        with report.stage("load"):
            model = self._upscalers.get(job.checkpoint, device=self.device, dtype=self.dtype)
        side = tile_side(model, free_bytes(self.device))
        while True:
            try:
                return upscale_by_model(job, params, planned, report, model, side)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                if 0 < side <= MIN_TILE or model.whole:
                    raise ResourceError(
                        "resource.out_of_memory",
                        f"There is not enough memory on {self.device_name} for {model.name}, even in small tiles; "
                        "choose another upscaler or close other programs.",
                        retryable=True,
                    ) from error
            # Outside the handler, so that the traceback no longer holds the tensors that were too much.
            self._components.clear()
            side = max(MIN_TILE, side // 2 // GRID * GRID)

    def _run(
        self, job: Job, report: Report, seeds: tuple[int, ...], words: tuple[Words, ...], *, sequential: bool
    ) -> Result:
        # Not in inference mode: what is loaded outlives the job.
        with report.stage("load"):
            patcher = self._components.get(job.checkpoint, device=self.device, dtype=self.dtype)
            uses = asked_loras(job, words)
            components = patcher.apply(named_loras(job, uses))
            loras = self._addons.used_loras(job, uses)
            vectors = self._addons.vectors(job, patcher, components.text_encoder.config.hidden_size)
        with torch.inference_mode():
            run = Work(
                job,
                components,
                _planned(job, components.info.native_size or components.family.native_size),
                report,
                seeds,
                words,
                self._texts,
                self._colors_of(components) if job.preview else None,
                sequential,
                loras=loras,
                vectors=vectors,
                embeddings=lambda: self._addons.used_embeddings(job, vectors),
            )
            layers = _BY_MODE[job.mode](run)
        # All at the end: had memory run out after the first, it would come twice.
        for layer in layers:
            report.emit(layer)
        return Result(seeds, dict(report.timings), run.ran(self.device_name))

    def _colors_of(self, components: Components) -> LatentColors:
        colors = self._colors.get(components.vae)
        if colors is None:
            colors = colors_of(components.vae, components.info.vae_scaling_factor)
            self._colors[components.vae] = colors
        return colors


def _seeds(params: DiffusionParams) -> tuple[int, ...]:
    """One a picture of the batch, drawn where none is asked for."""
    seed = params.seed if params.seed >= 0 else secrets.randbelow(2**32)
    return tuple((seed + i) % 2**32 for i in range(params.batch))


def _load(path: Path, *, device: torch.device, dtype: torch.dtype) -> Patcher:
    components = load_checkpoint(path, device=device, dtype=dtype)
    install(components.unet)
    return Patcher(components)


def _default_budget(device: torch.device) -> int:
    """Half of the memory that there is: the rest is for activations, and on the CPU for the editor."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory // 2)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 8 << 30


def _txt2img(run: Work) -> tuple[Layer, ...]:
    """Noise alone becomes a picture."""
    with run.report.stage("encode"):
        denoiser = run.denoiser(1.0, run.blank_channels())
    x = run.noise() * denoiser.sigmas[0]
    latents = run.sample(denoiser, denoiser, x)
    return run.layers(latents, "opaque", lambda picture: (opaque(picture), run.plan.box))


def _img2img(run: Work) -> tuple[Layer, ...]:
    """The picture, with as much noise as the strength says, becomes another one."""
    assert run.job.image is not None
    return _repainted(run, flattened(run.job.image))


def _sketch(run: Work) -> tuple[Layer, ...]:
    """Image to image of the sketch, over white or over what the client says lies under it."""
    params, job = run.params, run.job
    assert isinstance(params, Sketch) and job.image is not None
    under = flattened(job.backdrop) if params.background == "document" and job.backdrop is not None else None
    return _repainted(run, flattened(job.image, under))


def _repainted(run: Work, picture: Pixels) -> tuple[Layer, ...]:
    """Opaque layers at the box, from an RGB picture of its size and noise by the strength."""
    params = run.params
    assert isinstance(params, Img2Img)
    with run.report.stage("encode"):
        latent = run.encode(resize(picture, run.plan.working))
        denoiser = run.denoiser(params.strength, run.blank_channels())
    x = latent + run.noise() * denoiser.sigmas[0]
    latents = run.sample(denoiser, denoiser, x)
    return run.layers(latents, "opaque", lambda picture: (opaque(picture), run.plan.box))


def _inpaint(run: Work) -> tuple[Layer, ...]:
    """What is masked is repainted, guided by what is around it; the layer's alpha ends within the reach."""
    params, job, box = run.job.params, run.job, run.plan.box
    assert isinstance(params, Inpaint) and job.image is not None and job.mask is not None
    original = flattened(job.image)
    selection = 255 - job.mask if params.invert else job.mask
    with run.report.stage("encode"):
        numbers = resolve_mask(params, _mask_bounds(job), run.native_size)
        strength_of = denoise_mask(selection, numbers)
        mask = latent_mask(strength_of, *run.latent_size).to(run.components.device)
        picture = resize(original, run.plan.working)
        latent, noise = run.encode(picture), run.noise()
        start = latent
        if params.content != "original":
            start = run.encode(fill_masked(picture, resize_mask(strength_of, run.plan.working) >= 0.5))
        if params.content in ("latent_noise", "latent_nothing"):
            start = forget(start, mask, noise if params.content == "latent_noise" else None)
        adapters: tuple[Adapter, ...] = ()
        if run.has_inpaint_channels:
            hard = (mask > 0.5).float()
            hole = resize_mask(strength_of, run.plan.working)[..., None] > 0.5
            adapters = (InpaintChannels(hard, run.encode(np.where(hole, np.uint8(127), picture))),)
        denoiser = run.denoiser(params.strength, adapters)
    denoise = blend_denoise(denoiser, mask, latent, noise, denoiser.sigmas)
    latents = run.sample(denoiser, denoise, start + noise * denoiser.sigmas[0])
    touched = within_reach(selection, numbers.reach)

    def finish(picture: Pixels) -> tuple[Pixels, Box]:
        if params.match_color:
            picture = match_colors(picture, original, strength_of, touched)
        return compose_layer(picture, box, selection, numbers, params.exact)

    return run.layers(latents, "soft", finish)


_BY_MODE: dict[str, Callable[[Work], tuple[Layer, ...]]] = {
    "txt2img": _txt2img,
    "img2img": _img2img,
    "sketch": _sketch,
    "inpaint": _inpaint,
}


def _planned(job: Job, native_size: int) -> Plan:
    """The plan for the box that was sent, with the inputs checked against it."""
    if job.mode == "txt2img":
        return plan(job.mode, job.params, job.canvas, job.box, native_size)
    over_document = isinstance(job.params, Sketch) and job.params.background == "document"
    for name, pixels, depth, needed in (
        ("image", job.image, (4,), True),
        ("mask", job.mask, (), job.mode == "inpaint"),
        ("backdrop", job.backdrop, (4,), over_document),
    ):
        if not needed:
            continue
        if pixels is None:
            raise RequestError(
                "request.missing_input", f"The mode {job.mode} needs the input {name}; send it.", path=name
            )
        expected = (job.box.height, job.box.width, *depth)
        if pixels.shape != expected:
            raise RequestError(
                "request.bad_geometry",
                f"The input {name} has the shape {pixels.shape} where the box asks for {expected}; "
                "send exactly the box.",
                path=name,
            )
    selection = _mask_bounds(job) if job.mode == "inpaint" else job.box
    if isinstance(job.params, Inpaint) and job.params.invert and job.mask is not None and (job.mask == 255).all():
        raise RequestError(
            "request.empty_selection",
            "Everything is selected, so the inverted selection is empty; select what is to be kept.",
            path="mask",
        )
    return check_box(job.mode, job.params, job.canvas, selection, native_size, job.box)


def _mask_bounds(job: Job) -> Box:
    """The bounds of what was selected, before any inversion, in document pixels."""
    bounds = None if job.mask is None else bounds_of(job.mask)
    if bounds is None:
        raise RequestError(
            "request.empty_selection",
            "Nothing is selected inside the picture that was sent; select what is to be repainted.",
            path="mask",
        )
    return Box(job.box.x + bounds.x, job.box.y + bounds.y, bounds.width, bounds.height)


def _is_out_of_memory(error: BaseException) -> bool:
    """torch says it on the CPU, on MPS and in older versions with a plain RuntimeError."""
    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )
