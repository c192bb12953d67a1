"""ControlNets and T2I-Adapters in our loop against stock pipelines: tiny random networks, CPU, fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    EulerDiscreteScheduler,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetPipeline,
    T2IAdapter,
)
from impasto_server.engine import vae as vae_
from impasto_server.engine.conditioning import Conditioning
from impasto_server.engine.controlnet import ControlAdapter, ControlModel
from impasto_server.engine.denoise import Denoiser
from impasto_server.engine.jobs import ControlUnit
from impasto_server.engine.samplers import SAMPLERS
from impasto_server.engine.t2i import T2IAdapter as T2I
from PIL import Image

from tests.golden.tiny import BETAS, seeded, tiny_text, tiny_unet, tiny_vae

CFG, STEPS, STRENGTH = 7.5, 6, 0.75


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def controlnet(unet: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    network = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))
    for part in (*network.controlnet_down_blocks, network.controlnet_mid_block):
        torch.nn.init.normal_(part.weight, 0, 0.1)
    torch.nn.init.normal_(network.controlnet_cond_embedding.conv_out.weight, 0, 0.1)
    return network.eval()


def hint(seed: int, side: int = 32) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=seeded(seed))


def unit(weight: float, **more: Any) -> ControlUnit:
    return ControlUnit("control unit 1", "params.control[0]", "", weight=weight, **more)


def denoiser(unet: Any, adapters: tuple[Any, ...], levels: torch.Tensor, times: torch.Tensor, **more: Any) -> Denoiser:
    positive, negative = tiny_text()
    return Denoiser(
        network=unet,
        prediction="epsilon",
        positive=(Conditioning(positive),),
        negative=(Conditioning(negative),),
        cfg=CFG,
        sigmas=levels,
        timestep_of=lambda sigma: times[(levels[:-1] - sigma).abs().argmin()],
        adapters=adapters,
        **more,
    )


def euler() -> tuple[Any, torch.Tensor, torch.Tensor]:
    scheduler = EulerDiscreteScheduler(**BETAS)
    scheduler.set_timesteps(STEPS)
    return scheduler, scheduler.sigmas, scheduler.timesteps


@pytest.mark.parametrize("weights", [(1.0,), (0.7, 0.4), (0.0,)])
@pytest.mark.parametrize("sequential", [False, True])
def test_equals_the_stock_pipeline(weights, sequential):
    unet, vae = tiny_unet(), tiny_vae()
    nets = [controlnet(unet, 20 + i) for i in range(len(weights))]
    # The hint blocks of these halve once; the real ones three times, to the size of the latents.
    hints = [hint(30 + i) for i in range(len(weights))]
    scheduler, levels, times = euler()
    positive, negative = tiny_text()
    pipe = StableDiffusionControlNetPipeline(
        vae=vae, unet=unet, controlnet=nets if len(nets) > 1 else nets[0], scheduler=scheduler, text_encoder=None,
        tokenizer=None, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    # The pipeline would make the hints as large as the picture; ours are as large as these networks need.
    pipe.prepare_image = lambda image, do_classifier_free_guidance=True, guess_mode=False, **_: torch.cat([image] * 2)
    start = torch.randn(1, 4, 16, 16, generator=seeded(5))
    expected = pipe(
        prompt_embeds=positive, negative_prompt_embeds=negative, image=hints if len(nets) > 1 else hints[0],
        num_inference_steps=STEPS, guidance_scale=CFG, output_type="latent", latents=start, height=128, width=128,
        controlnet_conditioning_scale=list(weights) if len(weights) > 1 else weights[0],
    ).images  # fmt: skip
    adapters = tuple(
        ControlAdapter(ControlModel(net, Path("net.safetensors"), False), unit(weight), picture)
        for net, weight, picture in zip(nets, weights, hints, strict=True)
    )
    ours = denoiser(unet, adapters, levels, times, sequential=sequential)
    got = SAMPLERS["euler"][0](ours, start * scheduler.init_noise_sigma, levels, lambda x: x, lambda i, d: None)
    assert float((expected - got).abs().max() / expected.abs().max()) <= 1e-5


def test_image_to_image_equals_the_stock_pipeline():
    unet, vae = tiny_unet(), tiny_vae()
    net, picture = controlnet(unet, 20), hint(30)
    scheduler, levels, times = euler()
    positive, negative = tiny_text()
    pipe = StableDiffusionControlNetImg2ImgPipeline(
        vae=vae, unet=unet, controlnet=net, scheduler=scheduler, text_encoder=None, tokenizer=None, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    pipe.prepare_control_image = lambda image, do_classifier_free_guidance=True, guess_mode=False, **_: torch.cat(
        [image] * 2
    )
    source = Image.fromarray((np.random.RandomState(0).rand(128, 128, 3) * 255).astype("uint8"))
    expected = pipe(
        prompt_embeds=positive, negative_prompt_embeds=negative, image=source, control_image=picture,
        strength=STRENGTH, num_inference_steps=STEPS, guidance_scale=CFG, output_type="latent", generator=seeded(9),
        controlnet_conditioning_scale=0.8, height=128, width=128,
    ).images  # fmt: skip
    levels = levels[STEPS - int(STEPS * STRENGTH) :]
    times = times[STEPS - int(STEPS * STRENGTH) :]
    generator = seeded(9)

    def draw(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    values = vae_.from_images(torch.tensor(np.asarray(source))[None])
    latent = vae_.encode(vae, values, vae.config.scaling_factor, draw)
    x = latent + draw(latent) * levels[0]
    adapter = ControlAdapter(ControlModel(net, Path("net.safetensors"), False), unit(0.8), picture)
    got = SAMPLERS["euler"][0](denoiser(unet, (adapter,), levels, times), x, levels, draw, lambda i, d: None)
    assert float((expected - got).abs().max() / expected.abs().max()) <= 1e-5


@pytest.mark.parametrize("kind", ["full_adapter", "light_adapter"])
@pytest.mark.parametrize("with_control", [False, True])
def test_t2i_adapters_equal_the_stock_pipeline(kind, with_control):
    """Alone; and beside a ControlNet equal to the sum of what each adds, row by row as in one batch."""
    unet, vae = tiny_unet(), tiny_vae()
    if kind == "light_adapter":  # these end in two levels of the same width, as those of SD 1.x do
        unet = tiny_unet(
            block_out_channels=(32, 64, 64),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        )
    torch.manual_seed(40)
    widths = (32, 64)
    net = T2IAdapter(3, widths, num_res_blocks=1, downscale_factor=8, adapter_type=kind).eval()
    picture = hint(31, 128)
    scheduler, levels, times = euler()
    start = torch.randn(1, 4, 16, 16, generator=seeded(5))
    adapters: tuple[Any, ...] = (T2I(net, unit(0.8), picture),)
    if with_control:
        adapters += (ControlAdapter(ControlModel(controlnet(unet, 20), Path("net.safetensors")), unit(0.5), hint(30)),)
        x = start * scheduler.init_noise_sigma
        ways = [denoiser(unet, adapters, levels, times, sequential=sequential) for sequential in (False, True)]
        runs = [SAMPLERS["euler"][0](way, x, levels, lambda x: x, lambda i, d: None) for way in ways]
        assert float((runs[0] - runs[1]).abs().max() / runs[0].abs().max()) <= 1e-5
        return
    positive, negative = tiny_text()
    pipe = StableDiffusionAdapterPipeline(
        vae=vae, unet=unet, adapter=net, scheduler=scheduler, text_encoder=None, tokenizer=None, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        prompt_embeds=positive, negative_prompt_embeds=negative, image=picture, num_inference_steps=STEPS,
        guidance_scale=CFG, output_type="latent", latents=start, height=128, width=128, adapter_conditioning_scale=0.8,
    ).images  # fmt: skip
    ours = denoiser(unet, adapters, levels, times)
    got = SAMPLERS["euler"][0](ours, start * scheduler.init_noise_sigma, levels, lambda x: x, lambda i, d: None)
    assert float((expected - got).abs().max() / expected.abs().max()) <= 1e-5
