"""PyTorch's pickles (.ckpt, .pt, .pth, .bin), read without running anything that they ask for. No torch to list them.

A pickle is a program for a small machine that can be told to call any function of Python. This reader knows the few
names that the numbers of a model need and answers each with a stand-in of its own; nothing is imported and nothing of
the file's choice is called. Any other name ends the reading with an error that says which it was.

Two formats are read: the archive (a zip; torch 1.6 and newer) and the older plain one. In both the tensors' bytes lie
uncompressed behind a small index, so that listing reads the index alone and a tensor is a view of the mapped file.
"""

from __future__ import annotations

import io
import mmap
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto_protocol.errors import ModelError

from .checkpoint import Header, TensorInfo, Tensors, corrupt, unreadable
from .unpickle import DTYPES, Damaged, Forbidden, Reader, Source, StoredTensor

if TYPE_CHECKING:
    import torch

__all__ = ["Pickled", "StoredTensor", "open_pickle", "pickle_header", "read_pickle", "read_pickled"]

MAX_INDEX = 8 << 20
"""Bytes of the pickled index at most; those of the largest real checkpoints have less than one MB."""

_MAGIC = 0x1950A86A20F9469CFC6C
"""What the older format begins with."""

_WRAPPERS = ("state_dict", "model_state_dict", "params_ema", "params-ema", "params", "model", "net")
"""Under these names training programs keep the tensors of a model; the first one there is taken."""

_DEPTH = 4
"""Tables inside one another in which tensors are looked for."""


@dataclass(frozen=True)
class Pickled:
    """An index that was read: `content` are plain containers with `StoredTensor`s in place of the tensors; `places`
    says where each storage lies in the file: its first byte and its length in bytes."""

    content: Any
    places: Mapping[str, tuple[int, int]]

    def tensors(self) -> dict[str, StoredTensor]:
        """The tensors by name, out of the table in which training programs wrap them; inner tables give dotted names.

        A prefix "module." or "netG." that all of them share is left out.
        """
        content = self.content
        if isinstance(content, dict):
            for name in _WRAPPERS:
                inner = content.get(name)
                if isinstance(inner, dict) and any(isinstance(value, StoredTensor) for value in inner.values()):
                    content = inner
                    break
        found = dict(_flat(content, _DEPTH))
        for prefix in ("module.", "netG."):
            if found and all(name.startswith(prefix) for name in found):
                found = {name[len(prefix) :]: value for name, value in found.items()}
        return found


def _flat(table: Any, depth: int) -> Iterator[tuple[str, StoredTensor]]:
    if not isinstance(table, dict) or not depth:
        return
    for name, value in table.items():
        if not isinstance(name, str):
            continue
        if isinstance(value, StoredTensor):
            yield name, value
        else:
            for inner, tensor in _flat(value, depth - 1):
                yield f"{name}.{inner}", tensor


def pickle_header(path: str | Path) -> Header:
    """Names, number formats and shapes of the tensors in a pickle, without reading their numbers.

    Raises ModelError: `model.unsafe` (it asks for a name that no numbers need; `data["global"]` says which),
    `model.corrupt`, `model.unsupported` (a TorchScript program), `model.unknown` (no such file).
    """
    pickled = read_pickled(path)
    tensors = {}
    for name, stored in pickled.tensors().items():
        begin = pickled.places[stored.key][0]
        size = DTYPES[stored.dtype][2]
        first = begin + stored.offset * size
        tensors[name] = TensorInfo(stored.dtype, stored.shape, first, first + prod(stored.shape) * size)
    return Header(tensors, {})


def read_pickled(path: str | Path) -> Pickled:
    """The whole index of a pickle; every tensor in it lies within the file. Raises what `pickle_header` raises."""
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            if start == b"PK\3\4":
                return _read_archive(path, file)
            file.seek(0)
            return _read_plain(path, file)
    except Forbidden as error:
        raise unsafe(path, error.name) from None
    except OSError as error:
        raise unreadable(path, error) from error
    except _BROKEN as error:
        reason = str(error) if isinstance(error, Damaged) else "it is not a complete pickle of tensors"
        raise corrupt(path, reason) from error


@contextmanager
def open_pickle(path: str | Path) -> Iterator[Tensors]:
    """Map a pickle; its tensors are views of the mapping, as those of `checkpoint.open_tensors`. Raises the same as
    `pickle_header`."""
    yield _Mapped(path, read_pickled(path))


def read_pickle(path: str | Path) -> Any:
    """The content of a small pickle with its tensors read: plain containers. Raises what `pickle_header` raises."""
    pickled = read_pickled(path)
    mapped = _Mapped(path, pickled)

    def filled(value: Any, depth: int) -> Any:
        if isinstance(value, StoredTensor):
            return mapped.tensor(value).clone()
        if depth and isinstance(value, dict):
            return {name: filled(inner, depth - 1) for name, inner in value.items()}
        if depth and isinstance(value, list | tuple):
            return type(value)(filled(inner, depth - 1) for inner in value)
        return value

    return filled(pickled.content, 2 * _DEPTH)


class _Mapped:
    """The tensors of a mapped pickle."""

    def __init__(self, path: str | Path, pickled: Pickled) -> None:
        self._places = pickled.places
        self._tensors = pickled.tensors()
        with open(path, "rb") as file:
            # A private copy on write: torch asks for memory that it may write to. Nothing ever does.
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def keys(self) -> list[str]:
        return list(self._tensors)

    def get_tensor(self, name: str) -> torch.Tensor:
        return self.tensor(self._tensors[name])

    def tensor(self, stored: StoredTensor) -> torch.Tensor:
        """The view; a copy where the file does not hold the numbers as the processor wants them."""
        import torch

        first, length = self._places[stored.key]
        _, name, size = DTYPES[stored.dtype]
        dtype: torch.dtype = getattr(torch, name)
        if not prod(stored.shape):
            return torch.empty(stored.shape, dtype=dtype)
        if first % size:  # the older format does not align
            flat = torch.frombuffer(self._bytes, dtype=torch.uint8, count=length, offset=first).clone().view(dtype)
        else:
            flat = torch.frombuffer(self._bytes, dtype=dtype, count=length // size, offset=first)
        return flat.as_strided(stored.shape, stored.stride, stored.offset).contiguous()


def unsafe(path: str | Path, forbidden: str) -> ModelError:
    """The refusal of a pickle that asks for the name `forbidden`."""
    name, forbidden = Path(path).name, forbidden[:200]
    return ModelError(
        "model.unsafe",
        f"{name} was refused: reading it would run {forbidden}, which the numbers of a model do not need. "
        "Use a .safetensors version of this model.",
        data={"file": name, "global": forbidden},
    )


# ---- the two formats


_BROKEN = (
    Damaged,
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)
"""What the reading of bytes that are no pickle, or half of one, runs into."""


def _read_archive(path: str | Path, file: io.BufferedReader) -> Pickled:
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        indexes = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(indexes) != 1:
            raise Damaged("it is a zip archive, but not one of PyTorch's")
        folder = indexes[0][: -len("data.pkl")]
        if folder + "constants.pkl" in members:
            raise ModelError(
                "model.unsupported",
                f"{Path(path).name} is a TorchScript program, not a file of numbers. "
                "Use a .pth or .safetensors version of this model.",
                data={"file": Path(path).name},
            )
        order = members.get(folder + "byteorder")
        if order is not None and archive.read(order) != b"little":
            raise Damaged("its numbers are in the byte order of another kind of computer")
        with archive.open(indexes[0]) as index:
            raw = index.read(MAX_INDEX + 1)
        if len(raw) > MAX_INDEX:
            raise Damaged("its index is too long for that of a model")
        reader = Reader(Source(raw))
        content = reader.load()
        places = {}
        for storage in reader.storages.values():
            member = members.get(f"{folder}data/{storage.key}")
            if member is None:
                raise Damaged(f"the numbers of storage {storage.key[:20]} are missing")
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise Damaged("its numbers are compressed or encrypted inside the archive")
            if member.file_size < storage.size:
                raise Damaged(f"storage {storage.key[:20]} is shorter than its index says")
            places[storage.key] = (_first_byte(file, member), storage.size)
    return _checked(path, file, reader, content, places)


def _first_byte(file: io.BufferedReader, member: zipfile.ZipInfo) -> int:
    """Where the bytes of an archive's member begin: behind its own header, whose length the table does not tell."""
    file.seek(member.header_offset)
    header = file.read(30)
    if len(header) != 30 or not header.startswith(b"PK\3\4"):
        raise Damaged("its table of contents points nowhere")
    name, extra = struct.unpack("<HH", header[26:30])
    return int(member.header_offset + 30 + name + extra)


def _read_plain(path: str | Path, file: io.BufferedReader) -> Pickled:
    """The older format: five pickles (magic, version, system, content, keys), then length and bytes of each storage."""
    start = Source(file.read(MAX_INDEX))
    magic = Reader(start).load()
    if magic != _MAGIC:
        return Pickled(magic, {})  # a plain pickle; no tensor can be in it
    Reader(start).load()
    system = Reader(start).load()
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise Damaged("its numbers are in the byte order of another kind of computer")
    reader = Reader(start)
    content = reader.load()
    keys = Reader(start).load()
    if not isinstance(keys, list):
        raise Damaged("its table of contents is not a list")
    at = start.tell()
    places = {}
    for key in keys:
        file.seek(at)
        (count,) = struct.unpack("<q", file.read(8))
        storage = reader.storages.get(str(key))
        if storage is None or count * storage.item != storage.size:
            raise Damaged("the lengths in its table of contents do not agree")
        places[storage.key] = (at + 8, storage.size)
        at += 8 + storage.size
    return _checked(path, file, reader, content, places)


def _checked(
    path: str | Path, file: io.BufferedReader, reader: Reader, content: Any, places: Mapping[str, tuple[int, int]]
) -> Pickled:
    """Nothing lies beyond the end of the file, and no tensor beyond its storage."""
    end = file.seek(0, io.SEEK_END)
    for first, length in places.values():
        if first + length > end:
            raise Damaged("the end of the file is missing; the download may not have finished")
    for tensor in reader.tensors:
        size = DTYPES[tensor.dtype][2]
        last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
        if tensor.key not in places or (0 not in tensor.shape and (last + 1) * size > places[tensor.key][1]):
            raise Damaged("a tensor reaches beyond its storage")
    return Pickled(content, places)
