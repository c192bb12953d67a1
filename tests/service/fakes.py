"""A server on a real socket with an engine that only pretends, and a peer that speaks the wire by hand."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from impasto_protocol.codec import decode, encode
from impasto_protocol.home import Endpoint, models_folder
from impasto_protocol.images import digest_of
from impasto_protocol.messages import (
    PROOF_BYTES,
    SERVER_MESSAGES,
    Cancelled,
    ClientInfo,
    Data,
    Error,
    Failed,
    Finished,
    Get,
    Have,
    HaveOk,
    Hello,
    InputPicture,
    Message,
    Ok,
    Output,
    PreviewWish,
    PutOk,
    Share,
    Submit,
    parse,
)
from impasto_protocol.uploads import chunks
from impasto_protocol.version import PROTOCOL, SUBPROTOCOL, Limits
from impasto_server.engine import jobs as engine
from impasto_server.service.diagnosis import Diagnosis
from impasto_server.service.facts import Facts
from impasto_server.service.server import Server
from impasto_server.service.settings import Settings
from websockets.asyncio.client import ClientConnection, connect

TOKEN = "a token for tests, long enough"
TERMINAL = (Finished, Failed, Cancelled)


# ---- the engine


class FakeEngine:
    """Does what the prompt says: `slow`, `deaf`, `crash`, `defect`, `refuse`, `memory`; else paints a flat colour."""

    device_name = "fake device"

    def __init__(self, device: str, precision: str, memory_budget: int | None) -> None:
        if device == "broken":
            raise RuntimeError("no such device")

    def run(self, job: engine.Job, emit: engine.Emit, cancelled: Callable[[], bool]) -> engine.Result:
        from impasto_protocol.errors import ModelError

        words = job.params.prompt.split()
        if "refuse" in words:
            raise ModelError("model.corrupt", "The file ends early; download it again.")
        if "defect" in words:
            raise KeyError("a defect")
        if "memory" in words:
            raise MemoryError
        for step in range(job.params.steps):
            if "crash" in words and step == 1:
                os._exit(9)
            if cancelled() and "deaf" not in words:
                raise engine.Cancelled
            if "slow" in words or "deaf" in words:
                time.sleep(0.05)
            emit(engine.Progress("denoise", step + 1, job.params.steps, (step + 1) / job.params.steps))
            if job.preview is not None:
                emit(engine.Preview(b"\xff\xd8 not really", 8, 8, step + 1))
        pixels = np.full((job.box.height, job.box.width, 4), (200, 100, 50, 255), np.uint8)
        if job.image is not None:
            pixels = job.image.copy()
            pixels[..., 3] = job.mask if job.mask is not None else 255
        copies = 3 if "many" in words else 1
        for index in range(copies):
            said = f"{job.params.prompt}\nSteps: {job.params.steps}, Sampler: Euler a, Seed: 7, Version: Impasto"
            info = {"mode": job.mode, "params": {"prompt": job.params.prompt, "seed": 7}, "size": (8, 8)}
            info["parameters"] = said
            emit(engine.Layer(index, "generate", "A result", pixels, job.box, "soft", 7, info))
        return engine.Result((7,), {"load": 0.0, "denoise": 0.01}, {"pid": os.getpid()})


def identify(path: Path) -> Facts:
    """By the file's name: no test of the service needs a real header."""
    if path.stem.startswith("broken"):
        reason = "It ends early; download it again."
        return Facts("unknown", usable=False, reason=reason, code="model.corrupt")
    if path.stem.startswith("lora"):
        return Facts("lora", "sd1")
    hints = {"steps": 3} if path.stem == "hinted" else {}
    return Facts("checkpoint", "sd1", "normal", native_size=64, hints=hints)


# ---- the server


def settings_for(tmp_path: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = dict(
        home=tmp_path, engine="tests.service.fakes:FakeEngine", worker="thread", starter=False, cancel_grace=1.0
    )
    values.update(changes)
    return Settings(**values)


def add_model(home: Path, name: str = "tiny.safetensors") -> Path:
    folder = models_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"model " + name.encode())
    return path


@asynccontextmanager
async def running(settings: Settings, **changes: Any) -> AsyncIterator[tuple[Server, Endpoint]]:
    """A server with one model, listening; stopped at the end."""
    if not any(models_folder(settings.home).glob("*")):
        add_model(settings.home)
    changes.setdefault("identify", identify)
    opened = changes.pop("opened", lambda warning: None)
    server = Server(settings, TOKEN, **changes)
    server.diagnosis = Diagnosis(settings.home, (sys.executable, "-c", 'print(\'{"text": "fine", "bad": 0}\')'))
    there: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.run(there.set_result, opened))
    await asyncio.wait([task, there], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield server, there.result()
    finally:
        server.stop()
        await asyncio.wait_for(task, 90)


# ---- the peer


class Peer:
    """One client: `ask` sends a request and gives its answer; job events pile up in `events`."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[Message] = []
        self.numbers = itertools.count(1)
        self.welcome: Any = None
        self._limits = Limits(frame=64 << 20)

    async def send(self, message: Message) -> None:
        await self.socket.send(encode(message.to_wire()))

    async def receive(self, seconds: float = 90.0) -> Message:
        frame = await asyncio.wait_for(self.socket.recv(), seconds)
        message = parse(decode(frame, self._limits), SERVER_MESSAGES)
        if hasattr(message, "job") and not hasattr(message, "id"):
            self.events.append(message)
        return message

    async def ask(self, kind: Any, *args: Any, **fields: Any) -> Message:
        """Send `kind(id, ...)`; its answer or error."""
        number = next(self.numbers)
        await self.send(kind(number, *args, **fields))
        while True:
            message = await self.receive()
            if getattr(message, "id", None) == number:
                return message

    async def put(self, data: bytes) -> str:
        digest = digest_of(data)
        for chunk in chunks(digest, data, Limits().chunk):
            await self.send(chunk)
            while True:
                message = await self.receive()
                if isinstance(message, PutOk):
                    break
                if isinstance(message, Error):
                    raise message.exception()
        return digest

    async def until(self, kinds: Any, job: str | None = None) -> Any:
        """The first event of these kinds, seen before or to come."""
        at = 0
        while True:
            for message in self.events[at:]:
                at += 1
                if isinstance(message, kinds) and (job is None or message.job == job):  # type: ignore[attr-defined]
                    return message
            await self.receive()

    async def end(self, job: str) -> Any:
        return await self.until(TERMINAL, job)

    async def fetch(self, output: Output) -> bytes:
        pieces, offset = [], 0
        while True:
            piece = await self.ask(Get, output.digest, offset, Limits().chunk)
            assert isinstance(piece, Data), piece
            pieces.append(bytes(piece.data))
            offset += len(piece.data)
            if offset >= piece.size:
                return b"".join(pieces)


@asynccontextmanager
async def connected(endpoint: Endpoint, token: str = TOKEN, **options: Any) -> AsyncIterator[Peer]:
    """A peer whose hello was accepted."""
    async with open_socket(endpoint, **options) as peer:
        await peer.send(Hello(PROTOCOL, ClientInfo("peer", "0"), token))
        welcome = await peer.receive()
        if isinstance(welcome, Error):
            raise welcome.exception()
        peer.welcome = welcome
        yield peer


@asynccontextmanager
async def open_socket(endpoint: Endpoint, **options: Any) -> AsyncIterator[Peer]:
    """A socket, nothing said yet."""
    options.setdefault("subprotocols", [SUBPROTOCOL])
    url = f"ws://{endpoint.host}:{endpoint.port}"
    async with connect(url, compression=None, max_size=64 << 20, proxy=None, **options) as socket:
        yield Peer(socket)


def picture(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    """RGBA noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8).tobytes()


def disc(width: int = 64, height: int = 48) -> bytes:
    """A mask with a rectangle selected in the middle."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 255
    return mask.tobytes()


async def inpaint_inputs(peer: Peer, width: int = 64, height: int = 48, format: str = "rgba8") -> dict[str, Any]:
    image, mask = await peer.put(picture(width, height)), await peer.put(disc(width, height))
    return {
        "image": InputPicture(image, width, height, format),
        "mask": InputPicture(mask, width, height, "l8"),
    }


def submit(number: int, job: str, mode: str = "txt2img", **fields: Any) -> Submit:
    fields.setdefault("params", {"steps": 2})
    fields.setdefault("canvas", (64, 48))
    from impasto_protocol.geometry import Size

    fields["canvas"] = Size(*fields["canvas"])
    return Submit(number, job, mode, **fields)


async def ask_submit(peer: Peer, job: str, mode: str = "txt2img", **fields: Any) -> Message:
    return await peer.ask(lambda number: submit(number, job, mode, **fields))


async def missing(peer: Peer, *digests: str) -> tuple[str, ...]:
    answer = await peer.ask(Have, digests)
    assert isinstance(answer, HaveOk)
    return answer.missing


async def share(peer: Peer) -> Path:
    """Prove that the files are the same; the folder."""
    folder = Path(peer.welcome.spool.folder)
    probe = folder / peer.welcome.spool.probe
    data = probe.read_bytes()
    mark = os.urandom(PROOF_BYTES)
    with open(probe, "r+b") as file:
        file.seek(PROOF_BYTES)
        file.write(mark)
    assert isinstance(await peer.ask(Share, data[:PROOF_BYTES], mark), Ok)
    return folder


WISH = PreviewWish(64, 0)
