"""One job at work: what its stages are composed of."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from impasto_protocol.geometry import Box, Size

from . import vae
from .adapters import Adapter
from .addons import UsedLora, UsedVae
from .brownian import step_noise
from .controlnet import ControlModel
from .coverage import coverage
from .denoise import Denoiser
from .edit import PictureChannels, shown_picture
from .embeddings import NO_VECTORS, Vectors
from .fitting import fitted
from .guided import guided_denoiser
from .guides import guides_told
from .hints import Hint, Hints, with_hole
from .inpaint import InpaintChannels, latent_mask
from .ip_adapter import IPAdapter
from .ip_towers import LoadedIP
from .jobs import ControlUnit, IPUnit, Job, Layer, Pixels, PreviewRequest, RegionUnit
from .latents import LatentCache
from .load import Components
from .modes import MODES, Common, DiffusionParams
from .noise import NoiseSource, noise_for_batch, noise_sources
from .params_control import COLOR_FIXES, KEEPS_AROUND, SHARP
from .params_hires import Hires, second_pass
from .params_inpaint import Inpaint
from .params_refine import Tiled
from .pictures import flattened, resize
from .planning import HiresPlan, Plan
from .preview import LatentColors, preview_jpeg
from .prompt_batch import PictureDenoisers
from .prompt_schedule import total_calls
from .prompt_words import Words
from .recipe import RanPass, addons_told, layer_name, recipe, vae_told
from .recolor import INTENSITY, LUMINANCE, recolored
from .reference import Reference
from .report import Report
from .sampler_names import SAMPLER_INFO
from .samplers import SAMPLERS, Denoise, bound, guidance_scale
from .schedule import resolve_schedule
from .seeds import picture_seeds
from .shaped import ColorFix, KeepAround, Shaped, Shaper, pasted
from .text import TextCache
from .tiled import Guided, TiledDenoiser, tile_boxes

__all__ = ["Loaded", "Work", "dtype_name"]


@dataclass(frozen=True)
class Loaded:
    """What a pass runs with: a checkpoint with the LoRAs that are on it, and the embeddings that its prompts may name.

    `embeddings` tells name -> hash of those that stood in them; `colors` are those of previews, where some are wanted.
    """

    components: Components
    loras: tuple[UsedLora, ...] = ()
    vectors: Vectors = NO_VECTORS
    embeddings: Callable[[], dict[str, str]] = dict
    colors: LatentColors | torch.nn.Module | None = None
    vae_file: UsedVae | None = None
    vae_identity: Hashable = None


@dataclass
class Work:
    """One pass of a job at work: what the stages are composed of. `words` are the prompts of each picture; see `Loaded`
    for what it runs with.

    `first` is what the pass before was, where this is the hires pass; `load_hires` loads for one, and `enlarge` is the
    upscaler model between the two. `window` is the part in pixels of a picture of the size `whole` that this is about,
    where it is a tile (`part`).
    """

    job: Job
    components: Components
    plan: Plan
    report: Report
    seeds: tuple[int, ...]
    words: tuple[Words, ...]
    texts: TextCache
    colors: LatentColors | torch.nn.Module | None
    sequential: bool
    loras: tuple[UsedLora, ...] = ()
    vectors: Vectors = NO_VECTORS
    embeddings: Callable[[], dict[str, str]] = dict
    vae_file: UsedVae | None = None
    vae_identity: Hashable = None
    latents: LatentCache = field(default_factory=LatentCache)
    load_hires: Callable[[], Loaded] | None = None
    enlarge: Callable[[Pixels, Size], Pixels] | None = None
    hints: Hints = field(default_factory=Hints)
    controls: Callable[[Job, Components], tuple[tuple[ControlUnit, ControlModel], ...]] = lambda _, __: ()
    ip_adapters: Callable[[Job, Components], tuple[LoadedIP, ...]] = lambda _, __: ()
    kinds: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the networks of the units were, by the units' paths."""
    first: RanPass | None = None
    window: Box | None = None
    whole: Size | None = None
    tiling: str = ""
    steps: int = 0
    highest: float = 0.0  # level of the schedule, also where the run begins further down
    vae_dtype: str = ""
    params: DiffusionParams = field(init=False)
    """Those of this pass; its prompts are in `words`."""
    sources: tuple[NoiseSource, ...] = field(init=False)

    def __post_init__(self) -> None:
        assert isinstance(self.job.params, Common), "an upscale is no work for a checkpoint"
        self.params = self.job.params
        if self.first is not None and isinstance(self.params, Hires):
            own = second_pass(self.params)
            self.params = replace(self.params, **{name: own[name] for name in _OF_A_PASS if name in own})
        # From the beginning of each stream, also in the hires pass.
        self.sources = noise_sources(self.params, self.seeds, vae.factor_of(self.components.vae))

    def following(self, planned: HiresPlan) -> Work:
        """The hires pass. This one's checkpoint is let go before another is loaded: do no more with it."""
        assert self.load_hires is not None
        first, self.components = self.told(), cast(Any, None)
        with self.report.stage("load"), torch.inference_mode(False):
            loaded = self.load_hires()
        return replace(
            self,
            components=loaded.components,
            plan=replace(self.plan, working=planned.working),
            colors=loaded.colors,
            loras=loaded.loras,
            vectors=loaded.vectors,
            embeddings=loaded.embeddings,
            vae_file=loaded.vae_file,
            vae_identity=loaded.vae_identity,
            first=first,
            steps=0,
        )

    def part(self, window: Box) -> Work:
        """The same pass over a part of the working size alone, in pixels that are multiples of a latent's."""
        plan = replace(self.plan, working=window.size)
        return replace(self, plan=plan, window=window, whole=self.plan.working)

    def tiled_denoiser(
        self,
        strength: float,
        tiles: Tiled,
        adapters_of: Callable[[Work, Box], tuple[Adapter, ...]] = lambda work, _: work.whole_channels(),
    ) -> TiledDenoiser:
        """The guided network over latent tiles of the working size; `adapters_of` gives those of a part, whose latent
        box it is told. See `denoiser`."""
        factor = self.components.latent_factor
        side, overlap = tiles.tile_side(self.native_size), tiles.tile_overlap(self.native_size)
        height, width = self.latent_size
        parts = []
        for box in tile_boxes(Size(width, height), side // factor, overlap // factor):
            part = self.part(Box(*(value * factor for value in box)))
            parts.append((box, part.denoiser(strength, adapters_of(part, box))))
            self.steps, self.highest = part.steps, part.highest
        keeps = SAMPLER_INFO[self.params.sampler].unguided
        return TiledDenoiser(tuple(parts), tiles.tile_weights, self.report.check, keeps)

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
        found = self.latents.get(self.vae_identity, picture, self._encode)
        return found.to(self.components.device)

    def _encode(self, picture: Pixels) -> torch.Tensor:
        values = vae.from_images(torch.tensor(picture)[None])
        return vae.encode(
            self.components.vae,
            values.to(self.components.device),
            self.components.info.vae_scaling_factor,
            check=self.report.check,
        )

    def denoiser(self, strength: float, adapters: tuple[Adapter, ...] = ()) -> Denoiser | PictureDenoisers | Shaped:
        """The guided network for the steps that `strength` leaves; conditioning is encoded here."""
        units = self._units()
        adapters = (*adapters, *self._control(units), *self._ip_adapters(), *self._references())
        shapers = tuple(shaper for unit, _ in units for shaper in self._shapers(unit))
        denoiser = self._unshaped(strength, adapters)
        return Shaped(denoiser, shapers) if shapers else denoiser

    def _unshaped(self, strength: float, adapters: tuple[Adapter, ...]) -> Denoiser | PictureDenoisers:
        said = self.words if self.first is None else tuple(words.hires or words for words in self.words)
        if all(words == said[0] for words in said):
            return self._denoiser(said[0], strength, adapters)
        return PictureDenoisers(tuple(self._denoiser(words, strength, adapters) for words in said))

    def _units(self) -> tuple[tuple[ControlUnit, ControlModel], ...]:
        """The units of the job with their networks and pictures; where something is selected, an inpainting one knows
        it."""
        params, mask = self.params, self.job.mask
        if mask is not None and isinstance(params, Inpaint) and params.invert:
            mask = 255 - mask
        return tuple((with_hole(unit, mask), model) for unit, model in self.controls(self.job, self.components))

    def _control(self, units: tuple[tuple[ControlUnit, ControlModel], ...]) -> tuple[Adapter, ...]:
        """Those units, with their hints at the size of this pass."""
        self.kinds.update({unit.path: model.told_of(unit) for unit, model in units})
        return tuple(model.adapter(unit, self._hint(unit).tensor, self._coverage(unit)) for unit, model in units)

    def _hint(self, unit: ControlUnit) -> Hint:
        """The hint of a unit at the size of this pass, of which a tile gets its part."""
        if self._is_of_part(unit):
            return self.hints.of(unit, self.plan.working)
        hint = self.hints.of(unit, self.whole or self.plan.working)
        if self.window is None:
            return hint
        rows, columns = slice(self.window.y, self.window.bottom), slice(self.window.x, self.window.right)
        hole = None if hint.hole is None else hint.hole[rows, columns]
        return replace(hint, pixels=np.ascontiguousarray(hint.pixels[rows, columns]), hole=hole)

    def _is_of_part(self, unit: ControlUnit) -> bool:
        """Whether a unit looks at the job's picture, and that is a tile's own."""
        size = self.plan.working
        own = unit.image is not None and unit.image is self.job.image
        return own and unit.image is not None and unit.image.shape[:2] == (size.height, size.width)

    def _coverage(self, unit: ControlUnit | IPUnit | RegionUnit) -> torch.Tensor | None:
        """Where a unit counts in this pass, [1, 1, h, w] at latent size; None for everywhere."""
        if unit.mask is None:
            return None
        whole = self.whole or self.plan.working
        found = coverage(unit.mask, whole, self.window, self.latent_size, unit.name, f"{unit.path}.mask")
        return found.to(self.components.device)

    def _ip_adapters(self) -> tuple[Adapter, ...]:
        found = self.ip_adapters(self.job, self.components)
        self.kinds.update({one.unit.path: {"kind": one.model.sizes.kind} for one in found})
        return tuple(IPAdapter(one.model, one.unit, one.tokens, one.away, self._coverage(one.unit)) for one in found)

    def _shapers(self, unit: ControlUnit) -> tuple[Shaper, ...]:
        """What a unit does to the prediction."""
        if unit.preprocessor in COLOR_FIXES:
            radius = round(unit.low(8.0)) * (1 if self.first is None else 2)  # A1111's rule for the hires pass
            sharpness = unit.high(1.0) if unit.preprocessor == SHARP else 0.0
            latent = self.encode(self._hint(unit).pixels)
            return (ColorFix(latent, radius, sharpness, guidance_scale(self.params), unit.start, unit.end),)
        if unit.preprocessor == KEEPS_AROUND and not isinstance(self.params, Inpaint):
            assert unit.image is not None
            hole = self._hint(unit).hole
            assert hole is not None
            mask = latent_mask(hole.astype(np.float32), *self.latent_size).to(self.components.device)
            part = self._is_of_part(unit)
            size = self.plan.working if part else self.whole or self.plan.working
            around = fitted(flattened(unit.image), size, unit.resize)
            if (box := self.window) is not None and not part:
                around = np.ascontiguousarray(around[box.y : box.bottom, box.x : box.right])
            latent = self.encode(around)
            return (KeepAround(latent, mask, unit.start, unit.end),)
        return ()

    def finished(self, picture: Pixels) -> Pixels:
        """RGB of the box's size, with what units keep of their own pictures: the light, or what is around a hole."""
        for unit, _ in self._units() if self.job.control else ():
            size = Size(picture.shape[1], picture.shape[0])
            if unit.preprocessor in (LUMINANCE, INTENSITY):
                picture = recolored(picture, self.hints.of(unit, size).pixels[..., 0], unit.preprocessor)
            elif unit.preprocessor == KEEPS_AROUND and not isinstance(self.params, Inpaint):
                assert unit.image is not None
                hole = self.hints.of(unit, size).hole
                assert hole is not None
                picture = pasted(picture, fitted(flattened(unit.image), size, unit.resize), hole)
        return picture

    def _references(self) -> tuple[Adapter, ...]:
        """The reference pictures of the job, encoded at the size of this pass."""
        made = []
        for index, unit in enumerate(self.job.references):
            own = unit.image if unit.image is not None else self.job.image
            assert own is not None, "the service asks for a picture"
            picture = fitted(flattened(own), self.plan.working, unit.resize)
            # The same in every call of a step, and of no picture's own stream.
            source = NoiseSource(self.params.noise, (self.seeds[0] + _REFERENCE_SEED + index) % 2**32)
            latent = self.encode(picture)
            shown = latent / self.components.info.vae_scaling_factor if self.edits else None
            noise = source.draw(*latent.shape[1:]).to(latent)
            made.append(Reference(unit, latent, noise, inpaints=self.has_inpaint_channels, shown=shown))
        return tuple(made)

    def _denoiser(self, words: Words, strength: float, adapters: tuple[Adapter, ...]) -> Denoiser:
        made, self.highest = guided_denoiser(self, words, strength, adapters, self._coverage)
        self.steps = len(made.sigmas) - 1
        return made

    def whole_channels(self) -> tuple[InpaintChannels | PictureChannels, ...]:
        """What a checkpoint with further inputs sees where everything is repainted; nothing for the others."""
        if self.edits:
            latent = self.encode(shown_picture(self)) / self.components.info.vae_scaling_factor
            return (PictureChannels(latent),)
        if not self.has_inpaint_channels:
            return ()
        grey = np.full((self.plan.working.height, self.plan.working.width, 3), 127, np.uint8)
        return (InpaintChannels(torch.ones(1, 1, *self.latent_size), self.encode(grey).cpu()),)

    @property
    def has_inpaint_channels(self) -> bool:
        config = self.components.unet.config
        return bool(config.in_channels == 2 * config.out_channels + 1)

    @property
    def edits(self) -> bool:
        """Whether the checkpoint changes a picture by an instruction (`edit`)."""
        config = self.components.unet.config
        return bool(config.in_channels == 2 * config.out_channels)

    def sample(
        self,
        denoiser: Guided | TiledDenoiser,
        denoise: Denoise,
        x: torch.Tensor,
        turn: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """The denoise loop over `denoise`, which is the denoiser or wraps it; x [pictures, channels, h, w].

        `turn` (n, of) says that it is the n-th run of so many within one stage, which the caller has begun.
        """
        sampler = bound(self.params, denoiser.unguided)
        steps, wish = self.steps, self.job.preview
        done, all_steps = (0, steps) if turn is None else (turn[0] * steps, turn[1] * steps)
        noise = step_noise(self.params, self.sources, x, denoiser.sigmas, self.highest)
        stage = "denoise" if self.first is None else "hires"
        last_preview = -float("inf")

        def on_step(index: int, denoised: torch.Tensor) -> None:
            nonlocal last_preview
            self.report.progress(stage, min(done + index + 1, all_steps), all_steps)
            now = time.monotonic()
            if wish is not None and self.colors is not None and now - last_preview >= wish.interval:
                last_preview = now
                self._preview(denoised, self.colors, wish, index + 1)

        def checked(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            self.report.check()  # also half-way through the steps that look twice
            return denoise(x, sigma)

        with self.report.stage(stage, steps) if turn is None else nullcontext(), denoiser.attached():
            return sampler(checked, x, denoiser.sigmas, noise, on_step)

    def _preview(
        self, denoised: torch.Tensor, colors: LatentColors | torch.nn.Module, wish: PreviewRequest, step: int
    ) -> None:
        factor = vae.factor_of(self.components.vae)
        self.report.emit(preview_jpeg(denoised, colors, factor, wish.max_size, step))

    def decode(self, latents: torch.Tensor) -> Pixels:
        """RGB [height, width, 3] of the box's size, from one picture's latents."""
        return self.finished(resize(self.pixels(latents), self.plan.box.size))

    def pixels(self, latents: torch.Tensor) -> Pixels:
        """RGB [height, width, 3] as the checkpoint gives it, from one picture's latents."""
        if self.components.decoder is not None:
            decoded = vae.decode_tiny(self.components.decoder, latents)
        else:
            scale = self.components.info.vae_scaling_factor
            decoded = vae.decode(self.components.vae, latents, scale, self.report.check)
        self.vae_dtype = dtype_name(decoded.dtype)
        picture: Pixels = vae.to_images(decoded.images)[0].cpu().numpy()
        return picture

    def layer(self, index: int, picture: int, stage: str, pixels: Pixels, box: Box, alpha: str) -> Layer:
        """The finished layer `index` with its recipe, which makes this one picture of the batch again."""
        asked, seed = self.job.params, self.seeds[picture]
        assert isinstance(asked, Common)
        params = self.words[picture].params(picture_seeds(asked, picture))
        name = layer_name(MODES[self.job.mode][1], params, seed)
        if self.first is None and isinstance(params, Hires) and params.hires:
            params, name = replace(params, hires=False), f"{name}, first pass"
        passes = (self.told(),) if self.first is None else (self.first, self.told())
        info = recipe(self.job.mode, params, *passes, asked=asked, seed=seed, partner_of=self.job.partner_of)
        return Layer(index, stage, name, pixels, box, alpha, seed, info)

    def told(self) -> RanPass:
        """What this pass really was."""
        params = self.params
        return RanPass(
            title=self.components.info.title,
            checkpoint=self.job.checkpoint if self.first is None else self.job.hires_checkpoint or self.job.checkpoint,
            working=self.plan.working,
            steps=self.steps,
            sampler=params.sampler,
            sampler_title=SAMPLERS[params.sampler][1],
            schedule=self.schedule,
            calls=total_calls(params.sampler, params.steps),
            loras=self.loras,
            embeddings=self.embeddings(),
            vae=self.vae_file,
        )

    def ran(self, device_name: str) -> dict[str, Any]:
        """What really ran, as plain values."""
        last = self.told()
        first = self.first or last
        return {
            "device": str(self.components.device),
            "device_name": device_name,
            "dtype": dtype_name(self.components.dtype),
            "vae_dtype": self.vae_dtype,
            "model": first.model["title"],
            **({"partner_of": self.job.partner_of} if self.job.partner_of else {}),
            **addons_told(first.loras, first.embeddings),
            **vae_told(last.vae),
            **first.told,
            **({"hires": {**last.told, "model": last.model["title"]}} if first is not last else {}),
            **({"tiling": self.tiling} if self.tiling else {}),
            **guides_told(self.job, self.kinds, self.steps),
            "sequential": self.sequential,
            "torch": torch.__version__,
        }


_REFERENCE_SEED = 0x5EF
"""What is added to the seed for the noise of a reference."""

_OF_A_PASS = ("steps", "sampler", "schedule")


def dtype_name(dtype: torch.dtype) -> str:
    """float32, bfloat16, ..."""
    return str(dtype).removeprefix("torch.")
