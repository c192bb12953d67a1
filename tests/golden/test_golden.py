"""Our loop against stock diffusers pipelines: tiny random networks, CPU, fp32, their noise, levels and timesteps.

Every case agrees to 1e-5 of the largest value; `equality.json` records which agree to the last bit, and those must
stay so. Where a case is not bit-equal the stock scheduler works in another scaling of the same state (DPM++ 2M and its
SDE form, DDIM, UniPC, LCM), or rounds its coefficients elsewhere.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)
from impasto_server.engine import vae as vae_
from impasto_server.engine.adapters import Adapter
from impasto_server.engine.conditioning import Conditioning
from impasto_server.engine.denoise import Denoiser
from impasto_server.engine.inpaint import InpaintChannels, blend_denoise, latent_mask
from impasto_server.engine.samplers import SAMPLERS, Sampler
from impasto_server.engine.samplers_sde import sample_dpmpp_3m_sde
from impasto_server.engine.samplers_unipc import sample_unipc
from impasto_server.engine.sampling import ancestral
from PIL import Image

from tests.golden.brownian import dpmpp_sde_scheduler
from tests.golden.multistep import lms_scheduler
from tests.golden.tiny import BETAS, seeded, tiny_text, tiny_unet, tiny_vae

CFG, STEPS, STRENGTH, TOLERANCE = 7.5, 8, 0.75, 1e-5
RECORD = Path(__file__).with_name("equality.json")
HALF_RECORD = Path(__file__).with_name("bf16.json")

STOCK: dict[str, Callable[..., Any]] = {
    "euler": lambda **more: EulerDiscreteScheduler(**BETAS, **more),
    "euler_a": lambda **more: EulerAncestralDiscreteScheduler(**BETAS, **more),
    "dpmpp_2m": lambda **more: DPMSolverMultistepScheduler(**BETAS, use_karras_sigmas=True, **more),
    "heun": lambda **more: HeunDiscreteScheduler(**BETAS, **more),
    "dpmpp_sde": lambda **more: dpmpp_sde_scheduler(seeded(11), **BETAS, use_karras_sigmas=True, **more),
    "dpmpp_2m_sde": lambda **more: DPMSolverMultistepScheduler(
        **BETAS, use_exponential_sigmas=True, algorithm_type="sde-dpmsolver++", **more
    ),
    "ddim": lambda **more: DDIMScheduler(**BETAS, clip_sample=False, **more),
    # Stock bh1 gives no numbers on the way to 0, so it stops at the smallest level; bh2 goes all the way.
    "unipc": lambda **more: UniPCMultistepScheduler(
        **BETAS, solver_order=3, solver_type="bh1", final_sigmas_type="sigma_min", **more
    ),
    "unipc bh2": lambda **more: UniPCMultistepScheduler(**BETAS, solver_order=3, solver_type="bh2", **more),
    "lcm": lambda **more: LCMScheduler(**BETAS, **more),
    "dpmpp_2m_sde_heun": lambda **more: DPMSolverMultistepScheduler(
        **BETAS, use_exponential_sigmas=True, algorithm_type="sde-dpmsolver++", solver_type="heun", **more
    ),
    # With noise its third order has the wrong sign in its last term, so only the ODE is compared.
    "dpmpp_3m_sde eta 0": lambda **more: DPMSolverMultistepScheduler(
        **BETAS, use_exponential_sigmas=True, solver_order=3, solver_type="heun", lower_order_final=False, **more
    ),
    "dpm2": lambda **more: KDPM2DiscreteScheduler(**BETAS, **more),
    "dpm2_a": lambda **more: KDPM2AncestralDiscreteScheduler(**BETAS, **more),
    "lms": lambda **more: lms_scheduler(**BETAS, **more),
    "plms": lambda **more: PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=True, **more),
}

UNIT_START = (
    *("dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde eta 0", "ddim", "plms"),
    *("unipc", "unipc bh2", "lcm"),
)
"""Stock schedulers that work on x / sqrt(sigma² + 1) and start that at plain noise."""

OURS: dict[str, Sampler] = {name: sampler for name, (sampler, _) in SAMPLERS.items()}
OURS["unipc bh2"] = functools.partial(sample_unipc, variant="bh2")
OURS["dpmpp_3m_sde eta 0"] = functools.partial(sample_dpmpp_3m_sde, eta=0.0)


@dataclass(frozen=True)
class Case:
    task: str
    sampler: str
    prediction: str = "epsilon"
    channels: int = 4
    rescale: float = 0.0

    @property
    def name(self) -> str:
        rescaled = f" rescaled by {self.rescale}" if self.rescale else ""
        return f"{self.task} {self.sampler} {self.prediction} {self.channels} channels{rescaled}"


CASES = (
    # Stock PLMS mixes what the network says, which is the noise only with epsilon.
    [Case("txt2img", s, p) for s in STOCK for p in ("epsilon", "v_prediction") if (s, p) != ("plms", "v_prediction")]
    # Stock LCM spreads its levels anew by the strength, which is a schedule's matter; stock PLMS counts its first step
    # twice, so that another part of its steps runs, and stock LMS takes as many slopes as steps were left out.
    + [Case("img2img", s) for s in STOCK if s not in ("lcm", "lms", "plms")]
    # Stock blending takes the half-way state of DPM++ SDE and DPM2 for one at the next level, and its last blend is at
    # level 0.
    + [Case("inpaint", s) for s in STOCK if s not in ("dpmpp_sde", "dpm2", "dpm2_a", "unipc", "lms", "plms")]
    + [Case("inpaint", s, channels=9) for s in STOCK if s not in ("lms", "plms")]
    + [Case("inpaint", "euler", "v_prediction")]
    + [Case("txt2img", "euler", p, rescale=0.7) for p in ("epsilon", "v_prediction")]
)


HALF_CASES = [
    case
    for case in CASES
    if case.prediction == "epsilon" and case.sampler in ("euler", "dpmpp_2m", "heun") and not case.rescale
]
"""Those that run in bf16, too."""


@pytest.fixture(scope="module")
def networks() -> dict[int, Any]:
    return {4: tiny_unet(), 9: tiny_unet(9)}


@pytest.fixture(scope="module")
def vae() -> Any:
    return tiny_vae()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def picture() -> Image.Image:
    return Image.fromarray((np.random.RandomState(0).rand(128, 128, 3) * 255).astype("uint8"))


def square() -> np.ndarray:
    mask = np.zeros((128, 128), np.uint8)
    mask[32:96, 32:96] = 255
    return mask


def stock_latents(case: Case, unet: Any, vae: Any) -> torch.Tensor:
    """What the stock pipeline gives."""
    positive, negative = tiny_text()
    pipelines = {
        "txt2img": StableDiffusionPipeline,
        "img2img": StableDiffusionImg2ImgPipeline,
        "inpaint": StableDiffusionInpaintPipeline,
    }
    pipe = pipelines[case.task](
        vae=vae,
        unet=unet,
        scheduler=STOCK[case.sampler](prediction_type=case.prediction),
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    inputs: dict[str, Any] = {"guidance_rescale": case.rescale} if case.rescale else {}
    if case.task == "txt2img":
        inputs["latents"] = torch.randn(1, 4, 16, 16, generator=seeded(5))
    else:
        inputs.update(image=picture(), strength=STRENGTH)
    if case.task == "inpaint":
        inputs.update(mask_image=Image.fromarray(square()), height=128, width=128)
    images: torch.Tensor = pipe(
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
        num_inference_steps=STEPS,
        guidance_scale=CFG,
        output_type="latent",
        generator=seeded(9),
        **inputs,
    ).images
    return images


def stock_levels(case: Case) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """The stock scheduler's levels, each once and with the last 0, and its timestep of a level."""
    stock = STOCK[case.sampler](prediction_type=case.prediction)
    stock.set_timesteps(STEPS)
    if hasattr(stock, "sigmas"):
        levels = stock.sigmas[[0, *range(1, len(stock.sigmas), stock.order)]][: STEPS + 1]
    else:
        kept = stock.alphas_cumprod[stock.timesteps.unique().flip(0)]
        levels = torch.cat([((1 - kept) / kept) ** 0.5, torch.zeros(1)])
    known = levels[:-1]  # the network is never asked at the last one
    timesteps = stock.timesteps[:: stock.order]
    if case.sampler == "plms":
        timesteps = stock.timesteps.unique().flip(0)
    if case.sampler in ("dpmpp_sde", "dpm2", "dpm2_a"):
        after = known[1:]
        if case.sampler == "dpm2_a":
            after = ancestral(known[:-1], known[1:], 1.0)[0]
        known = torch.cat([known, (after * known[:-1]) ** 0.5])
        timesteps = torch.cat([timesteps, stock.timesteps[1::2]])

    def timestep_of(sigma: torch.Tensor) -> torch.Tensor:
        return timesteps[(known - sigma).abs().argmin()]

    return levels, timestep_of


def our_latents(case: Case, unet: Any, vae: Any) -> torch.Tensor:
    """The same from our parts, composed as the engine composes them."""
    positive, negative = tiny_text()
    levels, timestep_of = stock_levels(case)
    first = 0 if case.task == "txt2img" else STEPS - int(STEPS * STRENGTH)
    levels = levels[first:]
    generator = seeded(9)

    def draw(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    adapters: tuple[Adapter, ...] = ()
    scale = vae.config.scaling_factor
    if case.task == "txt2img":
        noise = torch.randn(1, 4, 16, 16, generator=seeded(5))
        stock = STOCK[case.sampler]()
        stock.set_timesteps(STEPS)
        x = noise * ((levels[0] ** 2 + 1) ** 0.5 if case.sampler in UNIT_START else stock.init_noise_sigma)
    else:
        values = vae_.from_images(torch.tensor(np.asarray(picture()))[None])
        latent = vae_.encode(vae, values, scale, draw)
        noise = draw(latent)
        x = latent + noise * levels[0]
    mask = latent_mask((square() > 0).astype(np.float32), 16, 16)
    if case.task == "inpaint":
        # The stock pipeline draws for the masked picture even where its network has no use for it.
        masked = vae_.encode(vae, values * torch.tensor(square() < 128), scale, draw)
        adapters = (InpaintChannels(mask, masked),) if case.channels == 9 else ()
    denoiser = Denoiser(
        network=unet,
        prediction=case.prediction,
        positive=(Conditioning(positive),),
        negative=(Conditioning(negative),),
        cfg=CFG,
        cfg_rescale=case.rescale,
        sigmas=levels,
        timestep_of=timestep_of,
        adapters=adapters,
    )
    denoise: Any = denoiser
    if case.task == "inpaint" and case.channels == 4:
        denoise = blend_denoise(denoiser, mask, latent, noise, levels)
    if case.sampler == "dpmpp_sde":
        generator = seeded(11)
    out = OURS[case.sampler](denoise, x, levels, draw, lambda index, denoised: None)
    return out / (levels[-1] ** 2 + 1) ** 0.5


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_the_stock_pipeline(case, networks, vae):
    unet = networks[case.channels]
    expected, got = stock_latents(case, unet, vae), our_latents(case, unet, vae)
    relative = float((expected - got).abs().max() / expected.abs().max())
    equal = torch.equal(expected, got)
    print(f"{case.name}: equal={equal} relative={relative:.1e}")
    assert relative <= TOLERANCE
    assert equal or not json.loads(RECORD.read_text())[case.name], "this case was equal to the last bit"


@pytest.mark.parametrize("case", HALF_CASES, ids=lambda case: case.name)
def test_bf16_stays_within_the_recorded_tolerance(case, networks, vae):
    """The network in bf16, the sampler in fp32, as on a CPU with AVX-512 BF16 or AMX, against the stock pipeline in
    fp32: the root of the mean square of the difference over that of the latents. The record has twice what was
    measured, for processors that sum in another order."""
    expected = stock_latents(case, networks[case.channels], vae)
    got = our_latents(case, copy.deepcopy(networks[case.channels]).bfloat16(), vae)
    relative = float((expected - got).square().mean().sqrt() / expected.square().mean().sqrt())
    print(f"{case.name}: {relative:.1e}")
    assert got.dtype == torch.float32
    assert relative <= json.loads(HALF_RECORD.read_text())[case.name]


def test_the_record_is_complete():
    assert set(json.loads(HALF_RECORD.read_text())) == {case.name for case in HALF_CASES}
    assert set(json.loads(RECORD.read_text())) == {case.name for case in CASES}
