"""Sizes of CLIP's vision towers and of IP-Adapters, from the shapes in their files. No torch here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .families import Shapes

__all__ = ["TOWER_PREFIX", "AdapterSizes", "Tower", "adapter_of", "tower_of"]

TOWER_PREFIX = "vision_model."
PROJECTION = "visual_projection.weight"


@dataclass(frozen=True)
class Tower:
    """Width of its layers and of their inner part, their number, side of the picture and of a patch in pixels, and
    width of the embedding."""

    width: int
    inner: int
    layers: int
    side: int
    patch: int
    projection: int

    @property
    def name(self) -> str:
        """As people call it."""
        return {768: "ViT-B", 1024: "ViT-L", 1280: "ViT-H", 1664: "ViT-bigG"}.get(self.width, f"width {self.width}")


@dataclass(frozen=True)
class AdapterSizes:
    """Of an IP-Adapter: `kind` is base, plus, full-face, faceid or faceid-plus; `width` what it reads of the tower: the
    embedding of a base one, the hidden states of the others, 0 where it needs none; `text` the width of the text beside
    which its `tokens` are read; `identity` how many numbers that tell a person it reads."""

    kind: str
    width: int
    text: int
    tokens: int
    identity: int = 0

    @property
    def needs(self) -> str:
        """The tower that it needs, in words."""
        known = (
            {768: "ViT-L", 1024: "ViT-H", 1280: "ViT-bigG"}
            if self.kind == "base"
            else {1024: "ViT-L", 1280: "ViT-H", 1664: "ViT-bigG"}
        )
        reads = "an embedding" if self.kind == "base" else "hidden states"
        return known.get(self.width, f"with {reads} of {self.width} numbers")

    def fits(self, tower: Tower) -> bool:
        """Whether this is the tower that it was trained with, as far as widths tell."""
        return self.width == (tower.projection if self.kind == "base" else tower.width)


def tower_of(shapes: Shapes) -> Tower | None:
    """The sizes of a vision tower with its projection; None where there is none."""
    patch = shapes.get(TOWER_PREFIX + "embeddings.patch_embedding.weight", ())
    places = shapes.get(TOWER_PREFIX + "embeddings.position_embedding.weight", ())
    inner = shapes.get(TOWER_PREFIX + "encoder.layers.0.mlp.fc1.weight", ())
    projection = shapes.get(PROJECTION, ())
    if len(patch) != 4 or len(places) != 2 or len(inner) != 2 or len(projection) != 2:
        return None
    layers = sum(
        1 for name in shapes if re.fullmatch(re.escape(TOWER_PREFIX) + r"encoder\.layers\.\d+\.mlp\.fc1\.weight", name)
    )
    across = round((places[0] - 1) ** 0.5)
    if across * across != places[0] - 1:
        return None
    return Tower(patch[0], inner[0], layers, across * patch[2], patch[2], projection[0])


def adapter_of(shapes: Shapes) -> AdapterSizes | None:
    """The sizes of an IP-Adapter of a kind that is known; None for any other file."""
    text = shapes.get("ip_adapter.1.to_k_ip.weight", (0,))[-1]
    if not text:
        return None
    first, last = shapes.get("image_proj.proj.0.weight", ()), shapes.get("image_proj.proj.2.weight", ())
    resampled = shapes.get("image_proj.perceiver_resampler.proj_in.weight")
    if resampled is not None:
        fits = len(resampled) == len(first) == len(last) == 2 and last[0] % resampled[0] == 0
        return AdapterSizes("faceid-plus", resampled[1], text, last[0] // resampled[0], first[1]) if fits else None
    if len(first) == len(last) == 2 and "image_proj.norm.weight" in shapes and "image_proj.proj.3.weight" not in shapes:
        return AdapterSizes("faceid", 0, text, last[0] // text, first[1]) if last[0] % text == 0 else None
    latents = shapes.get("image_proj.latents")
    if latents is not None and "image_proj.proj_in.weight" in shapes:
        return AdapterSizes("plus", shapes["image_proj.proj_in.weight"][1], text, latents[1])
    if "image_proj.proj.3.weight" in shapes and "image_proj.proj.0.weight" in shapes:
        return AdapterSizes("full-face", shapes["image_proj.proj.0.weight"][1], text, 257)
    one = shapes.get("image_proj.proj.weight")
    if one is not None and one[0] % text == 0:
        return AdapterSizes("base", one[1], text, one[0] // text)
    return None
