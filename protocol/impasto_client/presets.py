"""Presets of the catalogue: a few settings that are taken at once."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence

__all__ = ["applied", "fitting"]


def fitting(presets: Sequence[Mapping[str, Any]], family: str) -> List[Mapping[str, Any]]:
    """Those for checkpoints of that family."""
    return [preset for preset in presets if preset.get("family") in ("", family)]


def applied(values: Mapping[str, Any], preset: Mapping[str, Any]) -> Dict[str, Any]:
    """`values` with the preset's settings; its LoRAs come to those that are there, one that is there already keeps its
    strength."""
    params = dict(preset.get("params") or {})
    loras = list(values.get("loras") or ())
    there = {entry.get("model") for entry in loras}
    loras += [entry for entry in params.pop("loras", ()) if entry.get("model") not in there]
    return {**values, **params, **({"loras": loras} if loras else {})}
