"""The annotators by their preprocessors: each loads its network when it is first asked, and draws what that says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..jobs import ControlUnit, Pixels
from ..kit.runtime import Kit, installed
from ..modelpath import stamp_of
from ..openpose import draw_pose
from .depth import depth_hint, load_depth, raw_depth
from .dwpose import find_whole_bodies, load_people_detector, load_whole_body
from .hed import load_hed, scribbled, soft_edges
from .lineart import anime_lines, drawn_lines, load_anime_lines, load_line_drawing
from .normals import load_normal_bae, normals_of_depth, surface_normals
from .segments import load_segments, segment_colors, segments

__all__ = ["WITH_NETWORKS", "Annotators"]

T = TypeVar("T")

Drawn = tuple[Pixels, Mapping[str, Any] | None]
"""The hint, RGB [h, w, 3], and the joints that it shows, as JSON, where it is a pose."""


class Annotators:
    """Holds the network that was used last; the others are loaded again when they are asked for. For one thread."""

    def __init__(self, kit: Kit, device: torch.device) -> None:
        self.kit, self.device = kit, device
        self._held: tuple[object, Any] | None = None

    def get(self, path: str | Path, load: Callable[[str | Path, torch.device], T]) -> T:
        """The network at `path`, by `load` where it is not held or its file has changed."""
        key = (str(path), stamp_of(path), load)
        if self._held is None or self._held[0] != key:
            self._held = None  # before the other one takes its memory
            self._held = (key, load(path, self.device))
        network: T = self._held[1]
        return network

    def clear(self) -> None:
        """Let go of it."""
        self._held = None

    def hed(self, unit: ControlUnit) -> Any:
        """HED of the user's own file, else the kit's."""
        path = unit.annotators[0] if unit.annotators else installed("hed", self.kit.folder)
        return self.get(path, load_hed)


def _gray(values: NDArray[np.uint8]) -> Drawn:
    return np.repeat(values[..., None], 3, 2), None


def _dwpose(held: Annotators, picture: Pixels, unit: ControlUnit) -> Drawn:
    detector, network = unit.annotators
    pose = find_whole_bodies(load_people_detector(detector, held.device), held.get(network, load_whole_body), picture)
    return draw_pose(pose), pose.to_json()


def _depth(held: Annotators, picture: Pixels, unit: ControlUnit) -> Drawn:
    return depth_hint(raw_depth(held.get(unit.annotators[0], load_depth), picture)), None


def _normals_of_depth(held: Annotators, picture: Pixels, unit: ControlUnit) -> Drawn:
    return normals_of_depth(raw_depth(held.get(unit.annotators[0], load_depth), picture), unit.low(0.4)), None


def _normals(held: Annotators, picture: Pixels, unit: ControlUnit) -> Drawn:
    return surface_normals(held.get(unit.annotators[0], load_normal_bae), picture), None


def _lines(held: Annotators, picture: Pixels, unit: ControlUnit) -> Drawn:
    return _gray(drawn_lines(held.get(unit.annotators[0], load_line_drawing), picture))


def _anime_lines(held: Annotators, picture: Pixels, unit: ControlUnit) -> Drawn:
    return _gray(anime_lines(held.get(unit.annotators[0], load_anime_lines), picture))


def _segments(held: Annotators, picture: Pixels, unit: ControlUnit) -> Drawn:
    return segment_colors(segments(held.get(unit.annotators[0], load_segments), picture)), None


WITH_NETWORKS: Mapping[str, Callable[[Annotators, Pixels, ControlUnit], Drawn]] = {
    "softedge": lambda held, picture, unit: _gray(soft_edges(held.hed(unit), picture)),
    "softedge_safe": lambda held, picture, unit: _gray(soft_edges(held.hed(unit), picture, safe=True)),
    "scribble_hed": lambda held, picture, unit: _gray(scribbled(soft_edges(held.hed(unit), picture))),
    "dwpose": _dwpose,
    "depth_midas": _depth,
    "depth_anything": _depth,
    "normal_bae": _normals,
    "normal_depth": _normals_of_depth,
    "lineart_realistic": _lines,
    "lineart_coarse": _lines,
    "lineart_anime": _anime_lines,
    "segmentation": _segments,
}
"""Preprocessor -> function of RGB and the unit."""
