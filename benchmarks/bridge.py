"""What it costs to move a picture to the server and back, beside the ways that other bridges take.

    python3 dev.py exec -- python benchmarks/bridge.py [--rounds 9] [--large-rounds 3] [--json FILE]

A photograph of 1024² and 4096² pixels (RGBA) goes there and back, hashing included: a new picture is uploaded to the
real server (its own process, session, blobs and all), and a result of the same size, which an echoing engine made, is
fetched from it. Everything is measured in one run, in turns, and the medians are told; what counts are the ratios.
Where other programs use the same cores, ways that go between processes often wait for their turn: therefore the
processor time of all processes together is told too (on Linux), which others disturb much less.

- json: PNG at Pillow's default level, base64, JSON, an HTTP server that decodes, encodes and answers the same way
- png 1: PNG at level 1 in a binary websocket message, there and back in the same way
- echo: a bare TCP socket that takes all bytes and sends them back: the limit of any socket
- memcpy: a copy of the pixels into new memory, there and back; memcpy once: one of the two
- socket: impasto_client with the websockets package as installed (compiled); vendored: the pure Python packages of the
  plug-ins, in a Python of their own; files: impasto_client through the spool
- job: the whole of an img2img with the engine that echoes, worker process and journal (synced to the disk) included
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import http.client
import http.server
import io
import json
import os
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
ROOT = HERE.parents[1]
TOKEN = "a token for the benchmark only"
SIDES = (1024, 4096)


class Echo:
    """An engine that gives back the picture it got."""

    device_name = "echo"

    def __init__(self, device: str, precision: str, memory_budget: int | None) -> None: ...

    def run(self, job: Any, emit: Any, cancelled: Any) -> Any:
        from impasto_server.engine import jobs

        info = {"mode": job.mode, "params": {}}
        emit(jobs.Layer(0, "generate", "echo", job.image, job.box, "opaque", 1, info))
        return jobs.Result((1,), {})


# ---- the servers, each a process of its own


def serve_impasto(home: Path) -> None:
    """The real server, as `impasto serve` runs it, but for its engine and its catalogue."""
    from impasto_protocol.home import models_folder, token_file, write_private
    from impasto_server.service.facts import Facts
    from impasto_server.service.home import write_endpoint
    from impasto_server.service.server import Server
    from impasto_server.service.settings import Settings

    models_folder(home).mkdir(parents=True)
    (models_folder(home) / "none.safetensors").write_bytes(b"none")
    write_private(token_file(home), TOKEN)
    settings = Settings(home=home, engine="benchmarks.bridge:Echo", starter=False)
    server = Server(settings, TOKEN, lambda path: Facts("checkpoint", "sd1", "normal", native_size=512))
    asyncio.run(server.run(lambda endpoint: write_endpoint(home, endpoint)))


def serve_peers(folder: Path) -> None:
    """The HTTP server, the websocket of PNGs and the bare echo, in three threads."""
    from websockets.sync.server import serve

    class Json(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            pixels = from_png(base64.b64decode(fields["images"][0]))
            body = json.dumps({"images": [base64.b64encode(to_png(pixels, 6)).decode()]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None: ...

    def png(connection: Any) -> None:
        for message in connection:
            connection.send(to_png(from_png(message), 1))

    def echo(listener: socket.socket) -> None:
        while True:
            peer, _ = listener.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=echo_one, args=(peer,), daemon=True).start()

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Json)
    pngs = serve(png, "127.0.0.1", 0, compression=None, max_size=None)
    bare = socket.create_server(("127.0.0.1", 0))
    ports = {"json": web.server_port, "png": pngs.socket.getsockname()[1], "echo": bare.getsockname()[1]}
    threading.Thread(target=web.serve_forever, daemon=True).start()
    threading.Thread(target=pngs.serve_forever, daemon=True).start()
    threading.Thread(target=echo, args=(bare,), daemon=True).start()
    (folder / "ports.tmp").write_text(json.dumps(ports))
    os.replace(folder / "ports.tmp", folder / "ports.json")
    threading.Event().wait()


def echo_one(peer: socket.socket) -> None:
    while True:
        head = receive(peer, 8)
        if len(head) < 8:
            return
        peer.sendall(receive(peer, int.from_bytes(head, "big")))


def receive(peer: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        count = peer.recv_into(view[at:])
        if not count:
            return data[:at]
        at += count
    return data


# ---- pictures


def photograph(side: int) -> bytearray:
    """The pixels of the photograph in tools/demo, laid side by side, each a little larger than the last.

    The very same pixels again would let PNG find what it had before, which no photograph does.
    """
    from PIL import Image

    with Image.open(ROOT / "tools/demo/coffee.jpg") as file:
        tile = file.convert("RGBA")
    whole = Image.new("RGBA", (side, side))
    for row, y in enumerate(range(0, side, tile.height)):
        for column, x in enumerate(range(0, side, tile.width)):
            scale = 1 + (7 * row + 3 * column) % 11 / 25
            whole.paste(
                tile.resize((int(tile.width * scale), int(tile.height * scale)), Image.Resampling.LANCZOS), (x, y)
            )
    return bytearray(whole.tobytes())


def to_png(pixels: Any, level: int) -> bytes:
    from PIL import Image

    side = int((len(pixels) // 4) ** 0.5)
    out = io.BytesIO()
    Image.frombuffer("RGBA", (side, side), pixels, "raw", "RGBA", 0, 1).save(out, "PNG", compress_level=level)
    return out.getvalue()


def from_png(data: bytes) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.tobytes()


# ---- what is measured: each takes the pixels (changed every time) and gives back a picture of the same size

Way = Callable[[bytearray], Any]


class Impasto:
    """A client and the results that it fetches, one of each size; also run by `--client` with the vendored packages."""

    def __init__(self, home: Path, files: bool) -> None:
        from impasto_client.client import Client
        from impasto_client.endpoint import read_endpoint
        from impasto_protocol.messages import ClientInfo

        endpoint = read_endpoint(home)
        assert endpoint is not None
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.client = Client.connect(
            endpoint, ClientInfo("benchmark", "0"), self.events.put, lambda error: None, files=files
        )
        assert self.client.through_files == files
        self.home = home
        self.sent = ""
        self.results: dict[int, str] = {}

    def there_and_back(self, pixels: bytearray) -> bytes:
        self.sent = self.client.upload(pixels)
        return self.client.fetch(self.results[len(pixels)], len(pixels))

    def settle(self) -> None:
        """Until the PNGs of the jobs are made: they are work of their own, beside what comes next."""
        while any((self.home / "history").glob("*.rgba")):
            time.sleep(0.05)

    def tidy(self) -> None:
        """What the end of a job does: the picture that was sent last is needed no more."""
        self.client.give_back(self.sent)

    def job(self, pixels: bytearray) -> bytes:
        """The whole job; its result is what `there_and_back` fetches from then on."""
        from impasto_protocol.geometry import Size
        from impasto_protocol.messages import Failed, Finished, InputPicture, Output

        side = int((len(pixels) // 4) ** 0.5)
        picture = InputPicture(self.client.upload(pixels), side, side, "rgba8")
        self.client.submit(uuid.uuid4().hex, "img2img", {}, Size(side, side), {"image": picture}, "rgba8")
        got = b""
        while True:
            event = self.events.get()
            if isinstance(event, Output):
                got = self.client.fetch(event.digest, len(pixels))
                self.results[len(pixels)] = event.digest
            elif isinstance(event, Finished):
                return got
            elif isinstance(event, Failed):
                raise event.error.exception()


def json_over_http(port: int) -> Way:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def way(pixels: bytearray) -> bytes:
        body = json.dumps({"images": [base64.b64encode(to_png(pixels, 6)).decode()]}).encode()
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        return from_png(base64.b64decode(answer["images"][0]))

    return way


def png_over_websocket(port: int) -> Way:
    from websockets.sync.client import connect

    connection = connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, proxy=None, legacy=True)

    def way(pixels: bytearray) -> bytes:
        connection.send(to_png(pixels, 1))
        return from_png(connection.recv())  # type: ignore[arg-type]

    return way


def bare_echo(port: int) -> Way:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def way(pixels: bytearray) -> bytearray:
        connection.sendall(len(pixels).to_bytes(8, "big"))
        connection.sendall(pixels)
        return receive(connection, len(pixels))

    return way


def memcpy_once(pixels: bytearray) -> bytes:
    return bytes(pixels)


def memcpy(pixels: bytearray) -> bytearray:
    there = bytes(pixels)
    return bytearray(there)


class Vendored:
    """The client in a Python of its own, which has the plug-ins' packages and no others; it takes the time itself."""

    def __init__(self, home: Path, packages: Path) -> None:
        argv = [sys.executable, "-I", str(HERE), "--client", str(home), str(packages)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, what: str, side: int) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(what, side, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def be_the_vendored_client(home: Path, packages: Path) -> None:
    """Answers `there|job SIDE` lines with seconds."""
    sys.path[:0] = [str(packages), str(ROOT / "protocol")]
    import msgpack
    import websockets

    assert all(str(packages) in str(module.__file__) for module in (msgpack, websockets)), websockets.__file__
    impasto = Impasto(home, files=False)
    pictures: dict[int, bytearray] = {}
    for line in sys.stdin:
        what, side = line.split()
        if int(side) not in pictures:
            pictures[int(side)] = bytearray((packages.parent / f"{side}.rgba").read_bytes())
        pixels = pictures[int(side)]
        refresh(pixels)
        way = impasto.job if what == "job" else impasto.there_and_back
        print(timed(way, pixels), flush=True)


# ---- the run


def refresh(pixels: bytearray) -> None:
    """Another picture, as far as hashes go."""
    pixels[:16] = os.urandom(16)


def timed(way: Way, pixels: bytearray) -> float:
    began = time.perf_counter()
    got = way(pixels)
    seconds = time.perf_counter() - began
    assert len(got) == len(pixels)
    return seconds


def processor_seconds() -> float:
    """What this process and all that it started have used so far; its own where the system does not tell more."""
    total, todo = time.process_time(), [os.getpid()]
    while todo:
        pid = todo.pop()
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                if pid != os.getpid():
                    total += int((task / "schedstat").read_text().split()[0]) / 1e9
                todo += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # it ended while we looked
    return total


@contextmanager
def started(*args: str, until: Path) -> Iterator[None]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "protocol", ROOT / "server")))}
    process = subprocess.Popen([sys.executable, str(HERE), *args], env=env)
    try:
        deadline = time.monotonic() + 60
        while not until.exists():
            assert process.poll() is None and time.monotonic() < deadline, args
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


def run(rounds: dict[int, int]) -> dict[str, Any]:
    """Seconds by kind (wall or processor), side and way."""
    from impasto_server.cli.vendor import vendor

    with ExitStack() as open_, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = folder / "home"
        home.mkdir()
        vendor(folder / "packages")
        open_.enter_context(started("--impasto", str(home), until=home / "endpoint.json"))
        open_.enter_context(started("--peers", str(folder), until=folder / "ports.json"))
        ports = json.loads((folder / "ports.json").read_text())
        pictures = {side: photograph(side) for side in rounds}
        for side, pixels in pictures.items():
            (folder / f"{side}.rgba").write_bytes(pixels)
        by_socket, by_files = Impasto(home, files=False), Impasto(home, files=True)
        vendored = Vendored(home, folder / "packages")
        open_.callback(vendored.close)
        ways: dict[str, Way] = {
            "json": json_over_http(ports["json"]),
            "png 1": png_over_websocket(ports["png"]),
            "echo": bare_echo(ports["echo"]),
            "memcpy": memcpy,
            "memcpy once": memcpy_once,
            "socket": by_socket.there_and_back,
            "files": by_files.there_and_back,
            "job, socket": by_socket.job,
            "job, files": by_files.job,
        }
        seconds: dict[str, Any] = {}
        for side, count in rounds.items():
            pixels = pictures[side]
            for impasto in (by_socket, by_files):
                refresh(pixels)
                assert impasto.job(pixels) == pixels, "what comes back is what was sent"
            vendored.measure("job", side)
            by_files.settle()
            taken: dict[str, list[tuple[float, float]]] = {}

            def note(way_name: str, measure: Callable[[], float], taken: Any = taken) -> None:
                before = processor_seconds()
                wall = measure()
                taken.setdefault(way_name, []).append((wall, processor_seconds() - before))

            for _ in range(count):
                for way_name, way in ways.items():
                    refresh(pixels)
                    note(way_name, functools.partial(timed, way, pixels))
                    by_files.tidy()
                    by_files.settle()
                note("vendored", functools.partial(vendored.measure, "there", side))
            for kind, pick in (("wall", 0), ("processor", 1)):
                medians = {name: statistics.median(t[pick] for t in times) for name, times in taken.items()}
                seconds.setdefault(kind, {})[str(side)] = medians
        return seconds


def ratios(seconds: dict[str, Any]) -> dict[str, Any]:
    """Times as fast as JSON over HTTP, and times as long as the limits."""
    found = {}
    for side, by in seconds.items():
        found[side] = {
            "json / socket": by["json"] / by["socket"],
            "json / vendored": by["json"] / by["vendored"],
            "json / files": by["json"] / by["files"],
            "png 1 / socket": by["png 1"] / by["socket"],
            "socket / echo": by["socket"] / by["echo"],
            "files / echo": by["files"] / by["echo"],
            "files / memcpy": by["files"] / by["memcpy"],
            "files / memcpy once": by["files"] / by["memcpy once"],
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--large-rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--impasto", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--peers", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--client", type=Path, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.impasto:
        serve_impasto(args.impasto)
    elif args.peers:
        serve_peers(args.peers)
    elif args.client:
        be_the_vendored_client(*args.client)
    else:
        wanted = {side: count for side, count in zip(SIDES, (args.rounds, args.large_rounds), strict=True) if count}
        seconds = run(wanted)
        told = {}
        for kind, table in seconds.items():
            if kind == "wall" or sys.platform == "linux":
                told[f"{kind} ms"] = {s: {w: round(1000 * t, 1) for w, t in by.items()} for s, by in table.items()}
                told[f"{kind} ratios"] = {s: {r: round(v, 2) for r, v in by.items()} for s, by in ratios(table).items()}
        for title, table in told.items():
            rows = list(next(iter(table.values())))
            print(f"{title:20}" + "".join(f"{side + '²':>12}" for side in table))
            for row in rows:
                print(f"{row:20}" + "".join(f"{by[row]:12}" for by in table.values()))
        text = json.dumps({**told, "rounds": wanted, "cpus": os.cpu_count()}, indent=1)
        print(text)
        if args.json:
            args.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
