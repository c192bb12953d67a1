"""ControlNets of SDXL's structure, plain ones from both layouts of files and union ones, against diffusers' pipelines:
tiny, CPU, fp32."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    ControlNetUnionModel,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLControlNetUnionPipeline,
)
from impasto_protocol.errors import ModelError, RequestError
from impasto_server.engine.control_layout import control_to_file
from impasto_server.engine.control_union import CONTROL_TYPE_OF, TYPE_NUMBERS
from impasto_server.engine.controlnet import ControlAdapter, load_controlnet
from impasto_server.engine.params_control import CONTROL_TYPES, PREPROCESSORS
from impasto_server.engine.samplers import SAMPLERS
from safetensors.torch import save_file

from tests.golden.test_golden_control import CFG, STEPS, controlnet, denoiser, euler, hint, unit
from tests.golden.tiny import seeded, tiny_text, tiny_unet, tiny_vae


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def unet_xl() -> Any:
    return tiny_unet(
        transformer_layers_per_block=(1, 2), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=48 + 24,
    )  # fmt: skip


@pytest.mark.parametrize("layout", ["ldm", "diffusers"])
def test_equals_the_stock_pipeline(tmp_path, layout):
    unet = unet_xl()
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


def union(unet: Any, types: int, seed: int = 20) -> Any:
    """As `ControlNetUnionModel.from_unet` makes it, but with as many types; nothing that it says is 0."""
    names = (
        "block_out_channels", "down_block_types", "layers_per_block", "transformer_layers_per_block",
        "cross_attention_dim", "attention_head_dim", "norm_num_groups", "use_linear_projection", "addition_embed_type",
        "addition_time_embed_dim", "projection_class_embeddings_input_dim",
    )  # fmt: skip
    torch.manual_seed(seed)
    network = ControlNetUnionModel(
        **{name: unet.config[name] for name in names}, conditioning_embedding_out_channels=(8, 16),
        num_control_type=types, num_trans_channel=32, num_trans_head=8, num_trans_layer=2, num_proj_channel=32,
    )  # fmt: skip
    silent = (*network.controlnet_down_blocks, network.controlnet_mid_block, network.spatial_ch_projs)
    for part in (*silent, network.controlnet_cond_embedding.conv_out):
        torch.nn.init.normal_(part.weight, 0, 0.1)
    return network.eval()


def saved_union(path: Any, unet: Any, types: int) -> tuple[Any, Any]:
    """A union ControlNet, and the same as loaded from its file."""
    network = union(unet, types)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path / "union.safetensors")
    components = SimpleNamespace(unet=unet, device=torch.device("cpu"), dtype=torch.float32)
    return network, load_controlnet(path / "union.safetensors", components)


@pytest.mark.parametrize(
    ("asked", "number"),
    [({"preprocessor": "canny"}, 3), ({"control_type": "depth"}, 1), ({"preprocessor": "tile"}, 6)],
    ids=["by the preprocessor", "by the type", "ProMax"],
)
@pytest.mark.parametrize("sequential", [False, True])
def test_union_equals_the_stock_pipeline(tmp_path, asked, number, sequential):
    unet = unet_xl()
    network, model = saved_union(tmp_path, unet, 8 if number > 5 else 6)
    scheduler, levels, times = euler()
    positive, negative = tiny_text()
    pooled = torch.randn(2, 1, 24, generator=seeded(6))
    start = torch.randn(1, 4, 16, 16, generator=seeded(5))
    picture = hint(30)
    pipe = StableDiffusionXLControlNetUnionPipeline(
        vae=tiny_vae(), unet=unet, controlnet=network, scheduler=scheduler, text_encoder=None, text_encoder_2=None,
        tokenizer=None, tokenizer_2=None, add_watermarker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    pipe.prepare_image = lambda image, do_classifier_free_guidance=True, guess_mode=False, **_: torch.cat([image] * 2)
    sizes = torch.tensor([[128, 128, 0, 0, 128, 128]], dtype=torch.float32)
    pipe._get_add_time_ids = lambda *given, **_: sizes
    expected = pipe(
        prompt_embeds=positive, negative_prompt_embeds=negative, pooled_prompt_embeds=pooled[0],
        negative_pooled_prompt_embeds=pooled[1], control_image=[picture], control_mode=[number],
        num_inference_steps=STEPS, guidance_scale=CFG, output_type="latent", latents=start, height=128, width=128,
        controlnet_conditioning_scale=0.8,
    ).images  # fmt: skip
    ours = denoiser(
        unet, (ControlAdapter(model, unit(0.8, **asked), picture),), levels, times, sequential=sequential
    )  # fmt: skip
    (yes,), (no,) = ours.positive, ours.negative
    ours = replace(
        ours,
        positive=(replace(yes, added={"text_embeds": pooled[0], "time_ids": sizes}),),
        negative=(replace(no, added={"text_embeds": pooled[1], "time_ids": sizes}),),
    )
    got = SAMPLERS["euler"][0](ours, start * scheduler.init_noise_sigma, levels, lambda x: x, lambda i, d: None)
    assert float((expected - got).abs().max() / expected.abs().max()) <= 1e-5
    assert model.told_of(unit(1.0, **asked))["control_type"] == list(TYPE_NUMBERS)[number]


def test_a_union_one_that_is_not_told_the_type_or_does_not_know_it_says_so(tmp_path):
    _, model = saved_union(tmp_path, unet_xl(), 6)
    with pytest.raises(RequestError, match="choose its control type") as caught:
        model.adapter(unit(1.0), hint(30))
    assert caught.value.path == "params.control[0].control_type"
    with pytest.raises(RequestError, match="'inpaint', only openpose, depth, softedge, lines, normal, segmentation"):
        model.adapter(unit(1.0, preprocessor="inpaint_only"), hint(30))
    with pytest.raises(ModelError, match=r"for SD 1.x, this is a union one for SDXL"):
        load_controlnet(
            tmp_path / "union.safetensors",
            SimpleNamespace(unet=tiny_unet(), device=torch.device("cpu"), dtype=torch.float32),
        )


def test_types_and_preprocessors_are_those_of_the_parameters():
    assert tuple(TYPE_NUMBERS) == CONTROL_TYPES and list(TYPE_NUMBERS.values()) == list(range(8))
    assert set(CONTROL_TYPE_OF.values()) == set(CONTROL_TYPES)
    untold = set(PREPROCESSORS) - set(CONTROL_TYPE_OF)
    assert untold == {"none", "invert", "threshold", "color_grid", "shuffle", "recolor_luminance", "recolor_intensity"}
