"""Poses as OpenPose tells them: joints of bodies, hands and faces, as data, as JSON, and drawn for ControlNet.

Cao et al., "OpenPose: Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", 2019: 18 joints of a body
(the COCO ones and the neck), 21 of a hand, 70 points of a face. No torch here.
"""

from __future__ import annotations

import colorsys
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from impasto_protocol.geometry import Size
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .jobs import Pixels

__all__ = ["BODY_JOINTS", "FACE_POINTS", "HAND_JOINTS", "Person", "Pose", "draw_pose", "read_pose"]

Floats = NDArray[np.float32]

BODY_JOINTS, HAND_JOINTS, FACE_POINTS = 18, 21, 70
"""How many rows each has. Of a body: nose, neck, right shoulder, elbow, wrist, the same at the left, right hip, knee,
ankle, the same at the left, right eye, left eye, right ear, left ear. A face may have 68, without its pupils."""

_LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
_FINGERS = tuple((0 if i % 4 == 1 else i - 1, i) for i in range(1, 21))

_KEYS = {"body": "pose", "left_hand": "hand_left", "right_hand": "hand_right", "face": "face"}
_COUNTS = {"body": (18,), "left_hand": (21,), "right_hand": (21,), "face": (70, 68)}

MOST = 100
"""People in one pose."""


@dataclass(frozen=True, eq=False)
class Person:
    """Joints [n, 3]: x and y in pixels of the pose's canvas, and a confidence 0..1, where 0 means that there is none.

    n is that of the constants; a part that is not known is None.
    """

    body: Floats | None = None
    left_hand: Floats | None = None
    right_hand: Floats | None = None
    face: Floats | None = None

    def moved(self, move: Callable[[Floats], Floats]) -> Person:
        """With every place [n, 2] where `move` leads it."""

        def part(rows: Floats | None) -> Floats | None:
            return None if rows is None else np.concatenate([move(rows[:, :2]), rows[:, 2:]], 1).astype(np.float32)

        return Person(part(self.body), part(self.left_hand), part(self.right_hand), part(self.face))


@dataclass(frozen=True, eq=False)
class Pose:
    """`people` on a canvas of `size` pixels."""

    size: Size
    people: tuple[Person, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """OpenPose's output format, with the canvas as the ControlNet tools add it."""
        return {
            "people": [_told(person) for person in self.people],
            "canvas_width": self.size.width,
            "canvas_height": self.size.height,
        }

    def fitted(self, size: Size, resize: str) -> Pose:
        """On a canvas of `size`, led there as `hints.fitted` leads a picture."""
        width, height = self.size
        across, down = size.width / width, size.height / height
        if resize != "stretch":
            across = down = max(across, down) if resize == "crop" else min(across, down)
        shift = np.array([(size.width - width * across) / 2, (size.height - height * down) / 2], np.float32)
        scale = np.array([across, down], np.float32)
        return Pose(size, tuple(person.moved(lambda places: places * scale + shift) for person in self.people))


def _told(person: Person) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, key in _KEYS.items():
        rows = getattr(person, name)
        told[f"{key}_keypoints_2d"] = None if rows is None else [round(float(v), 3) for v in rows.reshape(-1)]
    return told


def read_pose(text: str | Mapping[str, Any]) -> Pose:
    """The pose of JSON in OpenPose's keypoint format: an object with `people` and, for the canvas, `canvas_width` and
    `canvas_height`; of a list of them the first.

    Where no coordinate is above 1 they are parts of the canvas. Raises ValueError with a sentence about what is wrong.
    """
    try:
        told: Any = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if isinstance(told, list) and told:
        told = told[0]
    if not isinstance(told, Mapping) or not isinstance(told.get("people"), list):
        raise ValueError("it has no list `people`; OpenPose's keypoint format does")
    sides = []
    for name in ("canvas_width", "canvas_height"):
        side = told.get(name)
        if isinstance(side, bool) or not isinstance(side, int | float) or not 1 <= side <= 100_000:
            raise ValueError(f"`{name}` is {str(side)[:20]!r} and should be the canvas's pixels")
        sides.append(round(side))
    if len(told["people"]) > MOST:
        raise ValueError(f"it has {len(told['people'])} people; at most {MOST} can be drawn")
    people = [_person(index, entry) for index, entry in enumerate(told["people"])]
    parts = [p for person in people for p in (person.body, person.left_hand, person.right_hand, person.face)]
    places = [p[p[:, 2] > 0, :2] for p in parts if p is not None]
    size = Size(*sides)
    if any(p.size for p in places) and max(float(p.max()) for p in places if p.size) <= 1:
        people = [person.moved(lambda p: p * np.array(size, np.float32)) for person in people]
    return Pose(size, tuple(people))


def _person(index: int, entry: Any) -> Person:
    if not isinstance(entry, Mapping):
        raise ValueError(f"person {index + 1} is no object")
    return Person(**{name: _rows(index, name, entry.get(f"{key}_keypoints_2d")) for name, key in _KEYS.items()})


def _rows(index: int, name: str, values: Any) -> Floats | None:
    if values is None or values == []:
        return None
    where = f"`{_KEYS[name]}_keypoints_2d` of person {index + 1}"
    counts = [3 * count for count in _COUNTS[name]]
    if not isinstance(values, list) or len(values) not in counts:
        count = len(values) if isinstance(values, list) else "no"
        raise ValueError(f"{where} has {count} numbers instead of {' or '.join(map(str, counts))}")
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values):
        raise ValueError(f"{where} holds something that is no number")
    if max(abs(v) for v in values) > 1e6:
        raise ValueError(f"{where} lies far beyond any canvas")
    return np.array(values, np.float32).reshape(-1, 3)


def draw_pose(pose: Pose, size: Size | None = None) -> Pixels:
    """The hint that ControlNet's openpose reads: RGB [height, width, 3] uint8, limbs in its colours on black.

    Sticks are 8 pixels thick, and dots 8 pixels wide (a face's 6), where the shorter side is 512 pixels or less, and
    thicker in proportion above. `size` scales the pose to another canvas.
    """
    if size is not None and size != pose.size:
        pose = pose.fitted(size, "stretch")
    size = pose.size
    unit = max(min(size) / 512, 1.0)
    image = Image.new("RGB", (size.width, size.height))
    draw = ImageDraw.Draw(image)
    for person in pose.people:
        if person.body is not None:
            _draw_body(draw, person.body, 4 * unit)
    for person in pose.people:
        for hand in (person.left_hand, person.right_hand):
            if hand is not None:
                _draw_hand(draw, hand, unit)
        if person.face is not None:
            for x, y, there in person.face.tolist():
                if there > 0:
                    _dot(draw, x, y, 3 * unit, (255, 255, 255))
    return np.asarray(image)


def _draw_body(draw: ImageDraw.ImageDraw, body: Floats, thick: float) -> None:
    for number, (a, b) in enumerate(_LIMBS):
        if body[a, 2] <= 0 or body[b, 2] <= 0:
            continue
        # Whole pixels and degrees, as ControlNet's own drawings have them.
        middle, along = np.trunc((body[a, :2] + body[b, :2]) / 2), body[b, :2] - body[a, :2]
        length, angle = (
            float(int(np.hypot(*along) / 2)),
            math.radians(int(math.degrees(math.atan2(-along[1], -along[0])))),
        )
        around = np.linspace(0, 2 * math.pi, 90, endpoint=False)
        x, y = length * np.cos(around), thick * np.sin(around)
        turned = np.stack([x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)], 1)
        draw.polygon([(round(px), round(py)) for px, py in (turned + middle).tolist()], fill=_dim(_color(number)))
    for number, (x, y, there) in enumerate(body.tolist()):
        if there > 0:
            _dot(draw, x, y, thick, _color(number))


def _draw_hand(draw: ImageDraw.ImageDraw, hand: Floats, unit: float) -> None:
    for number, (a, b) in enumerate(_FINGERS):
        if hand[a, 2] > 0 and hand[b, 2] > 0:
            red, green, blue = (round(255 * v) for v in colorsys.hsv_to_rgb(number / len(_FINGERS), 1.0, 1.0))
            ends = [(int(hand[i, 0]), int(hand[i, 1])) for i in (a, b)]
            draw.line(ends, fill=(red, green, blue), width=round(2 * unit))
    for x, y, there in hand.tolist():
        if there > 0:
            _dot(draw, x, y, 4 * unit, (0, 0, 255))


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: tuple[int, int, int]) -> None:
    x, y = int(x), int(y)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _color(number: int) -> tuple[int, int, int]:
    """18 steps once round the hues, beginning at red; the steps are those of an 8-bit wheel of 85."""
    sector, rest = divmod(number, 3)
    rise = rest * 85
    wheel = (
        (255, rise, 0),
        (255 - rise, 255, 0),
        (0, 255, rise),
        (0, 255 - rise, 255),
        (rise, 0, 255),
        (255, 0, 255 - rise),
    )
    return wheel[sector]


def _dim(color: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (int(0.6 * v) for v in color)
    return red, green, blue
