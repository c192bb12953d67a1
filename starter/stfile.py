"""Safetensors files byte for byte the same on every machine (the order of keys and metadata is sorted)."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

_KINDS = {"F16": np.float16, "F32": np.float32, "I8": np.int8, "I32": np.int32}
_NAMES = {np.dtype(v): k for k, v in _KINDS.items()}


def write(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes arrays of float16, float32, int8 or int32."""
    path.write_bytes(encoded(tensors, metadata))


def encoded(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """The bytes of such a file."""
    header: dict = {"__metadata__": dict(sorted(metadata.items()))}
    start = 0
    for name in sorted(tensors):
        array = tensors[name]
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    values = (np.ascontiguousarray(tensors[name]).tobytes() for name in sorted(tensors))
    return b"".join((struct.pack("<Q", len(text)), text, *values))


def read(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays (views of the data) and metadata."""
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        kind = np.dtype(_KINDS[entry["dtype"]])
        first, last = entry["data_offsets"]
        array = np.frombuffer(data, kind, (last - first) // kind.itemsize, 8 + length + first)
        tensors[name] = array.reshape(entry["shape"])
    return tensors, metadata
