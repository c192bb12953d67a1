"""The hires pass against a chain of stock diffusers pipelines: text to image, its latents interpolated, image to image.

Stock image to image at strength s over N' steps runs the last int(N' s); with N' = N / s that is A1111's rule for the
hires pass, and the whole chain must agree with ours to 1e-5.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from impasto_protocol.geometry import Size
from impasto_server.engine.conditioning import Conditioning
from impasto_server.engine.denoise import Denoiser
from impasto_server.engine.hires import LATENT_MODES, enlarge_latents
from impasto_server.engine.schedule import exact_sigmas, scaled_linear
from impasto_server.engine.schedule import sigmas as levels_of

from tests.golden.test_golden import CFG, OURS, STOCK, TOLERANCE
from tests.golden.tiny import seeded, tiny_text, tiny_unet, tiny_vae

STEPS, AGAIN, STRENGTH = 8, 4, 0.5
CASES = [("euler", "uniform"), ("euler_a", "uniform"), ("heun", "uniform"), ("dpmpp_2m", "karras")]


@pytest.fixture(scope="module")
def networks() -> tuple[Any, Any]:
    return tiny_unet(), tiny_vae()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def stock(kind: Any, sampler: str, networks: tuple[Any, Any]) -> Any:
    unet, vae = networks
    pipe = kind(
        vae=vae,
        unet=unet,
        scheduler=STOCK[sampler](),
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    positive, negative = tiny_text()
    return lambda **more: (
        pipe(
            prompt_embeds=positive,
            negative_prompt_embeds=negative,
            guidance_scale=CFG,
            output_type="latent",
            generator=seeded(9),
            **more,
        ).images
    )


def ours(sampler: str, levels: torch.Tensor, unet: Any, x: torch.Tensor, draw: Any) -> torch.Tensor:
    positive, negative = tiny_text()
    denoiser = Denoiser(
        network=unet,
        prediction="epsilon",
        positive=(Conditioning(positive),),
        negative=(Conditioning(negative),),
        cfg=CFG,
        sigmas=levels,
        timestep_of=scaled_linear().timestep,
    )
    return OURS[sampler](denoiser, x, levels, draw, lambda index, denoised: None)


def drawn(generator: torch.Generator) -> Any:
    return lambda like: torch.randn(like.shape, generator=generator)


@pytest.mark.parametrize(
    ("sampler", "schedule", "upscaler"),
    [(*case, "latent") for case in CASES] + [("euler", "uniform", name) for name in LATENT_MODES if name != "latent"],
)
def test_equals_the_stock_chain(sampler: str, schedule: str, upscaler: str, networks: Any, monkeypatch: Any) -> None:
    """The stock schedulers round Karras' timesteps; theirs are set to ours, which are not, so that the rest is seen."""
    unet, _ = networks
    table = scaled_linear()
    start = torch.randn(1, 4, 16, 16, generator=seeded(5))
    first_levels = levels_of(table, schedule, sampler, STEPS)
    again_levels = exact_sigmas(table, schedule, sampler, AGAIN, STRENGTH)
    assert len(again_levels) == AGAIN + 1 and torch.equal(again_levels, first_levels[-AGAIN - 1 :])

    # ---- the stock chain
    monkeypatch.setattr(unet, "forward", _continuous(unet, table, STOCK[sampler], sampler))
    first = stock(StableDiffusionPipeline, sampler, networks)(latents=start, num_inference_steps=STEPS)
    larger = enlarge_latents(first, upscaler, Size(24, 20))
    expected = stock(StableDiffusionImg2ImgPipeline, sampler, networks)(
        image=larger, strength=STRENGTH, num_inference_steps=STEPS
    )
    monkeypatch.undo()

    # ---- ours
    unit = sampler == "dpmpp_2m"
    scale = (first_levels[0] ** 2 + 1) ** 0.5
    x = start * (scale if unit else stock_start(sampler))
    made = ours(sampler, first_levels, unet, x, drawn(seeded(9)))
    bigger = enlarge_latents(made, upscaler, Size(24, 20))
    draw = drawn(seeded(9))
    got = ours(sampler, again_levels, unet, bigger + draw(bigger) * again_levels[0], draw)
    assert float((first - made).abs().max() / first.abs().max()) <= TOLERANCE
    relative = float((expected - got).abs().max() / expected.abs().max())
    print(f"hires {upscaler} {sampler}: {relative:.1e}")
    assert relative <= TOLERANCE


def stock_start(sampler: str) -> Any:
    scheduler = STOCK[sampler]()
    scheduler.set_timesteps(STEPS)
    return scheduler.init_noise_sigma


def _continuous(unet: Any, table: Any, make: Any, sampler: str) -> Any:
    """The network, asked at the fractional timestep that belongs to the scheduler's level."""
    real = type(unet).forward.__get__(unet)
    scheduler = make()
    scheduler.set_timesteps(STEPS)
    known = {}
    for timestep, sigma in zip(scheduler.timesteps.tolist(), scheduler.sigmas.tolist(), strict=False):
        known[timestep] = table.timestep(torch.tensor(sigma))

    def forward(sample: Any, timestep: Any, *args: Any, **more: Any) -> Any:
        return real(sample, known[float(timestep)], *args, **more)

    return forward
