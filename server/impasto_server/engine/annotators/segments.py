"""What things are, as colours of ADE20K (Zhou et al., "Scene parsing through ADE20K dataset", 2017): semantic
segmentation through transformers, by networks of the 150 classes (OneFormer, Mask2Former, UperNet, SegFormer and
others)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from impasto_protocol.errors import ModelError
from numpy.typing import NDArray
from PIL import Image

from ..jobs import Pixels
from ..tokenizer import BOS, EOS, load_tokenizer
from .ade20k import COLORS
from .folder import read_folder
from .running import normalised

__all__ = ["SegmentNetwork", "load_segments", "segment_colors", "segments"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LONGEST = 1024
MULTIPLE = 32

TASK = "the task is semantic"
"""What OneFormer is told."""


@dataclass(frozen=True, eq=False)
class SegmentNetwork:
    """`module` sees pictures with the shorter side `side`; `task` are the tokens that OneFormer reads."""

    module: Any
    side: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    task: torch.Tensor | None = None


def load_segments(path: str | Path, device: torch.device) -> SegmentNetwork:
    """The network whose weights lie at `path`, in a folder of transformers. Raises ModelError `model.unsupported` for
    one of other classes than ADE20K's 150, and as `Folder.load` does."""
    from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

    folder = read_folder(Path(path))
    try:
        config = json.loads((folder.weights.parent / "config.json").read_text(encoding="utf-8"))
        kind = str(config.get("model_type", ""))
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            "model.corrupt", f"config.json beside {folder.weights.name} cannot be read ({error})."
        ) from error
    universal = kind in ("oneformer", "mask2former", "maskformer", "eomt")
    module = folder.load(AutoModelForUniversalSegmentation if universal else AutoModelForSemanticSegmentation, device)
    labels = int(module.config.num_labels)
    if labels != len(COLORS):
        raise ModelError(
            "model.unsupported",
            f"{folder.weights.parent.name} tells {labels} classes apart; segmentation hints want the {len(COLORS)} of "
            "ADE20K: choose a network that was trained on it.",
            data={"need": len(COLORS), "got": labels},
        )
    size = folder.picture.get("size", 512)
    if isinstance(size, dict):
        size = size.get("shortest_edge") or size.get("height") or 512
    task = _task(int(module.config.task_seq_len)).to(device) if kind == "oneformer" else None
    return SegmentNetwork(module, int(size), *folder.norm(IMAGENET), task)


def segments(network: SegmentNetwork, picture: Pixels) -> NDArray[np.int64]:
    """The class of each pixel of RGB [h, w, 3], [h, w] 0..149."""
    height, width = picture.shape[:2]
    factor = min(network.side / min(height, width), LONGEST / max(height, width))
    size = tuple(max(round(side * factor / MULTIPLE), 1) * MULTIPLE for side in (width, height))
    shown = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    values = normalised(shown, network.mean, network.deviation)
    device = next(network.module.parameters()).device
    more = {} if network.task is None else {"task_inputs": network.task}
    with torch.inference_mode():
        told = network.module(pixel_values=values.to(device), **more)
        if hasattr(told, "class_queries_logits"):
            # Each query says what it sees, and where; the last class is none.
            what = told.class_queries_logits.softmax(-1)[..., :-1]
            scores = torch.einsum("bqc,bqhw->bchw", what, told.masks_queries_logits.sigmoid())
        else:
            scores = told.logits
        scores = torch.nn.functional.interpolate(scores.float(), (height, width), mode="bilinear", align_corners=False)
        found: NDArray[np.int64] = scores[0].argmax(0).cpu().numpy()
    return found


def segment_colors(classes: NDArray[np.int64]) -> Pixels:
    """The hint: RGB [h, w, 3] in ADE20K's colours."""
    return np.asarray(COLORS[classes], np.uint8)


def _task(length: int) -> torch.Tensor:
    """Tokens of the task as CLIP's tokenizer gives them, filled up with zeros."""
    ids = [BOS, *load_tokenizer().encode(TASK), EOS][:length]
    return torch.tensor([ids + [0] * (length - len(ids))])
