"""Safetensors files: the header, and lazily mapped tensors.

Reading a header needs neither torch nor safetensors, so that thousands of files are listed in seconds; what gives
tensors imports them when it is called.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from impasto_protocol.errors import ModelError

if TYPE_CHECKING:
    import torch

__all__ = [
    "Header",
    "TensorInfo",
    "Tensors",
    "corrupt",
    "open_tensors",
    "read_header",
    "unreadable",
]

MAX_HEADER = 100 * 1024 * 1024
"""Longest header in bytes that is read; the largest real ones have a few MB."""

_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: its dtype as safetensors names it, its shape, and where its bytes begin and end."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself: its tensors by name and its free-form metadata.

    `structure` is equal for headers with the same tensors only; b"" where it was not looked for.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    structure: bytes = b""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        return {name: info.shape for name, info in self.tensors.items()}


def corrupt(path: str | Path, reason: str) -> ModelError:
    """The error for a damaged file; `reason` completes the sentence 'NAME cannot be read: ...'."""
    name = Path(path).name
    return ModelError(
        "model.corrupt",
        f"{name} cannot be read: {reason}. Download or copy the file again.",
        data={"file": name, "reason": reason},
    )


def read_header(path: str | Path, known: Container[bytes] | None = None) -> Header:
    """Read the header of a safetensors file and check that it describes exactly the bytes that follow.

    Files of one make differ in their metadata alone, which stand before the tensors. For who reads thousands of them:
    one whose `structure` is in `known` is not taken apart again, and its `tensors` are left empty. Raises ModelError
    `model.corrupt` for anything else: truncated, overlong, overlapping, of wrong size, not JSON; `model.unknown` where
    there is no readable file.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            if len(start) < 8:
                raise corrupt(path, "it is shorter than 8 bytes")
            (length,) = struct.unpack("<Q", start)
            if length > MAX_HEADER:
                raise corrupt(path, "it does not begin like a safetensors file")
            if not 2 <= length <= size - 8:
                raise corrupt(path, "its header is cut off; the download may not have finished")
            raw = file.read(length)
    except OSError as error:
        raise unreadable(path, error) from error
    data_size = size - 8 - length
    if known is None:
        return _parse(path, raw, data_size)
    metadata, begin = _leading_metadata(raw)
    if metadata is None:
        return _parse(path, raw, data_size)
    key = hashlib.blake2b(raw[begin:].rstrip(), digest_size=16, key=data_size.to_bytes(8, "little")).digest()
    return Header({} if key in known else _parse(path, raw, data_size).tensors, metadata, key)


_METADATA = b'{"__metadata__":'


def _leading_metadata(raw: bytes) -> tuple[dict[str, str] | None, int]:
    """The metadata where they stand first, as all programs write them, and where the tensors begin behind them; None
    where the header is made otherwise."""
    if not raw.startswith(_METADATA):
        return ({}, 0) if b'"__metadata__"' not in raw else (None, 0)
    try:
        # Latin-1 has a letter for each byte: what stands where is right, and what is not ASCII is read again.
        metadata, end = _PAIRS.raw_decode(raw.decode("latin-1"), len(_METADATA))
        if not raw[:end].isascii():
            metadata = json.loads(raw[len(_METADATA) : end], object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        return None, 0
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        return None, 0
    # Other metadata behind these would be the ones that count, or an error.
    return (None, 0) if raw.find(b'"__metadata__"', end) >= 0 else (metadata, end)


def unreadable(path: str | Path, error: OSError) -> ModelError:
    """The error for a file that is not there or may not be read."""
    name = Path(path).name
    reason = error.strerror or type(error).__name__
    return ModelError("model.unknown", f"The model file {name} cannot be opened: {reason}.", data={"file": name})


def _parse(path: str | Path, raw: bytes, data_size: int) -> Header:
    try:
        header = json.loads(raw, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise corrupt(path, "its header is not valid JSON") from error
    if not isinstance(header, dict):
        raise corrupt(path, "its header is not a table of tensors")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise corrupt(path, "its metadata are not texts")
    tensors = {name: _tensor(path, name, entry) for name, entry in header.items()}
    at = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != at:
            raise corrupt(path, f"the bytes of {_short(name)} overlap others or leave a hole")
        at = info.end
    if at > data_size:
        raise corrupt(path, "the end of the file is missing; the download may not have finished")
    if at < data_size:
        raise corrupt(path, f"{data_size - at} bytes behind the last tensor belong to nothing")
    return Header(tensors, metadata)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name twice")
    return table


_PAIRS = json.JSONDecoder(object_pairs_hook=_distinct)


def _tensor(path: str | Path, name: str, entry: Any) -> TensorInfo:
    if not isinstance(entry, dict):
        raise corrupt(path, f"the entry of {_short(name)} is not a table")
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise corrupt(path, f"{_short(name)} has an unknown number format")
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise corrupt(path, f"the shape or the place of {_short(name)} makes no sense")
    begin, end = offsets
    if (end - begin) * 8 != prod(shape) * _BITS[dtype]:
        raise corrupt(path, f"the size of {_short(name)} does not fit its shape")
    return TensorInfo(dtype, tuple(shape), begin, end)


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)


def _short(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "...")


class Tensors(Protocol):
    """Tensors of an open file, read when they are asked for."""

    def keys(self) -> list[str]: ...

    def get_tensor(self, name: str) -> torch.Tensor: ...


@contextmanager
def open_tensors(path: str | Path) -> Iterator[Tensors]:
    """Map a safetensors file; a tensor is a view of the mapping, on the CPU, and costs nothing until it is touched.

    The tensors stay valid after the context. They must never be written to, and the file must not be changed in
    place while they live (replace it by renaming, as downloads do). Raises ModelError like `read_header`.
    """
    from safetensors import SafetensorError, safe_open

    read_header(path)  # its errors are sentences
    try:
        opened = safe_open(str(path), framework="pt", device="cpu")
    except OSError as error:
        raise unreadable(path, error) from error
    except SafetensorError as error:
        raise corrupt(path, f"safetensors says {error}") from error
    with opened as tensors:
        yield tensors
