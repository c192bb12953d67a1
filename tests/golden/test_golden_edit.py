"""Checkpoints that change a picture by an instruction, in our loop against diffusers' pipeline: tiny, CPU, fp32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from impasto_server.engine import vae as vae_
from impasto_server.engine.edit import PictureChannels
from impasto_server.engine.samplers import SAMPLERS
from PIL import Image

from tests.golden.test_golden_control import CFG, STEPS, denoiser, euler
from tests.golden.tiny import seeded, tiny_text, tiny_unet, tiny_vae


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("image_cfg", [1.0, 1.5, 2.4])
@pytest.mark.parametrize("sequential", [False, True])
def test_equals_the_stock_pipeline(image_cfg, sequential):
    unet, vae = tiny_unet(in_channels=8), tiny_vae()
    scheduler, levels, times = euler()
    positive, negative = tiny_text()
    pipe = StableDiffusionInstructPix2PixPipeline(
        vae=vae, unet=unet, scheduler=scheduler, text_encoder=None, tokenizer=None, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    source = Image.fromarray((np.random.RandomState(0).rand(128, 128, 3) * 255).astype("uint8"))
    start = torch.randn(1, 4, 16, 16, generator=seeded(5))
    expected = pipe(
        prompt_embeds=positive, negative_prompt_embeds=negative, image=source, num_inference_steps=STEPS,
        guidance_scale=CFG, image_guidance_scale=image_cfg, output_type="latent", latents=start,
    ).images  # fmt: skip
    values = vae_.from_images(torch.tensor(np.asarray(source))[None])
    shown = PictureChannels(vae_.encode(vae, values, 1.0))
    ours = denoiser(unet, (shown,), levels, times, sequential=sequential, image_cfg=image_cfg)
    got = SAMPLERS["euler"][0](ours, start * scheduler.init_noise_sigma, levels, lambda x: x, lambda i, d: None)
    assert float((expected - got).abs().max() / expected.abs().max()) <= 1e-5
