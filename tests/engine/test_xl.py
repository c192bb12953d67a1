"""SDXL with a tiny random checkpoint: how it is told, loaded and read, every mode, and what lies beside it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from impasto_protocol.errors import ModelError, RequestError
from impasto_server.engine.embeddings import Vectors, read_embedding
from impasto_server.engine.families import SDXL, second_text_config, unet_config
from impasto_server.engine.identify import ModelInfo, Unknown, identify_file
from impasto_server.engine.jobs import ControlUnit, ReferenceUnit, RegionUnit
from impasto_server.engine.load import load_checkpoint
from impasto_server.engine.lora_check import check_lora
from impasto_server.engine.patch import LoraSource, Patcher
from impasto_server.engine.prompt import make_chunks, parse_attention
from impasto_server.engine.run import Engine
from impasto_server.engine.text import TextCache, encode, encode_all
from safetensors.torch import save_file

from tests.control import write_tiny_controlnet, write_tiny_union
from tests.engine.device import DEVICE
from tests.engine.test_refine import refine_job
from tests.engine.test_run import image_job, picture, run, selection_job, text_job
from tests.engine.test_sketch import sketch_job
from tests.tiny_xl import FACTS, POOLED, UNET, tiny_xl_modules, tiny_xl_tensors, write_tiny_xl

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return str(write_tiny_xl(folder / "tiny xl.safetensors"))


@pytest.fixture(scope="module")
def components(checkpoint):
    return load_checkpoint(checkpoint, device=CPU, dtype=torch.float32)


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


# ---- files


def test_it_is_told_from_the_header(checkpoint, folder):
    found = identify_file(checkpoint)
    assert isinstance(found, ModelInfo) and (found.kind, found.family, found.variant) == (
        "checkpoint",
        "sdxl",
        "normal",
    )
    assert (found.native_size, found.vae_scaling_factor, found.prediction_type) == (64, 0.13025, "epsilon")
    assert found.config is not None and found.config["unet"]["transformer_layers_per_block"] == (1, 2, 3)
    inpaints = identify_file(write_tiny_xl(folder / "inpaint.safetensors", channels=9))
    assert isinstance(inpaints, ModelInfo) and inpaints.variant == "inpaint" and inpaints.config is not None


def test_what_shapes_do_not_tell_is_asked_for(folder):
    bare = identify_file(write_tiny_xl(folder / "bare.safetensors", text_2_heads=None, unet_head_width=None))
    assert isinstance(bare, Unknown) and "unet_head_width, text_2_heads" in bare.reason


def test_marks_of_other_training_are_heard(folder):
    v = identify_file(write_tiny_xl(folder / "v.safetensors", more={"v_pred": torch.zeros(1)}))
    assert isinstance(v, ModelInfo) and v.prediction_type == "v_prediction"
    edm = identify_file(write_tiny_xl(folder / "edm.safetensors", more={"edm_mean": torch.zeros(4)}))
    assert isinstance(edm, Unknown) and "EDM" in edm.reason


def test_the_original_needs_no_facts():
    """The shapes of the published base model give its published configuration."""
    from diffusers import UNet2DConditionModel
    from impasto_server.engine import layout

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280), layers_per_block=2, cross_attention_dim=2048,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20), use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        )  # fmt: skip
    names = dict(layers_per_block=2, attention=(False, True, True))
    shapes = {
        layout.UNET_PREFIX + layout.unet_to_file(k, **names): tuple(v.shape) for k, v in unet.state_dict().items()
    }
    config = unet_config(shapes, heads=0, head_width=SDXL.unet_head_width, norm_groups=32)
    for key, value in config.items():
        assert getattr(unet.config, key) == value, key


def test_the_second_encoder_is_the_one_that_was_written(components):
    _, _, first, second = tiny_xl_modules()
    for module, wanted in ((components.text_encoder, first), (components.text_encoder_2, second)):
        state, expected = module.state_dict(), wanted.state_dict()
        assert state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in expected)
    shapes = {name: tuple(value.shape) for name, value in tiny_xl_tensors().items()}
    config = second_text_config(shapes, heads=4, activation="gelu")
    assert (config["hidden_size"], config["projection_dim"], config["num_hidden_layers"]) == (48, POOLED, 4)


def test_a_file_that_is_not_whole_is_refused(folder):
    tensors = tiny_xl_tensors()
    del tensors["conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_bias"]
    said = {"impasto.config": json.dumps(FACTS)}
    save_file(tensors, str(folder / "less.safetensors"), metadata=said)
    with pytest.raises(ModelError, match="3 tensors are missing") as caught:
        load_checkpoint(folder / "less.safetensors", device=CPU, dtype=torch.float32)
    assert caught.value.code == "model.corrupt"


def test_the_vae_stays_in_fp32_where_fp16_gives_no_numbers(folder):
    path = write_tiny_xl(folder / "half.safetensors", half=True)
    loaded = load_checkpoint(path, device=CPU, dtype=torch.float16)
    assert loaded.unet.dtype == torch.float16 and loaded.vae.dtype == torch.float32
    assert load_checkpoint(path, device=CPU, dtype=torch.bfloat16).vae.dtype == torch.bfloat16


# ---- prompts


def test_both_encoders_are_read_and_the_first_chunk_is_pooled(components):
    cache = TextCache()
    found = encode_all(components, ("a cat", "a cat BREAK a dog"), cache=cache)
    assert found["a cat"].tokens.shape == (1, 154, 80) and found["a cat"].pooled.shape == (1, POOLED)
    assert torch.equal(found["a cat"].pooled, found["a cat BREAK a dog"].pooled)
    _, _, first, second = tiny_xl_modules()
    ids = {
        pad: make_chunks(parse_attention("a cat"), components.tokenizer.encode, pad=pad)[0].tokens for pad in (0, 49407)
    }
    with torch.no_grad():
        one = first(input_ids=torch.tensor([ids[49407]]), output_hidden_states=True).hidden_states[-2]
        said = second(input_ids=torch.tensor([ids[0]]), output_hidden_states=True)
    assert torch.equal(found["a cat"].tokens[:, :77], torch.cat([one, said.hidden_states[-2]], -1))
    assert torch.equal(found["a cat"].pooled, said.text_embeds)
    again = encode_all(components, ("a cat",), cache=cache)["a cat"]
    assert torch.equal(again.pooled, found["a cat"].pooled)
    with pytest.raises(RequestError, match="has 3 layers"):
        encode(components, "a cat", cache=cache, clip_skip=4)


def test_embeddings_have_vectors_for_both(components, folder, checkpoint):
    path = folder / "mine.safetensors"
    generator = torch.Generator().manual_seed(1)
    parts = {"clip_l": torch.randn(2, 32, generator=generator), "clip_g": torch.randn(2, 48, generator=generator)}
    save_file(parts, str(path))
    found = identify_file(path)
    assert isinstance(found, ModelInfo) and (found.kind, found.family) == ("embedding", "sdxl")
    held = read_embedding(path)
    assert held.width == 80 and torch.equal(held.second, parts["clip_g"])
    vectors = Vectors([held], width=32, second_width=48)
    cache = TextCache()
    with_it = encode_all(components, ("a mine",), cache=cache, vectors=vectors)["a mine"]
    without = encode_all(components, ("a mine",), cache=cache)["a mine"]
    differs = (with_it.tokens != without.tokens)[0]
    assert differs[2, :32].any() and differs[2, 32:].any() and not torch.equal(with_it.pooled, without.pooled)
    encode_text = components.tokenizer.encode
    chunks = make_chunks(parse_attention("mine"), encode_text, embeddings=vectors.names(encode_text))
    with pytest.raises(ModelError, match="80 numbers where the text encoder of this checkpoint has 32"):
        Vectors([held], width=32).used(chunks)


# ---- LoRAs


def lora(path, names, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (out, into) in names.items():
        tensors[f"{name}.lora_down.weight"] = torch.randn(2, into, generator=generator) * 0.3
        tensors[f"{name}.lora_up.weight"] = torch.randn(out, 2, generator=generator) * 0.3
    save_file(tensors, str(path))
    return str(path)


def test_a_lora_changes_all_three_networks_and_leaves_no_trace(folder, checkpoint):
    path = lora(
        folder / "ink.safetensors",
        {
            "lora_unet_input_blocks_3_1_transformer_blocks_1_attn2_to_k": (32, 80),
            "lora_te1_text_model_encoder_layers_0_mlp_fc1": (64, 32),
            "lora_te2_text_model_encoder_layers_3_self_attn_k_proj": (48, 48),
        },
    )
    check_lora(folder / "ink.safetensors", folder / "tiny xl.safetensors", name="ink", model="tiny xl", family="sdxl")
    patcher = Patcher(load_checkpoint(checkpoint, device=CPU, dtype=torch.float32))
    pristine = patcher.components
    layers = (
        (pristine.unet, "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k"),
        (pristine.text_encoder, "encoder.layers.0.mlp.fc1"),
        (pristine.text_encoder_2, "text_model.encoder.layers.3.self_attn.k_proj"),
    )
    before = [module.get_submodule(layer).weight.clone() for module, layer in layers]
    changed = patcher.apply([LoraSource(path, 0.8, 0.8)])
    assert changed.identity != pristine.identity
    assert all(not torch.equal(m.get_submodule(n).weight, old) for (m, n), old in zip(layers, before, strict=True))
    assert patcher.apply([]).identity == pristine.identity
    assert all(torch.equal(m.get_submodule(n).weight, old) for (m, n), old in zip(layers, before, strict=True))


def test_a_lora_for_another_size_is_refused(folder):
    path = lora(folder / "wide.safetensors", {"lora_te2_text_model_encoder_layers_0_mlp_fc1": (99, 48)})
    with pytest.raises(ModelError, match="another size"):
        check_lora(folder / "wide.safetensors", folder / "tiny xl.safetensors", name="wide", model="xl", family="sdxl")
    assert path


# ---- jobs


def test_every_mode_runs(engine, checkpoint, folder):
    layer, result, _ = run(engine, text_job(checkpoint, negative_prompt="dull"))
    assert layer.pixels.shape == (64, 64, 4) and layer.pixels[..., :3].std() > 1 and result.ran["model"] == "Tiny XL"
    again, _, _ = run(engine, text_job(checkpoint, negative_prompt="dull"))
    assert np.array_equal(again.pixels, layer.pixels)
    other, _, _ = run(engine, text_job(checkpoint))
    assert not np.array_equal(other.pixels, layer.pixels)
    image, _, _ = run(engine, image_job(checkpoint, strength=0.5))
    assert image.pixels.shape == (120, 160, 4)
    inpaints = str(write_tiny_xl(folder / "inpaint.safetensors", channels=9))
    for path in (checkpoint, inpaints):
        job = selection_job(path)
        found, _, _ = run(engine, job)
        assert found.alpha == "soft" and found.pixels[..., 3].max() == 255


@pytest.mark.parametrize("tiling", ["latent", "pixel"])
def test_refining_in_tiles_and_sketching_run(engine, checkpoint, tiling):
    refined, result, _ = run(engine, refine_job(checkpoint, tiling=tiling))
    assert refined.pixels[..., :3].std() > 1 and result.ran["tiling"]
    sketched, _, _ = run(engine, sketch_job(checkpoint))
    assert sketched.pixels[..., :3].std() > 1


def test_hires_and_what_prompts_can_do_run(engine, checkpoint):
    prompt = "a cat AND a dog:0.5 BREAK [red:blue:0.5]"
    layer, result, _ = run(engine, text_job(checkpoint, prompt=prompt, hires=True, hires_scale=1.5))
    assert layer.pixels.shape == (64, 64, 4) and result.ran["hires"]["working"] == [96, 96]


def left_half():
    mask = np.zeros((64, 64, 4), np.uint8)
    mask[:, :32] = 255
    return mask


def test_guides_work_together_and_row_by_row(checkpoint, folder, engine):
    """A ControlNet, a union one, a reference and a region in one picture; each changes it, and one after the other the
    rows say the same as together."""
    left_out = ("sample_size", "in_channels", "out_channels", "up_block_types")
    config = {name: value for name, value in UNET.items() if name not in left_out}
    control = str(write_tiny_controlnet(folder / "net.safetensors", layout="diffusers", **config))
    union = str(write_tiny_union(folder / "union.safetensors", **config))
    both = tuple(
        ControlUnit(f"control unit {n + 1}", f"params.control[{n}]", path, image=picture(64, 64), preprocessor="canny")
        for n, path in enumerate((control, union))
    )
    guides = {
        "control": both,
        "references": (ReferenceUnit("reference 1", "params.references[0]", image=picture(40, 40)),),
    }
    plain = text_job(checkpoint)
    seen = [run(engine, plain)[0].pixels]
    for change in ({"control": both[:1]}, {"control": both[1:]}, {"references": guides["references"]}):
        seen.append(run(engine, replace(plain, **change))[0].pixels)
    assert all((one != other).any() for i, one in enumerate(seen) for other in seen[:i])
    region = text_job(checkpoint, regions=({"prompt": "a deer", "negative": "", "mask": "control_1", "weight": 1.0},))
    unit = RegionUnit("region 1", "params.regions[0]", "a deer", mask=left_half())
    everything = replace(region, regions=(unit,), **guides)
    layer, result, _ = run(engine, everything)
    told = {one["model"]: one for one in result.ran["control"]}
    assert told["union"]["kind"] == "union" and told["union"]["control_type"] == "lines"
    assert "control_type" not in told["net"]
    row_by_row = Engine(DEVICE, "fp32")
    together = row_by_row._run

    def sequentially(*given, **more):
        return together(*given, **{**more, "sequential": True})

    row_by_row._run = sequentially  # type: ignore[method-assign]
    other, result, _ = run(row_by_row, everything)
    assert result.ran["sequential"]
    assert np.abs(layer.pixels.astype(int) - other.pixels.astype(int)).max() <= 1
