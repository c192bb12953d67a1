"""Which layers of the network an IP-Adapter speaks in, and how strongly: the presets. No torch here.

Positions are counted along the way of the picture through the network: down, middle, up. Which layers carry the
style and which the composition: Wang et al., "InstantStyle: free lunch towards style-preserving in text-to-image
generation", 2024, for SDXL; for SD 1.x the layers that IPAdapter plus found.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["IP_LAYERS", "layer_weights"]

IP_LAYERS = (
    "all",
    "style",
    "strong_style",
    "composition",
    "style_and_composition",
    "ease_in",
    "ease_out",
    "ease_in_out",
    "weak_input",
    "weak_middle",
    "weak_output",
    "strong_middle",
)
"""Presets; "all" is the same weight everywhere."""

_SD1, _SDXL = 16, 11
"""How many attention blocks with text the two have."""

_STYLE = {_SD1: {0, 1, 2, 3, 9, 10, 11, 12, 13, 14, 15}, _SDXL: {6}}
_COMPOSITION = {_SD1: {4: 0.25, 5: 1.0}, _SDXL: {3: 1.0}}
_WEAK = 0.2
_LEAST = 0.05


def layer_weights(preset: str, sides: Sequence[str]) -> list[float]:
    """The factor of each attention block, in the order of the way; `sides` says of each "input", "middle" or "output".

    Networks with another number of blocks than SD 1.x and SDXL take the place of SD 1.x that lies as far along.
    """
    count = len(sides)
    like = count if count in _STYLE else _SD1
    places = [i if like == count else min(i * like // count, like - 1) for i in range(count)]
    return [_weight(preset, place, like, side) for place, side in zip(places, sides, strict=True)]


def _weight(preset: str, place: int, count: int, side: str) -> float:
    style, composition = _STYLE[count], _COMPOSITION[count]
    if preset == "style":
        return float(place in style)
    if preset == "composition":
        return composition.get(place, 0.0)
    if preset == "strong_style":
        return float(place not in composition)
    if preset == "style_and_composition":
        return max(float(place in style), composition.get(place, 0.0))
    if preset.startswith("ease"):
        done, half = place / count, count / 2
        rise = {"ease_in": 1 - done, "ease_out": done, "ease_in_out": 1 - abs(place - half) / half}[preset]
        return _LEAST + (1 - _LEAST) * rise
    if preset == "strong_middle":
        return 1.0 if side == "middle" else _WEAK
    return _WEAK if preset == f"weak_{side}" else 1.0
