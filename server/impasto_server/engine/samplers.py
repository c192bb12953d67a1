"""Samplers as plain functions, see `sampling.Sampler`: Euler, Heun, DPM++ 2M, DDIM, and the table of all.

Nothing here knows networks, guidance or masks; `bound` alone knows what the parameters of a job are called.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from impasto_protocol.schema import AUTO

from .noise import Noise
from .params_sampling import Sampled
from .sampler_names import SAMPLER_INFO
from .samplers_dpm import sample_dpm2, sample_dpm2_ancestral, sample_dpm_adaptive, sample_dpm_fast
from .samplers_multistep import sample_lms, sample_plms
from .samplers_restart import sample_restart
from .samplers_sde import (
    sample_dpmpp_2m_sde,
    sample_dpmpp_2s_ancestral,
    sample_dpmpp_3m_sde,
    sample_dpmpp_sde,
    sample_lcm,
)
from .samplers_unipc import sample_unipc
from .sampling import NO_CHURN, Churn, Denoise, OnStep, Sampler, ancestral

__all__ = [
    "SAMPLERS",
    "Denoise",
    "OnStep",
    "Sampler",
    "bound",
    "guidance_scale",
    "sample_ddim",
    "sample_ddim_cfgpp",
    "sample_dpmpp_2m",
    "sample_euler",
    "sample_euler_ancestral",
    "sample_heun",
]


def sample_euler(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    on_step: OnStep,
    churn: Churn = NO_CHURN,
) -> torch.Tensor:
    """Euler steps along dx/dsigma = (x - x0) / sigma: Karras et al., 2022, algorithm 2 without correction."""
    for index, (start, after) in enumerate(pairwise(sigmas)):
        x, now = churn(x, start, len(sigmas) - 1, noise)
        denoised = denoise(x, now)
        on_step(index, denoised)
        x = x + (x - denoised) / now * (after - now)
    return x


def sample_euler_ancestral(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    on_step: OnStep,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> torch.Tensor:
    """Euler steps to a lower level and back up with fresh noise.

    The split into a deterministic and a random part is that of ancestral sampling: Song et al., "Denoising diffusion
    implicit models", 2021, equation 16; eta 1 is full, 0 is plain Euler.
    """
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        down, up = ancestral(now, after, eta)
        x = x + (x - denoised) / now * (down - now)
        if after > 0:
            x = x + noise(x) * (s_noise * up)
    return x


def sample_heun(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    on_step: OnStep,
    churn: Churn = NO_CHURN,
) -> torch.Tensor:
    """Heun's second-order steps: Karras et al., 2022, algorithm 2.

    The slope is the mean of those at both ends of the step, so it calls `denoise` twice; the step to 0 is Euler's.
    """
    for index, (start, after) in enumerate(pairwise(sigmas)):
        x, now = churn(x, start, len(sigmas) - 1, noise)
        denoised = denoise(x, now)
        on_step(index, denoised)
        slope = (x - denoised) / now
        predicted: torch.Tensor = x + slope * (after - now)
        if after == 0:
            return predicted
        second = (predicted - denoise(predicted, after)) / after
        x = x + (slope + second) / 2 * (after - now)
    return x


def sample_ddim(
    denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep, eta: float = 0.0
) -> torch.Tensor:
    """DDIM: Song et al., "Denoising diffusion implicit models", 2021, equation 12, in sigma space.

    The predicted noise takes the prediction to the next level. Over the same levels that is Euler (eta 0) or Euler a
    (eta 1) but for rounding; it is kept because pictures name it.
    """
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        down, up = ancestral(now, after, eta)
        x = denoised + (x - denoised) / now * down
        if eta > 0 and after > 0:
            x = x + noise(x) * up
    return x


def sample_ddim_cfgpp(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    on_step: OnStep,
    eta: float = 0.0,
    unguided: Callable[[], torch.Tensor] | None = None,
) -> torch.Tensor:
    """DDIM CFG++: Chung et al., "CFG++: manifold-constrained classifier free guidance", 2024, algorithm 2.

    The guided prediction is noised again by the noise that the negative side predicted; `unguided()` gives that side's
    x0 of the last look. Without it this is DDIM.
    """
    for index, (now, after) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, now)
        on_step(index, denoised)
        down, up = ancestral(now, after, eta)
        x = denoised + (x - (unguided() if unguided else denoised)) / now * down
        if eta > 0 and after > 0:
            x = x + noise(x) * up
    return x


def sample_dpmpp_2m(
    denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, noise: Noise, on_step: OnStep
) -> torch.Tensor:
    """DPM-Solver++(2M), second-order multistep: Lu et al., "DPM-Solver++", 2022, algorithm 2, in sigma space.

    With lambda = -log sigma a step of h is exact for a constant x0; the last two predictions extrapolate it. The first
    and the last step are of first order.
    """
    previous: torch.Tensor | None = None
    previous_h = 0.0
    # The factors of a step are numbers: tensors of one value each would cost more than the step.
    levels: list[float] = sigmas.tolist()
    for index, (now, after) in enumerate(pairwise(levels)):
        denoised = denoise(x, sigmas[index])
        on_step(index, denoised)
        if after == 0:
            return denoised
        h = math.log(now / after)
        target = denoised
        if previous is not None:
            target = torch.add(denoised, denoised - previous, alpha=h / (2 * previous_h))
        x = torch.sub(x * (after / now), target, alpha=math.expm1(-h))
        previous, previous_h = denoised, h
    return x


def bound(params: Sampled, unguided: Callable[[], torch.Tensor]) -> Sampler:
    """The sampler of a job with what its parameters say: eta, churn and the strength of fresh noise.

    `unguided` gives the negative side's x0 of the last look, for those that want it.
    """
    info, options = SAMPLER_INFO[params.sampler], dict[str, Any]()
    if info.eta is not None:
        options["eta"] = info.eta if params.eta == AUTO else params.eta
    if info.churn:
        options["churn"] = Churn(params.s_churn, params.s_tmin, params.s_tmax or math.inf, params.s_noise)
    elif info.draws:
        options["s_noise"] = params.s_noise
    if info.unguided:
        options["unguided"] = unguided
    return functools.partial(_FUNCTIONS[params.sampler], **options)


def guidance_scale(params: Sampled) -> float:
    """The factor of guidance: `cfg`, but for CFG++, whose factor is from 0 to 1: a 12.5th of it, as in A1111."""
    return params.cfg / 12.5 if SAMPLER_INFO[params.sampler].unguided else params.cfg


_FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "euler": sample_euler,
    "euler_a": sample_euler_ancestral,
    "heun": sample_heun,
    "dpmpp_2m": sample_dpmpp_2m,
    "dpmpp_sde": sample_dpmpp_sde,
    "dpmpp_2m_sde": sample_dpmpp_2m_sde,
    "dpmpp_2m_sde_heun": functools.partial(sample_dpmpp_2m_sde, variant="heun"),
    "dpmpp_2s_a": sample_dpmpp_2s_ancestral,
    "dpmpp_3m_sde": sample_dpmpp_3m_sde,
    "lms": sample_lms,
    "dpm2": sample_dpm2,
    "dpm2_a": sample_dpm2_ancestral,
    "dpm_fast": sample_dpm_fast,
    "dpm_adaptive": sample_dpm_adaptive,
    "restart": sample_restart,
    "ddim": sample_ddim,
    "ddim_cfgpp": sample_ddim_cfgpp,
    "plms": sample_plms,
    "unipc": sample_unipc,
    "lcm": sample_lcm,
}

SAMPLERS: dict[str, tuple[Sampler, str]] = {name: (_FUNCTIONS[name], info.title) for name, info in SAMPLER_INFO.items()}
"""Name -> (function, A1111's name)."""
