"""TLS for the transport: a socket's few methods over TLS without I/O, one thread reading while others write.

A connection object of Python's `ssl` must not be used by two threads at a time, and here one reads while others write.
So TLS works on buffers under a lock, and only bytes of the socket are waited for outside of it.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from typing import Any, Optional

__all__ = ["SecureSocket", "TlsError"]

TlsError = ssl.SSLError

_RECEIVE = 256 * 1024
_PIECE = 1024 * 1024
"""Bytes that are encrypted at a time."""


class SecureSocket:
    """TLS over a connected socket. `sendall` may be called from several threads, `recv` from one.

    The certificate is not judged here: `fingerprint` is its SHA-256 (DER), to be compared before anything is said.
    Raises OSError (`ssl.SSLError` is one) as a socket does.
    """

    def __init__(self, opened: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._socket = opened
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._arrived, self._leaving)
        self._using = threading.Lock()
        self._sending = threading.Lock()
        self._shake_hands()
        self.fingerprint = hashlib.sha256(self._tls.getpeercert(True) or b"").digest()

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                self._socket.sendall(self._leaving.read())
                return
            except ssl.SSLWantReadError:
                self._socket.sendall(self._leaving.read())
                self._take()
            except ssl.SSLEOFError as error:
                raise ConnectionResetError("the peer hung up") from error

    def _take(self) -> None:
        """Bytes of the socket for TLS, or that there are no more."""
        data = self._socket.recv(_RECEIVE)
        with self._using:
            if data:
                self._arrived.write(data)
            else:
                self._arrived.write_eof()

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        view = memoryview(data)
        with self._sending:
            for start in range(0, len(view), _PIECE):
                with self._using:
                    self._tls.write(view[start : start + _PIECE])
                    sealed = self._leaving.read()
                self._socket.sendall(sealed)

    def recv(self, size: int) -> bytes:
        """At most `size` bytes, at least one; b"" at the end."""
        while True:
            try:
                with self._using:
                    return self._tls.read(size)
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            # What TLS itself has to say must not make the reader wait for a writer: it leaves with the next bytes.
            if self._leaving.pending and self._sending.acquire(blocking=False):
                try:
                    with self._using:
                        sealed = self._leaving.read()
                    self._socket.sendall(sealed)
                finally:
                    self._sending.release()
            self._take()

    # ---- the rest is the socket's

    def settimeout(self, seconds: Optional[float]) -> None:
        self._socket.settimeout(seconds)

    def setsockopt(self, level: int, name: int, value: int) -> None:
        self._socket.setsockopt(level, name, value)

    def getpeername(self) -> Any:
        return self._socket.getpeername()

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()
