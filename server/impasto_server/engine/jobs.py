"""Plain data between the service and the engine: a job goes in, events come out. No torch here.

Everything is picklable, so that a worker in another process (or on another machine) can take the place of this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from impasto_protocol.geometry import Box, Size
from numpy.typing import NDArray

from .modelpath import model_name
from .modes import ModeParams
from .prompt_words import WordFiles
from .variants import Variant

__all__ = [
    "Cancelled",
    "Cell",
    "Chain",
    "ControlUnit",
    "Emit",
    "Event",
    "IPUnit",
    "Job",
    "Layer",
    "Link",
    "Pixels",
    "Preview",
    "PreviewRequest",
    "Progress",
    "ReferenceUnit",
    "RegionUnit",
    "Result",
    "VaeFiles",
]

Pixels = NDArray[np.uint8]
"""Pictures are [height, width, 4] RGBA with straight alpha in sRGB; masks are [height, width], 255 = selected."""


class Cancelled(Exception):
    """Raised inside the engine when `cancelled()` turned true; at most one step later."""


@dataclass(frozen=True)
class PreviewRequest:
    """Previews a client wants: longest side in pixels, and the shortest time between two in seconds."""

    max_size: int = 256
    interval: float = 0.0


@dataclass(frozen=True)
class ControlUnit:
    """One control of a job. `name` and `path` say which it is, to people and to programs; `model` is the file.

    `image` is RGBA of any size; None takes the picture that is painted over. `start` and `end` are parts of the steps,
    0..1. The thresholds are those of the preprocessor, None for its own; `annotators` are the files of its networks
    where they are the user's. `pose` holds joints as OpenPose's JSON, which are drawn in place of those of a picture.
    `mask` RGBA says where it counts (`coverage`), None everywhere; with `low_memory` its network waits in the
    computer's memory and is on the device for each call only. `control_type` tells a union ControlNet what the hint
    shows, "auto" what the preprocessor makes.
    """

    name: str
    path: str
    model: str
    image: Pixels | None = None
    preprocessor: str = "none"
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: str = "balanced"
    resize: str = "crop"
    threshold_low: float | None = None
    threshold_high: float | None = None
    pose: str = ""
    annotators: tuple[str, ...] = ()
    mask: Pixels | None = None
    low_memory: bool = False
    control_type: str = "auto"

    @property
    def told(self) -> dict[str, Any]:
        """What ran, as plain values."""
        names = ("preprocessor", "weight", "start", "end", "mode", "resize", "low_memory")
        own = {name: getattr(self, name) for name in names}
        return {"model": model_name(self.model), **own, "masked": self.mask is not None, **self.annotators_told}

    @property
    def annotators_told(self) -> dict[str, Any]:
        """Which files of the user's made the hint, where some did."""
        return {"annotators": [model_name(file) for file in self.annotators]} if self.annotators else {}

    def low(self, own: float) -> float:
        return own if self.threshold_low is None else self.threshold_low

    def high(self, own: float) -> float:
        return own if self.threshold_high is None else self.threshold_high


@dataclass(frozen=True)
class VaeFiles:
    """`vae` is the path of the VAE that is used in place of the checkpoint's own, "" for that one, and `hires_vae` that
    of the hires checkpoint; `parts` are the paths of what is loaded with the model as one, by "text" and "vae": of a
    UNet by itself both. `preview` is TAESD's decoder for the previews; "" takes the colours of the latents.
    """

    vae: str = ""
    hires_vae: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    preview: str = ""


@dataclass(frozen=True)
class Cell:
    """One picture of a job that varies: where it stands, and what of the job is its own."""

    variant: Variant
    params: ModeParams
    checkpoint: str
    partner_of: str = ""
    words: WordFiles = field(default_factory=WordFiles)
    loras: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)
    hires_checkpoint: str = ""
    hires_upscaler: str = ""
    vaes: VaeFiles = field(default_factory=VaeFiles)


@dataclass(frozen=True)
class ReferenceUnit:
    """One reference picture of a job; fields as in `ControlUnit`. `kind` is "attention", "adain" or "both", `fidelity`
    how far the negative side is kept from the reference, 0..1."""

    name: str
    path: str
    image: Pixels | None = None
    kind: str = "attention"
    weight: float = 1.0
    fidelity: float = 0.5
    start: float = 0.0
    end: float = 1.0
    resize: str = "crop"

    @property
    def told(self) -> dict[str, Any]:
        """What ran, as plain values."""
        return {name: getattr(self, name) for name in ("kind", "weight", "fidelity", "start", "end", "resize")}


@dataclass(frozen=True)
class IPUnit:
    """One IP-Adapter of a job; fields as in `ControlUnit`. `images` are its pictures, RGBA (none: the one that is
    painted over), put together by `combine`, "average" or "concat"; `tower` is the file of the vision tower and
    `identity` that of the network that tells faces apart, "" where none is needed; `layers` a
    preset of `ip_layers`. `mask` RGBA says where it counts (`coverage`), None everywhere."""

    name: str
    path: str
    model: str
    tower: str
    images: tuple[Pixels, ...] = ()
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    layers: str = "all"
    combine: str = "average"
    resize: str = "crop"
    mask: Pixels | None = None
    identity: str = ""

    @property
    def told(self) -> dict[str, Any]:
        """What ran, as plain values."""
        own = {name: getattr(self, name) for name in ("weight", "start", "end", "layers", "combine", "resize")}
        said = {"pictures": max(len(self.images), 1), "masked": self.mask is not None}
        files = {name: model_name(file) for name in ("tower", "identity") if (file := getattr(self, name))}
        return {"model": model_name(self.model), **files, **own, **said}


@dataclass(frozen=True)
class RegionUnit:
    """A prompt of its own for a part of the picture, beside the job's. `mask` RGBA says where it counts (`coverage`),
    `weight` (0..1) how much against the job's prompt there; a mode's negative prompt is joined by `negative`."""

    name: str
    path: str
    prompt: str
    negative: str = ""
    weight: float = 1.0
    mask: Pixels | None = None

    @property
    def told(self) -> dict[str, Any]:
        """What ran, as plain values."""
        return {name: getattr(self, name) for name in ("prompt", "negative", "weight")}


@dataclass(frozen=True)
class Link:
    """A job of a chain that gets its picture, canvas and box from the one before: of its layers that with the index
    `pick`."""

    job: Job
    pick: int = 0


@dataclass(frozen=True)
class Chain:
    """What follows a job, and how far the chain is: `index` layers were made before, and `origin` is where the corner
    of the job's canvas lies in the document."""

    then: tuple[Link, ...] = ()
    index: int = 0
    origin: tuple[int, int] = (0, 0)

    @property
    def is_one(self) -> bool:
        """Whether there is anything of a chain."""
        return bool(self.then) or self.index > 0


@dataclass(frozen=True)
class Job:
    """One request, complete: nothing else is consulted while it runs.

    `image` covers `box` of the document (box.size equals its extent); `mask` covers the same box. `checkpoint` is the
    path of the file or folder that the catalogue resolved `params.model` to (of an upscale: `params.upscaler`, of a
    face swap: `params.profile`); "" for a mode without one. `partner_of` is the name that was asked for where that is
    its inpainting partner. A txt2img job has neither image nor mask; its box says where the picture belongs. `backdrop`
    lies under a sketch and covers the same box. `words` are the styles and the lines of wildcards that the prompts
    name, `loras` the files of the LoRAs that parameters and prompts may ask for, by the name that they use, and
    `embeddings` those of the words that may stand in the prompts. `hires_checkpoint` and `hires_upscaler` are the paths
    of what `params.hires_model` and `params.hires_upscaler` name; "" where that is the same checkpoint, and no file.
    `second_upscaler` is that of `params.second_upscaler`, "" where none is blended in. `control` are the units of
    `params.control` that have a weight, in their order, `references`, `ip_adapters` and `regions` those of the lists of
    the same names; `vaes` says where VAE and text encoder come from, and `annotators` are the files of the networks
    that `params.preprocessor` of an annotate job runs. A job with `cells` makes one picture (or batch) for each; the
    fields that a cell has are then those of the first. `chain` is what follows (`chain.py`).
    """

    id: str
    mode: str
    params: ModeParams
    canvas: Size
    box: Box
    checkpoint: str
    image: Pixels | None = None
    mask: Pixels | None = None
    backdrop: Pixels | None = None
    preview: PreviewRequest | None = None
    partner_of: str = ""
    words: WordFiles = field(default_factory=WordFiles)
    loras: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)
    hires_checkpoint: str = ""
    hires_upscaler: str = ""
    second_upscaler: str = ""
    control: tuple[ControlUnit, ...] = ()
    cells: tuple[Cell, ...] = ()
    vaes: VaeFiles = field(default_factory=VaeFiles)
    references: tuple[ReferenceUnit, ...] = ()
    ip_adapters: tuple[IPUnit, ...] = ()
    regions: tuple[RegionUnit, ...] = ()
    annotators: tuple[str, ...] = ()
    chain: Chain = field(default_factory=Chain)


@dataclass(frozen=True)
class Progress:
    """`fraction` (0..1) of the whole job never goes back; `step` of `steps` is within the stage."""

    stage: str
    step: int
    steps: int
    fraction: float


@dataclass(frozen=True)
class Preview:
    """A small JPEG of the denoised prediction after `step`."""

    jpeg: bytes
    width: int
    height: int
    step: int


@dataclass(frozen=True)
class Layer:
    """A finished picture for the document: RGBA pixels that belong at `box`; box.size is their extent.

    Of the stage "upscale" the box is that of a new document, Box(0, 0, width, height).

    `alpha` is "soft" where the alpha shapes the layer, else "opaque". `info` is the recipe: what really ran, ready to
    be run again (mode, params with the seed that was drawn, model, size, sampler and schedule by name).
    """

    index: int
    stage: str
    name: str
    pixels: Pixels
    box: Box
    alpha: str
    seed: int
    info: Mapping[str, Any]


Event = Progress | Preview | Layer
Emit = Callable[[Event], None]


@dataclass(frozen=True)
class Result:
    """The end of a job that succeeded: seconds by stage, the seeds used, and what really ran (device, dtype, ...)."""

    seeds: tuple[int, ...]
    timings: Mapping[str, float]
    ran: Mapping[str, Any] = field(default_factory=dict)
