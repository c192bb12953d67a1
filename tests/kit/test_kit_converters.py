"""The converters on small networks of known results: TensorFlow Lite, sparse weights, ncnn, HED."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_server.engine.upscaler import load_upscaler
from torch.nn import functional as F

from starter import stfile
from starter.kit import hed, ncnn
from starter.kit.flatbuffer import Table
from starter.kit.tflite import NotConvertible, dense, to_onnx
from tests.kit.flat import encoded
from tests.upscalers import compact, rrdb

CONV, DEPTHWISE, DEQUANTIZE, MAX_POOL, RESHAPE, PAD, PRELU, DEPTH_TO_SPACE, MEAN = 3, 4, 6, 17, 22, 34, 54, 5, 40
FLOAT, HALF, INT = 0, 1, 2
RNG = np.random.default_rng(0)


class Small:
    """A small .tflite in the making; tensor 0 is the input."""

    def __init__(self, *shape: int):
        self.tensors: list[dict[int, Any]] = []
        self.buffers: list[dict[int, Any]] = [{}]
        self.codes: list[tuple[int, str]] = []
        self.operations: list[dict[int, Any]] = []
        self.tensor(shape)

    def tensor(self, shape: tuple[int, ...], kind: int = FLOAT) -> int:
        name = f"t{len(self.tensors)}"
        self.tensors.append({0: np.array(shape, np.int32), 1: ("b", kind), 2: ("I", 0), 3: name})
        return len(self.tensors) - 1

    def stored(self, values: np.ndarray) -> int:
        kind = {"float32": FLOAT, "float16": HALF, "int32": INT}[values.dtype.name]
        index = self.tensor(values.shape, kind)
        self.buffers.append({0: np.frombuffer(values.tobytes(), np.uint8)})
        self.tensors[index][2] = ("I", len(self.buffers) - 1)
        return index

    def add(
        self, code: int, inputs: list[int], shape: tuple[int, ...], options: dict[int, Any], custom: Any = None
    ) -> int:
        name = "Convolution2DTransposeBias" if code == 32 else ""
        if (code, name) not in self.codes:
            self.codes.append((code, name))
        out = self.tensor(shape)
        operation: dict[int, Any] = {
            0: ("I", self.codes.index((code, name))),
            1: np.array(inputs, np.int32),
            2: np.array([out], np.int32),
        }
        operation |= {5: custom} if custom is not None else {4: options}
        self.operations.append(operation)
        return out

    def half(self, values: np.ndarray) -> int:
        return self.add(DEQUANTIZE, [self.stored(values.astype(np.float16))], values.shape, {})

    def run(self, out: int, x: np.ndarray) -> np.ndarray:
        codes = [{0: ("b", min(code, 127)), 1: name, 3: ("i", code)} for code, name in self.codes]
        graph = {
            0: self.tensors,
            1: np.array([0], np.int32),
            2: np.array([out], np.int32),
            3: self.operations,
        }
        data = to_onnx(encoded({1: codes, 2: [graph], 4: self.buffers}), "small")
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"input": x.astype(np.float32)})
        return np.asarray(found)


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def first(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2)


def last(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(6, 7), (5, 8)])
@pytest.mark.parametrize("activation", [0, 1, 3])
def test_convolutions_pad_as_tensorflow_does(stride: int, height: int, width: int, activation: int) -> None:
    x = RNG.normal(size=(1, height, width, 3)) * 3
    weight = RNG.normal(size=(4, 3, 3, 3)).astype(np.float16).astype(np.float32)
    bias = RNG.normal(size=4).astype(np.float32)
    net = Small(1, height, width, 3)
    shape = (1, -(-height // stride), -(-width // stride), 4)
    options = {0: ("b", 0), 1: ("i", stride), 2: ("i", stride), 3: ("b", activation)}
    found = net.run(net.add(CONV, [0, net.half(weight), net.stored(bias)], shape, options), x)
    (top, bottom), (left, right) = (same_pads(s, 3, stride) for s in (height, width))
    padded = F.pad(first(x), (left, right, top, bottom))
    wanted = F.conv2d(padded, torch.from_numpy(weight).permute(0, 3, 1, 2), torch.from_numpy(bias), stride)
    wanted = {0: wanted, 1: wanted.relu(), 3: wanted.clamp(0, 6)}[activation]
    assert found.shape == shape and np.abs(found - last(wanted)).max() < 1e-4


def test_depthwise_prelu_and_pooling() -> None:
    x = RNG.normal(size=(1, 6, 6, 4))
    weight = RNG.normal(size=(1, 2, 2, 4)).astype(np.float32)
    bias, slope = np.zeros(4, np.float32), RNG.uniform(0, 1, (1, 1, 4)).astype(np.float32)
    net = Small(1, 6, 6, 4)
    options = {0: ("b", 1), 1: ("i", 1), 2: ("i", 1), 3: ("i", 1)}
    out = net.add(DEPTHWISE, [0, net.stored(weight), net.stored(bias)], (1, 5, 5, 4), options)
    out = net.add(PRELU, [out, net.stored(slope)], (1, 5, 5, 4), {})
    pool = {0: ("b", 0), 1: ("i", 2), 2: ("i", 2), 3: ("i", 2), 4: ("i", 2)}
    found = net.run(net.add(MAX_POOL, [out], (1, 3, 3, 4), pool), x)
    wanted = F.conv2d(first(x), torch.from_numpy(weight).permute(3, 0, 1, 2), groups=4)
    wanted = F.prelu(wanted, torch.from_numpy(slope.ravel()))
    wanted = F.max_pool2d(F.pad(wanted, (0, 1, 0, 1), value=-torch.inf), 2)
    assert np.abs(found - last(wanted)).max() < 1e-5


def test_reshape_pad_and_depth_to_space_keep_the_order_of_channels() -> None:
    x = RNG.normal(size=(1, 2, 3, 8)).astype(np.float32)
    net = Small(1, 2, 3, 8)
    pads = np.array([[0, 0], [1, 0], [0, 2], [0, 0]], np.int32)
    out = net.add(PAD, [0, net.stored(pads)], (1, 3, 5, 8), {})
    out = net.add(DEPTH_TO_SPACE, [out], (1, 6, 10, 2), {0: ("i", 2)})
    found = net.run(net.add(RESHAPE, [out, net.stored(np.array([1, 120], np.int32))], (1, 120), {}), x)
    padded = np.pad(x, pads)
    wanted = padded.reshape(1, 3, 5, 2, 2, 2).transpose(0, 1, 3, 2, 4, 5).reshape(1, 6, 10, 2)
    assert np.array_equal(found, wanted.reshape(1, 120))


def test_the_transposed_convolution_of_mediapipe() -> None:
    x = RNG.normal(size=(1, 2, 3, 4)).astype(np.float32)
    weight, bias = RNG.normal(size=(5, 2, 2, 4)).astype(np.float32), RNG.normal(size=5).astype(np.float32)
    net = Small(1, 2, 3, 4)
    custom = np.frombuffer(struct.pack("<iii", 1, 2, 2), np.uint8)
    found = net.run(net.add(32, [0, net.stored(weight), net.stored(bias)], (1, 4, 6, 5), {}, custom), x)
    kernel = torch.from_numpy(weight).permute(3, 0, 1, 2)
    assert np.abs(found - last(F.conv_transpose2d(first(x), kernel, torch.from_numpy(bias), 2))).max() < 1e-5


def test_what_is_not_known_is_said() -> None:
    with pytest.raises(NotConvertible, match="no TensorFlow Lite file"):
        to_onnx(b"\0" * 64, "x")
    net = Small(1, 2, 2, 1)
    with pytest.raises(NotConvertible, match="operation 77"):
        net.run(net.add(77, [0], (1, 2, 2, 1), {}), np.zeros((1, 2, 2, 1)))
    net = Small(1, 4, 4, 1)
    with pytest.raises(NotConvertible, match="means"):
        net.run(net.add(MEAN, [0, net.stored(np.array([3], np.int32))], (1, 4, 4), {}), np.zeros((1, 4, 4, 1)))


# ---- sparse weights


def level(size: int, kept: list[list[int]] | None = None) -> dict[int, Any]:
    if kept is None:
        return {0: ("b", 0), 1: ("i", size)}
    ends = np.cumsum([0, *map(len, kept)]).astype(np.int32)
    indices = np.array([i for row in kept for i in row], np.uint8)
    return {0: ("b", 1), 2: ("B", 1), 3: {0: ends}, 4: ("B", 3), 5: {0: indices}}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10_000))
def test_sparse_blocks_become_dense(rows: int, blocks: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keep = rng.random((rows, blocks)) < 0.5
    whole = rng.normal(size=(rows, blocks, width)).astype(np.float32) * keep[:, :, None]
    kept = [np.flatnonzero(row).tolist() for row in keep]
    values = np.array([whole[r, b] for r, row in enumerate(kept) for b in row], np.float32).reshape(-1)
    # Rows dense, blocks of columns listed, the columns within a block dense.
    told = {
        0: np.array([0, 1, 2], np.int32),
        1: np.array([1], np.int32),
        2: [level(rows), level(blocks, kept), level(width)],
    }
    found = dense(Table.root(encoded(told)), values, (rows, blocks * width))
    assert np.array_equal(found, whole.reshape(rows, blocks * width))


# ---- ncnn


def as_ncnn(state: dict[str, torch.Tensor], half: bool) -> tuple[str, bytes]:
    """What ncnn's own converter writes for those layers, in the order of the names."""
    lines, data = [], b""
    layers = {}
    for name, value in state.items():
        layers.setdefault(name.rsplit(".", 1)[0], {})[name.rsplit(".", 1)[1]] = value.numpy()
    for name, parts in layers.items():
        weight = parts["weight"]
        if weight.ndim == 1:
            lines.append(f"PReLU {name} 1 1 a b 0={weight.size}")
            data += weight.tobytes()
            continue
        bias = parts["bias"]
        lines.append(f"Convolution {name} 1 1 a b 0={len(weight)} 1={weight.shape[2]} 5=1 6={weight.size}")
        if half:
            packed = weight.astype(np.float16).tobytes()
            data += struct.pack("<I", ncnn.HALF) + packed + b"\0" * (-len(packed) % 4)
        else:
            data += struct.pack("<I", 0) + weight.tobytes()
        data += bias.tobytes()
    return "\n".join([ncnn.MAGIC, f"{len(lines)} 9", *lines]), data


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("kind", ["compact", "rrdb"])
def test_upscalers_get_their_usual_names_back(tmp_path: Path, kind: str, half: bool) -> None:
    state = compact(scale=4) if kind == "compact" else rrdb()
    if half:
        state = {n: v.half().float() if v.ndim == 4 else v for n, v in state.items()}
    found = ncnn.upscaler(*as_ncnn(state, half))
    assert found.keys() == state.keys()
    assert all(np.array_equal(found[n].astype(np.float32), v.numpy()) for n, v in state.items())
    (tmp_path / "a.safetensors").write_bytes(stfile.encoded(found, {}))
    model = load_upscaler(tmp_path / "a.safetensors", device=torch.device("cpu"), dtype=torch.float32)
    assert model.scale == 4 and model(torch.rand(1, 3, 5, 6)).shape == (1, 3, 20, 24)


def test_other_ncnn_files_are_refused() -> None:
    param, data = as_ncnn(compact(scale=4), True)
    with pytest.raises(ncnn.NotReadable, match="no text"):
        ncnn.upscaler("hello", data)
    with pytest.raises(ncnn.NotReadable, match="too early"):
        ncnn.upscaler(param, data[:100])
    with pytest.raises(ncnn.NotReadable, match="8 bytes"):
        ncnn.upscaler(param, data + bytes(8))
    one = "\n".join([ncnn.MAGIC, "1 1", "Convolution c 1 1 a b 0=1 1=1 5=0 6=1"])
    with pytest.raises(ncnn.NotReadable, match="stored as 0x7"):
        ncnn.upscaler(one, struct.pack("<If", 7, 1.0))
    with pytest.raises(ncnn.NotReadable, match="no RRDBNet"):
        ncnn.upscaler(one, struct.pack("<If", 0, 1.0))


# ---- HED


def test_hed_gets_controlnets_names_and_order_of_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    widths, before = (64, 128, 256, 512, 512), 3
    layers: dict[str, np.ndarray] = {}
    for block, (count, width) in enumerate(zip(hed.CONVOLUTIONS, widths, strict=True), 1):
        for i in range(count):
            name = f"block{block}/layers/conv2d" + (f"_{i}" if i else "")
            layers[f"{name}/vars/0"] = RNG.normal(size=(3, 3, before, width)).astype(np.float32)
            layers[f"{name}/vars/1"] = np.zeros(width, np.float32)
            before = width
        layers[f"dsn{block}/vars/0"] = RNG.normal(size=(1, 1, width, 1)).astype(np.float32)
        layers[f"dsn{block}/vars/1"] = np.zeros(1, np.float32)

    class File:
        def __init__(self, path: Path) -> None:
            self.left = {name: {(): value} for name, value in layers.items()}

        def __enter__(self) -> dict[str, Any]:
            return self.left

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setitem(sys.modules, "h5py", SimpleNamespace(File=File))
    found = hed.tensors(Path("x.h5"))
    assert len(found) == 37 and sum(v.size for v in found.values()) == 14_716_168
    blue_first = layers["block1/layers/conv2d/vars/0"]
    assert np.array_equal(found["block1.convs.0.weight"][:, 0], blue_first[:, :, 2].transpose(2, 0, 1))
    assert found["block3.convs.2.weight"].shape == (256, 256, 3, 3) and found["norm"].shape == (1, 3, 1, 1)
