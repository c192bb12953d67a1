"""Pair with a server: an address and the code that it shows become a token of one's own."""

from __future__ import annotations

import hmac
import os
import platform
import re
from pathlib import Path
from typing import Optional, Tuple

from impasto_protocol.codec import decode, encode
from impasto_protocol.connection import CLIENT_FRAME_LIMIT
from impasto_protocol.errors import AuthError, ImpastoError, ProtocolError, RequestError
from impasto_protocol.messages import SERVER_MESSAGES, ClientInfo, Error, parse
from impasto_protocol.pairing import (
    REMOTE_PORT,
    SALT_BYTES,
    Pair,
    Paired,
    clean_code,
    client_proof,
    code_key,
    server_proof,
)
from impasto_protocol.version import PROTOCOL, VERSION, Limits

from .endpoint import Endpoint
from .paired import PairedServer, read_paired, write_paired
from .transport import Transport

__all__ = ["endpoint_of", "pair"]

_SECONDS = 15.0


def pair(
    address: str, code: str, client: Optional[ClientInfo] = None, name: str = "", *, home: Optional[Path] = None
) -> PairedServer:
    """Pair with the server at `address` (see `endpoint_of`) by the code that `impasto pair` shows there; blocks.

    The server is kept in the client's own folder and is in use from now on; `name` is what the server calls this
    computer, its own name unless given. Raises RequestError for what is no address or no code, AuthError
    `auth.wrong_code`, `auth.locked` or `auth.denied` (it is not the server that showed the code),
    ResourceError where it does not answer or nothing can be saved.
    """
    code = clean_code(code)
    endpoint = endpoint_of(address)
    paired = read_paired(home)
    transport = Transport.connect(endpoint, _SECONDS)
    try:
        token = _exchange(transport, code, client or ClientInfo("impasto_client", VERSION), name or _computer())
    finally:
        transport.close()
    server = PairedServer(endpoint.address, endpoint.host, endpoint.port, token, transport.fingerprint.hex())
    write_paired(paired.with_server(server), home)
    return server


def _exchange(transport: Transport, code: str, client: ClientInfo, name: str) -> str:
    """The token."""
    salt = os.urandom(SALT_BYTES)
    key = code_key(code, salt)
    proof = client_proof(key, salt, transport.fingerprint)
    transport.send(encode(Pair(PROTOCOL, client, name, salt, proof).to_wire()))
    frame = transport.recv(_SECONDS)
    if isinstance(frame, str):
        raise ProtocolError("protocol.bad_message", "The server answered with text.")
    answer = parse(decode(frame, Limits(frame=CLIENT_FRAME_LIMIT)), SERVER_MESSAGES)
    if isinstance(answer, Error):
        raise _refused(answer.exception())
    if not isinstance(answer, Paired):
        raise ProtocolError("protocol.bad_message", f"The server answered with {answer.TYPE!r}.")
    expected = server_proof(key, salt, transport.fingerprint, answer.token)
    if not hmac.compare_digest(bytes(answer.proof), expected):
        raise AuthError(
            "auth.denied",
            "What answers does not know the code: it is not the server that showed it. Look at the address; no harm "
            "is done.",
        )
    return answer.token


def _refused(error: ImpastoError) -> ImpastoError:
    if error.code == "protocol.not_ready":
        return ProtocolError(
            "protocol.version", "This server is too old to pair; install the Impasto of this plug-in's version there."
        )
    return error


def _computer() -> str:
    return platform.node() or "a computer"


def endpoint_of(address: str) -> Endpoint:
    """Where an address leads that somebody typed: `HOST`, `HOST:PORT` or `[IPv6]:PORT`, after `wss://` or nothing.

    Beyond loopback it is always wss, on loopback ws unless said otherwise. Raises RequestError.
    """
    scheme, host, port = _parts(address)
    loopback = host == "localhost" or host == "::1" or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
    if loopback and not scheme and port is None:
        raise _no_address(
            address, "On this computer it needs the port that `impasto pair` shows, as in 127.0.0.1:40123."
        )
    if scheme == "ws" and not loopback:
        raise _no_address(address, "Beyond this computer the connection must be encrypted; leave ws:// out.")
    secure = scheme == "wss" or not loopback
    return Endpoint(host, REMOTE_PORT if port is None else port, "", 0, "", PROTOCOL, secure=secure)


def _parts(address: str) -> Tuple[str, str, Optional[int]]:
    match = re.fullmatch(r"(?:(wss?)://)?(?:\[([0-9A-Fa-f:.%]+)\]|([^\s\[\]/:@?#]+))(?::(\d{1,5}))?/?", address.strip())
    if match is None:
        raise _no_address(address, "")
    port = int(match[4]) if match[4] else None
    if port is not None and not 0 < port < 65536:
        raise _no_address(address, "A port is a number from 1 to 65535.")
    return match[1] or "", (match[2] or match[3]).lower(), port


def _no_address(address: str, why: str) -> RequestError:
    how = why or f"Write it as `impasto pair` shows it, as in 192.168.1.20:{REMOTE_PORT}."
    return RequestError("request.invalid_param", f"{address[:80]!r} is no address of a server. {how}", path="address")
