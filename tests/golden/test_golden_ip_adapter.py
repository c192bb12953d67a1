"""IP-Adapters in our loop against stock pipelines: tiny random networks, CPU, fp32."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from impasto_server.engine.clip_vision import Seen, load_tower, seen
from impasto_server.engine.ip_adapter import IPAdapter, image_tokens, load_ip_adapter, second_version
from impasto_server.engine.jobs import IPUnit
from impasto_server.engine.samplers import SAMPLERS
from PIL import Image
from transformers import CLIPImageProcessor

from tests.golden.test_golden_control import CFG, STEPS, denoiser, euler
from tests.golden.tiny import seeded, tiny_text, tiny_unet, tiny_vae
from tests.ip_adapters import SIDE, ip_tensors, tiny_tower, write_tiny_ip_adapter, write_tiny_tower


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def picture(seed: int, width: int = 90, height: int = 60) -> Any:
    return Image.fromarray((np.random.RandomState(seed).rand(height, width, 3) * 255).astype("uint8"))


def components_of(unet: Any) -> Any:
    return SimpleNamespace(unet=unet, device=torch.device("cpu"), dtype=torch.float32)


def processor() -> Any:
    return CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def adapter(
    tmp_path: Any, unet: Any, kind: str, pictures: list[Any], ending: str = ".safetensors", **fields: Any
) -> Any:
    """The unit at work, everything loaded from files."""
    model = load_ip_adapter(write_tiny_ip_adapter(tmp_path / f"{kind}{ending}", unet, kind), components_of(unet))
    tower = load_tower(
        write_tiny_tower(tmp_path / "tower.safetensors"), device=torch.device("cpu"), dtype=torch.float32
    )
    combine = fields.pop("combine", "average")
    looked = [seen(tower, np.asarray(one)) for one in pictures]
    tokens, away = image_tokens(model, looked, seen(tower, None), combine)
    return IPAdapter(model, IPUnit("IP-Adapter unit 1", "params.ip_adapters[0]", "", "", **fields), tokens, away)


def test_the_tower_sees_what_transformers_sees(tmp_path):
    tower = load_tower(
        write_tiny_tower(tmp_path / "tower.safetensors"), device=torch.device("cpu"), dtype=torch.float32
    )
    for shape in ((90, 60), (20, 40), (SIDE, SIDE)):
        shown = picture(3, *shape)
        values = processor()(shown, return_tensors="pt").pixel_values
        wanted = tiny_tower()(values, output_hidden_states=True)
        got = seen(tower, np.asarray(shown))
        # 8-bit filters of two libraries: a step of one in 255 here and there.
        assert float((got.embedding - wanted.image_embeds).abs().max() / wanted.image_embeds.abs().max()) <= 0.02
        if shape == (SIDE, SIDE):
            torch.testing.assert_close(got.embedding, wanted.image_embeds, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(got.hidden, wanted.hidden_states[-2], rtol=1e-5, atol=1e-5)


def stock(unet: Any, kind: str, shown: list[Any], scale: Any, start: torch.Tensor, scheduler: Any) -> torch.Tensor:
    """The latents of diffusers' own pipeline, on a UNet of its own: it changes it."""
    with torch.inference_mode(False), torch.no_grad():
        own = UNet2DConditionModel(**unet.config).eval()
        own.load_state_dict(unet.state_dict())
        pipe = StableDiffusionPipeline(
            vae=tiny_vae(), unet=own, scheduler=scheduler, text_encoder=None, tokenizer=None, safety_checker=None,
            feature_extractor=processor(), image_encoder=tiny_tower(), requires_safety_checker=False,
        )  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        own._load_ip_adapter_weights([ip_tensors(unet, kind)], low_cpu_mem_usage=False)
        pipe.set_ip_adapter_scale(scale)
        positive, negative = tiny_text()
        images: torch.Tensor = pipe(
            prompt_embeds=positive, negative_prompt_embeds=negative, ip_adapter_image=[shown], height=128, width=128,
            num_inference_steps=STEPS, guidance_scale=CFG, output_type="latent", latents=start,
        ).images  # fmt: skip
        return images


def squares(*seeds: int) -> list[Any]:
    """Of the tower's own size, so that no filter differs."""
    return [picture(seed, SIDE, SIDE) for seed in seeds]


@pytest.mark.parametrize("kind", ["base", "plus", "full-face"])
@pytest.mark.parametrize("sequential", [False, True])
def test_equals_the_stock_pipeline(tmp_path, kind, sequential):
    unet = tiny_unet()
    scheduler, levels, times = euler()
    start = torch.randn(1, 4, 16, 16, generator=seeded(5))
    expected = stock(unet, kind, squares(1), 0.7, start, scheduler)
    ours = denoiser(
        unet, (adapter(tmp_path, unet, kind, squares(1), weight=0.7),), levels, times, sequential=sequential
    )
    with ours.attached():
        got = SAMPLERS["euler"][0](ours, start * scheduler.init_noise_sigma, levels, lambda x: x, lambda i, d: None)
    assert float((expected - got).abs().max() / expected.abs().max()) <= 1e-5
    plain = denoiser(unet, (), levels, times)
    without = SAMPLERS["euler"][0](plain, start * scheduler.init_noise_sigma, levels, lambda x: x, lambda i, d: None)
    assert float((without - got).abs().max() / expected.abs().max()) > 1e-2


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_several_pictures_equal_the_stock_pipeline(tmp_path, kind):
    """diffusers puts the tokens of all one after the other."""
    unet = tiny_unet()
    scheduler, levels, times = euler()
    start = torch.randn(1, 4, 16, 16, generator=seeded(5))
    expected = stock(unet, kind, squares(1, 2), 1.0, start, scheduler)
    ours = denoiser(unet, (adapter(tmp_path, unet, kind, squares(1, 2), ".bin", combine="concat"),), levels, times)
    with ours.attached():
        got = SAMPLERS["euler"][0](ours, start * scheduler.init_noise_sigma, levels, lambda x: x, lambda i, d: None)
    assert float((expected - got).abs().max() / expected.abs().max()) <= 1e-5


def test_sdxl_equals_the_stock_pipeline(tmp_path):
    """Several blocks in an attention, linear projections, sizes and a pooled text beside the tokens."""
    unet = tiny_unet(
        transformer_layers_per_block=(1, 2), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=48 + 24,
    )  # fmt: skip
    scheduler, levels, times = euler()
    start = torch.randn(1, 4, 16, 16, generator=seeded(5))
    pooled = torch.randn(2, 1, 24, generator=seeded(6))
    with torch.inference_mode(False), torch.no_grad():
        own = UNet2DConditionModel(**unet.config).eval()
        own.load_state_dict(unet.state_dict())
        pipe = StableDiffusionXLPipeline(
            vae=tiny_vae(), unet=own, scheduler=scheduler, text_encoder=None, text_encoder_2=None, tokenizer=None,
            tokenizer_2=None, feature_extractor=processor(), image_encoder=tiny_tower(), add_watermarker=False,
        )  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        own._load_ip_adapter_weights([ip_tensors(unet, "plus")], low_cpu_mem_usage=False)
        pipe.set_ip_adapter_scale(0.6)
        # Without a text encoder it cannot know how wide the pooled text is.
        pipe._get_add_time_ids = lambda *sizes, **_: torch.tensor([[128, 128, 0, 0, 128, 128]], dtype=torch.float32)
        positive, negative = tiny_text()
        expected = pipe(
            prompt_embeds=positive, negative_prompt_embeds=negative, pooled_prompt_embeds=pooled[0],
            negative_pooled_prompt_embeds=pooled[1], ip_adapter_image=[squares(1)], height=128, width=128,
            num_inference_steps=STEPS, guidance_scale=CFG, output_type="latent", latents=start,
        ).images  # fmt: skip
    sizes = torch.tensor([[128, 128, 0, 0, 128, 128]], dtype=torch.float32)
    ours = denoiser(unet, (adapter(tmp_path, unet, "plus", squares(1), weight=0.6),), levels, times)
    (yes,), (no,) = ours.positive, ours.negative
    ours = replace(
        ours,
        positive=(replace(yes, added={"text_embeds": pooled[0], "time_ids": sizes}),),
        negative=(replace(no, added={"text_embeds": pooled[1], "time_ids": sizes}),),
    )
    with ours.attached():
        got = SAMPLERS["euler"][0](ours, start * scheduler.init_noise_sigma, levels, lambda x: x, lambda i, d: None)
    assert float((expected - got).abs().max() / expected.abs().max()) <= 1e-5


def identity(seed: int) -> torch.Tensor:
    """[1, 512], of length 1."""
    return torch.nn.functional.normalize(torch.randn(1, 512, generator=seeded(seed)), dim=1)


def stock_face(unet: Any, kind: str, who: torch.Tensor, hidden: Any, second: bool, start: Any, scheduler: Any) -> Any:
    """The same of a FaceID: its LoRA is put on the weights here, for which diffusers wants another library."""
    tables = ip_tensors(unet, kind)
    with torch.inference_mode(False), torch.no_grad():
        own = UNet2DConditionModel(**unet.config).eval()
        own.load_state_dict(unet.state_dict())
        for number, name in enumerate(own.attn_processors):
            attention = own.get_submodule(name.removesuffix(".processor"))
            for side, layer in (("q", attention.to_q), ("k", attention.to_k), ("v", attention.to_v),
                                ("out", attention.to_out[0])):  # fmt: skip
                down, up = (tables["ip_adapter"][f"{number}.to_{side}_lora.{end}.weight"] for end in ("down", "up"))
                layer.weight += up @ down
        pipe = StableDiffusionPipeline(
            vae=tiny_vae(), unet=own, scheduler=scheduler, text_encoder=None, tokenizer=None, safety_checker=None,
            feature_extractor=None, image_encoder=None, requires_safety_checker=False,
        )  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        own._load_ip_adapter_weights([tables], low_cpu_mem_usage=False)
        pipe.set_ip_adapter_scale(1.0)
        if hidden is not None:
            projection = own.encoder_hid_proj.image_projection_layers[0]
            projection.clip_embeds, projection.shortcut = torch.cat(hidden)[:, None], second
        positive, negative = tiny_text()
        return pipe(
            prompt_embeds=positive, negative_prompt_embeds=negative, height=128, width=128, num_inference_steps=STEPS,
            guidance_scale=CFG, output_type="latent", latents=start,
            ip_adapter_image_embeds=[torch.cat([torch.zeros_like(who), who])[:, None]],
        ).images  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "file"),
    [("faceid", "faceid.bin"), ("faceid-plus", "faceid-plus.bin"), ("faceid-plus", "faceid-plusv2.safetensors")],
)
def test_face_ids_equal_the_stock_pipeline(tmp_path, kind, file):
    unet = tiny_unet()
    scheduler, levels, times = euler()
    start, who = torch.randn(1, 4, 16, 16, generator=seeded(5)), identity(9)
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    model = load_ip_adapter(write_tiny_ip_adapter(tmp_path / file, unet, kind), components_of(unet))
    hidden = None
    if kind == "faceid-plus":
        hidden = [torch.randn(1, 17, model.sizes.width, generator=seeded(seed)) for seed in (1, 2)]
    expected = stock_face(unet, kind, who, hidden, second_version(model.path), start, scheduler)
    blank = torch.zeros(1, 0, 0)
    nobody, someone = hidden if hidden is not None else (blank, blank)
    tokens, away = image_tokens(model, [Seen(who, someone)], Seen(torch.zeros_like(who), nobody), "average")
    ours = denoiser(unet, (IPAdapter(model, IPUnit("1", "", "", ""), tokens, away),), levels, times)
    with ours.attached():
        got = SAMPLERS["euler"][0](ours, start * scheduler.init_noise_sigma, levels, lambda x: x, lambda i, d: None)
    assert float((expected - got).abs().max() / expected.abs().max()) <= 1e-5
    after = unet.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "its LoRA is off again"
