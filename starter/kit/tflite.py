"""Converts a TensorFlow Lite network to ONNX, for the operations that the small networks here use.

Values of four dimensions are [n, height, width, channels] there and [n, channels, height, width] here; the inputs and
outputs of the converted network keep their shapes. Weights stay fp16 where they are. Sparse weights become dense.
Schema: tensorflow/lite/schema/schema.fbs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .flatbuffer import Table
from .onnxfile import Graph

_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 9: "i1"}
_INDEX = {1: "<i4", 2: "<u2", 3: "u1"}
_SAME = 0
_SPARSE = 1
_CODES = {
    0: "add",
    1: "average_pool",
    2: "concat",
    3: "conv",
    4: "depthwise",
    5: "depth_to_space",
    6: "dequantize",
    9: "fully_connected",
    14: "sigmoid",
    17: "max_pool",
    18: "mul",
    19: "relu",
    22: "reshape",
    23: "resize",
    32: "custom",
    34: "pad",
    40: "mean",
    54: "prelu",
    117: "hard_swish",
    124: "densify",
}


class NotConvertible(Exception):
    """The network has something that this converter does not know; the text says what."""


@dataclass
class _Converter:
    model: Table
    graph: Graph
    names: dict[int, str] = field(default_factory=dict)  # tensor -> value of the ONNX graph, channels first
    constants: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.part = self.model.tables(2)[0]
        self.tensors = self.part.tables(0)
        self.buffers = self.model.tables(4)

    # ---- what tensors are

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(int(d) for d in self.tensors[tensor].array(0))

    def constant(self, tensor: int) -> np.ndarray:
        """The stored values, as the file lays them out."""
        if tensor in self.constants:
            return self.constants[tensor]
        info = self.tensors[tensor]
        raw = self.buffers[info.number(2, "I")].array(0, "u1")
        if not len(raw):
            raise NotConvertible(f"tensor {info.text(3)!r} is needed at conversion and is not stored")
        values = raw.view(_DTYPES[info.number(1, "b")])
        sparsity = info.table(6)
        return dense(sparsity, values, self.shape(tensor)) if sparsity else values.reshape(self.shape(tensor))

    def value(self, tensor: int) -> str:
        """The ONNX value of a tensor; a stored one becomes a constant that broadcasts over [n, c, h, w]."""
        if tensor not in self.names:
            stored = self.constant(tensor)
            if stored.ndim == 4:
                stored = stored.transpose(0, 3, 1, 2)
            elif stored.ndim:
                stored = stored.reshape(-1, 1, 1) if stored.size > 1 else stored.reshape(())
            self.names[tensor] = self.graph.constant(stored)
        return self.names[tensor]

    def by_rows(self, tensor: int) -> str:
        """The ONNX value in the order of TensorFlow's dimensions."""
        value = self.value(tensor)
        return self.graph.add("Transpose", value, perm=(0, 2, 3, 1)) if len(self.shape(tensor)) == 4 else value

    # ---- operations

    def run(self) -> None:
        codes = []
        for code in self.model.tables(1):
            number = max(code.number(0, "b"), code.number(3))
            codes.append((number, code.text(1)))
        for operation in self.part.tables(3):
            number, custom = codes[operation.number(0, "I")]
            kind = _CODES.get(number, "")
            if kind == "custom":
                kind = {"Convolution2DTransposeBias": "transposed_conv"}.get(custom, "")
            if not kind:
                raise NotConvertible(f"operation {custom or number} is not known")
            inputs = [int(i) for i in operation.array(1)]
            (out,) = (int(i) for i in operation.array(2))
            convert: Callable[..., str | None] = getattr(self, "_" + kind)
            made = convert(inputs, out, operation.table(4) or operation)
            if made is not None:
                self.names[out] = made

    def activated(self, value: str, kind: int) -> str:
        if kind == 0:
            return value
        if kind == 1:
            return self.graph.add("Relu", value)
        if kind == 3:
            bounds = [self.graph.constant(np.array(v, np.float32)) for v in (0.0, 6.0)]
            return self.graph.add("Clip", value, *bounds)
        raise NotConvertible(f"activation {kind} is not known")

    def pads(self, tensor: int, kernel: tuple[int, int], stride: tuple[int, int], padding: int) -> list[int]:
        """top, left, bottom, right as TensorFlow's SAME puts them: the odd pixel comes last."""
        if padding != _SAME:
            return [0, 0, 0, 0]
        before, after = [], []
        for size, k, s in zip(self.shape(tensor)[1:3], kernel, stride, strict=True):
            total = max((math.ceil(size / s) - 1) * s + k - size, 0)
            before.append(total // 2)
            after.append(total - total // 2)
        return before + after

    def _convolution(self, inputs: list[int], options: Table, weight: np.ndarray, groups: int, act: int) -> str:
        """`weight` is [out, in / groups, height, width]."""
        stride = (options.number(2), options.number(1))
        kernel = (weight.shape[2], weight.shape[3])
        parts = [self.value(inputs[0]), self.graph.constant(weight)]
        if len(inputs) > 2 and inputs[2] >= 0:
            parts.append(self.graph.constant(self.constant(inputs[2])))
        pads = self.pads(inputs[0], kernel, stride, options.number(0, "b"))
        made = self.graph.add("Conv", *parts, kernel_shape=kernel, strides=stride, pads=pads, group=groups)
        return self.activated(made, act)

    def _conv(self, inputs: list[int], out: int, options: Table) -> str:
        if (options.number(4, "i", 1), options.number(5, "i", 1)) != (1, 1):
            raise NotConvertible("dilated convolutions are not known")
        weight = self.constant(inputs[1]).transpose(0, 3, 1, 2)
        return self._convolution(inputs, options, weight, 1, options.number(3, "b"))

    def _depthwise(self, inputs: list[int], out: int, options: Table) -> str:
        weight = self.constant(inputs[1]).transpose(3, 0, 1, 2)
        return self._convolution(inputs, options, weight, self.shape(inputs[0])[3], options.number(4, "b"))

    def _transposed_conv(self, inputs: list[int], out: int, operation: Table) -> str:
        _, width, height = np.frombuffer(operation.array(5, "u1").tobytes(), "<i4", 3)
        weight = self.constant(inputs[1]).transpose(3, 0, 1, 2)
        kernel = (weight.shape[2], weight.shape[3])
        if kernel != (height, width):
            raise NotConvertible("transposed convolutions whose tiles overlap are not known")
        parts = [self.value(inputs[0]), self.graph.constant(weight), self.graph.constant(self.constant(inputs[2]))]
        return self.graph.add("ConvTranspose", *parts, kernel_shape=kernel, strides=(int(height), int(width)))

    def _pool(self, kind: str, inputs: list[int], options: Table) -> str:
        kernel, stride = (options.number(4), options.number(3)), (options.number(2), options.number(1))
        pads = self.pads(inputs[0], kernel, stride, options.number(0, "b"))
        made = self.graph.add(kind, self.value(inputs[0]), kernel_shape=kernel, strides=stride, pads=pads)
        return self.activated(made, options.number(5, "b"))

    def _max_pool(self, inputs: list[int], out: int, options: Table) -> str:
        return self._pool("MaxPool", inputs, options)

    def _average_pool(self, inputs: list[int], out: int, options: Table) -> str:
        return self._pool("AveragePool", inputs, options)

    def _binary(self, kind: str, inputs: list[int], options: Table) -> str:
        made = self.graph.add(kind, self.value(inputs[0]), self.value(inputs[1]))
        return self.activated(made, options.number(0, "b"))

    def _add(self, inputs: list[int], out: int, options: Table) -> str:
        return self._binary("Add", inputs, options)

    def _mul(self, inputs: list[int], out: int, options: Table) -> str:
        return self._binary("Mul", inputs, options)

    def _relu(self, inputs: list[int], out: int, options: Table) -> str:
        return self.graph.add("Relu", self.value(inputs[0]))

    def _sigmoid(self, inputs: list[int], out: int, options: Table) -> str:
        return self.graph.add("Sigmoid", self.value(inputs[0]))

    def _hard_swish(self, inputs: list[int], out: int, options: Table) -> str:
        return self.graph.add("HardSwish", self.value(inputs[0]))

    def _prelu(self, inputs: list[int], out: int, options: Table) -> str:
        slope = self.constant(inputs[1])
        if slope.size != slope.shape[-1]:
            raise NotConvertible("PReLU with a slope for each pixel is not known")
        return self.graph.add("PRelu", self.value(inputs[0]), self.graph.constant(slope.reshape(-1, 1, 1)))

    def _pad(self, inputs: list[int], out: int, options: Table) -> str:
        pads = self.constant(inputs[1]).astype(np.int64)
        pads = pads[[0, 3, 1, 2]] if len(pads) == 4 else pads
        return self.graph.add("Pad", self.value(inputs[0]), self.graph.constant(pads.T.reshape(-1)))

    def _mean(self, inputs: list[int], out: int, options: Table) -> str:
        if sorted(self.constant(inputs[1]).reshape(-1).tolist()) != [1, 2]:
            raise NotConvertible("means other than over height and width are not known")
        return self.graph.add(
            "ReduceMean", self.value(inputs[0]), axes=(2, 3), keepdims=int(bool(options.number(0, "b")))
        )

    def _resize(self, inputs: list[int], out: int, options: Table) -> str:
        way = "align_corners" if options.number(2, "b") else "half_pixel" if options.number(3, "b") else "asymmetric"
        n, height, width, channels = self.shape(out)
        size = self.graph.constant(np.array([n, channels, height, width], np.int64))
        return self.graph.add(
            "Resize", self.value(inputs[0]), "", "", size, mode="linear", coordinate_transformation_mode=way
        )

    def _depth_to_space(self, inputs: list[int], out: int, options: Table) -> str:
        return self.graph.add("DepthToSpace", self.value(inputs[0]), blocksize=options.number(0), mode="DCR")

    def _reshape(self, inputs: list[int], out: int, options: Table) -> str:
        wanted = self.graph.constant(np.array(self.shape(out), np.int64))
        made = self.graph.add("Reshape", self.by_rows(inputs[0]), wanted)
        return self.graph.add("Transpose", made, perm=(0, 3, 1, 2)) if len(self.shape(out)) == 4 else made

    def _concat(self, inputs: list[int], out: int, options: Table) -> str:
        rank = len(self.shape(out))
        axis = options.number(0) % rank
        return self.graph.add(
            "Concat", *(self.value(i) for i in inputs), axis=(0, 2, 3, 1)[axis] if rank == 4 else axis
        )

    def _fully_connected(self, inputs: list[int], out: int, options: Table) -> str:
        flat = self.graph.constant(np.array([-1, self.shape(inputs[1])[1]], np.int64))
        rows = self.graph.add("Reshape", self.by_rows(inputs[0]), flat)
        parts = [rows, self.graph.constant(self.constant(inputs[1]))]
        if len(inputs) > 2 and inputs[2] >= 0:
            parts.append(self.graph.constant(self.constant(inputs[2])))
        return self.activated(self.graph.add("Gemm", *parts, transB=1), options.number(0, "b"))

    def _dequantize(self, inputs: list[int], out: int, options: Table) -> None:
        values = self.constant(inputs[0])
        if values.dtype != np.float16:
            raise NotConvertible(f"weights of type {values.dtype} are not known")
        self.constants[out] = values

    def _densify(self, inputs: list[int], out: int, options: Table) -> None:
        self.constants[out] = self.constant(inputs[0])


def dense(sparsity: Table, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A sparse tensor's values [stored] -> all of them, of `shape`. See TensorFlow Lite's SparsityParameters:
    dimensions in the order of traversal, some cut into blocks, each dense or a list of the indices that are kept."""
    order, blocks = sparsity.array(0).tolist(), sparsity.array(1).tolist()
    levels = sparsity.tables(2)
    rank = len(shape)
    block_size = [1] * rank
    for k in range(len(blocks)):
        block_size[blocks[k]] = levels[rank + k].number(1)
    # Rows of coordinates [entries, levels], grown level by level.
    coordinates = np.zeros((1, 0), np.int64)
    positions = np.zeros(1, np.int64)
    for level in levels:
        if level.number(0, "b") == _SPARSE:
            ends = _indices(level, 2)
            kept = _indices(level, 4)
            counts = ends[positions + 1] - ends[positions]
            starts = np.repeat(ends[positions], counts)
            steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            coordinates = np.repeat(coordinates, counts, axis=0)
            positions = starts + steps
            here = kept[positions]
        else:
            size = level.number(1)
            coordinates = np.repeat(coordinates, size, axis=0)
            here = np.tile(np.arange(size), len(positions))
            positions = (positions[:, None] * size + np.arange(size)).reshape(-1)
        coordinates = np.concatenate([coordinates, here[:, None]], axis=1)
    place = np.zeros((len(coordinates), rank), np.int64)
    for column, dimension in enumerate(order):
        if dimension < rank:
            place[:, dimension] += coordinates[:, column] * block_size[dimension]
        else:
            place[:, blocks[dimension - rank]] += coordinates[:, column]
    whole = np.zeros(shape, values.dtype)
    whole[tuple(place.T)] = values[positions]
    return whole


def _indices(level: Table, number: int) -> np.ndarray:
    """The union of index vectors whose type is field `number` and whose table the next one."""
    table = level.table(number + 1)
    assert table is not None
    return table.array(0, _INDEX[level.number(number, "b")]).astype(np.int64)


def to_onnx(data: bytes, name: str, outputs: dict[str, str] | None = None, about: str = "") -> bytes:
    """A .tflite file's bytes -> an ONNX file's. `outputs` gives the outputs to keep: name in the file -> new name; None
    keeps all as they are called. The input is called "input". Raises NotConvertible."""
    if data[4:8] != b"TFL3":
        raise NotConvertible("this is no TensorFlow Lite file")
    converter = _Converter(Table.root(data), Graph(name))
    graph, part = converter.graph, converter.part
    (source,) = (int(i) for i in part.array(1))
    shape = converter.shape(source)
    value = graph.input("input", shape)
    converter.names[source] = graph.add("Transpose", value, perm=(0, 3, 1, 2)) if len(shape) == 4 else value
    converter.run()
    for tensor in part.array(2).tolist():
        called = converter.tensors[tensor].text(3)
        if outputs is None or called in outputs:
            graph.output(converter.by_rows(tensor), (outputs or {}).get(called, called), converter.shape(tensor))
    return graph.encoded(about)
