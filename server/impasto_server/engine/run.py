"""The engine: one job from a request to layers. What it loads it keeps; what is done is a list of stages."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from impasto_protocol.errors import ResourceError
from impasto_protocol.geometry import Size

from .addons import Addons, asked_loras, named_loras
from .attention import install
from .chain import run_chain
from .controlnet import Controls
from .faceswap import faceswap
from .generate import GENERATE
from .hints import Hints, annotate
from .hires import paint_again
from .inputs import planned_for
from .ip_towers import IPAdapters
from .jobs import Emit, Job, Pixels, Result
from .kit.runtime import Kit
from .latents import LatentCache
from .load import Components, load_checkpoint
from .memory import ComponentCache, choose_device, choose_dtype, free_bytes, give_back, is_out_of_memory
from .modelpath import stamp_of
from .modes import Annotate, FaceSwap, Upscale
from .params_hires import Hires
from .params_refine import Refine
from .patch import Patcher
from .preview import LatentColors, colors_of
from .prompt_words import Words, resolve_words
from .refine import refine
from .report import Report, Share, expected
from .seeds import drawn_seeds, seeds_of
from .stages import Passed, Stage, run_stages
from .text import TextCache
from .tiles import GRID, MIN_TILE, tile_side
from .upscale import LANCZOS, Enlarger, enlarged, passes, upscale
from .upscaler import UpscalerModel, load_upscaler
from .vae_files import LoadedVae, load_vae, with_vae
from .vary import run_cells
from .work import Loaded, Work, dtype_name

__all__ = ["Engine"]

T = TypeVar("T")


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
        # Two of them at most are at work together, and they are small beside a checkpoint.
        self._upscalers: ComponentCache[UpscalerModel] = ComponentCache(budget // 8, load_upscaler)
        self._hints = Hints(Kit(), self.device)
        self._controls = Controls(budget // 4)
        self._ip_adapters = IPAdapters(budget // 4, self._hints.kit)
        # One for the pictures, one for the previews.
        self._vaes: ComponentCache[LoadedVae] = ComponentCache(0, load_vae)
        self._tiny: ComponentCache[LoadedVae] = ComponentCache(0, load_vae)
        self._texts = TextCache()
        self._latents = LatentCache()
        self._addons = Addons()
        # By the VAE itself, so that the map goes when the checkpoint goes.
        self._colors: weakref.WeakKeyDictionary[Any, LatentColors] = weakref.WeakKeyDictionary()

    @property
    def device_name(self) -> str:
        """What it runs on, in words."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        return f"{name}, {dtype_name(self.dtype)}"

    def free(self) -> None:
        """Let go of everything that was loaded, and give the memory back to the system as far as that can be done. What
        small things are kept (texts, latents) needs no model."""
        for cache in (self._components, self._upscalers, self._vaes, self._tiny):
            cache.clear()
        self._controls.clear()
        self._ip_adapters.clear()
        self._hints.clear()
        give_back()

    def run(self, job: Job, emit: Emit, cancelled: Callable[[], bool]) -> Result:
        """Run one job to its end; its layers, progress and previews go to `emit`.

        Raises Cancelled at most one step after `cancelled()` turned true, and ImpastoError: RequestError for what
        does not fit together, ModelError for the checkpoint, its LoRAs and embeddings, ResourceError
        `resource.out_of_memory`.
        """
        report = Report(emit, cancelled)
        jobs = (job, *(link.job for link in job.chain.then))
        report.expect([share for each in jobs for share in _shares(each)])
        if job.chain.is_one:
            return run_chain(job, emit, lambda one, layers: self._link(one, report, layers))
        return self._link(job, report, emit)

    def _link(self, job: Job, report: Report, emit: Emit) -> Result:
        """One job of a chain, or the only one."""
        if job.cells:
            return run_cells(job, emit, lambda one, layers: self._one(one, report, layers))
        return self._one(job, report, emit)

    def _one(self, job: Job, report: Report, emit: Emit) -> Result:
        """One picture or batch, its layers to `emit`."""
        if isinstance(job.params, Upscale):
            return self._upscale(job, job.params, report, emit)
        if isinstance(job.params, Annotate):
            planned_for(job, 0)
            return annotate(job, job.params, report, self._hints)
        if isinstance(job.params, FaceSwap):
            planned_for(job, 0)
            return faceswap(job, job.params, report, self._hints.kit, emit)
        params = drawn_seeds(job.params)
        job, seeds = replace(job, params=params), seeds_of(params)
        words = tuple(resolve_words(params, job.words, seed) for seed in seeds)
        for hires in (False, True):
            named_loras(job, asked_loras(job, words, hires=hires))
        begun = report.place
        try:
            return self._run(job, report, emit, seeds, words, sequential=False)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, so that the traceback no longer holds the tensors that were too much.
        self._components.clear()
        self._controls.clear()
        self._ip_adapters.clear()
        self._hints.clear()
        report.place = begun
        try:
            return self._run(job, report, emit, seeds, words, sequential=True)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise ResourceError(
                "resource.out_of_memory",
                f"There is not enough memory on {self.device_name} for this job, even in small steps; choose a "
                "smaller size or close other programs.",
                retryable=True,
            ) from error

    def _upscale(self, job: Job, params: Upscale, report: Report, emit: Emit) -> Result:
        planned = planned_for(job, 0)
        blends = params.second_share > 0
        paths = (job.checkpoint, job.second_upscaler) if blends else (job.checkpoint,)
        if not any(paths):
            return upscale(job, params, planned, report, LANCZOS, LANCZOS if blends else None, emit)
        with report.stage("load"):
            models = [self._upscaler(path) if path else None for path in paths]
        widest = max((m for m in models if m is not None), key=lambda m: m.size_bytes * m.scale**2)

        def made(side: int) -> Result:
            first, *others = [Enlarger(m, 0 if m is None or m.whole else side or MIN_TILE) for m in models]
            return upscale(job, params, planned, report, first, others[0] if others else None, emit)

        return self._in_tiles(widest, made)

    def _upscaler(self, path: str) -> UpscalerModel:
        return self._upscalers.get(path, device=self.device, dtype=self.dtype)

    def _enlarge(self, path: str, picture: Pixels, size: Size, report: Report) -> Pixels:
        """An RGB picture at `size` by the upscaler of that path."""
        with torch.inference_mode(False):
            model = self._upscaler(path)
        times = max(passes(model.scale, max(size.width / picture.shape[1], size.height / picture.shape[0])), 1)
        with model.checked(report.check):
            return self._in_tiles(model, lambda side: enlarged(picture, size, model, times, side, report.check))

    def _in_tiles(self, model: UpscalerModel, work: Callable[[int], T]) -> T:
        """`work` with tiles of a side that memory allows; smaller ones where it does not after all."""
        side = tile_side(model, free_bytes(self.device))
        while True:
            try:
                return work(side)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
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
        self,
        job: Job,
        report: Report,
        emit: Emit,
        seeds: tuple[int, ...],
        words: tuple[Words, ...],
        *,
        sequential: bool,
    ) -> Result:
        # Not in inference mode: what is loaded outlives the job.
        with report.stage("load"):
            loaded = [self._loaded(job, words)]
        with torch.inference_mode():
            # Nothing here may hold the first checkpoint while a hires pass loads another.
            passed, layers = run_stages(self._work(job, loaded.pop(), report, seeds, words, sequential), _stages(job))
        # All at the end: had memory run out after the first, it would come twice.
        for layer in layers:
            emit(layer)
        return Result(seeds, dict(report.timings), passed.work.ran(self.device_name))

    def _loaded(self, job: Job, words: tuple[Words, ...], *, hires: bool = False) -> Loaded:
        """What one pass of the job runs with."""
        other = hires and bool(job.hires_checkpoint)
        path, vae = (job.hires_checkpoint, job.vaes.hires_vae) if other else (job.checkpoint, job.vaes.vae)
        parts = {} if other else {name: Path(part) for name, part in job.vaes.parts.items()}
        patcher = self._components.get(path, device=self.device, dtype=self.dtype, parts=parts)
        uses = asked_loras(job, words, hires=hires)
        components = patcher.apply(named_loras(job, uses))
        vectors = self._addons.vectors(job, patcher, components)
        identity: Hashable = patcher.components.identity
        if vae:
            identity = (vae, stamp_of(vae), str(self.device), str(self.dtype))
            components = with_vae(components, self._vaes.get(vae, device=self.device, dtype=self.dtype))
        return Loaded(
            components,
            self._addons.used_loras(job, uses),
            vectors,
            lambda: self._addons.used_embeddings(job, vectors),
            self._colors_of(components, job.vaes.preview) if job.preview else None,
            self._addons.used_vae(vae or parts.get("vae")),
            identity,
        )

    def _work(
        self,
        job: Job,
        loaded: Loaded,
        report: Report,
        seeds: tuple[int, ...],
        words: tuple[Words, ...],
        sequential: bool,
    ) -> Work:
        components = loaded.components
        return Work(
            job,
            components,
            planned_for(job, components.info.native_size or components.family.native_size),
            report,
            seeds,
            words,
            self._texts,
            loaded.colors,
            sequential,
            loras=loaded.loras,
            vectors=loaded.vectors,
            embeddings=loaded.embeddings,
            vae_file=loaded.vae_file,
            latents=self._latents,
            vae_identity=loaded.vae_identity,
            load_hires=lambda: self._loaded(job, words, hires=True),
            hints=self._hints,
            controls=self._controls.of,
            ip_adapters=self._ip_adapters.of,
            enlarge=lambda picture, size: self._enlarge(job.hires_upscaler, picture, size, report),
        )

    def _colors_of(self, components: Components, decoder: str) -> LatentColors | torch.nn.Module:
        if decoder:
            loaded = self._tiny.get(decoder, device=self.device, dtype=self.dtype)
            if loaded.tiny and loaded.latent_channels == components.unet.config.out_channels:
                module: torch.nn.Module = loaded.module
                return module
        colors = self._colors.get(components.vae)
        if colors is None:
            colors = colors_of(components.vae, components.info.vae_scaling_factor)
            self._colors[components.vae] = colors
        return colors


def _shares(job: Job) -> tuple[Share, ...]:
    """The stages that a job will go through."""
    if job.cells:
        return tuple(share for cell in job.cells for share in expected(cell.params))
    return expected(job.params)


def _stages(job: Job) -> tuple[Stage, ...]:
    """What is done for the job, in order."""
    params = job.params

    def generate(work: Work, _: object) -> Passed:
        return GENERATE[job.mode](work)

    if isinstance(params, Refine):
        return (Stage("refine", refine),)
    if isinstance(params, Hires) and params.hires:
        return Stage("generate", generate, delivers=params.hires_keep_first), Stage("hires", paint_again)
    return (Stage("generate", generate),)


def _load(path: Path, *, device: torch.device, dtype: torch.dtype, **parts: Path) -> Patcher:
    components = load_checkpoint(path, device=device, dtype=dtype, **parts)
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
