"""Find the server of this user, or start it: outside the editor's environment, detached, with its output in the log."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional

from impasto_protocol.errors import ResourceError
from impasto_protocol.home import STOP_AFTER, home_folder, log_file, read_launch

from .endpoint import Endpoint, read_endpoint

__all__ = ["ALREADY_RUNNING", "STOP_AFTER_MINUTES", "OnStatus", "find_or_start", "scrubbed_environment", "start_server"]

STOP_AFTER_MINUTES = 10
"""A server that an editor started stops so long after the last client is gone and the last job has ended, unless its
own command says something else (`impasto serve --stop-after`)."""

OnStatus = Callable[[str, str], None]
"""Called with "starting" or "connecting" and a sentence."""

# What editors (and the AppImage, Flatpak or Snap around them) set for themselves and would break another Python.
_SCRUB_PREFIXES = ("PYTHON", "QT_", "QML", "DYLD_", "GTK_", "GDK_", "GIMP", "GEGL_", "BABL_", "GST_", "KRITA", "PYENV_")
_SCRUB_NAMES = frozenset(
    (
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "APPDIR", "APPIMAGE", "ARGV0", "OWD", "VIRTUAL_ENV"),
        *("GI_TYPELIB_PATH", "GIO_MODULE_DIR", "GIO_EXTRA_MODULES", "FONTCONFIG_FILE", "FONTCONFIG_PATH"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "TCL_LIBRARY", "TK_LIBRARY"),
    )
)
_TAIL_LINES = 12
_PATIENCE_SECONDS = 3.0
ALREADY_RUNNING = "resource.already_running"


def scrubbed_environment(environ: Mapping[str, str]) -> Dict[str, str]:
    """The environment without what an editor and its packaging put in for themselves."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_SCRUB_PREFIXES) and name not in _SCRUB_NAMES
    }
    bundle = environ.get("APPDIR")
    if bundle and "PATH" in kept:
        parts = [part for part in kept["PATH"].split(os.pathsep) if not part.startswith(bundle)]
        kept["PATH"] = os.pathsep.join(parts)
    return kept


def start_server(log: Path, home: Optional[Path] = None) -> subprocess.Popen[bytes]:
    """Start the command of launch.json, detached, its output appended to `log`.

    Whether there is a server already is for the server to decide: it holds a lock. Raises ResourceError
    `resource.server_start` where no server was ever set up or the command cannot be run.
    """
    home = home or home_folder()
    argv = read_launch(home)
    if argv is None:
        raise ResourceError(
            "resource.server_start",
            "Impasto's server is not set up for this user; run `impasto serve` once, then try again.",
        )
    environment = scrubbed_environment(os.environ)
    environment["IMPASTO_HOME"] = str(home)
    environment[STOP_AFTER] = str(STOP_AFTER_MINUTES)
    try:
        descriptor = os.open(str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as output:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=str(home),
                close_fds=True,
                **_detached(),
            )
    except OSError as error:
        raise ResourceError(
            "resource.server_start",
            f"The server could not be started ({error.strerror}: {argv[0]}); install Impasto again, "
            "or run `impasto serve` yourself.",
        ) from error


def _detached() -> Dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def find_or_start(
    timeout: float = 60.0,
    on_status: Optional[OnStatus] = None,
    *,
    home: Optional[Path] = None,
    start: bool = True,
    stop: Optional[threading.Event] = None,
    stale: Optional[int] = None,
    patient: bool = True,
) -> Endpoint:
    """The running server, started first where there is none and `start` is true.

    A record of the process `stale`, which was found not to answer, does not count. Where another server holds the lock
    its record is waited for, or with `patient` false only for a moment: `resource.already_running`.
    Raises ResourceError `resource.server_start`, with the last lines of the log where the server died, and AuthError
    for a token file that is not private. Gives up after `timeout` seconds or when `stop` is set.
    """
    home = home or home_folder()
    endpoint = _usable(home, stale)
    if endpoint is not None:
        return endpoint
    if not start:
        raise ResourceError(
            "resource.server_start", "No Impasto server is running; start it with `impasto serve`.", retryable=True
        )
    if on_status is not None:
        on_status("starting", "Starting the Impasto server.")
    deadline = time.monotonic() + timeout
    while True:
        try:
            return _start_once(home, deadline, stop or threading.Event(), stale)
        except ResourceError as error:
            # The lock was held: by a server that another editor is starting, or by one that is about to end.
            if error.code != ALREADY_RUNNING or not patient or time.monotonic() > deadline:
                raise


def _start_once(home: Path, deadline: float, stop: threading.Event, stale: Optional[int]) -> Endpoint:
    log = log_file(home)
    before = log.stat().st_size if log.exists() else 0
    process = start_server(log, home)
    ended = 0.0
    while time.monotonic() < deadline and not stop.wait(0.1):
        exit_code = process.poll()
        endpoint = _usable(home, stale)
        if endpoint is not None:
            _reap_later(process)
            return endpoint
        if exit_code is None:
            continue
        if ALREADY_RUNNING not in "\n".join(_tail(log, before)):
            raise _died(f"The Impasto server stopped while starting (exit code {exit_code}).", log, before)
        ended = ended or time.monotonic()
        if time.monotonic() - ended > _PATIENCE_SECONDS:
            raise ResourceError(ALREADY_RUNNING, "Another Impasto server holds the lock but does not answer.")
    _reap_later(process)
    if stop.is_set():
        raise ResourceError("resource.server_start", "The start of the server was given up.", retryable=True)
    raise _died("The Impasto server did not answer in time.", log, before)


def _usable(home: Path, stale: Optional[int]) -> Optional[Endpoint]:
    endpoint = read_endpoint(home)
    return endpoint if endpoint is not None and endpoint.pid != stale else None


def _reap_later(process: subprocess.Popen[bytes]) -> None:
    """The server outlives us; a thread that sleeps in wait() keeps it from becoming a zombie while the editor runs."""
    threading.Thread(target=process.wait, name="impasto-server-wait", daemon=True).start()


def _tail(log: Path, before: int) -> List[str]:
    """The last lines that were written to the log after its length was `before`."""
    try:
        with open(str(log), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(before if before <= size else 0, size - 16384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return text.strip().splitlines()[-_TAIL_LINES:]


def _died(what: str, log: Path, before: int) -> ResourceError:
    tail = _tail(log, before)
    said = " Its last lines:\n" + "\n".join(tail) if tail else ""
    return ResourceError("resource.server_start", f"{what} The log is {log}.{said}", data={"log": str(log)})
