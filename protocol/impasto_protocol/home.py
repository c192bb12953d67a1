"""The user's folder: where it is, and the records in it through which editors, CLI and server find each other."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import List, Mapping, Optional, Tuple

__all__ = [
    "STOP_AFTER",
    "Endpoint",
    "endpoint_file",
    "history_folder",
    "home_folder",
    "kit_folder",
    "launch_file",
    "lock_file",
    "log_file",
    "models_folder",
    "paired_file",
    "pairings_file",
    "read_endpoint",
    "read_launch",
    "spool_folder",
    "tls_file",
    "token_file",
    "write_private",
]


STOP_AFTER = "IMPASTO_STOP_AFTER"
"""Environment variable: minutes without a client and a job after which a server without `--stop-after` stops."""


def home_folder(environ: Optional[Mapping[str, str]] = None) -> Path:
    """`IMPASTO_HOME`, else the platform's folder for a user's data. It need not exist yet."""
    env = os.environ if environ is None else environ
    if env.get("IMPASTO_HOME"):
        return Path(env["IMPASTO_HOME"]).expanduser().absolute()
    if sys.platform == "win32":
        base = env.get("LOCALAPPDATA")
        return (Path(base) if base else Path.home() / "AppData" / "Local") / "Impasto"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "Impasto"
    # A fixed place, not XDG_DATA_HOME: sandboxed editors see another value of it than the server does.
    return Path.home() / ".local" / "share" / "impasto"


def endpoint_file(home: Path) -> Path:
    """Where the running server is (see `Endpoint`)."""
    return home / "endpoint.json"


def token_file(home: Path) -> Path:
    """The secret that proves the same user; readable by its owner only."""
    return home / "token"


def lock_file(home: Path) -> Path:
    """Held by the one running server."""
    return home / "server.lock"


def log_file(home: Path) -> Path:
    """What the server has to say."""
    return home / "server.log"


def launch_file(home: Path) -> Path:
    """The command that starts the server."""
    return home / "launch.json"


def models_folder(home: Path) -> Path:
    """The user's own models."""
    return home / "models"


def kit_folder(home: Path) -> Path:
    """The small networks that come with Impasto, unpacked when they are first needed."""
    return home / "kit"


def history_folder(home: Path) -> Path:
    """The journal of results."""
    return home / "history"


def spool_folder(home: Path) -> Path:
    """Files in which pixels change hands; empty while no server runs."""
    return home / "spool"


def pairings_file(home: Path) -> Path:
    """The clients that were paired with this server, each with the hash of its token."""
    return home / "pairings.json"


def paired_file(home: Path) -> Path:
    """The servers that this client was paired with, each with its token; readable by its owner only."""
    return home / "paired.json"


def tls_file(home: Path) -> Path:
    """The server's own certificate and its key; readable by its owner only."""
    return home / "tls.pem"


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens: written once it does, removed when it stops."""

    host: str
    port: int
    pid: int
    interpreter: str
    token_file: str
    version: str
    protocol: Tuple[int, int]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def read_endpoint(home: Path) -> Optional[Endpoint]:
    """The endpoint record, or None where there is none or it is not one (a server may be about to write it)."""
    try:
        raw = json.loads(endpoint_file(home).read_text(encoding="utf-8"))
        major, minor = raw["protocol"]
        return Endpoint(
            host=str(raw["host"]),
            port=int(raw["port"]),
            pid=int(raw["pid"]),
            interpreter=str(raw["interpreter"]),
            token_file=str(raw["token_file"]),
            version=str(raw["version"]),
            protocol=(int(major), int(minor)),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def read_launch(home: Path) -> Optional[List[str]]:
    """The argument list that starts the server, or None where no server has ever run."""
    try:
        argv = json.loads(launch_file(home).read_text(encoding="utf-8"))["argv"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if not isinstance(argv, list) or not argv or not all(isinstance(part, str) for part in argv):
        return None
    return argv


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all: temporary file, fsync, rename."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(str(temporary), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(str(temporary), str(path))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
