"""One job at work: what its stages are composed of."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from impasto_protocol.geometry import Box

from . import vae
from .adapters import Adapter
from .addons import UsedLora
from .denoise import Denoiser
from .embeddings import NO_VECTORS, Vectors
from .inpaint import InpaintChannels
from .jobs import Job, Layer, Pixels, PreviewRequest
from .load import Components
from .modes import MODES, DiffusionParams, Upscale
from .noise import NoiseSource, noise_for_batch
from .pictures import resize
from .planning import Plan
from .preview import LatentColors, preview_jpeg
from .prompt_batch import PictureDenoisers
from .prompt_schedule import total_calls
from .prompt_words import Words
from .recipe import addons_told, layer_name, recipe
from .report import Report
from .samplers import SAMPLERS, Denoise
from .schedule import resolve_schedule, scaled_linear, sigmas, trim
from .text import TextCache, guidance

__all__ = ["Work", "dtype_name"]


@dataclass
class Work:
    """One job at work: what the stages are composed of. `words` are the prompts of each picture, `loras` those that are
    on the components, `embeddings` tells name -> hash of what stood in the prompts."""

    job: Job
    components: Components
    plan: Plan
    report: Report
    seeds: tuple[int, ...]
    words: tuple[Words, ...]
    texts: TextCache
    colors: LatentColors | None
    sequential: bool
    loras: tuple[UsedLora, ...] = ()
    vectors: Vectors = NO_VECTORS
    embeddings: Callable[[], dict[str, str]] = dict
    steps: int = 0
    vae_dtype: str = ""
    sources: tuple[NoiseSource, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.sources = tuple(NoiseSource(self.params.noise, seed) for seed in self.seeds)

    @property
    def params(self) -> DiffusionParams:
        assert not isinstance(self.job.params, Upscale), "an upscale is no work for a checkpoint"
        return self.job.params

    @property
    def latent_size(self) -> tuple[int, int]:
        factor = vae.factor_of(self.components.vae)
        return self.plan.working.height // factor, self.plan.working.width // factor

    @property
    def native_size(self) -> int:
        return self.components.info.native_size or self.components.family.native_size

    @property
    def schedule(self) -> str:
        return resolve_schedule(self.params.schedule, self.params.sampler)

    def noise(self) -> torch.Tensor:
        """The next noise of each picture, [pictures, channels, h, w] on the device."""
        like = torch.empty(1, self.components.unet.config.out_channels, *self.latent_size)
        return noise_for_batch(self.sources)(like.to(self.components.device))

    def encode(self, picture: Pixels) -> torch.Tensor:
        """The latents of an RGB picture of the working size."""
        values = vae.from_images(torch.tensor(picture)[None])
        return vae.encode(
            self.components.vae, values.to(self.components.device), self.components.info.vae_scaling_factor
        )

    def denoiser(self, strength: float, adapters: tuple[Adapter, ...] = ()) -> Denoiser | PictureDenoisers:
        """The guided network for the steps that `strength` leaves; conditioning is encoded here."""
        if all(words == self.words[0] for words in self.words):
            return self._denoiser(self.words[0], strength, adapters)
        return PictureDenoisers(tuple(self._denoiser(words, strength, adapters) for words in self.words))

    def _denoiser(self, words: Words, strength: float, adapters: tuple[Adapter, ...]) -> Denoiser:
        params, info, family = self.params, self.components.info, self.components.family
        calls = total_calls(params.sampler, params.steps)
        guided = guidance(
            self.components, words, calls, cache=self.texts, clip_skip=params.clip_skip, vectors=self.vectors
        )
        table = scaled_linear(family.beta_start, family.beta_end, family.train_steps)
        levels = trim(sigmas(table, params.schedule, params.sampler, params.steps), strength)
        self.steps = len(levels) - 1
        return Denoiser(
            network=self.components.unet,
            prediction=info.prediction_type or family.prediction_type,
            positive=guided.positive,
            negative=guided.negative,
            cfg=params.cfg,
            sigmas=levels,
            timestep_of=table.timestep,
            adapters=adapters,
            sequential=self.sequential,
            fractions=(call / guided.calls for call in itertools.count()) if guided.calls else None,
        )

    def blank_channels(self) -> tuple[Adapter, ...]:
        """What an inpainting checkpoint needs where everything is repainted; nothing for the others."""
        if not self.has_inpaint_channels:
            return ()
        grey = np.full((self.plan.working.height, self.plan.working.width, 3), 127, np.uint8)
        return (InpaintChannels(torch.ones(1, 1, *self.latent_size), self.encode(grey).cpu()),)

    @property
    def has_inpaint_channels(self) -> bool:
        config = self.components.unet.config
        return bool(config.in_channels == 2 * config.out_channels + 1)

    def sample(self, denoiser: Denoiser | PictureDenoisers, denoise: Denoise, x: torch.Tensor) -> torch.Tensor:
        """The denoise loop over `denoise`, which is the denoiser or wraps it; x [pictures, channels, h, w]."""
        sampler, _ = SAMPLERS[self.params.sampler]
        steps, wish = self.steps, self.job.preview
        last_preview = -float("inf")

        def on_step(index: int, denoised: torch.Tensor) -> None:
            nonlocal last_preview
            self.report.progress("denoise", index + 1, steps)
            now = time.monotonic()
            if wish is not None and self.colors is not None and now - last_preview >= wish.interval:
                last_preview = now
                self._preview(denoised, self.colors, wish, index + 1)

        def checked(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            self.report.check()  # also half-way through the steps that look twice
            return denoise(x, sigma)

        with self.report.stage("denoise", steps), denoiser.attached():
            return sampler(checked, x, denoiser.sigmas, noise_for_batch(self.sources), on_step)

    def _preview(self, denoised: torch.Tensor, colors: LatentColors, wish: PreviewRequest, step: int) -> None:
        factor = vae.factor_of(self.components.vae)
        self.report.emit(preview_jpeg(denoised, colors, factor, wish.max_size, step))

    def decode(self, latents: torch.Tensor) -> Pixels:
        """RGB [height, width, 3] of the box's size, from one picture's latents."""
        decoded = vae.decode(self.components.vae, latents, self.components.info.vae_scaling_factor)
        self.vae_dtype = dtype_name(decoded.dtype)
        picture: Pixels = vae.to_images(decoded.images)[0].cpu().numpy()
        return resize(picture, self.plan.box.size)

    def layer(self, index: int, picture: int, stage: str, pixels: Pixels, box: Box, alpha: str) -> Layer:
        """The finished layer `index` with its recipe, which makes this one picture of the batch again."""
        seed, params = self.seeds[picture], self.words[picture].params(self.params)
        info = recipe(
            self.job.mode,
            params,
            asked=self.params,
            seed=seed,
            title=self.components.info.title,
            checkpoint=self.job.checkpoint,
            working=self.plan.working,
            steps=self.steps,
            sampler=params.sampler,
            sampler_title=SAMPLERS[params.sampler][1],
            schedule=self.schedule,
            loras=self.loras,
            embeddings=self.embeddings(),
            partner_of=self.job.partner_of,
        )
        name = layer_name(MODES[self.job.mode][1], params, seed)
        return Layer(index, stage, name, pixels, box, alpha, seed, info)

    def ran(self, device_name: str) -> dict[str, Any]:
        """What really ran, as plain values."""
        return {
            "device": str(self.components.device),
            "device_name": device_name,
            "dtype": dtype_name(self.components.dtype),
            "vae_dtype": self.vae_dtype,
            "model": self.components.info.title or self.job.checkpoint,
            **({"partner_of": self.job.partner_of} if self.job.partner_of else {}),
            **addons_told(self.loras, self.embeddings()),
            "sampler": self.params.sampler,
            "schedule": self.schedule,
            "steps": self.steps,
            "working": [self.plan.working.width, self.plan.working.height],
            "sequential": self.sequential,
            "torch": torch.__version__,
        }


def dtype_name(dtype: torch.dtype) -> str:
    """float32, bfloat16, ..."""
    return str(dtype).removeprefix("torch.")
