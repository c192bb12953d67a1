"""Who stands how in a picture: bodies, hands and faces of the kit's networks, put together as OpenPose tells them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from impasto_protocol.geometry import Size

from ..openpose import BODY_JOINTS, Person, Pose
from .bodies import Body, detect_bodies
from .crops import check_picture
from .faces import detect_faces
from .hands import Hand, detect_hands
from .landmarks import face_mesh
from .runtime import Floats, Kit

__all__ = ["find_pose"]

_BLAZE = (0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
"""The joint of BlazePose for each of OpenPose's; the neck lies between the shoulders."""
_LEFT, _RIGHT = 11, 12

SEEN = 0.5
"""From this score on a joint is told."""

# fmt: off
_FACE = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)
# fmt: on
"""The point of the mesh for each of the 68 of a face: jaw, brows, nose, eyes, lips."""
_EYES = (slice(36, 42), slice(42, 48))
"""Their middles stand for the pupils."""


def find_pose(
    kit: Kit, image: npt.NDArray[np.generic], *, body: bool = True, hands: bool = False, face: bool = False
) -> Pose:
    """The people in an RGB picture [h, w, 3] uint8, on a canvas of its size; hands and faces go to the body that they
    belong to, or stand alone.

    Raises ValueError for another array, and what `Kit.network` raises.
    """
    picture = check_picture(image)
    height, width = picture.shape[:2]
    bodies = detect_bodies(kit, picture) if body or hands else []
    people = [{"body": _openpose(one, width, height)} for one in bodies]
    if hands:
        _add_hands(kit, picture, people)
    if face:
        _add_faces(kit, picture, people)
    if not body:
        people = [{name: part for name, part in person.items() if name != "body"} for person in people]
    found = tuple(Person(**person) for person in people if person)
    return Pose(Size(width, height), found)


def _openpose(body: Body, width: int, height: int) -> Floats:
    """[18, 3]; what is not seen, or lies outside of the picture, has the score 0."""
    rows = np.zeros((BODY_JOINTS, 3), np.float32)
    for number, joint in enumerate(_BLAZE):
        rows[number] = body.joints[[_LEFT, _RIGHT]].mean(0) if joint < 0 else body.joints[joint]
    rows[1, 2] = min(body.joints[_LEFT, 2], body.joints[_RIGHT, 2])
    inside = (rows[:, :2] >= 0).all(1) & (rows[:, 0] <= width) & (rows[:, 1] <= height)
    rows[~inside | (rows[:, 2] < SEEN)] = 0
    return rows


def _add_hands(kit: Kit, picture: npt.NDArray[np.uint8], people: list[dict[str, Floats]]) -> None:
    """Each wrist's hand, looked for where the forearm leads; without bodies those of the whole picture."""
    if not people:
        for hand in detect_hands(kit, picture):
            people.append({"right_hand" if hand.right >= 0.5 else "left_hand": hand.joints})
        return
    for person in people:
        body = person["body"]
        for name, shoulder, elbow, wrist in (("right_hand", 2, 3, 4), ("left_hand", 5, 6, 7)):
            area = _hand_area(body, shoulder, elbow, wrist)
            if area is None:
                continue
            near = detect_hands(kit, picture, [area])
            if near:
                person[name] = min(near, key=lambda hand: _distance(hand, body[wrist])).joints


def _hand_area(body: Floats, shoulder: int, elbow: int, wrist: int) -> tuple[float, float, float] | None:
    """x, y and side of the square in which OpenPose looks for a hand: a third of the forearm past the wrist, one and a
    half times as large as forearm or upper arm; somewhat more room, since a palm is still looked for in it."""
    if (body[[elbow, wrist], 2] <= 0).any():
        return None
    forearm = body[wrist, :2] - body[elbow, :2]
    upper = body[elbow, :2] - body[shoulder, :2] if body[shoulder, 2] > 0 else forearm * 0
    side = 2.0 * max(float(np.hypot(*forearm)), 0.9 * float(np.hypot(*upper)))
    if side < 20:
        return None
    x, y = body[wrist, :2] + 0.33 * forearm - side / 2
    return float(x), float(y), side


def _distance(hand: Hand, wrist: Floats) -> float:
    return float(np.hypot(*(hand.joints[0, :2] - wrist[:2])))


def _add_faces(kit: Kit, picture: npt.NDArray[np.uint8], people: list[dict[str, Floats]]) -> None:
    for face in detect_faces(kit, picture):
        points = face_mesh(kit, picture, face)
        if points.score < SEEN:
            continue
        places = points.points[list(_FACE), :2]
        pupils = np.stack([places[eye].mean(0) for eye in _EYES])
        rows = np.concatenate([places, pupils])
        rows = np.concatenate([rows, np.full((len(rows), 1), points.score)], 1).astype(np.float32)
        x, y, w, h = face.box.tolist()

        def holds(person: dict[str, Floats], x: float = x, y: float = y, w: float = w, h: float = h) -> bool:
            if "body" not in person or "face" in person or person["body"][0, 2] <= 0:
                return False
            nose = person["body"][0]
            return bool(x <= nose[0] <= x + w and y <= nose[1] <= y + h)

        owner = next((person for person in people if holds(person)), None)
        if owner is None:
            people.append({"face": rows})
        else:
            owner["face"] = rows
