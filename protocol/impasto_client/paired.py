"""The servers that this client was paired with: a private file of its own, and which of them is in use.

A client on the server's computer needs none of this. One in a sandbox, or on another computer, keeps here where the
server listens, its own token, and the fingerprint of the server's certificate.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Mapping, Optional, Tuple

from impasto_protocol.errors import AuthError, RequestError, ResourceError
from impasto_protocol.home import home_folder, paired_file, write_private
from impasto_protocol.version import PROTOCOL

from .endpoint import Endpoint, sandboxed

__all__ = ["PairedServer", "PairedServers", "chosen_endpoint", "client_folder", "read_paired", "write_paired"]


@dataclass(frozen=True)
class PairedServer:
    """`name` is its address as it was typed; `fingerprint` (SHA-256 in hex) is "" without TLS, on loopback."""

    name: str
    host: str
    port: int
    token: str = field(repr=False)
    fingerprint: str = ""

    @property
    def endpoint(self) -> Endpoint:
        """Where to connect."""
        place = (self.host, self.port, self.token, 0, "", PROTOCOL)
        return Endpoint(*place, secure=bool(self.fingerprint), fingerprint=self.fingerprint, paired=self.name)


@dataclass(frozen=True)
class PairedServers:
    """All of them. `chosen` is the name of the one in use; "" is the server of this computer."""

    servers: Tuple[PairedServer, ...] = ()
    chosen: str = ""

    def server(self, name: str) -> Optional[PairedServer]:
        """The one of that name."""
        return next((server for server in self.servers if server.name == name), None)

    def with_server(self, server: PairedServer) -> PairedServers:
        """Another one, or a new pairing with one of this name; it is in use from now on."""
        others = tuple(known for known in self.servers if known.name != server.name)
        return PairedServers((*others, server), server.name)

    def choose(self, name: str) -> PairedServers:
        """Use this one, or with "" this computer's. Raises RequestError for a name that is not here."""
        if name and self.server(name) is None:
            known = ", ".join(server.name for server in self.servers) or "none"
            raise RequestError(
                "request.invalid_param",
                f"There is no paired server {name[:60]!r}; paired are: {known}. Pair with it first.",
                path="name",
            )
        return replace(self, chosen=name)

    def without(self, name: str) -> PairedServers:
        """Forget one."""
        others = tuple(known for known in self.servers if known.name != name)
        return PairedServers(others, "" if self.chosen == name else self.chosen)


def client_folder(home: Optional[Path] = None, environ: Optional[Mapping[str, str]] = None) -> Path:
    """Where a client keeps what is its own: the user's folder, or in a sandbox the one that outlives it."""
    env = os.environ if environ is None else environ
    if home is not None:
        return home
    if not env.get("IMPASTO_HOME") and sandboxed():
        base = env.get("SNAP_USER_COMMON") or env.get("XDG_DATA_HOME")
        if base:
            return Path(base) / "impasto"
    return home_folder(env)


def read_paired(home: Optional[Path] = None) -> PairedServers:
    """The paired servers; none where there is no file.

    Raises AuthError `auth.denied` where others can read the tokens, or where the file is damaged.
    """
    path = paired_file(client_folder(home))
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return PairedServers()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise AuthError(
            "auth.denied",
            f"The tokens in {path} can be read by others; run `chmod 600 {path}`, or delete it and pair again.",
        )
    try:
        raw = json.loads(text)
        servers = tuple(
            PairedServer(
                *(str(s["name"]), str(s["host"]), int(s["port"]), str(s["token"]), str(s.get("fingerprint", "")))
            )
            for s in raw["servers"]
        )
        paired = PairedServers(servers, str(raw.get("chosen") or ""))
        return paired.choose(paired.chosen)
    except (ValueError, TypeError, KeyError, AttributeError, RequestError) as error:
        raise _unreadable(path, error) from error


def write_paired(paired: PairedServers, home: Optional[Path] = None) -> None:
    """Keep them. Raises ResourceError `resource.disk_full` where that cannot be done."""
    folder = client_folder(home)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(paired_file(folder), json.dumps(asdict(paired), indent=1))
    except OSError as error:
        raise ResourceError(
            "resource.disk_full",
            f"The pairing could not be saved in {folder} ({error.strerror}); make the folder writable and try again.",
        ) from error


def chosen_endpoint(home: Optional[Path] = None) -> Optional[Endpoint]:
    """The paired server in use, or None where it is this computer's own. Raises as `read_paired`."""
    paired = read_paired(home)
    server = paired.server(paired.chosen) if paired.chosen else None
    return server.endpoint if server is not None else None


def _unreadable(path: Path, error: Exception) -> AuthError:
    return AuthError(
        "auth.denied", f"The list of paired servers {path} cannot be read ({error}); delete it and pair again."
    )
