"""Damaged, foreign and hostile model files end in a typed error with a sentence; good ones in tensors."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_protocol.errors import ModelError
from impasto_server.engine.checkpoint import open_tensors, read_header
from safetensors.torch import save_file


def container(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(begin: int, end: int, shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4).half()}, str(path), metadata={"title": "x"})
    return path


def test_header_and_tensors_of_a_good_file(good: Path) -> None:
    header = read_header(good)
    assert header.shapes == {"a": (2, 3), "b": (4,)}
    assert header.tensors["b"].dtype == "F16"
    assert header.metadata == {"title": "x"}
    with open_tensors(good) as tensors:
        a = tensors.get_tensor("a")
    assert torch.equal(a, torch.arange(6.0).reshape(2, 3)), "a tensor outlives the context"


BROKEN = {
    "empty": b"",
    "seven bytes": b"\1\0\0\0\0\0\0",
    "garbage": b"\xff" * 64,
    "header longer than the file": struct.pack("<Q", 1000) + b"{}",
    "no JSON": container(b"{nonsense"),
    "not UTF-8": container(b'{"\xff": 1}'),
    "deeply nested": container(b"[" * 100_000),
    "a list": container([]),
    "a name twice": container(b'{"a": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}, "a": {}}', b"x"),
    "entry is no table": container({"a": 5}),
    "unknown dtype": container({"a": entry(0, 4, [1], "F99")}, b"1234"),
    "dtype is no text": container({"a": {"dtype": [], "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
    "negative shape": container({"a": entry(0, 4, [-1])}, b"1234"),
    "shape of fractions": container({"a": entry(0, 4, [1.0])}, b"1234"),
    "huge shape": container({"a": entry(0, 4, [2**60, 2**60])}, b"1234"),
    "wrong size": container({"a": entry(0, 4, [2])}, b"1234"),
    "end before begin": container({"a": entry(4, 0, [1])}, b"1234"),
    "three offsets": container({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}}, b"1"),
    "overlap": container({"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, b"1234"),
    "hole": container({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, b"123456789012"),
    "truncated data": container({"a": entry(0, 8, [2])}, b"1234"),
    "trailing data": container({"a": entry(0, 4, [1])}, b"12345"),
    "metadata are no texts": container({"__metadata__": {"a": 1}}),
    "metadata are a list": container({"__metadata__": []}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(BROKEN[name])
    for read in (read_header, lambda p: open_tensors(p).__enter__()):
        with pytest.raises(ModelError) as caught:
            read(path)
        assert caught.value.code == "model.corrupt"
        assert "model.safetensors" in caught.value.message


def test_a_truncated_file_is_refused_at_every_length(good: Path, tmp_path: Path) -> None:
    whole = good.read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.safetensors"):
            read_header(path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(struct.pack("<Q", len(data)) + data)
    try:
        read_header(path)
    except ModelError as error:
        assert error.code == "model.corrupt"


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(ModelError) as caught:
            read_header(path)
        assert caught.value.code == "model.unknown"
