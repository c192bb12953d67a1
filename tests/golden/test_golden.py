"""Our loop against stock diffusers pipelines: tiny random networks, CPU, fp32, their noise, levels and timesteps.

Every case agrees to 1e-5 of the largest value; `equality.json` records which agree to the last bit, and those must
stay so. Where a case is not bit-equal the stock scheduler works in another scaling of the same state (DPM++ 2M), or
rounds its coefficients elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from impasto_server.engine import vae as vae_
from impasto_server.engine.adapters import Adapter
from impasto_server.engine.conditioning import Conditioning
from impasto_server.engine.denoise import Denoiser
from impasto_server.engine.inpaint import InpaintChannels, blend_denoise, latent_mask
from impasto_server.engine.samplers import SAMPLERS
from PIL import Image

from tests.golden.tiny import BETAS, seeded, tiny_text, tiny_unet, tiny_vae

CFG, STEPS, STRENGTH, TOLERANCE = 7.5, 8, 0.75, 1e-5
RECORD = Path(__file__).with_name("equality.json")

STOCK: dict[str, Callable[..., Any]] = {
    "euler": lambda **more: EulerDiscreteScheduler(**BETAS, **more),
    "euler_a": lambda **more: EulerAncestralDiscreteScheduler(**BETAS, **more),
    "dpmpp_2m": lambda **more: DPMSolverMultistepScheduler(**BETAS, use_karras_sigmas=True, **more),
}


@dataclass(frozen=True)
class Case:
    task: str
    sampler: str
    prediction: str = "epsilon"
    channels: int = 4

    @property
    def name(self) -> str:
        return f"{self.task} {self.sampler} {self.prediction} {self.channels} channels"


CASES = (
    [Case("txt2img", s, p) for s in STOCK for p in ("epsilon", "v_prediction")]
    + [Case("img2img", s) for s in STOCK]
    + [Case("inpaint", s) for s in STOCK]
    + [Case("inpaint", s, channels=9) for s in ("euler", "dpmpp_2m")]
    + [Case("inpaint", "euler", "v_prediction")]
)


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
    inputs: dict[str, Any] = {}
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


def our_latents(case: Case, unet: Any, vae: Any) -> torch.Tensor:
    """The same from our parts, composed as the engine composes them."""
    positive, negative = tiny_text()
    stock = STOCK[case.sampler](prediction_type=case.prediction)
    stock.set_timesteps(STEPS)
    first = 0 if case.task == "txt2img" else STEPS - int(STEPS * STRENGTH)
    levels = stock.sigmas[first:]
    timesteps = {float(s): t for s, t in zip(stock.sigmas, stock.timesteps, strict=False)}
    generator = seeded(9)

    def draw(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    adapters: tuple[Adapter, ...] = ()
    scale = vae.config.scaling_factor
    if case.task == "txt2img":
        noise = torch.randn(1, 4, 16, 16, generator=seeded(5))
        # Stock DPM++ works on x / sqrt(sigma² + 1) and starts that at plain noise.
        x = noise * ((levels[0] ** 2 + 1) ** 0.5 if case.sampler == "dpmpp_2m" else stock.init_noise_sigma)
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
        sigmas=levels,
        timestep_of=lambda sigma: timesteps[float(sigma)],
        adapters=adapters,
    )
    denoise: Any = denoiser
    if case.task == "inpaint" and case.channels == 4:
        denoise = blend_denoise(denoiser, mask, latent, noise, levels)
    sampler, _ = SAMPLERS[case.sampler]
    return sampler(denoise, x, levels, draw, lambda index, denoised: None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_the_stock_pipeline(case, networks, vae):
    unet = networks[case.channels]
    expected, got = stock_latents(case, unet, vae), our_latents(case, unet, vae)
    relative = float((expected - got).abs().max() / expected.abs().max())
    equal = torch.equal(expected, got)
    print(f"{case.name}: equal={equal} relative={relative:.1e}")
    assert relative <= TOLERANCE
    assert equal or not json.loads(RECORD.read_text())[case.name], "this case was equal to the last bit"


def test_the_record_is_complete():
    assert set(json.loads(RECORD.read_text())) == {case.name for case in CASES}
