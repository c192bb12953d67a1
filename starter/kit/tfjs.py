"""Converts face-api's face recognition network (TensorFlow.js, uint8 weights) to ONNX.

The network is dlib's ResNet with 29 convolutions (King 2017; He et al., "Deep Residual Learning", 2016): a face chip
of 150 x 150 pixels in, 128 numbers out. The weights stay uint8 in the file, each tensor with its factor and offset as
the package has them, so that nothing is lost twice.
"""

from __future__ import annotations

import json

import numpy as np

from .onnxfile import Graph

MEAN_RGB = (122.782, 117.001, 104.298)
SIDE = 150
STAGES = (
    ("conv32", ("1", "2", "3")),
    ("conv64", ("down", "1", "2", "3")),
    ("conv128", ("down", "1", "2")),
    ("conv256", ("down", "1", "2", "down_out")),
)


class _Weights:
    """The tensors of a weights manifest, as nodes of a graph that restore them."""

    def __init__(self, manifest: bytes, data: bytes, graph: Graph):
        self.graph, at = graph, 0
        self.stored: dict[str, tuple[np.ndarray, np.float32, np.float32]] = {}
        for entry in (w for group in json.loads(manifest) for w in group["weights"]):
            how = entry.get("quantization", {"dtype": entry["dtype"], "scale": 1, "min": 0})
            if how["dtype"] not in ("uint8", "float32"):
                raise ValueError(f"{entry['name']} is stored as {how['dtype']}, which is not known")
            size = int(np.prod(entry["shape"]))
            values = np.frombuffer(data, how["dtype"], size, at).reshape(entry["shape"])
            self.stored[entry["name"]] = (values, np.float32(how["scale"]), np.float32(how["min"]))
            at += values.nbytes
        if at != len(data):
            raise ValueError(f"{len(data) - at} bytes of weights are left over")

    def __call__(self, name: str, *order: int, shape: tuple[int, ...] | None = None) -> str:
        values, scale, least = self.stored.pop(name)
        values = values.transpose(order) if order else values
        whole = self.graph.constant(values.reshape(shape or values.shape))
        if values.dtype == np.float32:
            return whole
        whole = self.graph.add("Cast", whole, to=1)
        scaled = self.graph.add("Mul", whole, self.graph.constant(np.array(scale)))
        return self.graph.add("Add", scaled, self.graph.constant(np.array(least)))


def face_embedding(manifest: bytes, data: bytes, about: str = "") -> bytes:
    """face_recognition_model-weights_manifest.json and .bin -> an ONNX file.

    Input "input" [1, 150, 150, 3], RGB 0..255; output "embedding" [1, 128]."""
    graph = Graph("face-embedding")
    weights = _Weights(manifest, data, graph)

    def constant(value: float | list[float]) -> str:
        array = np.array(value, np.float32)
        return graph.constant(array.reshape(-1, 1, 1) if array.ndim else array)

    def layer(x: str, name: str, stride: int, same: bool, relu: bool) -> str:
        weight = f"{name}/conv/filters"
        side = weights.stored[weight][0].shape[0]
        pads = [side // 2] * 4 if same else [0] * 4
        x = graph.add(
            "Conv",
            x,
            weights(weight, 3, 2, 0, 1),
            weights(f"{name}/conv/bias"),
            kernel_shape=(side, side),
            strides=(stride, stride),
            pads=pads,
        )
        x = graph.add("Mul", x, weights(f"{name}/scale/weights", shape=(-1, 1, 1)))
        x = graph.add("Add", x, weights(f"{name}/scale/biases", shape=(-1, 1, 1)))
        return graph.add("Relu", x) if relu else x

    def block(x: str, name: str, shape: tuple[int, int], down: bool) -> tuple[str, tuple[int, int]]:
        """`shape` is (channels, side); a `down` block halves the side and may widen."""
        channels, side = shape
        out = layer(x, f"{name}/conv1", 2 if down else 1, not down, relu=True)
        out = layer(out, f"{name}/conv2", 1, True, relu=False)
        if down:
            wider = weights_width[name]
            x = graph.add("AveragePool", x, kernel_shape=(2, 2), strides=(2, 2))
            pooled, convolved = side // 2, (side - 3) // 2 + 1
            # The shortcut gets zeros for the new channels, the convolution for the row and column that it lacks.
            x = _padded(graph, x, wider - channels, 0)
            out = _padded(graph, out, 0, pooled - convolved)
            shape = (wider, pooled)
        return graph.add("Relu", graph.add("Add", out, x)), shape

    weights_width = {
        f"{stage}_{part}": weights.stored[f"{stage}_{part}/conv1/conv/filters"][0].shape[3]
        for stage, parts in STAGES
        for part in parts
    }
    x = graph.add("Transpose", graph.input("input", (1, SIDE, SIDE, 3)), perm=(0, 3, 1, 2))
    x = graph.add("Div", graph.add("Sub", x, constant(list(MEAN_RGB))), constant(256.0))
    x = layer(x, "conv32_down", 2, False, relu=True)
    x = graph.add("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2))
    shape = (32, ((SIDE - 7) // 2 + 1 - 3) // 2 + 1)
    for stage, parts in STAGES:
        for part in parts:
            x, shape = block(x, f"{stage}_{part}", shape, part.startswith("down"))
    x = graph.add("ReduceMean", x, axes=(2, 3), keepdims=0)
    graph.output(graph.add("MatMul", x, weights("fc")), "embedding", (1, 128))
    if weights.stored:
        raise ValueError(f"tensors without a place: {', '.join(weights.stored)}")
    return graph.encoded(about)


def _padded(graph: Graph, x: str, channels: int, side: int) -> str:
    """Zeros after the last channel, row and column."""
    if not channels and not side:
        return x
    return graph.add("Pad", x, graph.constant(np.array([0, 0, 0, 0, 0, channels, side, side], np.int64)))
