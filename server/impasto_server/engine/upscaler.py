"""Upscaler models (ESRGAN, Real-ESRGAN, SwinIR, ...): a file -> a network, of any architecture that spandrel knows.

spandrel is imported when the first one is loaded. It gets the tensors from our own readers, so a pickle goes through
the restricted one.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from impasto_protocol.errors import ModelError

from .memory import is_out_of_memory
from .modelfile import open_model

__all__ = ["UpscalerModel", "load_upscaler"]


@dataclass(frozen=True, eq=False)
class UpscalerModel:
    """A loaded upscaler. `scale` is its own, `whole` says that it wants the picture in one piece."""

    name: str
    architecture: str
    scale: int
    whole: bool
    descriptor: Any
    device: torch.device
    dtype: torch.dtype

    @property
    def size_bytes(self) -> int:
        """Bytes of all parameters and buffers."""
        module: torch.nn.Module = self.descriptor.model
        return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))

    @torch.inference_mode()
    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        """RGB [1, 3, h, w] in 0..1, fp32 on the CPU -> [1, 3, h * scale, w * scale] likewise.

        What half precision cannot hold is done again in fp32. Raises ModelError `model.unsupported` where the network
        does not take pictures of this size.
        """
        picture = picture.to(self.device)
        result: torch.Tensor = self._enlarged(picture.to(self.dtype)).float()
        if self.dtype != torch.float32 and not bool(result.isfinite().all()):
            self.descriptor.model.float()
            try:
                result = self._enlarged(picture)
            finally:
                self.descriptor.model.to(self.dtype)
        return result.cpu()

    def _enlarged(self, picture: torch.Tensor) -> torch.Tensor:
        """Raises ModelError `model.unsupported` where the network does not take a picture of this size."""
        height, width = picture.shape[-2:]
        reason: Exception | None = None
        try:
            result: torch.Tensor = self.descriptor(picture)
            if result.shape[-2:] == (height * self.scale, width * self.scale):
                return result
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            # What the card or the memory says is not about the network.
            if isinstance(error, torch.AcceleratorError) or is_out_of_memory(error):
                raise
            reason = error
        raise ModelError(
            "model.unsupported",
            f"{self.name} ({self.architecture}) does not take {width} x {height} pixels; it seems to be made for "
            "pictures of one size. Choose another upscaler.",
            data={"file": self.name, "architecture": self.architecture, "width": width, "height": height},
        ) from reason

    @contextmanager
    def checked(self, check: Callable[[], None]) -> Iterator[None]:
        """Within it `check` is called before every layer, so that a cancel is heard within a tile."""
        hooks = [
            module.register_forward_pre_hook(lambda *_: check())
            for module in self.descriptor.model.modules()
            if not any(module.children())
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def load_upscaler(path: str | Path, *, device: torch.device, dtype: torch.dtype) -> UpscalerModel:
    """Load an upscaler in fp32, or in fp16 where `dtype` says so and its architecture can.

    Raises ModelError: `model.unsupported` (spandrel is not installed, or the model does something else than enlarge
    RGB pictures), `model.unidentified` (no architecture that spandrel knows), `model.corrupt`, `model.unsafe`,
    `model.unknown`.
    """
    path = Path(path)
    with open_model(path) as opened:
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    spandrel = _spandrel(path)
    try:
        descriptor = spandrel.ModelLoader("cpu").load_from_state_dict(spandrel.canonicalize_state_dict(state))
    except spandrel.UnsupportedModelError as error:
        raise ModelError(
            "model.unidentified",
            f"{path.name} has the structure of no upscaler that spandrel {spandrel.__version__} knows.",
            data={"file": path.name},
        ) from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever an architecture's own code runs into on tensors that do not fit it
        raise ModelError(
            "model.corrupt",
            f"{path.name} is not a complete upscaler ({type(error).__name__}). Download or copy the file again.",
            data={"file": path.name},
        ) from error
    enlarges = isinstance(descriptor, spandrel.ImageModelDescriptor) and descriptor.purpose == "SR"
    if not enlarges or descriptor.scale < 2 or (descriptor.input_channels, descriptor.output_channels) != (3, 3):
        raise ModelError(
            "model.unsupported",
            f"{path.name} ({descriptor.architecture.name}) does not enlarge colour pictures; choose another upscaler.",
            data={"file": path.name, "architecture": descriptor.architecture.name},
        )
    # Half precision on a card alone, and bf16 nowhere: its 8 bits show as bands.
    half = dtype == torch.float16 and device.type != "cpu" and descriptor.supports_half
    dtype = torch.float16 if half else torch.float32
    descriptor.model.eval().requires_grad_(False).to(device=device, dtype=dtype)
    whole = descriptor.tiling is spandrel.ModelTiling.INTERNAL
    return UpscalerModel(path.stem, descriptor.architecture.name, descriptor.scale, whole, descriptor, device, dtype)


def _spandrel(path: Path) -> Any:
    try:
        with _without_torchvision():
            return importlib.import_module("spandrel")
    except ImportError as error:
        raise ModelError(
            "model.unsupported",
            f"{path.name} is an upscaler; to use it, install spandrel: pip install --no-deps spandrel einops",
            data={"file": path.name},
        ) from error


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """spandrel imports three names from torchvision, for two architectures that enlarge nothing. An installed
    torchvision often does not fit torch and cannot be imported, so those names are lent to it while it is imported."""
    lent = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    if "spandrel" in sys.modules or lent[-1] in sys.modules:
        yield
        return
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}
    for name in lent:
        stand_in: Any = ModuleType(name)
        stand_in.__spec__ = importlib.machinery.ModuleSpec(name, None)
        stand_in.__path__ = []
        sys.modules[name] = stand_in
    stand_in.InterpolationMode = stand_in.rotate = stand_in.normalize = _absent
    try:
        yield
    finally:
        for name in lent:
            del sys.modules[name]
        sys.modules.update(before)


def _absent(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("this architecture needs torchvision")
