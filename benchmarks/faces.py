"""How like the profile a swapped face is, and how its rim shows beside a plain paste. docs/faces.md quotes it.

    python3 dev.py exec -- python benchmarks/faces.py [--sheet OUT.jpg] [--count 25]

The astronaut's face (NASA, public domain; scikit-image) goes onto faces of LFW, each 25 x 25 grey pixels enlarged.
Similarity is by dlib's network, which the swap does not use. The step at the rim is the mean difference of neighbouring
pixels across the mask's edge: in the picture as it was, after the swap, and after a paste of the warped photograph.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from impasto_server.engine.face_profiles import FaceProfile, SeenFace, build_profile, likeness, seen_faces
from impasto_server.engine.face_warp import own_shape, warp_face
from impasto_server.engine.faceswap import MeshWarp
from impasto_server.engine.kit.embedding import face_embedding
from impasto_server.engine.kit.landmarks import face_mesh
from impasto_server.engine.kit.runtime import Kit
from impasto_server.engine.params_faces import FaceSwap
from PIL import Image
from skimage import data

SHAPES = (0.0, 0.5, 1.0)


def portrait(number: int) -> np.ndarray:
    small = Image.fromarray((data.lfw_subset()[number] * 255).clip(0, 255).astype(np.uint8))
    canvas = Image.new("RGB", (300, 300), (128, 128, 128))
    canvas.paste(small.resize((150, 150), Image.Resampling.BICUBIC).convert("RGB"), (75, 75))
    return np.asarray(canvas)


def swapped(picture: np.ndarray, face: SeenFace, profile: FaceProfile, shape: float) -> tuple[np.ndarray, ...]:
    """The picture with the swap and with the paste, and where the mask is."""
    made = MeshWarp().make(picture, face, profile, FaceSwap(shape=shape))
    x, y, w, h = made.box
    inside = np.zeros(picture.shape[:2], bool)
    inside[y : y + h, x : x + w] = made.alpha > 0.04
    done, pasted = picture.astype(np.float32), picture.copy()
    share = made.alpha[..., None]
    done[y : y + h, x : x + w] += share * (made.pixels - done[y : y + h, x : x + w])
    photo = profile.photos[0]
    plain, _ = warp_face(photo.pixels, photo.mesh, own_shape(photo.mesh, face.mesh.points, shape), made.box)
    part = pasted[y : y + h, x : x + w]
    part[made.alpha > 0.04] = np.rint(plain[made.alpha > 0.04])
    return np.rint(done).astype(np.uint8), pasted, inside


def step(picture: np.ndarray, inside: np.ndarray) -> float:
    values = picture.astype(np.float64).mean(-1)
    across = [np.abs(np.diff(values, axis=axis))[np.diff(inside, axis=axis)] for axis in (0, 1)]
    return float(np.concatenate(across).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--count", type=int, default=25)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kit = Kit(Path(folder))
        profile, _ = build_profile(kit, [("astronaut", data.astronaut())], "astronaut", "in the public domain")
        own = profile.embeddings["dlib"]
        rows: dict[str, list[float]] = {}
        pictures = []
        for number in range(0, 100, max(1, 100 // args.count)):
            picture = portrait(number)
            (face,) = seen_faces(kit, picture, 0.3)[:1]
            rows.setdefault("similarity, before", []).append(likeness(face.embedding, own))
            row = [picture]
            for shape in SHAPES:
                begun = time.perf_counter()
                done, pasted, inside = swapped(picture, face, profile, shape)
                rows.setdefault("seconds for swap and paste", []).append(time.perf_counter() - begun)
                if shape == 0.5:
                    row.insert(1, pasted)
                    for name, what in (("picture", picture), ("swap", done), ("paste", pasted)):
                        rows.setdefault(f"step at the rim, {name}", []).append(step(what, inside))
                row.append(done)
                points = face_mesh(kit, done, face.face).points
                like = likeness(face_embedding(kit, done, points), own)
                rows.setdefault(f"similarity, own features {shape:g}", []).append(like)
            pictures.append(np.concatenate([each[70:235, 70:235] for each in row], axis=1))
        told = {name: [round(float(np.mean(v)), 3), round(min(v), 3), round(max(v), 3)] for name, v in rows.items()}
        before, after = rows["similarity, before"], rows["similarity, own features 0.5"]
        told["more like the profile, own features 0.5"] = [sum(b > a for a, b in zip(before, after, strict=True))]
        told["of"] = [len(before)]
        print(json.dumps(told, indent=1))
        if args.sheet is not None:
            chosen = [pictures[i] for i in range(0, len(pictures), max(1, len(pictures) // 6))][:6]
            Image.fromarray(np.concatenate(chosen)).save(args.sheet, quality=88)


if __name__ == "__main__":
    main()
