"""The parameters of refining a picture of any size in tiles, and of painting one. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from impasto_protocol.schema import AUTO

from .fields import STRENGTH, Number, param
from .params_common import Common
from .params_sampling import Started
from .params_vary import Varied

__all__ = ["SEAM_FIXES", "TILE_MULTIPLE", "TILE_WEIGHTS", "TILINGS", "Panorama", "Refine", "Tiled"]

TILINGS = ("auto", "latent", "pixel")
TILE_WEIGHTS = ("gaussian", "uniform")
SEAM_FIXES = ("none", "band", "half_tile", "half_tile_intersections")

TILE_MULTIPLE = 64
"""What automatic sides of tiles are a multiple of: networks halve the latents three times."""

_TILES = {"group": "tiles"}
_MORE = {"group": "tiles", "advanced": True}


@dataclass(frozen=True, kw_only=True)
class Tiled:
    """How a picture is cut into tiles that are painted together."""

    tile: Number = param(
        AUTO,
        "Tile",
        "Side of the tiles; auto takes the model's own size.",
        minimum=64,
        maximum=4096,
        step=8,
        auto=True,
        ui={"unit": "px", **_MORE},
    )
    overlap: Number = param(
        AUTO,
        "Overlap",
        "Pixels that neighbouring tiles share; auto takes a quarter of the tile, in pixel tiles an eighth.",
        minimum=0,
        maximum=2048,
        step=8,
        auto=True,
        ui={"unit": "px", **_MORE},
    )
    tile_weights: str = param(
        "gaussian",
        "Weights",
        "How tiles that share a place are mixed: gaussian trusts a tile most in its middle, uniform everywhere alike.",
        enum=TILE_WEIGHTS,
        ui={"widget": "choice", **_MORE},
    )

    def tile_side(self, native_size: int) -> int:
        """The side of the tiles in pixels, a multiple of 8."""
        if not isinstance(self.tile, str):
            return max(int(self.tile) // 8 * 8, 64)
        return max(native_size // TILE_MULTIPLE, 1) * TILE_MULTIPLE

    def tile_overlap(self, native_size: int, share: float = 0.25) -> int:
        """What neighbours share in pixels, a multiple of 8 and at most three quarters of a tile."""
        side = self.tile_side(native_size)
        asked = side * share if isinstance(self.overlap, str) else float(self.overlap)
        return min(round(asked / 8) * 8, side * 3 // 4 // 8 * 8)


@dataclass(frozen=True, kw_only=True)
class Panorama(Tiled):
    """Painting at a size that the model does not know, in tiles."""

    panorama: bool = param(
        False,
        "Panorama",
        "Paint at the full size in overlapping tiles of the model's own size: for wide pictures, and for large areas "
        "around one.",
        ui=_TILES,
    )


@dataclass(frozen=True, kw_only=True)
class Refine(Varied, Tiled, Started, Common):
    """Refine: image to image over a picture of any size, in tiles, with its colours held to the original."""

    strength: float = param(0.3, "Strength", "0 leaves the picture, 1 repaints it.", **STRENGTH)
    tiling: str = param(
        "auto",
        "Tiles",
        "latent paints all tiles together, step by step; pixel paints one after the other and needs no more memory for "
        "a larger picture. auto takes latent as far as memory allows.",
        enum=TILINGS,
        ui={"widget": "choice", **_TILES},
    )
    tile_padding: Number = param(
        AUTO,
        "Padding",
        "Pixels around a pixel tile that the model sees; auto takes an eighth of the tile.",
        minimum=0,
        maximum=1024,
        step=8,
        auto=True,
        ui={"unit": "px", **_MORE},
    )
    seam_fix: str = param(
        "none",
        "Seam fix",
        "Paint the borders of pixel tiles once more: in bands, or in tiles that lie half-way between, with or without "
        "those where four meet.",
        enum=SEAM_FIXES,
        ui={"widget": "choice", **_MORE},
    )
    seam_strength: float = param(
        0.35, "Seam strength", "How much is painted anew there.", **{**STRENGTH, "ui": {**STRENGTH["ui"], **_MORE}}
    )
    seam_width: int = param(
        64,
        "Seam width",
        "Width of the bands.",
        minimum=16,
        maximum=512,
        step=8,
        ui={"unit": "px", **_MORE},
    )
    hold_color: bool = param(
        True,
        "Hold colours",
        "What is coarser than a few dozen pixels keeps the colours of the original.",
        ui=_MORE,
    )

    def tile_context(self, native_size: int) -> int:
        """Pixels around a pixel tile, a multiple of 8."""
        side = self.tile_side(native_size)
        asked = side / 8 if isinstance(self.tile_padding, str) else float(self.tile_padding)
        return round(asked / 8) * 8
