"""Writes ONNX files with nothing but numpy: a graph is built node by node and encoded as protobuf by hand.

The format: https://onnx.ai/onnx/repo-docs/IR.html and onnx.proto. Weights may be stored as fp16 or uint8 and become
fp32 by nodes at the beginning, which a runtime folds when it loads the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

OPSET = 17
IR_VERSION = 8
_TYPES = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7, "float16": 10}

Attribute = int | float | str | Sequence[int]


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(tag: int, value: int) -> bytes:
    return _varint(tag << 3) + _varint(value)


def _bytes(tag: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return _varint(tag << 3 | 2) + _varint(len(value)) + value


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, int):
        body, kind = _number(3, value), 2
    elif isinstance(value, float):
        body, kind = _varint(2 << 3 | 5) + struct.pack("<f", value), 1
    elif isinstance(value, str):
        body, kind = _bytes(4, value), 3
    else:
        body, kind = b"".join(_number(8, int(v)) for v in value), 7
    return _bytes(1, name) + body + _number(20, kind)


def _tensor(name: str, value: np.ndarray) -> bytes:
    dims = b"".join(_number(1, d) for d in value.shape)
    kind = _number(2, _TYPES[value.dtype.name])
    return dims + kind + _bytes(8, name) + _bytes(9, np.ascontiguousarray(value).tobytes())


def _value(name: str, shape: Iterable[int]) -> bytes:
    dims = b"".join(_bytes(1, _number(1, d)) for d in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, _TYPES["float32"]) + _bytes(2, dims)))


@dataclass
class Graph:
    """A graph in the making. Values are known by their names."""

    name: str
    nodes: list[bytes] = field(default_factory=list)
    tensors: list[bytes] = field(default_factory=list)
    inputs: list[bytes] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)
    _count: int = 0

    def _fresh(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def input(self, name: str, shape: Sequence[int]) -> str:
        """A float32 input of the graph."""
        self.inputs.append(_value(name, shape))
        return name

    def output(self, value: str, name: str, shape: Sequence[int]) -> None:
        """`value` becomes the output `name`."""
        self.nodes.append(_bytes(1, value) + _bytes(2, name) + _bytes(4, "Identity"))
        self.outputs.append(_value(name, shape))

    def constant(self, value: np.ndarray) -> str:
        """A tensor in the file; fp16 is cast to fp32 where it is used."""
        name = self._fresh()
        self.tensors.append(_tensor(name, value))
        return self.add("Cast", name, to=_TYPES["float32"]) if value.dtype == np.float16 else name

    def add(self, kind: str, *inputs: str, **attributes: Attribute) -> str:
        """A node with one output, whose name is given back."""
        out = self._fresh()
        node = b"".join(_bytes(1, i) for i in inputs) + _bytes(2, out) + _bytes(4, kind)
        node += b"".join(_bytes(5, _attribute(k, v)) for k, v in attributes.items())
        self.nodes.append(node)
        return out

    def encoded(self, about: str = "") -> bytes:
        """The whole file."""
        graph = b"".join(_bytes(1, n) for n in self.nodes) + _bytes(2, self.name)
        graph += b"".join(_bytes(5, t) for t in self.tensors)
        graph += b"".join(_bytes(11, i) for i in self.inputs) + b"".join(_bytes(12, o) for o in self.outputs)
        model = _number(1, IR_VERSION) + _bytes(2, "impasto") + _bytes(6, about) + _bytes(7, graph)
        return model + _bytes(8, _bytes(1, "") + _number(2, OPSET))
