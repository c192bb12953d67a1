"""The server's side of the user's folder: one instance, the token, the endpoint record, the log."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from impasto_protocol.errors import AuthError, ResourceError
from impasto_protocol.home import (
    Endpoint,
    endpoint_file,
    launch_file,
    lock_file,
    log_file,
    models_folder,
    read_endpoint,
    token_file,
    write_private,
)

__all__ = [
    "ensure_home",
    "ensure_token",
    "remove_endpoint",
    "single_instance",
    "to_log_file",
    "write_endpoint",
    "write_launch",
]

TOKEN_BYTES = 32


def ensure_home(home: Path) -> None:
    """Create the folder (for its owner only) and models/. Raises ResourceError `resource.home` with the mend."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        models_folder(home).mkdir(exist_ok=True)
    except OSError as e:
        raise ResourceError(
            "resource.home",
            f"The folder {home} cannot be used ({e.strerror}); make it writable or set IMPASTO_HOME to another one.",
        ) from e


@contextmanager
def single_instance(home: Path) -> Iterator[None]:
    """Hold the folder's lock; the system frees it on a crash.

    Raises ResourceError `resource.already_running` while another server holds it, `resource.home` without a lock.
    """
    try:
        opened = open(lock_file(home), "a+", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as e:
        raise ResourceError(
            "resource.home",
            f"The lock {lock_file(home)} cannot be opened ({e.strerror}); delete it, or make the folder writable.",
        ) from e
    with opened as file:
        if not _try_lock(file):
            there = read_endpoint(home)
            where = f" (process {there.pid}, port {there.port})" if there else ""
            raise ResourceError(
                "resource.already_running",
                f"A server is already running for {home}{where}; use it, or stop it with `impasto stop`.",
            )
        try:
            yield
        finally:
            _unlock(file)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[str]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: IO[str]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(file: IO[str]) -> bool:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _unlock(file: IO[str]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)


def ensure_token(home: Path) -> str:
    """The folder's token, made on the first start.

    Raises AuthError `auth.denied` where others may read the file (the mend is in the sentence) or where it is empty.
    """
    path = token_file(home)
    if not path.exists():
        _write(path, secrets.token_urlsafe(TOKEN_BYTES))
    if os.name == "posix":
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise AuthError(
                "auth.denied",
                f"The token file {path} can be read by others (mode {mode:o}); run `chmod 600 {path}`, "
                "or delete it and start the server again.",
            )
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        token = ""
    if len(token) < 16:
        raise AuthError(
            "auth.denied", f"The token file {path} holds no usable token; delete it and start the server again."
        )
    return token


def write_endpoint(home: Path, endpoint: Endpoint) -> None:
    """Tell where the server listens; call it once it does. Raises ResourceError `resource.home`."""
    _write(endpoint_file(home), endpoint.to_json())


def remove_endpoint(home: Path, pid: int) -> None:
    """Take back the record, if it is still that of process `pid`."""
    there = read_endpoint(home)
    if there is not None and there.pid == pid:
        endpoint_file(home).unlink(missing_ok=True)


def write_launch(home: Path, argv: Sequence[str]) -> None:
    """Keep the command that starts this server, so that an editor can. Raises ResourceError `resource.home`."""
    _write(launch_file(home), json.dumps({"argv": list(argv)}, indent=1))


def _write(path: Path, text: str) -> None:
    try:
        write_private(path, text)
    except OSError as e:
        raise ResourceError(
            "resource.home",
            f"{path} cannot be written ({e.strerror}); free some space and make the folder writable, and where "
            "something else lies in this place, delete it.",
        ) from e


class _OneLine(logging.Formatter):
    """A message is one line of what can be printed: a client's name, or a file's, must not write lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in record.message)
        return super().formatMessage(record)


@contextmanager
def to_log_file(home: Path, level: int = logging.INFO) -> Iterator[None]:
    """Send what `impasto` logs to the folder's log (two files of at most 2 MB)."""
    handler = logging.handlers.RotatingFileHandler(
        log_file(home), maxBytes=2_000_000, backupCount=1, encoding="utf-8", delay=True
    )
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger: Any = logging.getLogger("impasto")
    previous = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(previous)
        handler.close()
