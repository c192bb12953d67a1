"""Depth from one picture, through transformers: DPT (Ranftl et al., "Vision transformers for dense prediction", 2021),
Depth Anything (Yang et al., 2024), and whatever else it loads for depth from a folder.

Files are the folders that transformers writes, and the originals that painters have: dpt_hybrid-midas-501f0c75.pt, and
depth_anything_vits14.pth or depth_anything_v2_vitl.pth and their like.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from impasto_protocol.errors import ModelError
from PIL import Image

from ..checkpoint import Tensors
from ..jobs import Pixels
from ..load import Filler
from ..modelfile import header_of, open_model
from .folder import Folder, read_folder
from .running import Floats, normalised, resized_map

__all__ = ["DepthNetwork", "depth_hint", "load_depth", "raw_depth"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True, eq=False)
class DepthNetwork:
    """`module` sees pictures whose shorter side has `side` pixels, in multiples of `multiple`, less `mean` and by
    `deviation`. `metric` says that it tells distances; the others tell their inverse, larger towards us. A `squeezed`
    one sees a square, whatever the picture's shape."""

    module: Any
    side: int
    multiple: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    metric: bool = False
    squeezed: bool = False


def load_depth(path: str | Path, device: torch.device) -> DepthNetwork:
    """The depth network at `path`: a file of one of the originals, or the weights in a folder of transformers.

    Raises ModelError `model.unsupported` where the file does not say what is needed, `model.corrupt`, and what
    `open_model` raises.
    """
    path = Path(path)
    shapes = {name: tuple(info.shape) for name, info in header_of(path).tensors.items()}
    if "pretrained.cls_token" in shapes:
        return _depth_anything(path, shapes, device)
    if "pretrained.model.cls_token" in shapes:
        return _dpt_hybrid(path, device)
    return _of_folder(read_folder(path), device)


def raw_depth(network: DepthNetwork, picture: Pixels) -> Floats:
    """[h, w] of RGB [h, w, 3], larger towards us, in the network's own units."""
    height, width = picture.shape[:2]
    factor = network.side / min(height, width)
    step = network.multiple
    across, down = (max(round(side * factor / step), 1) * step for side in (width, height))
    # A very long picture is not to take more than four squares.
    most = 4 * network.side // step * step
    size = (network.side, network.side) if network.squeezed else (min(across, most), min(down, most))
    shown = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    values = normalised(shown, network.mean, network.deviation)
    device = next(network.module.parameters()).device
    with torch.inference_mode():
        found: Floats = network.module(pixel_values=values.to(device)).predicted_depth[0].float().cpu().numpy()
    if network.metric:
        found = 1 / np.maximum(found, 1e-3)
    return resized_map(found, width, height)


def depth_hint(depth: Floats) -> Pixels:
    """Depth as the depth ControlNets read it: RGB [h, w, 3], white what is nearest, black what is farthest."""
    low, high = float(depth.min()), float(depth.max())
    grey = (depth - low) / max(high - low, 1e-6) * 255
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, 2)


def _of_folder(folder: Folder, device: torch.device) -> DepthNetwork:
    from transformers import AutoModelForDepthEstimation

    module = folder.load(AutoModelForDepthEstimation, device)
    size = folder.picture.get("size", 384)
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or size.get("height") or 384
    kind = str(module.config.model_type)
    metric = kind in ("zoedepth", "glpn") or getattr(module.config, "depth_estimation_type", "") == "metric"
    multiple = int(folder.picture.get("ensure_multiple_of") or getattr(module.config, "patch_size", None) or 32)
    norm = folder.norm(HALF if kind == "dpt" else IMAGENET)
    squeezed = not folder.picture.get("keep_aspect_ratio", kind != "dpt")
    return DepthNetwork(module, int(size), max(multiple, 1), *norm, metric, squeezed)


class _Renamed:
    """The tensors of a file by other names; `places` tells for each the name there, and which third of it."""

    def __init__(self, tensors: Tensors, places: Mapping[str, tuple[str, int | None]]) -> None:
        self._tensors, self._places = tensors, places

    def keys(self) -> list[str]:
        held = set(self._tensors.keys())
        return [name for name, (source, _) in self._places.items() if source in held]

    def get_tensor(self, name: str) -> torch.Tensor:
        source, third = self._places[name]
        tensor = self._tensors.get_tensor(source)
        return tensor if third is None else tensor.chunk(3)[third]


def _filled(path: Path, make: Callable[[], Any], rules: Mapping[str, str], device: torch.device, what: str) -> Any:
    """A module of transformers, given the numbers of an original file: `rules` are patterns of its names -> what stands
    for them there, with `<q>`, `<k>` and `<v>` for thirds of a joined matrix."""
    with torch.device("meta"):
        module = make()
    places = {name: place_of(name, rules) for name in module.state_dict()}
    with open_model(path) as tensors:
        Filler(path, _Renamed(tensors, places), device, what=what).fill(module, "", lambda name: name, torch.float32)
    return module


def place_of(name: str, rules: Mapping[str, str]) -> tuple[str, int | None]:
    """What a parameter of transformers is called in the original file, and which third of that it is."""
    for pattern, there in rules.items():
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        source = match.expand(there)
        third = next((i for i, mark in enumerate(("<q>", "<k>", "<v>")) if mark in source), None)
        source = re.sub("<[qkv]>", "", source)
        # Both number the stages that grow the picture, from the coarsest on: one from 0 up, the other from 4 down.
        return re.sub(r"refinenet\[(\d)\]", lambda m: f"refinenet{4 - int(m[1])}", source), third
    return name, None


_NECK = {
    r"neck\.fusion_stage\.layers\.(\d)\.projection\.(.*)": r"{head}refinenet[\1].out_conv.\2",
    r"neck\.fusion_stage\.layers\.(\d)\.residual_layer(\d)\.convolution(\d)\.(.*)": (
        r"{head}refinenet[\1].resConfUnit\2.conv\3.\4"
    ),
    **{rf"neck\.convs\.{i}\.(.*)": rf"{{head}}layer{i + 1}_rn.\1" for i in range(4)},
}


def _neck(head: str) -> dict[str, str]:
    return {pattern: there.replace("{head}", head) for pattern, there in _NECK.items()}


_DPT = {
    r"dpt\.embeddings\.cls_token": "pretrained.model.cls_token",
    r"dpt\.embeddings\.position_embeddings": "pretrained.model.pos_embed",
    r"dpt\.embeddings\.projection\.(.*)": r"pretrained.model.patch_embed.proj.\1",
    r"dpt\.embeddings\.backbone\.bit\.embedder\.conv\w+\.(.*)": r"pretrained.model.patch_embed.backbone.stem.conv.\1",
    r"dpt\.embeddings\.backbone\.bit\.embedder\.norm\.(.*)": r"pretrained.model.patch_embed.backbone.stem.norm.\1",
    r"dpt\.embeddings\.backbone\.bit\.encoder\.stages\.(\d)\.layers\.(\d)\.(.*)": (
        r"pretrained.model.patch_embed.backbone.stages.\1.blocks.\2.\3"
    ),
    r"dpt\.encoder\.layer\.(\d+)\.attention\.attention\.query\.(.*)": r"<q>pretrained.model.blocks.\1.attn.qkv.\2",
    r"dpt\.encoder\.layer\.(\d+)\.attention\.attention\.key\.(.*)": r"<k>pretrained.model.blocks.\1.attn.qkv.\2",
    r"dpt\.encoder\.layer\.(\d+)\.attention\.attention\.value\.(.*)": r"<v>pretrained.model.blocks.\1.attn.qkv.\2",
    r"dpt\.encoder\.layer\.(\d+)\.attention\.output\.dense\.(.*)": r"pretrained.model.blocks.\1.attn.proj.\2",
    r"dpt\.encoder\.layer\.(\d+)\.intermediate\.dense\.(.*)": r"pretrained.model.blocks.\1.mlp.fc1.\2",
    r"dpt\.encoder\.layer\.(\d+)\.output\.dense\.(.*)": r"pretrained.model.blocks.\1.mlp.fc2.\2",
    r"dpt\.encoder\.layer\.(\d+)\.layernorm_before\.(.*)": r"pretrained.model.blocks.\1.norm1.\2",
    r"dpt\.encoder\.layer\.(\d+)\.layernorm_after\.(.*)": r"pretrained.model.blocks.\1.norm2.\2",
    r"dpt\.layernorm\.(.*)": r"pretrained.model.norm.\1",
    **{
        rf"neck\.reassemble_stage\.readout_projects\.{i}\.0\.(.*)": rf"pretrained.act_postprocess{i + 1}.0.project.0.\1"
        for i in (2, 3)
    },
    **{
        rf"neck\.reassemble_stage\.layers\.{i}\.projection\.(.*)": rf"pretrained.act_postprocess{i + 1}.3.\1"
        for i in (2, 3)
    },
    r"neck\.reassemble_stage\.layers\.3\.resize\.(.*)": r"pretrained.act_postprocess4.4.\1",
    **_neck("scratch."),
    r"head\.head\.(.*)": r"scratch.output_conv.\1",
}


def _dpt_hybrid(path: Path, device: torch.device) -> DepthNetwork:
    from transformers import BitConfig, DPTConfig, DPTForDepthEstimation

    backbone = BitConfig(
        global_padding="same", layer_type="bottleneck", depths=[3, 4, 9], embedding_dynamic_padding=True,
        out_features=["stage1", "stage2", "stage3"],
    )  # fmt: skip
    config = DPTConfig(
        is_hybrid=True, backbone_config=backbone, backbone_featmap_shape=[1, 1024, 24, 24], hidden_size=768,
        neck_hidden_sizes=[256, 512, 768, 768], reassemble_factors=[1, 1, 1, 0.5], neck_ignore_stages=[0, 1],
        readout_type="project", image_size=384, patch_size=16,
        use_batch_norm_in_fusion_residual=False, layer_norm_eps=1e-6,
    )  # fmt: skip
    module = _filled(path, lambda: DPTForDepthEstimation(config), _DPT, device, "MiDaS depth network")
    return DepthNetwork(module, 384, 32, *HALF, squeezed=True)


_ANYTHING = {
    r"backbone\.embeddings\.(cls_token|mask_token)": r"pretrained.\1",
    r"backbone\.embeddings\.position_embeddings": "pretrained.pos_embed",
    r"backbone\.embeddings\.patch_embeddings\.projection\.(.*)": r"pretrained.patch_embed.proj.\1",
    r"backbone\.encoder\.layer\.(\d+)\.attention\.q_proj\.(.*)": r"<q>pretrained.blocks.\1.attn.qkv.\2",
    r"backbone\.encoder\.layer\.(\d+)\.attention\.k_proj\.(.*)": r"<k>pretrained.blocks.\1.attn.qkv.\2",
    r"backbone\.encoder\.layer\.(\d+)\.attention\.v_proj\.(.*)": r"<v>pretrained.blocks.\1.attn.qkv.\2",
    r"backbone\.encoder\.layer\.(\d+)\.attention\.o_proj\.(.*)": r"pretrained.blocks.\1.attn.proj.\2",
    r"backbone\.encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1": r"pretrained.blocks.\1.ls\2.gamma",
    r"backbone\.encoder\.layer\.(\d+)\.((?:norm1|norm2|mlp).*)": r"pretrained.blocks.\1.\2",
    r"backbone\.layernorm\.(.*)": r"pretrained.norm.\1",
    r"neck\.reassemble_stage\.layers\.(\d)\.projection\.(.*)": r"depth_head.projects.\1.\2",
    r"neck\.reassemble_stage\.layers\.(\d)\.resize\.(.*)": r"depth_head.resize_layers.\1.\2",
    **_neck("depth_head.scratch."),
    r"head\.conv1\.(.*)": r"depth_head.scratch.output_conv1.\1",
    r"head\.conv2\.(.*)": r"depth_head.scratch.output_conv2.0.\1",
    r"head\.conv3\.(.*)": r"depth_head.scratch.output_conv2.2.\1",
}

_HEAD = 64
"""Numbers of one head of attention."""


def _depth_anything(path: Path, shapes: Mapping[str, tuple[int, ...]], device: torch.device) -> DepthNetwork:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    name = path.stem.casefold()
    second = "v2" in name
    if not second and re.search("vit[sbl]14", name) is None:
        raise ModelError(
            "model.unsupported",
            f"{path.name} is a Depth Anything, and does not say whether of the first or the second version; call it "
            "as it was published (depth_anything_vits14.pth, depth_anything_v2_vits.pth).",
            data={"file": path.name},
        )
    try:
        width = shapes["pretrained.cls_token"][-1]
        tokens = shapes["pretrained.pos_embed"][1]
        necks = [shapes[f"depth_head.projects.{i}.weight"][0] for i in range(4)]
        fusion, head = (
            shapes["depth_head.scratch.layer1_rn.weight"][0],
            shapes["depth_head.scratch.output_conv2.0.weight"][0],
        )
        patch = shapes["pretrained.patch_embed.proj.weight"][-1]
    except KeyError as error:
        raise ModelError(
            "model.corrupt",
            f"{path.name} is not a complete Depth Anything ({error.args[0]} is missing). Download it again.",
            data={"file": path.name},
        ) from error
    layers = 1 + max(int(m[1]) for key in shapes if (m := re.match(r"pretrained\.blocks\.(\d+)\.", key)))
    if second:
        taken = [layers // 4, layers // 2, layers * 3 // 4, layers] if layers != 24 else [5, 12, 18, 24]
    else:
        taken = list(range(layers - 3, layers + 1))
    side = patch * round((tokens - 1) ** 0.5)
    backbone = Dinov2Config(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=max(width // _HEAD, 1), image_size=side,
        patch_size=patch, out_indices=taken, apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, patch_size=patch, reassemble_hidden_size=width, neck_hidden_sizes=necks,
        fusion_hidden_size=fusion, head_hidden_size=head,
    )  # fmt: skip
    module = _filled(path, lambda: DepthAnythingForDepthEstimation(config), _ANYTHING, device, "Depth Anything network")
    return DepthNetwork(module, side, patch, *IMAGENET)
