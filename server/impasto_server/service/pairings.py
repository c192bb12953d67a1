"""The clients that were paired: codes, tokens of their own, and taking them back.

Kept in the user's folder are hashes of tokens only. A code lives in memory, for minutes of a clock that nobody can set,
for one client, and not beyond ten wrong tries.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from impasto_protocol.errors import AuthError, ProtocolError, RequestError, ResourceError
from impasto_protocol.home import write_private
from impasto_protocol.pairing import (
    SALT_BYTES,
    Pair,
    Paired,
    client_proof,
    code_key,
    new_code,
    server_proof,
)

__all__ = ["CODE_SECONDS", "MAX_WRONG", "Caller", "PairedClient", "Pairings"]

log = logging.getLogger("impasto.pairing")

CODE_SECONDS = 600
MAX_WRONG = 10
"""Wrong tries in a row after which pairing is closed until a new code is made."""

_LONGEST_NAME = 60
_TOKEN_BYTES = 32


@dataclass(frozen=True)
class Caller:
    """Whose hello was accepted: the server's own user, or the paired client of that name."""

    owner: bool
    name: str = ""


@dataclass(frozen=True)
class PairedClient:
    """One paired client. `hash` is the SHA-256 of its token; times are seconds since 1970, `used` its last hello."""

    name: str
    client: str
    hash: str
    created: float
    used: float = 0.0


class Pairings:
    """The paired clients of a server; belongs to the event loop. `file` None keeps them for this run only."""

    def __init__(self, file: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._code, self._until, self._tries = "", 0.0, 0
        self.clients: list[PairedClient] = []
        self.port: int | None = None
        """Where paired clients on this machine look for the server: its last port on loopback."""
        if file is not None and file.exists():
            self._read(file)

    def open(self) -> str:
        """A new code; the one before it ends, and so does a lock."""
        self._code, self._until, self._tries = new_code(), self._clock() + CODE_SECONDS, 0
        return self._code

    def pair(self, asked: Pair, fingerprint: bytes) -> Paired:
        """The token of a client that proves the code over this certificate's fingerprint (b"" without TLS).

        Raises AuthError `auth.wrong_code`, also where there is no code or an old one, and `auth.locked`;
        ResourceError `resource.disk_full` where the pairing cannot be kept.
        """
        if len(asked.salt) != SALT_BYTES or not _plain(asked.name):
            raise ProtocolError(
                "protocol.bad_message",
                f"Pairing needs a name and a salt of {SALT_BYTES} bytes.",
                path="name" if len(asked.salt) == SALT_BYTES else "salt",
            )
        if self._tries >= MAX_WRONG:
            raise AuthError(
                "auth.locked",
                f"Pairing is closed after {MAX_WRONG} wrong codes; run `impasto pair` on the server's computer for a "
                "new code.",
            )
        if not self._code or self._clock() >= self._until:
            raise _wrong()
        self._tries += 1
        key = code_key(self._code, asked.salt)
        if not hmac.compare_digest(client_proof(key, asked.salt, fingerprint), bytes(asked.proof)):
            log.warning("a wrong pairing code, try %d of %d", self._tries, MAX_WRONG)
            raise _wrong()
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        program = f"{asked.client.name} {asked.client.version} ({asked.client.host or 'no editor'})"
        client = PairedClient(self._free_name(asked.name), _plain(program), _hash(token), time.time())
        self._write([*self.clients, client])
        self._code = ""
        log.info("paired with %s, %s", client.name, client.client)
        return Paired(client.name, token, server_proof(key, asked.salt, fingerprint, token))

    def who(self, token: str) -> str | None:
        """The name of the paired client with this token, or None; looks at all, so that time tells nothing."""
        found, digest = None, _hash(token)
        for client in self.clients:
            if hmac.compare_digest(client.hash, digest):
                found = client.name
        return found

    def seen(self, name: str) -> None:
        """A paired client has said hello."""
        now = [replace(client, used=time.time()) if client.name == name else client for client in self.clients]
        try:
            self._write(now)
        except ResourceError as e:
            log.warning("when %s was here last is not kept: %s", name, e)

    def revoke(self, name: str) -> None:
        """Its token is worth nothing any more. Raises RequestError where nobody has this name."""
        if all(client.name != name for client in self.clients):
            known = ", ".join(client.name for client in self.clients) or "nobody"
            raise RequestError(
                "request.invalid_param", f"Nobody paired is called {name[:60]!r}; there is {known}.", path="name"
            )
        self._write([client for client in self.clients if client.name != name])
        log.info("the pairing with %s was revoked", name)

    def listens(self, port: int) -> None:
        """Remember the port on loopback, where somebody may look for it."""
        if self.clients and port != self.port:
            self.port = port
            self._write(self.clients)
        self.port = port

    def _free_name(self, wish: str) -> str:
        wish = _plain(wish)
        taken = {client.name for client in self.clients}
        return next(name for n in range(1, 10000) if (name := wish if n == 1 else f"{wish} {n}") not in taken)

    def _read(self, file: Path) -> None:
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
            self.clients = [PairedClient(**client) for client in raw["clients"]]
            self.port = raw.get("port")
            for client in self.clients:
                client.hash.encode("ascii")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
            raise AuthError(
                "auth.denied",
                f"The list of paired computers in {file} cannot be read; delete the file and pair them again.",
            ) from e

    def _write(self, clients: list[PairedClient]) -> None:
        if self._file is not None:
            kept = {"clients": [asdict(client) for client in clients], "port": self.port}
            try:
                write_private(self._file, json.dumps(kept, indent=1))
            except OSError as e:
                raise ResourceError(
                    "resource.disk_full",
                    f"The list of paired computers could not be saved in {self._file} ({e.strerror}); free some space "
                    "and try again.",
                    retryable=True,
                ) from e
        self.clients = clients


def _wrong() -> AuthError:
    return AuthError(
        "auth.wrong_code",
        "The code is not right, or it is used up or too old; run `impasto pair` on the server's computer and type the "
        "new one.",
    )


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _plain(text: str) -> str:
    """One line that can be shown and typed."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())[:_LONGEST_NAME].strip()
