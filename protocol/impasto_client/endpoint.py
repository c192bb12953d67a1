"""Is there a server of this user, where, and with which token?"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Tuple

from impasto_protocol import home as records
from impasto_protocol.errors import AuthError

__all__ = ["Endpoint", "read_endpoint", "sandboxed"]


@dataclass(frozen=True)
class Endpoint:
    """A server: where it listens, and the token that proves the same user, or a paired client.

    With `secure` the connection is TLS, and the certificate must have this `fingerprint` (SHA-256 in hex) where one is
    known. `pid` is 0 on another computer, or where processes cannot be seen. `paired` is the name under which this
    client keeps a server that it was paired with.
    """

    host: str
    port: int
    token: str = field(repr=False)
    pid: int
    version: str
    protocol: Tuple[int, int]
    secure: bool = False
    fingerprint: str = ""
    paired: str = ""

    @property
    def address(self) -> str:
        """Host and port, as they are typed."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_endpoint(home: Optional[Path] = None) -> Optional[Endpoint]:
    """The running server of the user's folder, or None.

    A record that cannot be read or whose process is gone is stale and counts as none.
    Raises AuthError `auth.denied` where the server runs but its token file is missing or readable by others.
    """
    record = records.read_endpoint(home or records.home_folder())
    if record is None or not _alive(record):
        return None
    token = _read_token(Path(record.token_file))
    return Endpoint(record.host, record.port, token, record.pid, record.version, record.protocol)


def _alive(record: records.Endpoint) -> bool:
    # Inside a sandbox the processes of the host cannot be seen; there the record has to do. The port is not tried
    # here: a connection without a handshake would be an error in the server's log.
    return 0 < record.port < 65536 and (sandboxed() or _process_exists(record.pid))


def sandboxed() -> bool:
    """Is this an editor in a Flatpak or a Snap, which sees other processes and perhaps other files than the server?"""
    return os.path.exists("/.flatpak-info") or "SNAP" in os.environ


if sys.platform == "win32":
    import ctypes

    def _process_exists(pid: int) -> bool:
        # os.kill(pid, 0) would send a console event here.
        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if not handle:
            return False
        ctypes.windll.kernel32.CloseHandle(handle)
        return True

else:

    def _process_exists(pid: int) -> bool:
        if pid <= 0:
            return False
        try:
            os.kill(pid, 0)
        except PermissionError:
            return True
        except (OSError, OverflowError):
            return False
        return True


def _read_token(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise AuthError(
            "auth.denied",
            f"The server's token file {path} cannot be read; stop the server and start it again as the same user.",
        ) from error
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise AuthError(
            "auth.denied",
            f"The token file {path} can be read by others; run `chmod 600 {path}`, or delete it and start the server "
            "again.",
        )
    return token
