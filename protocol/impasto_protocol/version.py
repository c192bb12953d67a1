"""Versions of the wire, and the limits that a server names in its welcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

__all__ = ["PROTOCOL", "SUBPROTOCOL", "VERSION", "Limits"]

VERSION = "0.1.0"
"""The version of Impasto, the same in `pyproject.toml`."""

PROTOCOL: Tuple[int, int] = (1, 12)
"""Major and minor version. Another major is refused; a higher minor only adds."""

SUBPROTOCOL = "impasto.v1"
"""The websocket subprotocol of the handshake: the major version again, so that a stranger is refused at once."""


@dataclass(frozen=True)
class Limits:
    """What a server accepts. Bytes, pixels and counts; a client stays below them."""

    frame: int = 2 * 1024 * 1024
    chunk: int = 1024 * 1024
    window: int = 4
    upload_bytes: int = 1 << 30
    pixels: int = 16384 * 16384
    nesting: int = 16
    queue: int = 256
