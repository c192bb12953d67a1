"""The kit's networks by their names: unpacked, checked and loaded when the first of them is used.

They run with onnxruntime, on the CPU, where they take milliseconds; docs/kit.md says why. It is imported with the
first of them.
"""

from __future__ import annotations

import errno
import importlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from impasto_protocol.errors import ModelError, ResourceError
from impasto_protocol.home import home_folder, kit_folder

__all__ = ["Floats", "Kit", "Network", "Picture", "installed", "known", "session_of"]

Picture = npt.NDArray[np.uint8]
"""RGB [h, w, 3], 0..255, sRGB as the editors send it."""

Floats = npt.NDArray[np.float32]


class Network:
    """A loaded network: one float32 array in, its outputs by name."""

    def __init__(self, name: str, session: Any) -> None:
        self.name = name
        self._session = session
        (self._input,) = (value.name for value in session.get_inputs())
        self._outputs = [value.name for value in session.get_outputs()]

    def __call__(self, values: npt.NDArray[Any]) -> dict[str, Floats]:
        """Run it; `values` has the shape of the input. Several threads may."""
        found = self._session.run(self._outputs, {self._input: np.ascontiguousarray(values, np.float32)})
        return dict(zip(self._outputs, found, strict=True))


class Kit:
    """The networks of one folder, by default the user's. Loaded ones are kept; several threads may use it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or kit_folder(home_folder())
        self._loaded: dict[str, Network] = {}
        self._lock = threading.Lock()

    def network(self, name: str) -> Network:
        """The network of that name.

        Raises ModelError: `model.unknown` (there is none of that name, it was not pulled, or this installation
        lacks the kit),
        `model.corrupt` (its file is damaged or missing), `model.unsupported` (another file lies in its place, or
        onnxruntime is not installed). ResourceError: `resource.disk_full`, `resource.home` (it cannot be unpacked).
        """
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def _load(self, name: str) -> Network:
        return Network(name, session_of(installed(name, self.folder)))


def session_of(path: Path) -> Any:
    """The ONNX file at `path` as onnxruntime runs it, on the CPU. Raises ModelError `model.unsupported` where it does
    not, or is not installed."""
    runtime = _onnxruntime(path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = min(4, os.cpu_count() or 1)
    # Its threads would otherwise turn in circles after each call and take the cores from what comes next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise ModelError(
            "model.unsupported",
            f"onnxruntime {runtime.__version__} cannot load {path} ({type(error).__name__}); install another one.",
            data={"file": path.name},
        ) from error


def known() -> Mapping[str, Mapping[str, Any]]:
    """What is told of each network, by its name: file, kind, about, licence, origin, sums. Those without a packed one
    (`sha256`) do not come along; they are pulled.

    Raises ModelError as `Kit.network` does.
    """
    unpack = _unpack()
    try:
        table: Mapping[str, Mapping[str, Any]] = unpack.table()
    except unpack.KitDamaged as error:
        raise ModelError("model.corrupt", f"{error}; if that does not help, install Impasto again.") from error
    return table


def installed(name: str, folder: Path, *, repair: bool = False) -> Path:
    """The path of the kit's file of that name in `folder`, unpacked if it is not there, its checksum checked.

    What else lies in its place is overwritten only to `repair`. Raises what `Kit.network` raises.
    """
    unpack = _unpack()
    names = known()
    if name not in names:
        raise ModelError(
            "model.unknown", f"The kit has no {name[:80]!r}; it has {', '.join(names)}.", data={"known": list(names)}
        )
    try:
        return Path(unpack.install(name, folder, repair=repair))
    except unpack.KitNotPulled as error:
        raise ModelError("model.unknown", str(error), data={"file": error.path.name}) from error
    except unpack.KitReplaced as error:
        raise ModelError("model.unsupported", str(error), data={"file": error.path.name}) from error
    except unpack.KitDamaged as error:
        message = f"{error}; if that does not help, install Impasto again."
        raise ModelError("model.corrupt", message, data={"file": error.path.name}) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise ResourceError(
            "resource.disk_full" if full else "resource.home",
            f"The kit's {name} cannot be unpacked into {folder} ({error.strerror}); "
            + ("make room and try again." if full else "see that you may write there."),
        ) from error


def _unpack() -> Any:
    try:
        return importlib.import_module("starter.kit.unpack")
    except ModuleNotFoundError as error:
        if error.name not in ("starter", "starter.kit", "starter.kit.unpack"):
            raise
        raise ModelError("model.unknown", "This installation does not contain the kit.") from error


def _onnxruntime(path: Path) -> Any:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ModelError(
            "model.unsupported",
            f"{path.stem} needs onnxruntime; install it: pip install onnxruntime",
            data={"file": path.name},
        ) from error
    runtime.disable_telemetry_events()  # its builds for Windows report to the system's log otherwise
    return runtime
