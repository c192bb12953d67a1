"""Files are told for what they are from headers alone, and anything else is Unknown with a reason."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import pytest
from impasto_server.engine.checkpoint import Header, TensorInfo
from impasto_server.engine.identify import ModelInfo, Unknown, identify_file, identify_header
from impasto_server.engine.modelspec import Facts
from impasto_server.engine.rules import RULES

from tests.tiny import FACTS, TEXT, UNET, VAE, tiny_metadata, write_tiny_checkpoint

P = "model.diffusion_model."
CONV, LINEAR = (320, 320, 1, 1), (320, 320)
FLUX = "double_blocks.0.img_attn.norm.key_norm.scale"
Shapes = dict[str, tuple[int, ...]]


def unet_header(
    prefix: str, channels: int, projection: tuple[int, ...], context: int = 768, label: int | None = None
) -> Shapes:
    shapes: Shapes = {
        prefix + "input_blocks.0.0.weight": (320, channels, 3, 3),
        prefix + "out.2.weight": (4, 320, 3, 3),
        prefix + "input_blocks.1.1.proj_in.weight": projection,
        prefix + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, context),
    }
    if label:
        shapes[prefix + "label_emb.0.0.weight"] = (1280, label)
    return shapes


FIXTURES: dict[str, tuple[Shapes, tuple[str, str, str]]] = {
    "sd1 unet": (unet_header("", 4, CONV), ("unet", "sd1", "normal")),
    "sd1 unet with prefix": (unet_header(P, 9, CONV), ("unet", "sd1", "inpaint")),
    "sd1 of any width": (unet_header("", 8, (8, 8, 1, 1), 24), ("unet", "sd1", "instruct-pix2pix")),
    "sd2": (unet_header(P, 4, LINEAR, 1024), ("checkpoint", "sd2", "normal")),
    "sd2 depth": (unet_header(P, 5, LINEAR, 1024), ("checkpoint", "sd2", "depth")),
    "sdxl": (unet_header(P, 4, LINEAR, 2048, 2816), ("checkpoint", "sdxl", "normal")),
    "sdxl unet only": (unet_header("", 4, LINEAR, 2048, 2816), ("unet", "sdxl", "normal")),
    "sdxl inpaint": (unet_header(P, 9, LINEAR, 2048, 2816), ("checkpoint", "sdxl", "inpaint")),
    "refiner": (unet_header(P, 4, LINEAR, 1280, 2560), ("checkpoint", "sdxl-refiner", "normal")),
    "sd1 diffusers unet": (
        {
            "conv_in.weight": (320, 4, 3, 3),
            "conv_out.weight": (4, 320, 3, 3),
            "down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3),
            "mid_block.attentions.0.proj_in.weight": CONV,
        },
        ("unet", "sd1", "normal"),
    ),
    "sd3": ({"joint_blocks.0.context_block.attn.qkv.weight": (4608, 1536)}, ("transformer", "sd3", "medium")),
    "flux dev": (
        {FLUX: (128,), "guidance_in.in_layer.weight": (3072, 256), "img_in.weight": (3072, 64)},
        ("transformer", "flux", "dev"),
    ),
    "flux schnell": ({P + FLUX: (128,), P + "img_in.weight": (3072, 64)}, ("transformer", "flux", "schnell")),
    "controlnet sd1": (
        {
            "control_model.zero_convs.0.0.weight": CONV,
            "control_model.input_hint_block.0.weight": (16, 3, 3, 3),
            "control_model.input_blocks.0.0.weight": (320, 4, 3, 3),
            "control_model.input_blocks.1.1.proj_in.weight": CONV,
        },
        ("controlnet", "sd1", ""),
    ),
    "control-lora sd1": (
        {
            "lora_controlnet": (0,),
            "zero_convs.0.0.weight": CONV,
            "input_hint_block.0.weight": (16, 3, 3, 3),
            "input_blocks.0.0.up": (320, 64, 1, 1),
            "input_blocks.1.1.transformer_blocks.0.attn2.to_k.down": (64, 768),
            "input_blocks.1.1.transformer_blocks.0.attn2.to_k.up": (320, 64),
        },
        ("controlnet", "sd1", "control-lora"),
    ),
    "controlnet sdxl union": (
        {
            "conv_in.weight": (320, 4, 3, 3),
            "down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3),
            "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
            "control_add_embedding.linear_1.bias": (1280,),
        },
        ("controlnet", "sdxl", "union"),
    ),
    "lora sd1": (
        {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (8, 768)},
        ("lora", "sd1", ""),
    ),
    "lora sdxl": (
        {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": (8, 2048)},
        ("lora", "sdxl", ""),
    ),
    "lora peft": (
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (8, 1024)},
        ("lora", "sd2", ""),
    ),
    "lora without a tell": ({"lora_unet_conv_in.lora_down.weight": (8, 4, 3, 3)}, ("lora", "", "")),
    "lora beside embeddings": (
        {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (8, 1280), "bundle_emb.x.clip_g": (4, 1280)},
        ("lora", "sdxl", ""),
    ),
    "loha of a family": (
        {
            f"lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k.hada_{role}": shape
            for role, shape in {"w1_a": (320, 4), "w1_b": (4, 768), "w2_a": (320, 4), "w2_b": (4, 768)}.items()
        },
        ("lora", "sd1", ""),
    ),
    "lora of differences": ({"lora_unet_conv_in.diff": (320, 4, 3, 3)}, ("lora", "", "")),
    "lora of norms": ({"lora_unet_out_0.w_norm": (320,), "lora_unet_out_0.b_norm": (320,)}, ("lora", "", "")),
    "ia3": ({"lycoris_mid_block_proj.weight": (1, 320), "lycoris_mid_block_proj.on_input": ()}, ("lora", "", "")),
    "glora": ({"lora_unet_mid_block_attentions_0_proj_in.a1.weight": (4, 320)}, ("lora", "", "")),
    "older oft": ({"lora_unet_mid_block_attentions_0_proj_in.oft_diag": (8, 40, 40)}, ("lora", "", "")),
    "loha": ({"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": (4, 4)}, ("lora", "", "")),
    "ip-adapter plus": (
        {"image_proj.latents": (1, 16, 768), "ip_adapter.1.to_k_ip.weight": (320, 768)},
        ("ip-adapter", "sd1", "plus"),
    ),
    "ip-adapter faceid": (
        {
            "image_proj.norm.weight": (768,),
            "ip_adapter.1.to_k_ip.weight": (320, 768),
            "ip_adapter.0.to_k_lora.down.weight": (128, 320),
        },
        ("ip-adapter", "sd1", "faceid"),
    ),
    "vae": (
        {"decoder.conv_in.weight": (512, 4, 3, 3), "encoder.conv_in.weight": (128, 3, 3, 3)},
        ("vae", "", "4-channel"),
    ),
    "vae with prefix": (
        {
            "first_stage_model.decoder.conv_in.weight": (512, 16, 3, 3),
            "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
        },
        ("vae", "", "16-channel"),
    ),
    "embedding sd1": ({"emb_params": (4, 768)}, ("embedding", "sd1", "")),
    "embedding sdxl": ({"clip_l": (4, 768), "clip_g": (4, 1280)}, ("embedding", "sdxl", "")),
    "embedding as A1111 saves it": ({"string_to_param.*": (4, 768)}, ("embedding", "sd1", "")),
    "embedding of diffusers": ({"<cat-toy>": (1024,)}, ("embedding", "sd2", "")),
    "bsrgan": (
        {"conv_first.weight": (64, 3, 3, 3), "RRDB_trunk.0.RDB1.conv1.weight": (32, 64, 3, 3)},
        ("upscaler", "esrgan", "rrdb"),
    ),
    "swinir": (
        {
            "conv_first.weight": (180, 3, 3, 3),
            "layers.0.residual_group.blocks.0.attn.relative_position_bias_table": (225, 6),
        },
        ("upscaler", "swinir", ""),
    ),
    "hat": (
        {
            "conv_first.weight": (180, 3, 3, 3),
            "layers.0.residual_group.blocks.0.attn.relative_position_bias_table": (961, 6),
            "layers.0.residual_group.overlap_attn.relative_position_bias_table": (1521, 6),
        },
        ("upscaler", "hat", ""),
    ),
    "dat": (
        {
            "conv_first.weight": (180, 3, 3, 3),
            "before_RG.1.weight": (180,),
            "layers.0.blocks.0.attn.qkv.weight": (540, 180),
        },
        ("upscaler", "dat", ""),
    ),
    "esrgan": (
        {"conv_first.weight": (64, 3, 3, 3), "body.0.rdb1.conv1.weight": (32, 64, 3, 3)},
        ("upscaler", "esrgan", "rrdb"),
    ),
    "esrgan, old names": (
        {"model.0.weight": (64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)},
        ("upscaler", "esrgan", "rrdb-old"),
    ),
    "compact": ({"body.0.weight": (64, 3, 3, 3), "body.1.weight": (64,)}, ("upscaler", "esrgan", "compact")),
}
UNKNOWN: dict[str, Shapes] = {
    "nothing": {},
    "a foreign network": {"foo.weight": (1,)},
    "clip": {"text_model.embeddings.token_embedding.weight": (49408, 768)},
    "label embedding of another width": unet_header(P, 4, LINEAR, 2048, 999),
    "input of another width": unet_header(P, 6, CONV),
    "conv and linear projections": unet_header(P, 4, CONV) | {P + "middle_block.1.proj_in.weight": LINEAR},
}


def header_of(shapes: Shapes, metadata: dict[str, str] | None = None) -> Header:
    return Header({name: TensorInfo("F16", shape, 0, 0) for name, shape in shapes.items()}, metadata or {})


def write_stub(path: Path, shapes: Shapes, metadata: dict[str, str] | None = None) -> Path:
    """A sparse safetensors file: the whole header, and a hole in place of the numbers."""
    table: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, shape in shapes.items():
        table[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + 2 * prod(shape)]}
        at += 2 * prod(shape)
    text = json.dumps(table).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return path


@pytest.mark.parametrize("name", FIXTURES)
def test_each_kind_is_told_by_exactly_one_rule(name: str, tmp_path: Path) -> None:
    shapes, expected = FIXTURES[name]
    assert sum(rule(shapes) is not None for rule in RULES) == 1
    found = identify_file(write_stub(tmp_path / "x.safetensors", shapes))
    assert isinstance(found, ModelInfo), found
    assert (found.kind, found.family, found.variant) == expected


@pytest.mark.parametrize("name", UNKNOWN)
def test_anything_else_is_unknown_with_a_reason(name: str) -> None:
    found = identify_header(header_of(UNKNOWN[name]), Facts())
    assert isinstance(found, Unknown) and found.reason


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors")


def shapes_of(path: Path) -> Shapes:
    from impasto_server.engine.checkpoint import read_header

    return read_header(path).shapes


def test_a_small_checkpoint_is_described_in_full(tiny: Path) -> None:
    found = identify_file(tiny)
    assert isinstance(found, ModelInfo), found
    assert (found.kind, found.family, found.variant, found.layout) == ("checkpoint", "sd1", "normal", "ldm")
    assert (found.native_size, found.vae_scaling_factor, found.prediction_type) == (64, 0.18215, "epsilon")
    assert (found.title, found.license) == ("Tiny test model", "CC0-1.0")
    assert found.config is not None
    for part, made_from in (("unet", UNET), ("vae", VAE), ("text", TEXT)):
        shared = found.config[part].keys() & made_from.keys()
        assert len(shared) > 5
        assert {key: found.config[part][key] for key in shared} == {key: made_from[key] for key in shared}


@pytest.mark.parametrize(("channels", "variant"), [(9, "inpaint"), (8, "instruct-pix2pix")])
def test_the_variant_follows_from_the_input_channels(tmp_path: Path, channels: int, variant: str) -> None:
    found = identify_file(write_tiny_checkpoint(tmp_path / "x.safetensors", channels=channels))
    assert isinstance(found, ModelInfo) and found.variant == variant


def test_another_size_without_facts_is_unknown(tmp_path: Path) -> None:
    found = identify_file(write_tiny_checkpoint(tmp_path / "x.safetensors", metadata={}))
    assert isinstance(found, Unknown)
    for name in ("unet_heads", "text_heads", "native_size", "vae_scaling_factor"):
        assert name in found.reason


def test_the_originals_widths_need_no_facts() -> None:
    """SD 1.5's shapes, as far as the configurations are read from them."""
    found = identify_header(header_of(sd15_shapes()), Facts())
    assert isinstance(found, ModelInfo), found
    assert (found.native_size, found.vae_scaling_factor, found.prediction_type) == (512, 0.18215, "epsilon")
    assert found.config is not None
    unet = found.config["unet"]
    assert unet["block_out_channels"] == (320, 640, 1280, 1280)
    assert (unet["layers_per_block"], unet["attention_head_dim"], unet["cross_attention_dim"]) == (2, 8, 768)
    assert unet["down_block_types"] == ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    assert found.config["vae"]["block_out_channels"] == (128, 256, 512, 512)
    assert found.config["vae"]["layers_per_block"] == 2
    assert found.config["text"]["num_hidden_layers"] == 12 and found.config["text"]["num_attention_heads"] == 12


def sd15_shapes() -> Shapes:
    shapes: Shapes = {P + "input_blocks.0.0.weight": (320, 4, 3, 3), P + "out.2.weight": (4, 320, 3, 3)}
    n = 1
    for level, width in enumerate((320, 640, 1280, 1280)):
        for _ in range(2):
            shapes[f"{P}input_blocks.{n}.0.in_layers.2.weight"] = (width, width, 3, 3)
            if level < 3:
                shapes[f"{P}input_blocks.{n}.1.proj_in.weight"] = (width, width, 1, 1)
                shapes[f"{P}input_blocks.{n}.1.transformer_blocks.0.norm1.weight"] = (width,)
            n += 1
        if level < 3:
            shapes[f"{P}input_blocks.{n}.0.op.weight"] = (width, width, 3, 3)
            n += 1
    shapes[P + "middle_block.1.proj_in.weight"] = (1280, 1280, 1, 1)
    shapes[P + "middle_block.1.transformer_blocks.0.attn2.to_k.weight"] = (1280, 768)
    vae, text = "first_stage_model.", "cond_stage_model.transformer.text_model."
    for level, width in enumerate((128, 256, 512, 512)):
        for block in range(2):
            shapes[f"{vae}encoder.down.{level}.block.{block}.conv1.weight"] = (width, width, 3, 3)
    for block in range(3):
        shapes[f"{vae}decoder.up.0.block.{block}.conv1.weight"] = (128, 128, 3, 3)
    shapes[vae + "encoder.conv_in.weight"] = (128, 3, 3, 3)
    shapes[vae + "decoder.conv_in.weight"] = (512, 4, 3, 3)
    shapes[vae + "decoder.conv_out.weight"] = (3, 128, 3, 3)
    shapes[text + "embeddings.token_embedding.weight"] = (49408, 768)
    shapes[text + "embeddings.position_embedding.weight"] = (77, 768)
    for layer in range(12):
        shapes[f"{text}encoder.layers.{layer}.layer_norm1.weight"] = (768,)
    shapes[text + "encoder.layers.0.mlp.fc1.weight"] = (3072, 768)
    return shapes


@pytest.mark.parametrize(
    "change",
    [
        {P + "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 1024)},
        {"cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (100, 768)},
        {"first_stage_model.decoder.conv_in.weight": (512, 16, 3, 3)},
        {"first_stage_model.decoder.up.0.block.3.conv1.weight": (128, 128, 3, 3)},
        {P + "input_blocks.1.1.transformer_blocks.1.norm1.weight": (320,)},
        {P + "input_blocks.4.0.in_layers.2.weight": (641,)},
        {P + "out.2.weight": (8, 320, 3, 3)},
    ],
)
def test_a_structure_that_does_not_hold_together_is_unknown(change: Shapes) -> None:
    found = identify_header(header_of(sd15_shapes() | change), Facts())
    assert isinstance(found, Unknown) and "it has" in found.reason, found


def test_facts_that_do_not_fit_the_widths_are_refused(tiny: Path) -> None:
    header = header_of(shapes_of(tiny))
    facts = dict(unet_heads=2, unet_norm_groups=8, vae_norm_groups=4, text_heads=2, native_size=64)
    for wrong in ({"unet_heads": 3}, {"unet_norm_groups": 5}, {"vae_norm_groups": 3}, {"text_heads": 5}):
        found = identify_header(header, Facts(**{**facts, **wrong, "vae_scaling_factor": 0.2}))
        assert isinstance(found, Unknown) and "divide" in found.reason


@pytest.mark.parametrize(
    "wrong",
    [
        {"unet_heads": "8"},
        {"unet_heads": 0},
        {"unet_heads": True},
        {"native_size": 100},
        {"native_size": 10**9},
        {"vae_scaling_factor": 0},
        {"vae_scaling_factor": "x"},
        {"prediction_type": "v"},
        {"text_activation": []},
        {"hints": []},
        {"hints": {"steps": 0}},
        {"hints": {"cfg": 1000}},
        {"hints": {"sampler": "magic"}},
    ],
)
def test_wrong_facts_are_refused_by_name(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = write_stub(tmp_path / "x.safetensors", unet_header("", 4, CONV), tiny_metadata(**wrong))
    found = identify_file(path)
    name = next(iter(wrong.get("hints") or wrong))
    assert isinstance(found, Unknown) and name in found.reason


def test_infinite_numbers_and_broken_metadata_are_refused(tmp_path: Path) -> None:
    for raw in ('{"vae_scaling_factor": Infinity}', '{"vae_scaling_factor": NaN}', "[]", "{", "[" * 100_000):
        path = write_stub(tmp_path / "x.safetensors", unet_header("", 4, CONV), {"impasto.config": raw})
        assert isinstance(identify_file(path), Unknown)


def test_hints_and_v_prediction_are_read(tmp_path: Path) -> None:
    metadata = tiny_metadata(prediction_type="v_prediction", hints={"steps": 12, "cfg": 4, "sampler": "euler", "x": 1})
    found = identify_file(write_tiny_checkpoint(tmp_path / "x.safetensors", metadata=metadata))
    assert isinstance(found, ModelInfo)
    assert found.prediction_type == "v_prediction"
    assert found.hints == {"steps": 12, "cfg": 4.0, "sampler": "euler"}


def test_a_sidecar_overrides_the_file(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "x.safetensors")
    (tmp_path / "x.json").write_text(json.dumps({"impasto.config": {"native_size": 128}, "description": "mine"}))
    found = identify_file(path)
    assert isinstance(found, ModelInfo) and found.native_size == 128 and found.config is not None
    (tmp_path / "x.json").write_text('{"description": "notes of another program"}')
    found = identify_file(path)
    assert isinstance(found, ModelInfo) and found.native_size == FACTS["native_size"]
    (tmp_path / "x.json").write_text('{"impasto.config": {broken')
    found = identify_file(path)
    assert isinstance(found, Unknown) and "x.json" in found.reason
    # Another program's damaged notes take nobody's model away.
    (tmp_path / "x.json").write_text("{broken")
    found = identify_file(path)
    assert isinstance(found, ModelInfo) and found.native_size == FACTS["native_size"]


def test_bad_files_are_unknown_with_the_right_code(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 64)
    (tmp_path / "x.ckpt").write_bytes(b"PK")
    codes = {name: identify_file(tmp_path / name) for name in ("cut.safetensors", "x.ckpt", "absent.safetensors")}
    assert [found.code for found in codes.values() if isinstance(found, Unknown)] == [
        "model.corrupt",
        "model.corrupt",
        "model.unknown",
    ]


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


def test_a_pickle_that_would_run_code_is_told_from_others(tmp_path: Path) -> None:
    (tmp_path / "bad.ckpt").write_bytes(pickle.dumps({"state_dict": Hostile()}))
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps({"state_dict": {}}))
    bad, plain = identify_file(tmp_path / "bad.ckpt"), identify_file(tmp_path / "plain.ckpt")
    assert isinstance(bad, Unknown) and bad.code == "model.unsafe" and f"{os.name}.system" in bad.reason
    assert isinstance(plain, Unknown) and plain.code == "model.unidentified"


def test_identifying_needs_no_torch() -> None:
    code = "import sys, impasto_server.engine.identify; print('torch' in sys.modules, 'safetensors' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert ran.stdout.split() == ["False", "False"], ran.stderr
