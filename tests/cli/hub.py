"""A hub on loopback: as much of one as huggingface_hub asks for, and everything that may go wrong with it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Hub:
    """Files by "REPO/FILE". A HEAD of `/REPO/resolve/main/FILE` redirects to where the bytes are."""

    files: dict[str, bytes]
    cuts: list[int] = field(default_factory=list)
    """After how many bytes each of the next downloads is cut off."""
    ranges: bool = True
    """Answers a request for a range with the range."""
    sends: bytes | None = None
    """Other bytes than the checksum is of."""
    status: int = 200
    checksums: bool = True
    """Names the sha256 of its files."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path, range) of all that came."""
    url: str = ""
    port: int = 0

    def downloads(self) -> list[str]:
        """The ranges of the downloads, "" for whole ones."""
        return [range for method, path, range in self.requests if method == "GET" and path.startswith("/cdn/")]


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Hub]:
    """A hub with these files, until the end."""
    hub = Hub(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._note()
            repo, _, file = self._path().strip("/").partition("/resolve/main/")
            data = hub.files.get(f"{repo}/{file}")
            if hub.status != 200:
                self._plain(hub.status)
            elif data is None:
                self._plain(404, {"X-Error-Code": "EntryNotFound"})
            else:
                etag = hashlib.sha256(data).hexdigest() if hub.checksums else hashlib.sha1(data).hexdigest()
                told = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data)), "X-Repo-Commit": "0" * 40}
                # On another host, as the real one's: a redirect to its own host is followed at once.
                named = self.headers["Host"].startswith("127.")
                host = f"localhost:{hub.port}" if named else "cdn.invalid"
                self._plain(302, {**told, "Location": f"http://{host}/cdn/{repo}/{file}"})

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            self._note()
            data = hub.files[self._path().removeprefix("/cdn/")] if hub.sends is None else hub.sends
            start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted and hub.ranges else 0
            body = data[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if hub.cuts:
                self.wfile.write(body[: hub.cuts.pop(0)])
                self.close_connection = True
            else:
                self.wfile.write(body)

        def _path(self) -> str:
            return urlsplit(self.path).path  # a proxy is asked for whole addresses

        def _note(self) -> None:
            hub.requests.append((self.command, self._path(), self.headers.get("Range", "")))

        def _plain(self, status: int, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": "0", **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.port = server.server_address[1]
    hub.url = f"http://127.0.0.1:{hub.port}"
    thread = threading.Thread(target=server.serve_forever, name="hub", daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
