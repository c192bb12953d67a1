"""A client written from protocol/SPEC.md alone: the standard library, msgpack and websockets, nothing of the project.

It is a test of the specification: whatever it needs and cannot find there is missing there.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import ssl
import stat
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgpack
from websockets.sync.client import ClientConnection, connect

Map = dict[str, Any]
TERMINAL = ("finished", "failed", "cancelled")


class Refused(Exception):
    """An `error` of the server."""

    def __init__(self, fields: Map) -> None:
        super().__init__(f"{fields['code']}: {fields['message']}")
        self.code: str = fields["code"]
        self.data: Map = fields.get("data", {})


class Wire:
    """One connection. Answers are waited for; what comes in between is kept in `events` (of jobs) and `notices`."""

    def __init__(self, url: str, token: str, fingerprint: str = "") -> None:
        self._open = contextlib.ExitStack()
        self.socket: ClientConnection = self._open.enter_context(opened(url))
        if fingerprint:
            assert certificate_of(self.socket).hex() == fingerprint
        self.events: deque[Map] = deque()
        self.notices: deque[Map] = deque()
        self.put_answers: deque[Map] = deque()
        self._id = 0
        client = {"name": "independent", "version": "1", "host": "none"}
        self._send({"type": "hello", "protocol": [1, 5], "client": client, "token": token})
        self.welcome = self._next()
        if self.welcome["type"] == "error":
            raise Refused(self.welcome)
        assert self.welcome["type"] == "welcome" and self.welcome["protocol"][0] == 1
        self.limits: Map = self.welcome["limits"]

    # ---- frames

    def _send(self, fields: Map) -> None:
        self.socket.send(msgpack.packb(fields, use_bin_type=True))

    def _next(self, seconds: float = 20.0) -> Map:
        frame = self.socket.recv(seconds)
        assert isinstance(frame, bytes), "every frame is binary"
        fields = msgpack.unpackb(frame, raw=False)
        assert isinstance(fields, dict) and isinstance(fields["type"], str)
        return fields

    def _sort(self, fields: Map) -> None:
        """Keep what is not the answer to the present request."""
        if fields["type"] == "put_ok" or (fields["type"] == "error" and "digest" in fields.get("data", {})):
            self.put_answers.append(fields)
        elif "job" in fields and "id" not in fields:
            self.events.append(fields)
        else:
            self.notices.append(fields)

    def ask(self, request: str, /, **fields: Any) -> Map:
        """A request and its one answer."""
        self._id += 1
        self._send({"type": request, "id": self._id, **fields})
        while True:
            answer = self._next()
            if answer.get("id") == self._id:
                if answer["type"] == "error":
                    raise Refused(answer)
                return answer
            self._sort(answer)

    def event(self, job: str, *kinds: str) -> Map:
        """The next event of the job of one of these types, or of any."""
        while True:
            for _ in range(len(self.events)):
                found = self.events.popleft()
                if found["job"] == job and (not kinds or found["type"] in kinds):
                    return found
                if found["job"] != job:
                    self.events.append(found)
            self._sort(self._next())

    def drop(self) -> None:
        """Hang up without a word."""
        self.socket.socket.shutdown(2)

    def close(self) -> None:
        self._open.close()

    # ---- pixels

    def upload(self, data: bytes) -> str:
        """Send what the server lacks, in chunks, with at most `window` of them unacknowledged."""
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        if not self.ask("have", assets=[digest])["missing"]:
            return digest
        step, on_the_way = self.limits["chunk"], 0
        for offset in range(0, len(data), step):
            while on_the_way >= self.limits["window"]:
                self._acknowledged()
                on_the_way -= 1
            piece = data[offset : offset + step]
            self._send({"type": "put", "digest": digest, "size": len(data), "offset": offset, "data": piece})
            on_the_way += 1
        received = 0
        while on_the_way:
            received = self._acknowledged()
            on_the_way -= 1
        assert received == len(data)
        return digest

    def upload_unnamed(self, data: bytes) -> str:
        """Send a buffer of one chunk without a digest; the server names it."""
        return str(self.ask("put_new", size=len(data), offset=0, data=data)["digest"])

    def _acknowledged(self) -> int:
        while not self.put_answers:
            self._sort(self._next())
        answer = self.put_answers.popleft()
        if answer["type"] == "error":
            raise Refused(answer)
        return int(answer["received"])

    def fetch(self, digest: str) -> bytes:
        """The whole buffer, verified."""
        whole = b""
        while True:
            piece = self.ask("get", digest=digest, offset=len(whole), length=self.limits["chunk"])
            assert piece["offset"] == len(whole)
            whole += piece["data"]
            if len(whole) == piece["size"]:
                break
        assert hashlib.blake2b(whole, digest_size=16).hexdigest() == digest
        return whole

    # ---- pixels in files

    def share(self) -> None:
        """Prove that the spool's files are the same on both sides."""
        spool = self.welcome["spool"]
        self.folder = Path(spool["folder"])
        mark = os.urandom(32)
        with self._file(spool["probe"], os.O_RDWR) as probe:
            read = probe.read(32)
            probe.seek(32)
            probe.write(mark)
            probe.flush()
            self.ask("share", read=read, wrote=mark)

    def hand_over(self, data: bytes) -> str:
        """A picture by file; what a submit calls it."""
        room = self.ask("room", size=len(data))
        with self._file(room["name"], os.O_RDWR) as file:
            file.write(data)
        self.ask("filled", name=room["name"], generation=room["generation"])
        return str(room["digest"])

    def fetch_file(self, digest: str) -> bytes:
        lent = self.ask("get_file", digest=digest)
        with self._file(lent["name"], os.O_RDONLY) as file:
            data = file.read(lent["size"])
        self.ask("release", name=lent["name"], generation=lent["generation"])
        assert len(data) == lent["size"]
        return data

    def _file(self, name: str, flags: int) -> BinaryIO:
        assert re.fullmatch("[0-9a-z]{1,64}", name)
        number = os.open(self.folder / name, flags | os.O_NOFOLLOW)
        found = os.fstat(number)
        assert stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()
        return os.fdopen(number, "rb" if flags == os.O_RDONLY else "r+b")

    # ---- lists

    def pages(self, request: str, key: str, /, **fields: Any) -> Iterator[Map]:
        """All entries of a list that comes in pages."""
        after: Map = {}
        while True:
            answer = self.ask(request, **fields, **after)
            yield from answer[key]
            if "next" not in answer:
                return
            after = {"after": answer["next"]}


@contextlib.contextmanager
def session(home: Path, paired: Map | None = None) -> Iterator[Wire]:
    """A connection to the server of this folder, or to one that was paired with."""
    if paired is None:
        record = json.loads((home / "endpoint.json").read_text(encoding="utf-8"))
        token = Path(record["token_file"]).read_text(encoding="utf-8").strip()
        wire = Wire(f"ws://{record['host']}:{record['port']}/", token)
    else:
        wire = Wire(paired["url"], paired["token"], paired["fingerprint"])
    try:
        yield wire
    finally:
        wire.close()


def opened(url: str) -> ClientConnection:
    context = None
    if url.startswith("wss:"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    socket = connect(
        url,
        subprotocols=["impasto.v1"],  # type: ignore[list-item]
        compression=None,
        proxy=None,
        ssl=context,
        max_size=64 << 20,
    )
    assert socket.subprotocol == "impasto.v1"
    return socket


def certificate_of(socket: ClientConnection) -> bytes:
    """The SHA-256 of the certificate; b"" where the connection is plain."""
    raw: Any = socket.socket
    return hashlib.sha256(raw.getpeercert(True)).digest() if isinstance(raw, ssl.SSLSocket) else b""


def pair(url: str, typed: str, name: str) -> Map:
    """What is to be kept of a server that shows this code."""
    code = typed.upper().replace("-", "").replace(" ", "")
    with opened(url) as socket:
        seen, salt = certificate_of(socket), os.urandom(32)
        key = hashlib.pbkdf2_hmac("sha256", code.encode("ascii"), salt, 100_000, 32)
        proof = hmac.digest(key, b"impasto pair client" + salt + seen, "sha256")
        client = {"name": "independent", "version": "1"}
        asked = {"type": "pair", "protocol": [1, 5], "client": client, "name": name, "salt": salt, "proof": proof}
        socket.send(msgpack.packb(asked, use_bin_type=True))
        answer = msgpack.unpackb(socket.recv(20), raw=False)
    if answer["type"] == "error":
        raise Refused(answer)
    assert answer["type"] == "paired"
    said = b"impasto pair server" + salt + seen + answer["token"].encode()
    assert hmac.compare_digest(answer["proof"], hmac.digest(key, said, "sha256"))
    return {"url": url, "token": answer["token"], "fingerprint": seen.hex(), "name": answer["name"]}


def new_job() -> str:
    return uuid.uuid4().hex
