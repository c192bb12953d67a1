"""pip at work: torch from an index on loopback that cuts the connection, has nothing, or is not there."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from impasto_protocol.errors import ResourceError
from impasto_server.cli import torch_builds
from impasto_server.cli.torch_builds import TORCH, build_of

NAME = f"torch-{TORCH}+cpu-py3-none-any.whl"


def wheel(folder: Path) -> bytes:
    """A wheel with torch's name and 3 MB that do not compress."""
    file = folder / NAME
    info = f"torch-{TORCH}+cpu.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("torch/weights", random.Random(3).randbytes(3_000_000))
        archive.writestr("torch/__init__.py", f'__version__ = "{TORCH}+cpu"\n')
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {TORCH}+cpu\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return file.read_bytes()


@dataclass
class Index:
    wheel: bytes
    cuts: list[int] = field(default_factory=list)
    """After how many bytes each of the next downloads is cut."""
    ranges: list[str] = field(default_factory=list)
    """What the downloads asked for."""
    url: str = ""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    state = Index(wheel(tmp_path))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path.endswith(".whl"):
                self._file()
            elif self.path.rstrip("/") == "/simple/torch":
                digest = hashlib.sha256(state.wheel).hexdigest()
                self._send(200, f'<a href="/{NAME}#sha256={digest}">{NAME}</a>'.encode(), {"Content-Type": "text/html"})
            else:
                self._send(404, b"", {})

        def _file(self) -> None:
            wanted = self.headers.get("Range", "")
            state.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
            told = {"ETag": '"one"', "Accept-Ranges": "bytes", "Cache-Control": "max-age=365000000, immutable, public"}
            if start:
                told["Content-Range"] = f"bytes {start}-{len(state.wheel) - 1}/{len(state.wheel)}"
            self._send(206 if start else 200, state.wheel[start:], told, state.cuts.pop(0) if state.cuts else None)

        def _send(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[:cut])
            self.close_connection = cut is not None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/simple"
    thread = threading.Thread(target=server.serve_forever, name="index", daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def install(index: str, target: Path) -> str:
    """Run the set-up's own command for torch, into a folder of its own; pip's output."""
    command = [*torch_builds.install_commands(build_of("cpu", "linux"), index)[1]]
    command += ["--target", str(target), "--no-deps", "--cache-dir", str(target.parent / "cache")]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PIP_") and "proxy" not in k.lower()}
    environ = {
        **kept,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index,
        "PIP_TRUSTED_HOST": urlsplit(index).netloc,
    }
    said: list[str] = []

    def call(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        more["stdout"] = subprocess.PIPE
        done = subprocess.run(command, stderr=subprocess.STDOUT, text=True, timeout=120, **more)
        said.append(done.stdout)
        return done

    torch_builds.pip_install([command], environ, call)  # type: ignore[arg-type]
    return said[0]


def test_a_cut_download_is_gone_on_with(index: Index, tmp_path: Path) -> None:
    index.cuts = [1_000_000, 800_000]
    install(index.url, tmp_path / "site")
    assert (tmp_path / "site/torch/__init__.py").exists()
    assert index.ranges == ["", "bytes=1000000-", "bytes=1800000-"], "what had arrived was not asked for again"


def test_a_second_try_takes_what_arrived_whole_from_the_cache(index: Index, tmp_path: Path) -> None:
    install(index.url, tmp_path / "one")
    install(index.url, tmp_path / "two")
    assert (tmp_path / "two/torch/__init__.py").exists() and index.ranges == [""]


@pytest.mark.parametrize("where", ["nothing there", "no such version"])
def test_an_index_that_does_not_help_is_told_with_the_command(index: Index, tmp_path: Path, where: str) -> None:
    url = "http://127.0.0.1:1/simple" if where == "nothing there" else index.url + "/empty"
    with pytest.raises(ResourceError) as e:
        install(url, tmp_path / "site")
    assert e.value.code == "resource.install_failed"
    assert f"{sys.executable} -m pip" in e.value.message and "HTTPS_PROXY" in e.value.message
    assert not (tmp_path / "site/torch").exists()
