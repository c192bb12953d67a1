"""Devices and precisions that cannot be are refused with a sentence; the cache holds its budget."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from impasto_protocol.errors import ModelError, RequestError
from impasto_server.engine import memory
from impasto_server.engine.memory import ComponentCache, choose_device, choose_dtype, estimate_bytes

from tests.tiny import write_tiny_checkpoint

CPU = torch.device("cpu")


def test_devices() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda", "xpu", "mps")
    absent = [name for name in ("cuda", "xpu", "mps", "cuda:99", "quantum", "") if name != choose_device("auto").type]
    for name in absent:
        if name in ("cuda", "xpu", "mps") and memory._present(name):
            continue
        with pytest.raises(RequestError) as caught:
            choose_device(name)
        assert caught.value.code == "request.invalid_param" and caught.value.path == "device"


@pytest.mark.parametrize(("has_bf16", "automatic"), [(True, torch.bfloat16), (False, torch.float32)])
def test_precision_on_a_cpu(monkeypatch: pytest.MonkeyPatch, has_bf16: bool, automatic: torch.dtype) -> None:
    monkeypatch.setattr(memory, "cpu_has_bf16", lambda: has_bf16)
    assert choose_dtype(CPU) is automatic
    assert choose_dtype(CPU, "fp32") is torch.float32
    refused = ["fp16", "int8"] + ([] if has_bf16 else ["bf16"])
    for precision in refused:
        with pytest.raises(RequestError) as caught:
            choose_dtype(CPU, precision)
        assert caught.value.path == "precision"
    if has_bf16:
        assert choose_dtype(CPU, "bf16") is torch.bfloat16


@pytest.mark.parametrize(
    ("name", "capability", "automatic", "bf16"),
    [
        ("NVIDIA H200", (9, 0), torch.float16, True),
        ("NVIDIA GeForce RTX 2060", (7, 5), torch.float16, False),
        ("NVIDIA GeForce GTX 1660 Ti", (7, 5), torch.float32, False),
        ("NVIDIA GeForce GTX 1060 6GB", (6, 1), torch.float32, False),
    ],
)
def test_precision_on_cards(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int], automatic: torch.dtype, bf16: bool
) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    card = torch.device("cuda")
    assert choose_dtype(card) is automatic
    assert choose_dtype(card, "fp16") is torch.float16
    if bf16:
        assert choose_dtype(card, "bf16") is torch.bfloat16
    else:
        with pytest.raises(RequestError, match="has no bf16"):
            choose_dtype(card, "bf16")


@dataclass
class Fake:
    name: str
    size_bytes: int


class Shelf:
    """A loader of fakes that writes down what was loaded and how much was held at that moment."""

    def __init__(self, budget: int, size: int = 100) -> None:
        self.size = size
        self.loaded: list[str] = []
        self.held_before: list[int] = []
        self.cache: ComponentCache[Fake] = ComponentCache(budget, self)

    def __call__(self, path: Path, *, device: torch.device, dtype: torch.dtype) -> Fake:
        self.loaded.append(path.name)
        self.held_before.append(self.cache.size_bytes)
        return Fake(path.name, self.size)

    def get(self, path: Path, dtype: torch.dtype = torch.float32) -> Fake:
        return self.cache.get(path, device=CPU, dtype=dtype)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(b"x")
    return paths


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "estimate_bytes", lambda path, dtype: 100)


@pytest.mark.usefixtures("sized")
def test_the_least_recently_used_goes_before_the_next_is_loaded(files: list[Path]) -> None:
    a, b, c = files
    shelf = Shelf(250)
    first = shelf.get(a)
    shelf.get(b)
    assert shelf.get(a) is first
    shelf.get(c)
    assert shelf.held_before == [0, 100, 100], "room was made before the third was loaded"
    assert shelf.cache.size_bytes == 200
    shelf.get(a)
    shelf.get(b)
    assert shelf.loaded == ["a", "b", "c", "b"]


@pytest.mark.usefixtures("sized")
def test_one_model_above_the_budget_is_held_alone(files: list[Path]) -> None:
    shelf = Shelf(50)
    shelf.get(files[0])
    shelf.get(files[0])
    shelf.get(files[1])
    assert shelf.loaded == ["a", "b"] and len(shelf.cache) == 1 and shelf.held_before == [0, 0]


@pytest.mark.usefixtures("sized")
def test_a_wrong_estimate_is_made_good_after_loading(files: list[Path]) -> None:
    shelf = Shelf(250, size=200)
    shelf.get(files[0])
    shelf.get(files[1])
    assert len(shelf.cache) == 1


def test_a_changed_file_is_loaded_anew_and_the_old_one_let_go(files: list[Path]) -> None:
    shelf = Shelf(1000)
    shelf.get(files[0])
    files[0].write_bytes(b"longer")
    shelf.get(files[0])
    assert shelf.loaded == ["a", "a"] and len(shelf.cache) == 1
    stat = files[0].stat()
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    shelf.get(files[0])
    assert len(shelf.loaded) == 3


def test_precisions_are_held_apart(files: list[Path]) -> None:
    shelf = Shelf(1000)
    assert shelf.get(files[0]) is not shelf.get(files[0], torch.bfloat16)
    shelf.cache.clear()
    assert len(shelf.cache) == 0 and shelf.cache.size_bytes == 0


def test_a_failed_load_leaves_the_cache_usable(files: list[Path], tmp_path: Path) -> None:
    shelf = Shelf(1000)
    with pytest.raises(ModelError, match="absent") as caught:
        shelf.get(tmp_path / "absent")
    assert caught.value.code == "model.unknown"

    def fail(path: Path, *, device: torch.device, dtype: torch.dtype) -> Fake:
        raise ModelError("model.corrupt", "no")

    broken: ComponentCache[Fake] = ComponentCache(1000, fail)
    with pytest.raises(ModelError):
        broken.get(files[0], device=CPU, dtype=torch.float32)
    assert len(broken) == 0


def test_the_estimate_is_close_to_what_loading_takes(tmp_path: Path) -> None:
    from impasto_server.engine.load import load_checkpoint

    path = write_tiny_checkpoint(tmp_path / "t.safetensors")
    taken = load_checkpoint(path, device=CPU, dtype=torch.float32).size_bytes
    assert abs(estimate_bytes(path, torch.float32) - taken) < 0.01 * taken
    assert estimate_bytes(tmp_path / "absent", torch.float32) == 0
