"""Which device, which number format, and a cache of loaded models with a budget in bytes."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from impasto_protocol.errors import ModelError, RequestError

from .modelfile import header_of
from .modelpath import stamp_of

__all__ = [
    "ComponentCache",
    "Sized",
    "choose_device",
    "choose_dtype",
    "cpu_has_bf16",
    "estimate_bytes",
    "free_bytes",
    "give_back",
    "is_out_of_memory",
    "placed",
]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _present(kind: str) -> bool:
    if kind == "cpu":
        return True
    if kind == "mps":
        return torch.backends.mps.is_available()
    module = getattr(torch, kind, None)
    return module is not None and hasattr(module, "is_available") and bool(module.is_available())


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name ("cpu", "cuda", "cuda:1", "mps", "xpu"), or the best that torch finds for "auto".

    ROCm cards are called cuda by torch. Raises RequestError `request.invalid_param` for one that is not there.
    """
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "xpu", "mps", "cpu") if _present(kind)))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RequestError(
            "request.invalid_param",
            f"There is no device called {name[:40]!r}; use auto, cpu, cuda, cuda:1, xpu or mps.",
            path="device",
        ) from error
    if not _present(device.type):
        raise RequestError(
            "request.invalid_param",
            f"This torch {torch.__version__} finds no {device.type} device; use --device auto or cpu, "
            "and see what `impasto doctor` says.",
            path="device",
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RequestError(
            "request.invalid_param",
            f"There is no {name}: this computer has {torch.cuda.device_count()} such device(s), counted from 0.",
            path="device",
        )
    return device


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 natively (AVX-512 BF16 or AMX): twice as fast as fp32, elsewhere slower."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)


def choose_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The number format of the networks on `device`; `precision` is auto, fp32, bf16 or fp16.

    auto: bf16 on a CPU that has it, else fp32; fp16 on a card, except where its fp16 is slow or broken (before Volta,
    and GTX 16xx): fp32. Raises RequestError `request.invalid_param` for a format that the device cannot do.
    """
    if precision != "auto" and precision not in DTYPES:
        raise RequestError(
            "request.invalid_param",
            f"There is no precision {precision[:40]!r}; use auto, fp32, bf16 or fp16.",
            path="precision",
        )
    if precision == "fp32":
        return torch.float32
    if device.type == "cpu":
        if precision == "fp16":
            raise _impossible("A CPU does not compute in fp16; use auto or fp32.")
        if cpu_has_bf16():
            return torch.bfloat16
        if precision == "bf16":
            raise _impossible("This CPU has no bf16 arithmetic; use auto or fp32.")
        return torch.float32
    if precision == "auto":
        return torch.float32 if device.type == "cuda" and _slow_fp16(device) else torch.float16
    if precision == "bf16" and device.type == "cuda" and not _cuda_has_bf16(device):
        raise _impossible(f"{torch.cuda.get_device_name(device)} has no bf16 arithmetic; use auto, fp16 or fp32.")
    return DTYPES[precision]


def _impossible(sentence: str) -> RequestError:
    return RequestError("request.invalid_param", sentence, path="precision")


def _slow_fp16(device: torch.device) -> bool:
    if torch.version.hip:
        return False
    return torch.cuda.get_device_capability(device) < (7, 0) or "GTX 16" in torch.cuda.get_device_name(device)


def _cuda_has_bf16(device: torch.device) -> bool:
    # torch's own is_bf16_supported() also says yes to emulation.
    return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)


def placed(network: torch.nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device and the number format of a network that is in one piece, as our loader makes them.

    The properties of diffusers' networks say the same after a walk through all modules, milliseconds for each question.
    """
    first = next(network.parameters())
    return first.device, first.dtype


def free_bytes(device: torch.device) -> int:
    """Bytes that can be had on the device now; of the CPU what the system could give without swapping, as far as it
    tells."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + held)
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = re.search(r"MemAvailable:\s+(\d+) kB", file.read())
    except OSError:  # not Linux
        found = None
    return int(found.group(1)) << 10 if found else 2 << 30


class Sized(Protocol):
    """Something that knows how many bytes it holds."""

    @property
    def size_bytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


@dataclass(frozen=True)
class _Key:
    """One state of one file, or of the several that make one model, in one precision on one device."""

    paths: tuple[str, ...]
    stamps: tuple[tuple[int, int], ...]
    device: str
    dtype: str


class ComponentCache(Generic[T]):
    """Loaded models, at most `budget_bytes` of them together, the least recently used going first.

    A single model above the budget is still loaded, alone: without it nothing could run. For one thread.
    """

    def __init__(self, budget_bytes: int, loader: Callable[..., T]) -> None:
        """`loader` is called like `load.load_checkpoint`; the names of `parts` are further arguments of it."""
        self._budget = budget_bytes
        self._loader = loader
        self._held: OrderedDict[_Key, T] = OrderedDict()

    def get(
        self, path: str | Path, *, device: torch.device, dtype: torch.dtype, parts: Mapping[str, Path] | None = None
    ) -> T:
        """The model in `path`, loaded if it is not held; a file that changed since is loaded anew. `parts` are what the
        loader is given beside it.

        Room is made before loading, so that the old and the new model never stand in memory together where they do
        not fit. Raises what the loader raises, and ModelError `model.unknown` where there is no file.
        """
        path, parts = Path(path), parts or {}
        files = (path, *parts.values())
        key = _Key(
            (str(path.resolve()), *(f"{name}={part.resolve()}" for name, part in parts.items())),
            tuple(_stamp(file) for file in files),
            str(device),
            str(dtype),
        )
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        stale = [old for old in self._held if old.paths == key.paths and old.stamps != key.stamps]
        for old in stale:
            del self._held[old]
        room = self._budget - sum(estimate_bytes(file, dtype) for file in dict.fromkeys(files))
        self._shrink(max(0, room), released=bool(stale))
        loaded = self._loader(path, device=device, dtype=dtype, **parts)
        self._shrink(max(0, self._budget - loaded.size_bytes))
        self._held[key] = loaded
        return loaded

    @property
    def size_bytes(self) -> int:
        """Bytes of everything held."""
        return sum(value.size_bytes for value in self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def clear(self) -> None:
        """Let everything go, and give the memory back to the system as far as torch can."""
        self._shrink(-1)

    def _shrink(self, target: int, *, released: bool = False) -> None:
        while self._held and self.size_bytes > target:
            self._held.popitem(last=False)
            released = True
        if released:
            give_back()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        return stamp_of(path)
    except OSError as error:
        raise ModelError(
            "model.unknown",
            f"The model file {path.name} cannot be opened: {error.strerror or error}.",
            data={"file": path.name},
        ) from error


def give_back() -> None:
    """Give back to the system what was let go: to the card's driver, and what Linux's C library keeps for later."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def estimate_bytes(path: str | Path, dtype: torch.dtype) -> int:
    """About how many bytes the tensors of a model take in `dtype`; 0 where the file cannot be read."""
    try:
        header = header_of(path)
    except ModelError:
        return 0  # loading it will say why
    return sum(prod(info.shape) for info in header.tensors.values()) * dtype.itemsize


def is_out_of_memory(error: BaseException) -> bool:
    """torch says it on the CPU, on MPS and in older versions with a plain RuntimeError."""
    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )
