"""What an ONNX file wants and gives, read from the file without running it. No torch and no onnxruntime.

The format is protocol buffers: fields of a number and a wire type (https://protobuf.dev/programming-guides/encoding),
with the numbers of onnx.proto. Weights are stepped over."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .checkpoint import corrupt, unreadable

__all__ = ["IDENTITY_SIDE", "OnnxFacts", "is_identity_network", "read_onnx"]

IDENTITY_SIDE, _IDENTITY = 112, 512
"""Pixels that a network sees which tells faces apart (ArcFace), and the numbers that it gives."""

Shape = tuple[int | str, ...]
"""A size, or the name of one that is left open."""

_GRAPH, _INITIALIZER, _INPUT, _OUTPUT, _OPSET = 7, 5, 11, 12, 8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class OnnxFacts:
    """Inputs and outputs by their names."""

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]


class _Wrong(Exception):
    pass


def read_onnx(path: str | Path) -> OnnxFacts:
    """Raises ModelError `model.corrupt` for what is no ONNX file, or one that is cut off; `model.unknown` where it is
    not there."""
    try:
        with open(path, "rb") as file:
            if not file.seek(0, 2):
                raise corrupt(path, "it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _model(data)
    except OSError as error:
        raise unreadable(path, error) from error
    except (_Wrong, UnicodeDecodeError) as error:
        raise corrupt(path, f"it is no complete ONNX file ({error})") from error


def is_identity_network(facts: OnnxFacts) -> bool:
    """Whether this is a network that tells faces apart, by what it wants and gives."""
    inputs, outputs = list(facts.inputs.values()), list(facts.outputs.values())
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0]) != 4:
        return False
    return inputs[0][1:] == (3, IDENTITY_SIDE, IDENTITY_SIDE) and outputs[0][-1:] == (_IDENTITY,)


def _model(data: mmap.mmap) -> OnnxFacts:
    graph: tuple[int, int] | None = None
    operators = False
    for number, kind, start, end in _fields(data, 0, len(data)):
        if number == _GRAPH and kind == _BYTES:
            graph = start, end
        operators |= number == _OPSET and kind == _BYTES
    if graph is None or not operators:
        raise _Wrong("it has no graph" if graph is None else "it says no operators")
    weights: set[str] = set()
    found: dict[int, dict[str, Shape]] = {_INPUT: {}, _OUTPUT: {}}
    for number, kind, start, end in _fields(data, *graph):
        if kind != _BYTES:
            continue
        if number == _INITIALIZER:
            weights.update(data[a:b].decode() for n, k, a, b in _fields(data, start, end) if (n, k) == (8, _BYTES))
        elif number in found:
            name, shape = _value(data, start, end)
            found[number][name] = shape
    inputs = {name: shape for name, shape in found[_INPUT].items() if name not in weights}
    if not inputs or not found[_OUTPUT]:
        raise _Wrong("it has no inputs or no outputs")
    return OnnxFacts(inputs, found[_OUTPUT])


def _value(data: mmap.mmap, start: int, end: int) -> tuple[str, Shape]:
    name, shape = "", []
    for number, kind, a, b in _fields(data, start, end):
        if (number, kind) == (1, _BYTES):
            name = data[a:b].decode()
        elif (number, kind) == (2, _BYTES):
            for place in _within(data, a, b, 1):
                for inner in _within(data, *place, 2):
                    for size in _within(data, *inner, 1):
                        shape.append(_size(data, *size))
    return name, tuple(shape)


def _size(data: mmap.mmap, start: int, end: int) -> int | str:
    for number, kind, a, b in _fields(data, start, end):
        if (number, kind) == (1, _VARINT):
            return _varint(data, a, b)[0]
        if (number, kind) == (2, _BYTES):
            return data[a:b].decode()
    return "?"


def _within(data: mmap.mmap, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    return ((a, b) for number, kind, a, b in _fields(data, start, end) if (number, kind) == (wanted, _BYTES))


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and where the value lies."""
    while at < end:
        key, at = _varint(data, at, end)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise _Wrong(f"a field without a number at byte {at}")
        if kind == _VARINT:
            _, after = _varint(data, at, end)
            yield number, kind, at, after
        elif kind == _BYTES:
            length, at = _varint(data, at, end)
            after = at + length
            if after > end:
                raise _Wrong(f"it ends within a field, at byte {end}")
            yield number, kind, at, after
        elif kind in (_FIXED32, _FIXED64):
            after = at + (4 if kind == _FIXED32 else 8)
            if after > end:
                raise _Wrong(f"it ends within a field, at byte {end}")
            yield number, kind, at, after
        else:
            raise _Wrong(f"an unknown kind of field at byte {at}")
        at = after


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """The number, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _Wrong(f"it ends within a number, at byte {end}")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise _Wrong(f"a number of more than 64 bits at byte {at}")
