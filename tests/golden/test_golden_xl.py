"""SDXL from a single file against diffusers' SDXL pipelines, from the prompt to the latents: tiny, CPU, fp32."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    EulerDiscreteScheduler,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from impasto_protocol.geometry import Size
from impasto_server.engine import vae as vae_
from impasto_server.engine.clip_vision import load_tower, seen
from impasto_server.engine.controlnet import ControlAdapter, load_controlnet
from impasto_server.engine.denoise import Denoiser
from impasto_server.engine.inpaint import InpaintChannels, blend_denoise, latent_mask
from impasto_server.engine.ip_adapter import IPAdapter, image_tokens, load_ip_adapter
from impasto_server.engine.jobs import IPUnit
from impasto_server.engine.load import Components, load_checkpoint
from impasto_server.engine.modes import Txt2Img
from impasto_server.engine.prompt_words import WordFiles, resolve_words
from impasto_server.engine.samplers import SAMPLERS
from impasto_server.engine.text import TextCache, guidance
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPImageProcessor

from tests.golden.test_golden_control import CFG, STEPS, STRENGTH, hint, unit
from tests.golden.tiny import BETAS, seeded
from tests.ip_adapters import SIDE, ip_tensors, tiny_tower, write_tiny_ip_adapter, write_tiny_tower
from tests.tiny_xl import tiny_xl_modules, write_tiny_xl

PROMPT, AWAY = "a lighthouse on a cliff, oil painting", "blurry, dull"
WIDTH, HEIGHT = 96, 64


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def loaded(folder) -> dict[int, Components]:
    files = {channels: write_tiny_xl(folder / f"xl{channels}.safetensors", channels=channels) for channels in (4, 9)}
    return {n: load_checkpoint(file, device=torch.device("cpu"), dtype=torch.float32) for n, file in files.items()}


class Words:
    """Our tokenizer in the form that pipelines ask for; the second one of SDXL pads with 0."""

    model_max_length = 77

    def __init__(self, components: Components, pad: int) -> None:
        self._encode, self._pad = components.tokenizer.encode, pad
        self.added_tokens_encoder: dict[str, int] = {}

    def __call__(self, prompt: Any, **_: Any) -> Any:
        texts = [prompt] if isinstance(prompt, str) else prompt
        rows = [[49406, *self._encode(text)[:75], 49407] for text in texts]
        return SimpleNamespace(input_ids=torch.tensor([row + [self._pad] * (77 - len(row)) for row in rows]))

    def tokenize(self, prompt: str) -> list[str]:
        return []

    def batch_decode(self, *_: Any) -> list[str]:
        return []


def pipeline(kind: Any, components: Components, channels: int = 4, **more: Any) -> Any:
    unet, vae, first, second = tiny_xl_modules(channels=channels)
    pipe = kind(
        vae=vae, unet=unet, text_encoder=first, text_encoder_2=second, tokenizer=Words(components, 49407),
        tokenizer_2=Words(components, 0), scheduler=EulerDiscreteScheduler(**BETAS), add_watermarker=False, **more,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def levels_of(strength: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    scheduler = EulerDiscreteScheduler(**BETAS)
    scheduler.set_timesteps(STEPS)
    first = STEPS - int(STEPS * strength)
    return scheduler.sigmas[first:], scheduler.timesteps[first:]


def denoiser(components: Components, negative: str, adapters: Any = (), strength: float = 1.0, **more: Any) -> Denoiser:
    """From the prompts, as a job makes it."""
    params = Txt2Img(prompt=PROMPT, negative_prompt=negative)
    words = resolve_words(params, WordFiles(), 0)
    guided = guidance(components, words, STEPS, cache=TextCache(), size=Size(WIDTH, HEIGHT))
    levels, times = levels_of(strength)
    return Denoiser(
        network=components.unet,
        prediction="epsilon",
        positive=guided.positive,
        negative=guided.negative,
        cfg=CFG,
        sigmas=levels,
        timestep_of=lambda sigma: times[(levels[:-1] - sigma).abs().argmin()],
        adapters=tuple(adapters),
        **more,
    )


def start() -> torch.Tensor:
    return torch.randn(1, 4, HEIGHT // 8, WIDTH // 8, generator=seeded(5))


def sampled(made: Denoiser, denoise: Any = None, x: torch.Tensor | None = None, draw: Any = None) -> torch.Tensor:
    if x is None:
        x = start() * _first()
    with made.attached():
        return SAMPLERS["euler"][0](denoise or made, x, made.sigmas, draw or (lambda x: x), lambda i, d: None)


def _first() -> torch.Tensor:
    scheduler = EulerDiscreteScheduler(**BETAS)
    scheduler.set_timesteps(STEPS)
    value: torch.Tensor = scheduler.init_noise_sigma
    return value


def relative(expected: torch.Tensor, got: torch.Tensor) -> float:
    return float((expected - got).abs().max() / expected.abs().max())


def asked(negative: str, **more: Any) -> dict[str, Any]:
    """The pipeline's inputs; no negative prompt at all is what an empty one is here."""
    told = {"negative_prompt": negative} if negative else {}
    return {
        "prompt": PROMPT, "num_inference_steps": STEPS, "guidance_scale": CFG, "output_type": "latent", **told, **more,
    }  # fmt: skip


def picture() -> Image.Image:
    return Image.fromarray((np.random.RandomState(0).rand(HEIGHT, WIDTH, 3) * 255).astype("uint8"))


def hole() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[16:48, 32:80] = 255
    return mask


@pytest.mark.parametrize("negative", [AWAY, ""])
@pytest.mark.parametrize("sequential", [False, True])
def test_txt2img_equals_the_stock_pipeline(loaded, negative, sequential):
    components = loaded[4]
    expected = pipeline(StableDiffusionXLPipeline, components)(
        **asked(negative), latents=start(), width=WIDTH, height=HEIGHT
    ).images
    got = sampled(denoiser(components, negative, sequential=sequential))
    assert relative(expected, got) <= 1e-5
    shown = pipeline(StableDiffusionXLPipeline, components).vae.decode(expected / 0.13025, return_dict=False)[0]
    decoded = vae_.decode(components.vae, got, components.info.vae_scaling_factor).images
    assert relative(shown, decoded) <= 1e-5


def test_clip_skip_beyond_the_own_one_equals_the_stock_pipeline(loaded):
    """diffusers counts from the layer that SDXL reads, A1111 from the last; there the negative side has none."""
    components = loaded[4]
    expected = pipeline(StableDiffusionXLPipeline, components)(
        **asked(AWAY), clip_skip=1, latents=start(), width=WIDTH, height=HEIGHT
    ).images
    words = resolve_words(Txt2Img(prompt=PROMPT, negative_prompt=AWAY), WordFiles(), 0)
    cache, size = TextCache(), Size(WIDTH, HEIGHT)
    found = [guidance(components, words, STEPS, cache=cache, clip_skip=skip, size=size) for skip in (1, 2, 3)]
    made = replace(denoiser(components, AWAY), positive=found[2].positive)
    assert relative(expected, sampled(made)) <= 1e-5
    one, two, three = (guided.positive[0].tokens for guided in found)
    assert torch.equal(one, two) and not torch.equal(two, three)


def encoded(components: Components, values: torch.Tensor, draw: Any) -> torch.Tensor:
    return vae_.encode(components.vae, values, components.info.vae_scaling_factor, draw)


def test_image_to_image_equals_the_stock_pipeline(loaded):
    components = loaded[4]
    expected = pipeline(StableDiffusionXLImg2ImgPipeline, components)(
        **asked(AWAY), image=picture(), strength=STRENGTH, generator=seeded(9)
    ).images
    generator = seeded(9)

    def draw(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    made = denoiser(components, AWAY, strength=STRENGTH)
    latent = encoded(components, vae_.from_images(torch.tensor(np.asarray(picture()))[None]), draw)
    got = sampled(made, x=latent + draw(latent) * made.sigmas[0], draw=draw)
    assert relative(expected, got) <= 1e-5


@pytest.mark.parametrize("channels", [4, 9])
def test_inpainting_equals_the_stock_pipeline(loaded, channels):
    components = loaded[channels]
    expected = pipeline(StableDiffusionXLInpaintPipeline, components, channels)(
        **asked(AWAY), image=picture(), mask_image=Image.fromarray(hole()), strength=STRENGTH, generator=seeded(9),
        width=WIDTH, height=HEIGHT,
    ).images  # fmt: skip
    generator = seeded(9)

    def draw(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    values = vae_.from_images(torch.tensor(np.asarray(picture()))[None])
    latent = encoded(components, values, draw)
    noise = draw(latent)
    masked = encoded(components, values * torch.tensor(hole() < 128), draw)
    mask = latent_mask((hole() > 0).astype(np.float32), HEIGHT // 8, WIDTH // 8)
    adapters = (InpaintChannels(mask, masked),) if channels == 9 else ()
    made = denoiser(components, AWAY, adapters, STRENGTH)
    denoise = made if channels == 9 else blend_denoise(made, mask, latent, noise, made.sigmas)
    got = sampled(made, denoise, latent + noise * made.sigmas[0], draw)
    assert relative(expected, got) <= 1e-5


def test_a_controlnet_equals_the_stock_pipeline(loaded, folder):
    components = loaded[4]
    torch.manual_seed(20)
    network = ControlNetModel.from_unet(components.unet, conditioning_embedding_out_channels=(8, 16)).eval()
    for part in (*network.controlnet_down_blocks, network.controlnet_mid_block):
        torch.nn.init.normal_(part.weight, 0, 0.1)
    torch.nn.init.normal_(network.controlnet_cond_embedding.conv_out.weight, 0, 0.1)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "net.safetensors")
    shown = hint(30)[:, :, : HEIGHT // 4, : WIDTH // 4]
    pipe = pipeline(StableDiffusionXLControlNetPipeline, components, controlnet=network)
    pipe.prepare_image = lambda image, do_classifier_free_guidance=True, guess_mode=False, **_: torch.cat([image] * 2)
    # It takes the size of the hint for that of the picture; ours is as large as this network needs.
    sizes = torch.tensor([[HEIGHT, WIDTH, 0, 0, HEIGHT, WIDTH]], dtype=torch.float32)
    pipe._get_add_time_ids = lambda *given, **_: sizes
    expected = pipe(
        **asked(AWAY), image=shown, latents=start(), width=WIDTH, height=HEIGHT, controlnet_conditioning_scale=0.8
    ).images
    model = load_controlnet(folder / "net.safetensors", components)
    got = sampled(denoiser(components, AWAY, (ControlAdapter(model, unit(0.8), shown),)))
    assert relative(expected, got) <= 1e-5
    assert relative(expected, sampled(denoiser(components, AWAY))) > 1e-2


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_an_ip_adapter_equals_the_stock_pipeline(loaded, folder, kind):
    components = loaded[4]
    side = picture().resize((SIDE, SIDE))
    with torch.inference_mode(False), torch.no_grad():
        look = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
        pipe = pipeline(StableDiffusionXLPipeline, components, image_encoder=tiny_tower(), feature_extractor=look)
        pipe.unet._load_ip_adapter_weights([ip_tensors(components.unet, kind)], low_cpu_mem_usage=False)
        pipe.set_ip_adapter_scale(0.7)
        expected = pipe(**asked(AWAY), ip_adapter_image=[[side]], latents=start(), width=WIDTH, height=HEIGHT).images
    model = load_ip_adapter(write_tiny_ip_adapter(folder / f"{kind}.safetensors", components.unet, kind), components)
    tower = load_tower(write_tiny_tower(folder / "tower.safetensors"), device=torch.device("cpu"), dtype=torch.float32)
    tokens, away = image_tokens(model, [seen(tower, np.asarray(side))], seen(tower, None), "average")
    ip_unit = IPUnit("IP-Adapter unit 1", "params.ip_adapters[0]", "", "", weight=0.7)
    got = sampled(denoiser(components, AWAY, (IPAdapter(model, ip_unit, tokens, away),)))
    assert relative(expected, got) <= 1e-5
