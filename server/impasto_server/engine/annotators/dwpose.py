"""Whole bodies by DWPose (Yang et al., "Effective whole-body pose estimation with two-stages distillation", 2023), from
the user's own ONNX files: a detector of people (YOLOX) and a network of 133 joints. Both run with onnxruntime, on the
CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from impasto_protocol.errors import ModelError
from impasto_protocol.geometry import Size
from numpy.typing import NDArray
from PIL import Image

from ..jobs import Pixels
from ..kit.blazeface import overlap
from ..kit.crops import square
from ..kit.runtime import session_of
from ..onnxfiles import read_onnx
from ..openpose import Person, Pose

__all__ = ["PeopleDetector", "WholeBody", "find_whole_bodies", "load_people_detector", "load_whole_body"]

Floats = NDArray[np.float32]

STRIDES = (8, 16, 32)
"""Pixels between the detector's cells, level by level."""
GREY = 114
"""What fills its picture up."""
LIKELY, SAME = 0.3, 0.45

ROOM = 1.25
"""How much larger than its box a person's part is."""
SPLIT = 2.0
"""Places of the second network's lines for each of its pixels."""
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
JOINTS = 133
SEEN = 0.3

_BODY = (0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""The joint of COCO for each of OpenPose's; the neck lies between the shoulders."""
_FACE, _LEFT_HAND, _RIGHT_HAND = slice(23, 91), slice(91, 112), slice(112, 133)


class _Onnx:
    def __init__(self, path: Path) -> None:
        self.session, self.name = session_of(path), path.name
        (self.input,) = (value.name for value in self.session.get_inputs())

    def __call__(self, values: Floats) -> list[Floats]:
        found: list[Floats] = self.session.run(None, {self.input: np.ascontiguousarray(values, np.float32)})
        return found


class PeopleDetector(_Onnx):
    """YOLOX, of COCO's classes, the first of which are people."""

    def __init__(self, path: Path, side: int) -> None:
        super().__init__(path)
        self.side = side


class WholeBody(_Onnx):
    """The second network, which sees `size` pixels of one person."""

    def __init__(self, path: Path, size: Size) -> None:
        super().__init__(path)
        self.size = size


def load_people_detector(path: str | Path, device: torch.device) -> PeopleDetector:
    """yolox_l.onnx. Raises ModelError `model.corrupt` for what is no ONNX file, `model.unsupported` for another one."""
    shape = _shape(path, 85, "a YOLOX detector of COCO's 80 classes")
    return PeopleDetector(Path(path), int(shape[3]))


def load_whole_body(path: str | Path, device: torch.device) -> WholeBody:
    """dw-ll_ucoco_384.onnx. Raises as `load_people_detector` does."""
    shape = _shape(path, JOINTS, "a network of 133 joints (simcc)")
    return WholeBody(Path(path), Size(int(shape[3]), int(shape[2])))


def _shape(path: str | Path, mark: int, need: str) -> tuple[Any, ...]:
    facts = read_onnx(path)
    shapes = list(facts.inputs.values())
    if len(shapes) != 1 or len(shapes[0]) != 4 or not all(isinstance(side, int) for side in shapes[0][1:]):
        marked = False
    else:
        marked = any(mark in shape for shape in facts.outputs.values())
    if not marked:
        raise ModelError(
            "model.unsupported",
            f"{Path(path).name} is an ONNX file, but not {need}; put the right one in its place.",
            data={"file": Path(path).name, "need": need},
        )
    return shapes[0]


def find_whole_bodies(detector: PeopleDetector, network: WholeBody, picture: Pixels) -> Pose:
    """The people in RGB [h, w, 3], with hands and faces; where the detector finds nobody, the whole picture is looked
    at as one person."""
    height, width = picture.shape[:2]
    boxes = _people(detector, picture) or [np.array([0, 0, width, height], np.float32)]
    return Pose(Size(width, height), tuple(_person(network, picture, box) for box in boxes))


def _people(detector: PeopleDetector, picture: Pixels) -> list[Floats]:
    """Boxes [x, y, w, h] in the picture's pixels, the likeliest first."""
    height, width = picture.shape[:2]
    side = detector.side
    factor = min(side / width, side / height)
    inner = (max(int(width * factor), 1), max(int(height * factor), 1))
    shown = np.full((side, side, 3), GREY, np.uint8)
    shown[: inner[1], : inner[0]] = np.asarray(Image.fromarray(picture).resize(inner, Image.Resampling.BILINEAR))
    # It was taught on blue, green, red in 0..255.
    (rows,) = detector(shown[..., ::-1].astype(np.float32).transpose(2, 0, 1)[None])[0]
    cells, strides = [], []
    for stride in STRIDES:
        count = side // stride
        y, x = np.mgrid[:count, :count].reshape(2, -1)
        cells.append(np.stack([x, y], 1))
        strides.append(np.full((count * count, 1), stride))
    grid, step = np.concatenate(cells), np.concatenate(strides)
    if len(rows) != len(grid):
        raise ModelError(
            "model.unsupported",
            f"{detector.name} gives {len(rows)} boxes where a YOLOX of {side} pixels gives {len(grid)}.",
            data={"file": detector.name},
        )
    centres, sizes = (rows[:, :2] + grid) * step / factor, np.exp(rows[:, 2:4]) * step / factor
    scores = rows[:, 4] * rows[:, 5]
    boxes = np.concatenate([centres - sizes / 2, sizes], 1).astype(np.float32)
    kept: list[Floats] = []
    for index in np.argsort(-scores):
        if scores[index] < LIKELY:
            break
        if not any(overlap(boxes[index], other) > SAME for other in kept):
            kept.append(boxes[index])
    return kept


def _person(network: WholeBody, picture: Pixels, box: Floats) -> Person:
    across, down = network.size
    x, y, width, height = box.tolist()
    # The box, with room, in the shape that the network sees.
    longer = max(width / across, height / down) * ROOM
    part = square(picture, x + width / 2 - longer * max(network.size) / 2,
                  y + height / 2 - longer * max(network.size) / 2, longer * max(network.size),
                  longer * max(network.size), max(network.size))  # fmt: skip
    left, top = (max(network.size) - across) // 2, (max(network.size) - down) // 2
    shown = part.pixels[top : top + down, left : left + across].astype(np.float32)
    values = np.asarray((shown - np.array(MEAN)) / np.array(DEVIATION), np.float32)
    lines_x, lines_y = network(values.transpose(2, 0, 1)[None])[:2]
    places = np.stack([lines_x[0].argmax(1), lines_y[0].argmax(1)], 1) / SPLIT + (left, top)
    scores = np.minimum(lines_x[0].max(1), lines_y[0].max(1)).clip(0, 1)
    joints = np.concatenate([part.back(places), scores[:, None]], 1).astype(np.float32)
    joints[joints[:, 2] < SEEN] = 0
    body = np.stack([joints[joint] for joint in _BODY])
    shoulders = joints[[5, 6]]
    body[1] = shoulders.mean(0) if (shoulders[:, 2] > 0).all() else 0
    parts = {"face": joints[_FACE], "left_hand": joints[_LEFT_HAND], "right_hand": joints[_RIGHT_HAND]}
    return Person(body, **{name: rows for name, rows in parts.items() if rows[:, 2].any()})
