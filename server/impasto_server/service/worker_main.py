"""What runs in the worker: the engine, one job after the other. Entry point of the spawned process."""

from __future__ import annotations

import importlib
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Protocol, cast

from impasto_protocol.errors import ImpastoError, InternalError, ResourceError

from ..engine.jobs import Cancelled, Emit, Event, Job, Layer, Result
from .share import Segment, copy_in, copy_out

__all__ = [
    "OFFLINE",
    "PATIENT",
    "Begun",
    "EngineSpec",
    "Failed",
    "Free",
    "Freed",
    "Ready",
    "Reply",
    "Stopped",
    "create_engine",
    "free_engine",
    "main",
    "run_job",
]

OFFLINE: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DIFFUSERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
}
"""Set before the engine's libraries are imported: no code path may reach a hub."""

PATIENT: Mapping[str, str] = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Defaults for the worker process: a thread of torch that has nothing to do sleeps. By itself it spins, and beside an
editor that uses the same cores small networks then run many times slower."""


class EngineLike(Protocol):
    """What the service knows of the engine."""

    def run(self, job: Job, emit: Emit, cancelled: Callable[[], bool]) -> Result: ...


@dataclass(frozen=True)
class EngineSpec:
    """How the worker makes its engine: `factory` is `module:callable`, called as (device, precision, memory_budget)."""

    factory: str
    device: str = "auto"
    precision: str = "auto"
    memory_budget: int | None = None


@dataclass(frozen=True)
class Ready:
    """The engine is there; `device` describes what it runs on."""

    device: str


@dataclass(frozen=True)
class Failed:
    """The job, or the start of the engine, failed; `traceback` is for the log only."""

    error: ImpastoError
    traceback: str = ""


@dataclass(frozen=True)
class Stopped:
    """The job ended because it was cancelled."""


@dataclass(frozen=True)
class Begun:
    """The process has taken the job: from here on its death is the job's."""


@dataclass(frozen=True)
class Free:
    """Give back the memory of loaded models, between two jobs."""


@dataclass(frozen=True)
class Freed:
    """It was given back."""


Reply = Ready | Begun | Event | Result | Failed | Stopped


@dataclass(frozen=True)
class SharedJob:
    """A job whose pictures lie in shared memory."""

    job: Job
    image: Segment | None = None
    mask: Segment | None = None
    backdrop: Segment | None = None


@dataclass(frozen=True)
class SharedLayer:
    """A layer whose pixels lie in shared memory; the reader unlinks them and answers `Taken`."""

    layer: Layer
    pixels: Segment


@dataclass(frozen=True)
class Taken:
    """The segment has been copied."""

    name: str


@dataclass(frozen=True)
class Cancel:
    """End this job at the next step."""

    job: str


def create_engine(spec: EngineSpec) -> EngineLike:
    """Import and make the engine (this is what imports torch).

    Raises ResourceError `resource.no_torch` where torch is not installed.
    """
    module, _, name = spec.factory.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as e:
        if e.name != "torch":
            raise
        raise ResourceError(
            "resource.no_torch",
            "PyTorch is not installed here; run `impasto setup torch`, which chooses the build for your graphics card.",
        ) from e
    return cast(EngineLike, factory(spec.device, spec.precision, spec.memory_budget))


def device_of(engine: EngineLike) -> str:
    """How the engine describes its device, for welcome and doctor."""
    return str(getattr(engine, "device_name", "") or getattr(engine, "device", "unknown"))


def start_failure(error: Exception) -> Failed:
    """The engine could not be made: what the user reads, and the traceback for the log."""
    if isinstance(error, ImpastoError):
        return Failed(error)
    return Failed(
        InternalError(
            "internal.failure",
            f"The engine could not start ({type(error).__name__}: {error}); run `impasto doctor`.",
        ),
        traceback.format_exc(),
    )


def free_engine(engine: EngineLike) -> None:
    """Let an engine that keeps what it loaded give it back."""
    free = getattr(engine, "free", None)
    if free is not None:
        free()


def run_job(engine: EngineLike, job: Job, emit: Emit, cancelled: Callable[[], bool]) -> Result | Failed | Stopped:
    """Run one job to its end, whatever the end is: a defect of the engine fails the job, never the worker."""
    try:
        return engine.run(job, emit, cancelled)
    except Cancelled:
        return Stopped()
    except ImpastoError as e:
        return Failed(e, traceback.format_exc() if isinstance(e, InternalError) else "")
    except MemoryError:
        return Failed(
            ResourceError(
                "resource.out_of_memory",
                "There is not enough memory for this job; try a smaller size, or close other programs.",
                retryable=True,
            ),
            traceback.format_exc(),
        )
    except Exception as e:  # reported to the client and logged with its traceback; the next job goes on
        return Failed(
            InternalError("internal.failure", f"The engine failed on this job ({type(e).__name__})."),
            traceback.format_exc(),
        )


@dataclass
class _Child:
    """The worker process's own state."""

    connection: Connection
    prefix: str
    jobs: queue.SimpleQueue[SharedJob | Free] = field(default_factory=queue.SimpleQueue)
    cancelled: set[str] = field(default_factory=set)
    handed: dict[str, SharedMemory] = field(default_factory=dict)
    count: int = 0
    sending: threading.Lock = field(default_factory=threading.Lock)

    def listen(self) -> None:
        """Hear cancels while the engine works; the end of the pipe is the end of the server, and so of this process."""
        while True:
            try:
                message: Any = self.connection.recv()
            except (EOFError, OSError):
                os._exit(0)
            if isinstance(message, SharedJob | Free):
                self.jobs.put(message)
            elif isinstance(message, Cancel):
                self.cancelled.add(message.job)
            elif isinstance(message, Taken):
                self.handed.pop(message.name).close()

    def send(self, message: Any) -> None:
        with self.sending:
            self.connection.send(message)

    def emit(self, event: Event) -> None:
        if not isinstance(event, Layer):
            self.send(event)
            return
        name = f"{self.prefix}-{self.count}"
        self.count += 1
        segment, memory = copy_in(event.pixels, name)
        self.handed[name] = memory
        self.send(SharedLayer(replace(event, pixels=_NONE), segment))

    def work(self, engine: EngineLike) -> None:
        while True:
            shared = self.jobs.get()
            if isinstance(shared, Free):
                free_engine(engine)
                self.send(Freed())
                continue
            self.send(Begun())
            job = replace(
                shared.job,
                image=copy_out(shared.image, unlink=False) if shared.image else None,
                mask=copy_out(shared.mask, unlink=False) if shared.mask else None,
                backdrop=copy_out(shared.backdrop, unlink=False) if shared.backdrop else None,
            )
            end = run_job(engine, job, self.emit, lambda id=job.id: id in self.cancelled)  # type: ignore[misc]
            self.cancelled.discard(job.id)
            self.send(end)


_NONE: Any = None


def main(connection: Connection, prefix: str, spec: EngineSpec) -> None:
    """Serve jobs over `connection` until it closes; output segments are named `prefix`-0, -1, ..."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C in a terminal reaches the server, which ends this process
    os.environ.update(OFFLINE)
    for name, value in PATIENT.items():
        os.environ.setdefault(name, value)
    child = _Child(connection, prefix)
    threading.Thread(target=child.listen, name="impasto-listen", daemon=True).start()
    try:
        engine = create_engine(spec)
    except Exception as e:  # the server tells the client and logs the traceback
        child.send(start_failure(e))
        return
    child.send(Ready(device_of(engine)))
    child.work(engine)
