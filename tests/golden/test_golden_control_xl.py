"""A ControlNet of SDXL's structure, from both layouts of files, against diffusers' pipeline: tiny, CPU, fp32."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionXLControlNetPipeline
from impasto_server.engine.control_layout import control_to_file
from impasto_server.engine.controlnet import ControlAdapter, load_controlnet
from impasto_server.engine.samplers import SAMPLERS
from safetensors.torch import save_file

from tests.golden.test_golden_control import CFG, STEPS, controlnet, denoiser, euler, hint, unit
from tests.golden.tiny import seeded, tiny_text, tiny_unet, tiny_vae


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("layout", ["ldm", "diffusers"])
def test_equals_the_stock_pipeline(tmp_path, layout):
    unet = tiny_unet(
        transformer_layers_per_block=(1, 2), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=48 + 24,
    )  # fmt: skip
    network = controlnet(unet, 20)
    state = network.state_dict()
    if layout == "ldm":
        blocks = len(network.controlnet_cond_embedding.blocks)
        names = dict(layers_per_block=1, attention=(False, True), hint_blocks=blocks)
        state = {"control_model." + control_to_file(name, **names): value for name, value in state.items()}
        assert "control_model.label_emb.0.0.weight" in state
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "net.safetensors")
    scheduler, levels, times = euler()
    positive, negative = tiny_text()
    pooled = torch.randn(2, 1, 24, generator=seeded(6))
    start = torch.randn(1, 4, 16, 16, generator=seeded(5))
    picture = hint(30)
    pipe = StableDiffusionXLControlNetPipeline(
        vae=tiny_vae(), unet=unet, controlnet=network, scheduler=scheduler, text_encoder=None, text_encoder_2=None,
        tokenizer=None, tokenizer_2=None, add_watermarker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    pipe.prepare_image = lambda image, do_classifier_free_guidance=True, guess_mode=False, **_: torch.cat([image] * 2)
    sizes = torch.tensor([[128, 128, 0, 0, 128, 128]], dtype=torch.float32)
    pipe._get_add_time_ids = lambda *given, **_: sizes
    expected = pipe(
        prompt_embeds=positive, negative_prompt_embeds=negative, pooled_prompt_embeds=pooled[0],
        negative_pooled_prompt_embeds=pooled[1], image=picture, num_inference_steps=STEPS, guidance_scale=CFG,
        output_type="latent", latents=start, height=128, width=128, controlnet_conditioning_scale=0.8,
    ).images  # fmt: skip
    components = SimpleNamespace(unet=unet, device=torch.device("cpu"), dtype=torch.float32)
    model = load_controlnet(tmp_path / "net.safetensors", components)
    ours = denoiser(unet, (ControlAdapter(model, unit(0.8), picture),), levels, times)
    (yes,), (no,) = ours.positive, ours.negative
    ours = replace(
        ours,
        positive=(replace(yes, added={"text_embeds": pooled[0], "time_ids": sizes}),),
        negative=(replace(no, added={"text_embeds": pooled[1], "time_ids": sizes}),),
    )
    got = SAMPLERS["euler"][0](ours, start * scheduler.init_noise_sigma, levels, lambda x: x, lambda i, d: None)
    assert float((expected - got).abs().max() / expected.abs().max()) <= 1e-5
