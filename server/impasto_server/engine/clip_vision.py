"""CLIP's vision tower: what an IP-Adapter sees of a picture. A file of the user's, found by its widths.

Radford et al., "Learning transferable visual models from natural language supervision", 2021. Files have the names of
transformers' `CLIPVisionModelWithProjection`, as those that come with the IP-Adapters do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from impasto_protocol.errors import ModelError
from impasto_protocol.geometry import Size
from PIL import Image

from .fitting import fitted
from .jobs import Pixels
from .load import Filler
from .memory import placed
from .modelfile import header_of, open_model
from .vision_shapes import TOWER_PREFIX, Tower, tower_of

__all__ = ["Seen", "VisionTower", "load_tower", "seen"]

MEAN = (0.48145466, 0.4578275, 0.40821073)
SPREAD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on, by channel."""

_HEADS = {768: 12, 1024: 16, 1280: 16, 1664: 16}
"""Width -> heads of the published towers; others have one for 64."""

_OPENAI = 1024
"""Up to this width towers are OpenAI's, whose activation is the quick one; the wider ones are OpenCLIP's."""


@dataclass(frozen=True, eq=False)
class VisionTower:
    """A loaded tower with its sizes."""

    network: Any
    path: Path
    sizes: Tower

    @property
    def size_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.network.parameters())


@dataclass(frozen=True)
class Seen:
    """What a tower says of pictures: `embedding` [pictures, projection], `hidden` [pictures, patches + 1, width] of the
    last layer but one. float32."""

    embedding: torch.Tensor
    hidden: torch.Tensor


def load_tower(path: str | Path, *, device: torch.device, dtype: torch.dtype) -> VisionTower:
    """The tower at `path`. Raises ModelError `model.unsupported` for a file that holds none, and `model.corrupt`,
    `model.unknown`, `model.unsafe` as `load_checkpoint` does."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    path = Path(path)
    shapes = {name: tuple(entry.shape) for name, entry in header_of(path).tensors.items()}
    sizes = tower_of(shapes)
    if sizes is None:
        raise ModelError(
            "model.unsupported",
            f"{path.name} holds no vision tower of CLIP with its projection; take the IP-Adapter's image encoder.",
            data={"file": path.name},
        )
    said = _said_beside(path, sizes)
    config = CLIPVisionConfig(
        hidden_size=sizes.width,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.layers,
        num_attention_heads=said.get("num_attention_heads") or _HEADS.get(sizes.width) or max(sizes.width // 64, 1),
        image_size=sizes.side,
        patch_size=sizes.patch,
        projection_dim=sizes.projection,
        hidden_act=said.get("hidden_act") or ("quick_gelu" if sizes.width <= _OPENAI else "gelu"),
    )
    with torch.device("meta"):
        network = CLIPVisionModelWithProjection(config)
    with open_model(path) as tensors:
        Filler(path, tensors, device, what="vision tower").fill(network, TOWER_PREFIX, lambda name: name, dtype)
    return VisionTower(network, path, sizes)


def _said_beside(path: Path, sizes: Tower) -> Mapping[str, Any]:
    """What config.json beside the file says, where it is about a tower of this size."""
    try:
        said = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) and said.get("hidden_size") == sizes.width else {}


def seen(tower: VisionTower, picture: Pixels | None, resize: str = "crop") -> Seen:
    """What the tower says of an RGB picture [h, w, 3] of any size; of None, what it says of nothing (zeros).

    The picture is brought to the tower's square as CLIP does it (bicubic; "crop" takes the middle), or by "fill" or
    "stretch".
    """
    side = tower.sizes.side
    values = torch.zeros(1, 3, side, side)
    if picture is not None:
        square = fitted(picture, Size(side, side), resize, Image.Resampling.BICUBIC)
        mean, spread = torch.tensor(MEAN)[:, None, None], torch.tensor(SPREAD)[:, None, None]
        values = ((torch.tensor(square).permute(2, 0, 1).float() / 255 - mean) / spread)[None]
    device, dtype = placed(tower.network)
    output = tower.network(values.to(device, dtype), output_hidden_states=True)
    return Seen(output.image_embeds.float(), output.hidden_states[-2].float())
