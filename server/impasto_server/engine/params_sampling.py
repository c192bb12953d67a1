"""The parameters of sampling: how the noise becomes a picture. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from impasto_protocol.schema import AUTO

from .fields import Number, param
from .sampler_names import SAMPLERS, SCHEDULES

__all__ = ["NOISE_SOURCES", "SDE_NOISES", "Sampled", "Started"]

NOISE_SOURCES = ("philox", "torch-cpu")
SDE_NOISES = ("stream", "tree")

_NOISE = {"group": "noise", "advanced": True}
_SOLVER = {"group": "solver", "advanced": True}


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """How the noise becomes a picture."""

    seed: int = param(
        -1,
        "Seed",
        "The noise that the picture starts from; -1 draws a new one.",
        minimum=-1,
        maximum=2**32 - 1,
        ui={"widget": "seed", "group": "sampling"},
    )
    steps: int = param(
        20, "Steps", "Denoising steps.", minimum=1, maximum=150, ui={"widget": "slider", "group": "sampling"}
    )
    cfg: float = param(
        7.0,
        "Guidance scale",
        "How closely the prompt is followed; 1 ignores the negative prompt and is twice as fast.",
        minimum=1.0,
        maximum=30.0,
        step=0.5,
        ui={"widget": "slider", "group": "sampling"},
    )
    sampler: str = param(
        "dpmpp_2m", "Sampler", enum=SAMPLERS, ui={"widget": "choice", "group": "sampling", "advanced": True}
    )
    schedule: str = param(
        "automatic",
        "Schedule",
        "How the noise levels are spread; automatic takes the sampler's own.",
        enum=SCHEDULES,
        ui={"widget": "choice", "group": "sampling", "advanced": True},
    )
    clip_skip: int = param(
        1,
        "Clip skip",
        "Which layer of the text encoder is read, counted from the end; 2 suits checkpoints of drawn pictures.",
        minimum=1,
        maximum=12,
        ui={"group": "sampling", "advanced": True},
    )
    noise: str = param(
        "philox",
        "Noise source",
        "philox is what AUTOMATIC1111 draws on a GPU, torch-cpu what diffusers and ComfyUI draw.",
        enum=NOISE_SOURCES,
        ui={"widget": "choice", "group": "sampling", "advanced": True},
    )
    batch: int = param(
        1,
        "Pictures",
        "How many pictures to make at once, a layer each; their seeds follow one another.",
        minimum=1,
        maximum=8,
        ui={"group": "sampling", "advanced": True},
    )
    variation_seed: int = param(
        -1,
        "Variation seed",
        "A second noise; -1 draws a new one.",
        minimum=-1,
        maximum=2**32 - 1,
        ui={"widget": "seed", **_NOISE},
    )
    variation_strength: float = param(
        0.0,
        "Variation strength",
        "How far the noise goes from that of the seed to that of the variation seed. Above 0 the pictures of a batch "
        "share the seed, and their variation seeds follow one another.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
        ui={"widget": "slider", **_NOISE},
    )
    seed_resize_width: int = param(
        0,
        "Seed from width",
        "Draws the noise as for a picture of this width, in the middle, so that a seed gives much the same picture at "
        "another size; 0 does not.",
        minimum=0,
        maximum=2048,
        step=8,
        ui={"unit": "px", **_NOISE},
    )
    seed_resize_height: int = param(
        0,
        "Seed from height",
        "The height that belongs to it.",
        minimum=0,
        maximum=2048,
        step=8,
        ui={"unit": "px", **_NOISE},
    )
    ensd: int = param(
        0,
        "Eta noise seed delta",
        "Added to the seed for the noise that is drawn during the steps; many old pictures were made with 31337.",
        minimum=-(2**31),
        maximum=2**31,
        ui=_NOISE,
    )
    eta: Number = param(
        AUTO,
        "Eta",
        "How much of the noise is fresh in each step, for the samplers that draw some; auto takes the sampler's own, 0 "
        "for DDIM and 1 for the others.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
        auto=True,
        ui=_SOLVER,
    )
    s_churn: float = param(
        0.0,
        "Churn",
        "Fresh noise before each step of Euler, Heun and DPM2, shared out over the steps.",
        minimum=0.0,
        maximum=100.0,
        step=0.01,
        ui=_SOLVER,
    )
    s_tmin: float = param(
        0.0, "Churn from", "The lowest noise level that is churned.", minimum=0.0, maximum=10.0, step=0.01, ui=_SOLVER
    )
    s_tmax: float = param(
        0.0,
        "Churn up to",
        "The highest noise level that is churned; 0 has no limit.",
        minimum=0.0,
        maximum=999.0,
        step=0.01,
        ui=_SOLVER,
    )
    s_noise: float = param(
        1.0,
        "Strength of fresh noise",
        "Above 1 adds detail, below 1 smoothes.",
        minimum=0.0,
        maximum=1.1,
        step=0.001,
        ui=_SOLVER,
    )
    sde_noise: str = param(
        "stream",
        "Noise of the SDE samplers",
        "stream draws it anew step by step; tree is AUTOMATIC1111's Brownian tree, which gives its old pictures again "
        "and keeps the same course with any number of steps, but takes longer.",
        enum=SDE_NOISES,
        ui={"widget": "choice", **_SOLVER},
    )
    ngms: float = param(
        0.0,
        "Negative guidance minimum sigma",
        "Below this noise level every other step goes without the negative prompt, which is faster; 0 never does.",
        minimum=0.0,
        maximum=15.0,
        step=0.01,
        ui=_SOLVER,
    )
    ngms_all: bool = param(False, "For every step", "Not every other one, but all below that level.", ui=_SOLVER)
    cfg_rescale: float = param(
        0.0,
        "Guidance rescale",
        "Takes back the contrast that a high guidance scale adds; 0.7 suits checkpoints of v prediction.",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        ui=_SOLVER,
    )
    zero_terminal_snr: bool = param(
        False,
        "Zero terminal SNR",
        "Starts from noise alone, for checkpoints that were trained so: dark and bright pictures become possible.",
        ui=_SOLVER,
    )
    exact_steps: bool = param(
        False,
        "Exact steps",
        "With a strength below 1 do all the steps; otherwise that part of them which the strength says.",
        ui=_SOLVER,
    )


@dataclass(frozen=True, kw_only=True)
class Started:
    """How a job starts from its picture, and keeps to it."""

    image_cfg: float = param(
        1.5,
        "Image guidance",
        "How far the result keeps to the picture; only for checkpoints that change pictures by instructions "
        "(instruct-pix2pix).",
        minimum=0.0,
        maximum=3.0,
        step=0.05,
        ui={"widget": "slider", **_NOISE},
    )

    noise_multiplier: float = param(
        1.0,
        "Noise multiplier",
        "The strength of the noise that is added first; below 1 keeps more and smoothes.",
        minimum=0.0,
        maximum=1.5,
        step=0.01,
        ui=_NOISE,
    )
    extra_noise: float = param(
        0.0,
        "Extra noise",
        "More noise than the first step expects, which becomes detail.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
        ui=_NOISE,
    )
