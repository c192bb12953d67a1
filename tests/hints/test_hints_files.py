"""Annotators with the user's own files: small random networks of the true layouts, and files that are not what they
say."""

from __future__ import annotations

import functools
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from impasto_protocol.errors import ModelError
from impasto_protocol.geometry import Size
from impasto_server.engine.annotators import depth as depths
from impasto_server.engine.annotators.ade20k import COLORS
from impasto_server.engine.annotators.depth import depth_hint, load_depth, raw_depth
from impasto_server.engine.annotators.lineart import (
    AnimeLines,
    LineDrawing,
    anime_lines,
    drawn_lines,
    load_anime_lines,
    load_line_drawing,
)
from impasto_server.engine.annotators.normals import NormalBae, load_normal_bae, normals_of_depth, surface_normals
from impasto_server.engine.annotators.segments import load_segments, segment_colors, segments
from impasto_server.engine.hints import PERSON, Hints
from impasto_server.engine.identify import identify_file
from impasto_server.engine.jobs import ControlUnit
from skimage import data

from tests.hints.networks import random_state
from tests.hints.recorded import VECTORS

CPU = torch.device("cpu")
PICTURE = data.astronaut()[:192, 128:320]


def vector(name):
    with np.load(VECTORS) as held:
        return held[name]


def image(height, width, seed):
    """As `make_vectors.image`."""
    return torch.from_numpy(np.random.default_rng(seed).random((1, 3, height, width), np.float32))


def halves(network):
    return {k: v.half() if v.is_floating_point() else v for k, v in random_state(network, gain=0.8).items()}


def unit(**more):
    picture = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 255, np.uint8)])
    return ControlUnit("control unit 1", "params.control[0]", "", picture, **more)


def kind_of(path):
    info = identify_file(path)
    return info.kind, info.variant


# ---- line art, normals: beside controlnet_aux's networks with the same numbers


@pytest.mark.parametrize(
    ("name", "make", "load", "prefix", "shape"),
    [
        ("lineart", LineDrawing, load_line_drawing, "", (64, 96, 1)),
        ("lineart_anime", AnimeLines, load_anime_lines, "module.", (256, 256, 2)),
    ],
    ids=["photographs", "anime"],
)
def test_line_art_is_that_of_controlnet_aux(tmp_path, name, make, load, prefix, shape):
    path = tmp_path / "lines.pth"
    torch.save({prefix + k: v for k, v in halves(make()).items()}, path)
    assert kind_of(path) == ("annotator", name)
    network, shown = load(path, CPU), image(*shape).double()
    # Of what is recorded only its own rounding is left: in float32 the sum of both depends on the processor.
    with torch.inference_mode():
        found = network.double()(shown * 2 - 1 if name == "lineart_anime" else shown)[0, 0].numpy()
    network.float()
    step = 4 if name == "lineart_anime" else 1
    np.testing.assert_allclose(found[::step, ::step], vector(name), atol=2e-5)
    lines = (anime_lines if name == "lineart_anime" else drawn_lines)(network, PICTURE[:100, :70])
    assert lines.shape == (100, 70) and lines.dtype == np.uint8 and lines.std() > 0


def test_normals_are_those_of_controlnet_aux(tmp_path):
    path = tmp_path / "scannet.pt"
    # The file holds more: what the encoder was once taught to classify with.
    torch.save({"model": halves(NormalBae()) | {"encoder.original_model.bn2.weight": torch.ones(2048)}}, path)
    assert kind_of(path) == ("annotator", "normal_bae")
    network = load_normal_bae(path, CPU)
    with torch.inference_mode():
        found = network(image(64, 64, seed=3) * 4 - 2)[0].numpy()
    np.testing.assert_allclose(found, vector("normal_bae"), atol=1e-5)
    seen = surface_normals(network, PICTURE[:64, :48])
    assert seen.shape == (64, 48, 3)
    lengths = np.linalg.norm(seen / 127.5 - 1, axis=-1)
    assert abs(np.median(lengths) - 1) < 0.05


def test_normals_of_a_slope():
    """Red to the left, green up, blue towards us; what is far faces us."""
    ramp = np.tile(np.linspace(0, 2000, 64, dtype=np.float32), (48, 1))  # nearer at the right: it faces left
    faces_left = normals_of_depth(ramp, 0.4)[20, 50]
    assert faces_left[0] > 240 and abs(int(faces_left[1]) - 127) <= 1
    faces_up = normals_of_depth(np.ascontiguousarray(ramp.T), 0.4)[50, 20]  # nearer below: it faces up
    assert faces_up[1] > 240 and abs(int(faces_up[0]) - 127) <= 1
    assert normals_of_depth(ramp, 0.4)[20, 5].tolist() == [127, 127, 255]
    assert (normals_of_depth(np.zeros((5, 5), np.float32), 0.4) == (127, 127, 255)).all()


# ---- depth


def original_of_anything(module):
    """The state of transformers' Depth Anything by the names of the published files, put down here once more by
    hand."""
    state, found = module.state_dict(), {}
    for name in state:
        if ".q_proj." in name:
            parts = [state[name.replace(".q_proj.", f".{p}_proj.")] for p in "qkv"]
            block, leaf = re.match(r"backbone\.encoder\.layer\.(\d+)\..*\.(\w+)$", name).groups()
            found[f"pretrained.blocks.{block}.attn.qkv.{leaf}"] = torch.cat(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            for there, here in (
                ("backbone.embeddings.patch_embeddings.projection", "pretrained.patch_embed.proj"),
                ("backbone.embeddings.position_embeddings", "pretrained.pos_embed"),
                ("backbone.embeddings.", "pretrained."),
                ("backbone.encoder.layer.", "pretrained.blocks."),
                ("backbone.layernorm", "pretrained.norm"),
                (".attention.o_proj", ".attn.proj"),
                (".layer_scale1.lambda1", ".ls1.gamma"),
                (".layer_scale2.lambda1", ".ls2.gamma"),
                ("head.conv1", "depth_head.scratch.output_conv1"),
                ("head.conv2", "depth_head.scratch.output_conv2.0"),
                ("head.conv3", "depth_head.scratch.output_conv2.2"),
                (".resize", ""),
            ):
                if there == ".resize" and ".resize." in name:
                    name = name.replace("neck.reassemble_stage.layers.", "depth_head.resize_layers.").replace(
                        ".resize.", "."
                    )
                elif there != ".resize":
                    name = name.replace(there, here) if here not in name else name
            name = re.sub(r"neck\.reassemble_stage\.layers\.(\d)\.projection", r"depth_head.projects.\1", name)
            name = re.sub(r"neck\.convs\.(\d)", lambda m: f"depth_head.scratch.layer{int(m[1]) + 1}_rn", name)
            name = re.sub(
                r"neck\.fusion_stage\.layers\.(\d)\.", lambda m: f"depth_head.scratch.refinenet{4 - int(m[1])}.", name
            )
            name = name.replace(".projection.", ".out_conv.").replace(".residual_layer", ".resConfUnit")
            name = name.replace(".convolution", ".conv")
            found[name] = None
    return found


@functools.cache
def anything(second: bool):
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=64, num_hidden_layers=8, num_attention_heads=1, image_size=70, patch_size=14,
        out_indices=[2, 4, 6, 8] if second else [5, 6, 7, 8], apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=64, neck_hidden_sizes=[8, 16, 32, 64],
        fusion_hidden_size=16, head_hidden_size=32,
    )  # fmt: skip
    module = DepthAnythingForDepthEstimation(config).eval()
    module.load_state_dict(random_state(module))
    return module


def write_original(module, path):
    """Each tensor is found again by its numbers, whatever it is called."""
    names, state = original_of_anything(module), module.state_dict()
    tensors = {}
    wanted = [k for k in state if not re.search(r"\.[kv]_proj\.", k)]
    for source, name in zip(wanted, names, strict=True):
        tensors[name] = state[source] if names[name] is None else names[name]
    torch.save(tensors, path)
    return tensors


@pytest.mark.parametrize(
    ("file", "second"), [("depth_anything_vits14.pth", False), ("depth_anything_v2_vits.pth", True)]
)
def test_the_published_depth_anything_is_transformers_one(tmp_path, file, second):
    module, path = anything(second), tmp_path / file
    tensors = write_original(module, path)
    assert "pretrained.blocks.7.attn.qkv.weight" in tensors and "depth_head.scratch.refinenet4.out_conv.bias" in tensors
    assert "depth_head.resize_layers.3.weight" in tensors and "depth_head.scratch.layer1_rn.weight" in tensors
    assert kind_of(path) == ("annotator", "depth_anything")
    network = load_depth(path, CPU)
    shown = image(70, 84, seed=4)
    with torch.inference_mode():
        torch.testing.assert_close(
            network.module(pixel_values=shown).predicted_depth, module(pixel_values=shown).predicted_depth
        )
    found = raw_depth(network, PICTURE[:96, :64])
    assert found.shape == (96, 64) and np.isfinite(found).all()
    hint = depth_hint(found)
    assert hint.min() == 0 and hint.max() in (254, 255) and (hint[..., 0] == hint[..., 1]).all()


def test_a_depth_anything_that_does_not_say_which_is_refused(tmp_path):
    write_original(anything(True), tmp_path / "depth.pth")
    with pytest.raises(ModelError, match="does not say whether of the first or the second") as caught:
        load_depth(tmp_path / "depth.pth", CPU)
    assert caught.value.code == "model.unsupported"


def test_midas_names_every_tensor_of_its_file():
    """With the published file's names and shapes; that it is the same network to the last bit was tried once, beside
    controlnet_aux's (384 x 384, random numbers)."""
    from transformers import BitConfig, DPTConfig, DPTForDepthEstimation

    seen = {}

    def spy(path, make, rules, device, what):
        with torch.device("meta"):
            seen["names"] = [depths.place_of(name, rules) for name in make().state_dict()]
        raise StopIteration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(depths, "_filled", spy)
        with pytest.raises(StopIteration):
            depths._dpt_hybrid("dpt_hybrid-midas-501f0c75.pt", CPU)
    assert DPTConfig and BitConfig and DPTForDepthEstimation
    places = seen["names"]
    assert len(set(places)) == len(places), "none is taken twice"
    sources = {source for source, _ in places}
    assert not any(source.startswith(("dpt.", "neck.", "head.")) for source in sources), "all have a name there"
    for name in (
        "pretrained.model.cls_token",
        "pretrained.model.pos_embed",
        "pretrained.model.patch_embed.backbone.stem.norm.bias",
        "pretrained.model.patch_embed.backbone.stages.2.blocks.8.norm3.weight",
        "pretrained.model.patch_embed.backbone.stages.1.blocks.0.downsample.conv.weight",
        "pretrained.model.patch_embed.proj.bias",
        "pretrained.model.blocks.11.mlp.fc2.weight",
        "pretrained.act_postprocess3.0.project.0.weight",
        "pretrained.act_postprocess4.4.weight",
        "scratch.layer4_rn.weight",
        "scratch.refinenet4.resConfUnit2.conv1.bias",
        "scratch.refinenet1.out_conv.weight",
        "scratch.output_conv.4.bias",
    ):
        assert name in sources, name
    assert {third for source, third in places if source == "pretrained.model.blocks.3.attn.qkv.weight"} == {0, 1, 2}


def saved(module, folder, **picture):
    module.eval().save_pretrained(folder)
    if picture:
        (folder / "preprocessor_config.json").write_text(json.dumps(picture))
    return folder / "model.safetensors"


def test_a_folder_with_a_depth_network(tmp_path):
    path = saved(anything(True), tmp_path / "Depth-Anything-V2-Tiny-hf", size={"height": 70, "width": 70},
                 ensure_multiple_of=14, keep_aspect_ratio=True)  # fmt: skip
    assert kind_of(path) == ("annotator", "depth_anything")
    network = load_depth(path, CPU)
    assert (network.side, network.multiple, network.squeezed) == (70, 14, False)
    assert raw_depth(network, PICTURE[:40, :90]).shape == (40, 90)
    hint = Hints().of(unit(preprocessor="normal_depth", annotators=(str(path),)), Size(64, 48))
    assert hint.pixels.shape == (48, 64, 3)
    (path.parent / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_depth(path, CPU)


def test_a_folder_with_a_dpt(tmp_path):
    from transformers import DPTConfig, DPTForDepthEstimation

    config = DPTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48, image_size=64, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16,
    )  # fmt: skip
    path = saved(
        DPTForDepthEstimation(config), tmp_path / "dpt-tiny", size=64, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    assert kind_of(path) == ("annotator", "depth_midas")
    network = load_depth(path, CPU)
    assert network.squeezed and network.mean == (0.5, 0.5, 0.5)
    assert raw_depth(network, PICTURE[:60, :100]).shape == (60, 100)


def test_distances_are_turned_round():
    class Metric(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Parameter(torch.ones(1))

        def forward(self, pixel_values):
            shape = pixel_values.shape
            return SimpleNamespace(predicted_depth=torch.linspace(1, 9, shape[3]).expand(1, *shape[2:]))

    network = depths.DepthNetwork(Metric(), 32, 8, (0.5,) * 3, (0.5,) * 3, metric=True)
    found = raw_depth(network, PICTURE[:32, :32])
    assert found[0, 0] > found[0, -1], "nearer is larger"


# ---- segmentation


STAGES = ["stage1", "stage2", "stage3", "stage4"]


def segmenter(kind):
    import transformers as hub

    swin = hub.SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[2, 2, 2, 2],
        window_size=2,
        out_features=STAGES,
    )
    queries = dict(hidden_dim=32, encoder_layers=1, num_attention_heads=2, dim_feedforward=32, num_queries=12)
    if kind == "upernet":
        backbone = hub.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=STAGES)
        config = hub.UperNetConfig(backbone_config=backbone, hidden_size=16, num_labels=150, use_auxiliary_head=False)
        return hub.UperNetForSemanticSegmentation(config)
    if kind == "segformer":
        config = hub.SegformerConfig(
            hidden_sizes=[8, 8, 16, 16],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16,
            num_labels=150,
        )
        return hub.SegformerForSemanticSegmentation(config)
    if kind == "mask2former":
        config = hub.Mask2FormerConfig(
            backbone_config=swin,
            num_labels=150,
            feature_size=32,
            mask_feature_size=32,
            encoder_feedforward_dim=32,
            decoder_layers=2,
            **queries,
        )
        return hub.Mask2FormerForUniversalSegmentation(config)
    config = hub.OneFormerConfig(
        backbone_config=swin,
        num_labels=150,
        text_encoder_width=16,
        text_encoder_num_layers=1,
        text_encoder_n_ctx=2,
        task_seq_len=77,
        mask_dim=32,
        conv_dim=32,
        query_dec_layers=1,
        decoder_layers=2,
        **queries,
    )
    return hub.OneFormerForUniversalSegmentation(config)


@pytest.mark.parametrize("kind", ["upernet", "segformer", "mask2former", "oneformer"])
def test_segments_are_those_of_the_network(tmp_path, kind):
    torch.manual_seed(0)
    path = saved(segmenter(kind), tmp_path / kind, size={"shortest_edge": 64})
    assert kind_of(path) == ("annotator", "segmentation"), identify_file(path)
    network = load_segments(path, CPU)
    assert network.side == 64 and (network.task is not None) == (kind == "oneformer")
    found = segments(network, PICTURE[:64, :64])
    assert found.shape == (64, 64) and found.min() >= 0 and found.max() < 150
    if kind == "mask2former":
        from impasto_server.engine.annotators.running import normalised
        from transformers import Mask2FormerImageProcessor

        with torch.inference_mode():
            told = network.module(pixel_values=normalised(PICTURE[:64, :64], network.mean, network.deviation))
        (theirs,) = Mask2FormerImageProcessor().post_process_semantic_segmentation(told, target_sizes=[(64, 64)])
        assert (theirs.numpy() == found).mean() > 0.98
    colors = segment_colors(found)
    assert (colors == COLORS[found]).all()
    hint = Hints().of(unit(preprocessor="segmentation", annotators=(str(path),)), Size(48, 40))
    assert hint.pixels.shape == (40, 48, 3)


def test_oneformer_is_told_its_task_as_it_was_taught():
    from impasto_server.engine.annotators.segments import _task

    tokens = _task(77)
    # "the task is semantic" by CLIP's tokenizer, zeros after it.
    assert tokens.shape == (1, 77) and tokens[0, 0] == 49406 and tokens[0, 1] == 518  # the
    end = tokens[0].tolist().index(49407)
    assert 5 <= end <= 7 and not tokens[0, end + 1 :].any()


def test_another_set_of_classes_is_refused(tmp_path):
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2],
                             decoder_hidden_size=16, num_labels=19)  # fmt: skip
    path = saved(SegformerForSemanticSegmentation(config), tmp_path / "cityscapes")
    with pytest.raises(ModelError, match="19 classes apart") as caught:
        load_segments(path, CPU)
    assert caught.value.data == {"need": 150, "got": 19}


def test_a_person_has_the_colour_that_the_kit_gives_one():
    assert tuple(COLORS[12]) == PERSON and COLORS.shape == (150, 3) and tuple(COLORS[0]) == (120, 120, 120)
