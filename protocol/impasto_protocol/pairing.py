"""Pairing: a client that cannot read the token file proves that it was told the server's code, and gets its own token.

The code itself never travels. Both sides make a key of it (slowly: who listened in would have to try codes for years
while one lives for minutes), the client proves the key over the certificate that it sees, and the server proves it
back: so the client knows that the certificate is that of the server which showed the code, and pins it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Optional, Tuple

from .errors import RequestError
from .images import Buffer
from .parts import UINT, ClientInfo, Message

__all__ = [
    "CLIENT",
    "CODE_LETTERS",
    "CODE_SIZE",
    "REMOTE_PORT",
    "SALT_BYTES",
    "SERVER",
    "Pair",
    "PairOpen",
    "PairOpened",
    "PairRevoke",
    "Paired",
    "clean_code",
    "client_proof",
    "code_key",
    "new_code",
    "server_proof",
    "shown_code",
]

CODE_LETTERS = "ABCDEFGHJKMNPQRSTVWXYZ23456789"
"""What a code is made of: nothing that looks like something else."""

CODE_SIZE = 8
SALT_BYTES = 32
ROUNDS = 100_000

REMOTE_PORT = 7867
"""Where a server listens beyond loopback unless it is told another port: paired clients must find it again."""


# ---- client -> server


@dataclass(frozen=True)
class Pair(Message):
    """Instead of the hello, or before it. `name` is what the client's computer is called, `salt` drawn for this try."""

    TYPE = "pair"
    protocol: Tuple[int, int] = field(metadata=UINT)
    client: ClientInfo
    name: str
    salt: Buffer
    proof: Buffer


@dataclass(frozen=True)
class PairOpen(Message):
    """A new code, please; only for the server's own user."""

    TYPE = "pair_open"
    id: int = field(metadata=UINT)


@dataclass(frozen=True)
class PairRevoke(Message):
    """The token of the paired client `name` is worth nothing any more; only for the server's own user."""

    TYPE = "pair_revoke"
    id: int = field(metadata=UINT)
    name: str


# ---- server -> client


@dataclass(frozen=True)
class Paired(Message):
    """The client's own token for its hellos, and `name` as the server lists it."""

    TYPE = "paired"
    name: str
    token: str
    proof: Buffer


@dataclass(frozen=True)
class PairOpened(Message):
    """The code, how many seconds it holds, and the addresses at which it may be used ("192.168.1.5:7867").

    `fingerprint` is that of the certificate beyond loopback: SHA-256 in hex.
    """

    TYPE = "pair_opened"
    id: int = field(metadata=UINT)
    code: str
    seconds: int = field(metadata=UINT)
    addresses: Tuple[str, ...] = ()
    fingerprint: Optional[str] = None


CLIENT = (Pair, PairOpen, PairRevoke)
SERVER = (Paired, PairOpened)


# ---- codes and proofs


def new_code() -> str:
    """A code of CODE_SIZE letters, 39 bits."""
    return "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_SIZE))


def shown_code(code: str) -> str:
    """As it is shown: in two halves."""
    return f"{code[: CODE_SIZE // 2]}-{code[CODE_SIZE // 2 :]}"


def clean_code(typed: str) -> str:
    """What was typed, without case, spaces and hyphens. Raises RequestError where it can be no code."""
    code = "".join(typed.upper().split()).replace("-", "")
    if len(code) != CODE_SIZE or not set(code) <= set(CODE_LETTERS):
        raise RequestError(
            "request.invalid_param",
            f"A pairing code has {CODE_SIZE} letters and digits, such as {shown_code('K7QXM2RD')}; `impasto pair` on "
            "the server's computer shows one.",
            path="code",
        )
    return code


def code_key(code: str, salt: Buffer) -> bytes:
    """The key that both sides make of a code: PBKDF2 with HMAC-SHA-256, 100,000 rounds, 32 bytes."""
    return hashlib.pbkdf2_hmac("sha256", code.encode("ascii"), salt, ROUNDS, 32)


def client_proof(key: bytes, salt: Buffer, fingerprint: bytes) -> bytes:
    """What the client sends. `fingerprint` is the SHA-256 of the server's certificate (DER), empty without TLS."""
    return hmac.new(key, b"impasto pair client" + bytes(salt) + fingerprint, hashlib.sha256).digest()


def server_proof(key: bytes, salt: Buffer, fingerprint: bytes, token: str) -> bytes:
    """What the server sends back with the token."""
    said = b"impasto pair server" + bytes(salt) + fingerprint + token.encode()
    return hmac.new(key, said, hashlib.sha256).digest()
