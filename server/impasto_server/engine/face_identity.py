"""Who a face is, as ArcFace's networks say it: 512 numbers of length 1. A file of the user's, run by onnxruntime.

The weights that people have are InsightFace's (w600k_r50.onnx of buffalo_l, glintr100.onnx of antelopev2), which are
for research that is not commercial; so none come along.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from impasto_protocol.errors import ModelError
from numpy.typing import NDArray

from .face_align import aligned, arcface_template, five_points
from .jobs import Pixels
from .kit.faces import detect_faces
from .kit.landmarks import face_mesh
from .kit.runtime import Floats, Kit, session_of
from .onnxfiles import IDENTITY_SIDE, is_identity_network, read_onnx

__all__ = ["IdentityNetwork", "best_face", "load_identity"]


@dataclass(frozen=True, eq=False)
class IdentityNetwork:
    """A loaded one."""

    path: Path
    session: Any

    def __call__(self, picture: Pixels, points: NDArray[np.floating]) -> Floats:
        """The identity [512], of length 1, of the face in RGB [h, w, 3] whose five points these are."""
        chip = aligned(picture, points, arcface_template(IDENTITY_SIDE), IDENTITY_SIDE).pixels
        values = (chip.astype(np.float32).transpose(2, 0, 1)[None] - 127.5) / 127.5
        (name,) = (value.name for value in self.session.get_inputs())
        found = np.asarray(self.session.run(None, {name: values})[0], np.float32).reshape(-1)
        return (found / max(float(np.linalg.norm(found)), 1e-12)).astype(np.float32)


def load_identity(path: str | Path) -> IdentityNetwork:
    """The network at `path`. Raises ModelError: `model.corrupt`, `model.unknown` for a file that cannot be read,
    `model.unsupported` for another network, or where onnxruntime is not installed or does not run it."""
    path = Path(path)
    if not is_identity_network(read_onnx(path)):
        raise ModelError(
            "model.unsupported",
            f"{path.name} is an ONNX file, but not a network that tells faces apart (ArcFace); put the right one in "
            "its place.",
            data={"file": path.name},
        )
    return IdentityNetwork(path, session_of(path))


def best_face(kit: Kit, picture: Pixels) -> NDArray[np.float64] | None:
    """The five points of the largest face in RGB [h, w, 3], of those that are seen clearly; None where there is none.

    Raises what `Kit.network` raises.
    """
    faces = detect_faces(kit, picture)
    if not faces:
        return None
    largest = max(faces, key=lambda face: float(face.box[2] * face.box[3]))
    return five_points(face_mesh(kit, picture, largest).points)
