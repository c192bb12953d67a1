"""Everything that `impasto serve` takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from impasto_protocol.home import home_folder
from impasto_protocol.version import Limits

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """How one server runs. Bytes, seconds and pixels; every default is what a painter gets without options."""

    home: Path = field(default_factory=home_folder)
    """The user's folder: records, token, log, own models, history."""

    owns_home: bool = True
    """Take up the jobs and half results of an earlier run. A second server in the same folder (the command line's)
    must not: they may be the first one's present work."""

    host: str = "127.0.0.1"
    """Beyond loopback it needs `tls` or `insecure`; the editors of this machine have a door of their own then."""

    port: int = 0
    """0 takes a free port on loopback (the endpoint record tells which), and 7867 beyond it."""

    tls: bool = False
    """Encrypt `host` with the server's own certificate."""

    insecure: bool = False
    """Listen beyond loopback without encryption."""

    models: tuple[Path, ...] = ()
    """Further folders with checkpoints; the home's models/ is always one."""

    a1111: tuple[Path, ...] = ()
    """Folders of an AUTOMATIC1111 web UI, whose models, styles and wildcards are used where they lie."""

    comfyui: tuple[Path, ...] = ()
    """Folders of a ComfyUI, whose models are used where they lie."""

    invokeai: tuple[Path, ...] = ()
    """Root folders of an InvokeAI, whose models are used where they lie."""

    wildcards: tuple[Path, ...] = ()
    """Further folders with wildcard files; the home's wildcards/ is always one, its styles.csv always read."""

    device: str = "auto"
    precision: str = "auto"
    memory_budget: int | None = None
    """Bytes of models kept loaded; None leaves it to the engine."""

    engine: str = "impasto_server.engine.run:Engine"
    """`module:callable`, called in the worker as (device, precision, memory_budget); gives an object with `run`."""

    worker: str = "process"
    """"process", or "thread" for tests and for a single job on the command line."""

    starter: bool = True
    """Install the starter model where no checkpoint is found, and the kit's upscaler."""

    limits: Limits = field(default_factory=Limits)
    blob_bytes: int = 2 << 30
    """Pictures kept in memory: uploads and results."""

    history_bytes: int = 4 << 30
    """Results kept on disk; the oldest go first."""

    finished_jobs: int = 200
    """Ended jobs whose events can still be replayed."""

    cancel_grace: float = 10.0
    """Seconds after which a worker that does not hear a cancel is killed."""

    slow_client: float = 30.0
    """Seconds after which a client that does not read is closed; it may attach again."""

    rescan: float = 10.0
    """Seconds between two looks at the model folders."""

    hash_after: float | None = 60.0
    """Seconds without a job after which the hashes of model files are worked out, by which old pictures name them; None
    or 0 is never."""

    free_after: float | None = 600.0
    """Seconds without a job after which the memory of loaded models is given back; None or 0 is never."""

    stop_after: float | None = None
    """Seconds without a client and without a job after which the server stops by itself; None or 0 is never."""
