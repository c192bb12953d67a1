"""A small server built from the protocol package alone, for the tests of the client; Python 3.8, no pytest.

Its jobs do no inference: the result is the picture that was sent, inverted. `gate` holds jobs before their output,
`put_delay` slows uploads down; the parameters `slow` and `fail` do what they say.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from impasto_protocol import messages as wire
from impasto_protocol.connection import ServerConnection, State
from impasto_protocol.errors import AssetError, ImpastoError, JobError, RequestError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.home import Endpoint, endpoint_file, token_file, write_private
from impasto_protocol.images import digest_of
from impasto_protocol.schema import Mode, ModeInput, Param
from impasto_protocol.uploads import Uploads
from impasto_protocol.version import PROTOCOL, SUBPROTOCOL, Limits
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

TOKEN = "token-of-the-tests"
MODE = Mode(
    "inpaint",
    "Inpaint",
    "",
    (ModeInput("image", "image", "Picture"), ModeInput("mask", "mask", "Mask")),
    (Param("steps", "integer", 4, "Steps", minimum=1, maximum=150),),
)


class FakeJob:
    def __init__(self, submit: wire.Submit) -> None:
        self.submit = submit
        self.log: list[Any] = []
        self.cancelled = threading.Event()
        self.listeners: list[Callable[[wire.Message], None]] = []


class FakeServer:
    def __init__(self, home: Path, limits: Limits | None = None) -> None:
        self.home = home
        self.limits = limits or Limits()
        self.gate = threading.Event()
        self.gate.set()
        self.put_delay = 0.0
        self.silent_about: str = ""
        self.blobs: dict[str, bytes] = {}
        self.jobs: dict[str, FakeJob] = {}
        self.received: list[wire.Message] = []
        self.evict_once = False
        self.damage_results = False
        self.short_pieces = False
        self.rev = "1"
        self._lock = threading.RLock()
        self._sockets: list[Any] = []
        self._server: Any = None

    # ---- life

    def start(self, port: int = 0) -> FakeServer:
        self._server = serve(
            self._serve, "127.0.0.1", port, subprotocols=[SUBPROTOCOL], compression=None, max_size=self.limits.frame * 2
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.announce()
        return self

    @property
    def port(self) -> int:
        return int(self._server.socket.getsockname()[1])

    def announce(self, **changes: Any) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        write_private(token_file(self.home), TOKEN)
        record = Endpoint("127.0.0.1", self.port, os.getpid(), "python", str(token_file(self.home)), "0", PROTOCOL)
        fields = json.loads(record.to_json())
        fields.update(changes)
        write_private(endpoint_file(self.home), json.dumps(fields))

    def drop(self) -> None:
        """Cut all connections without a goodbye."""
        for socket in list(self._sockets):
            try:
                socket.socket.shutdown(2)
            except OSError:
                pass

    def stop(self, code: int | None = None) -> None:
        """Stop listening and cut the connections; with `code` they are closed in order first."""
        if self._server is None:
            return
        if endpoint_file(self.home).exists():
            endpoint_file(self.home).unlink()
        if code is not None:
            for socket in list(self._sockets):
                socket.close(code)
        self._server.shutdown()
        self.drop()
        self._server.socket.close()
        self._server = None

    # ---- one connection

    def _serve(self, socket: Any) -> None:
        lock = threading.Lock()
        connection = ServerConnection(self.limits, self._welcome, lambda token: token == TOKEN)
        uploads = Uploads(self.limits)
        self._sockets.append(socket)

        def send(message: wire.Message) -> None:
            try:
                with lock:
                    socket.send(connection.send(message))
            except (ConnectionClosed, OSError):
                pass

        try:
            while connection.state is not State.CLOSED:
                received = connection.receive(socket.recv())
                if received.reply is not None:
                    with lock:
                        socket.send(received.reply)
                if received.message is not None:
                    self._handle(received.message, uploads, send)
        except (ConnectionClosed, OSError, EOFError):
            pass
        finally:
            self._sockets.remove(socket)
            for job in self.jobs.values():
                if send in job.listeners:
                    job.listeners.remove(send)

    def _welcome(self) -> wire.Welcome:
        return wire.Welcome(PROTOCOL, wire.ServerInfo("fake", "0", "none"), self.limits, self.rev)

    def _handle(self, message: wire.Message, uploads: Uploads, send: Callable[[wire.Message], None]) -> None:
        self.received.append(message)
        if self.silent_about == message.TYPE:
            return
        try:
            self._act(message, uploads, send)
        except ImpastoError as error:
            send(wire.Error.of(error, id=getattr(message, "id", None), job=getattr(message, "job", None)))

    def _act(self, message: Any, uploads: Uploads, send: Callable[[wire.Message], None]) -> None:
        if isinstance(message, wire.CatalogRequest):
            if message.rev == self.rev:
                send(wire.NotModified(message.id))
            else:
                models = ({"id": "m", "kind": "checkpoint", "title": "M"},)
                send(wire.Catalog(message.id, self.rev, (MODE,), models, ("euler",), ("automatic",)))
        elif isinstance(message, wire.Plan):
            if message.mode != "inpaint":
                raise RequestError("request.unknown_mode", "There is no such mode.", path="mode")
            box = message.selection or Box.of_size(message.canvas)
            send(wire.PlanOk(message.id, box, Size(512, 512), 8, 4, 1.5, ("careful",)))
        elif isinstance(message, wire.Have):
            send(wire.HaveOk(message.id, tuple(d for d in message.assets if d not in self.blobs)))
        elif isinstance(message, (wire.Put, wire.PutNew)):
            time.sleep(self.put_delay)
            step = uploads.add(message)
            if step.data is not None:
                self.blobs[step.digest] = step.data
            if isinstance(message, wire.PutNew):
                named = step.digest if step.data is not None else None
                send(wire.PutNewOk(message.id, step.received, named))
            else:
                send(wire.PutOk(step.digest, step.received))
        elif isinstance(message, wire.Submit):
            self._submit(message, send)
        elif isinstance(message, wire.Cancel):
            self._job(message.job).cancelled.set()
            self.gate.set()
            send(wire.Ok(message.id))
        elif isinstance(message, wire.Jobs):
            entries = (
                wire.JobEntry(id, "running", job.submit.mode, 0.0, len(job.log)) for id, job in self.jobs.items()
            )
            send(wire.JobsOk(message.id, tuple(entries)))
        elif isinstance(message, wire.Attach):
            job = self._job(message.job)
            with self._lock:
                send(wire.Ok(message.id))
                for event in job.log:
                    if event.seq > message.after_seq:
                        send(event)
                job.listeners.append(send)
        elif isinstance(message, wire.Get):
            data = self.blobs.get(message.digest)
            if data is None:
                raise AssetError("asset.missing", "Gone.")
            length = min(message.length, self.limits.chunk)
            if self.short_pieces:
                length = max(1, 3 * length // 4)
            piece = data[message.offset : message.offset + length]
            if self.damage_results:
                piece = bytes(len(piece))
            send(wire.Data(message.id, message.digest, message.offset, len(data), piece))
        elif isinstance(message, wire.Shutdown):
            send(wire.Ok(message.id))

    # ---- jobs

    def _job(self, id: str) -> FakeJob:
        if id not in self.jobs:
            raise JobError("job.unknown", "There is no such job.")
        return self.jobs[id]

    def _submit(self, submit: wire.Submit, send: Callable[[wire.Message], None]) -> None:
        if self.evict_once:
            self.evict_once = False
            self.blobs.clear()
        missing = [p.digest for p in submit.inputs.values() if p.digest not in self.blobs]
        if missing:
            raise AssetError("asset.missing", "Send the picture first.", data={"digests": missing})
        send(wire.Accepted(submit.id, submit.job))
        if submit.job in self.jobs:
            known = self.jobs[submit.job]
            with self._lock:
                if send not in known.listeners:
                    for event in known.log:
                        send(event)
                    known.listeners.append(send)
            return
        job = self.jobs[submit.job] = FakeJob(submit)
        job.listeners.append(send)
        threading.Thread(target=self._run, args=(job,), daemon=True).start()

    def event(self, job: FakeJob, build: Callable[[int], wire.Message]) -> None:
        with self._lock:
            message = build(len(job.log) + 1)
            job.log.append(message)
            for listener in list(job.listeners):
                listener(message)

    def live(self, job: FakeJob, message: wire.Message) -> None:
        with self._lock:
            for listener in list(job.listeners):
                listener(message)

    def _run(self, job: FakeJob) -> None:
        submit, id = job.submit, job.submit.job
        self.event(job, lambda seq: wire.Queued(id, seq, 0))
        self.event(job, lambda seq: wire.Started(id, seq))
        for step in range(1, 5):
            self.live(job, wire.Progress(id, "generate", step, 4, step / 5))
            self.live(job, wire.Preview(id, b"\xff\xd8jpeg", 8, 8, step))
        if submit.params.get("slow"):
            job.cancelled.wait(20)
        self.gate.wait(20)
        if job.cancelled.is_set():
            self.event(job, lambda seq: wire.Cancelled(id, seq))
            return
        if submit.params.get("fail"):
            error = wire.ErrorInfo("model.corrupt", "The file is damaged.")
            self.event(job, lambda seq: wire.Failed(id, seq, error))
            return
        picture = submit.inputs["image"]
        pixels = bytes(255 - value for value in self.blobs[picture.digest])
        digest = digest_of(pixels)
        self.blobs[digest] = pixels
        place = Box(picture.x, picture.y, picture.width, picture.height)
        size, kind = (picture.width, picture.height), submit.output_format
        info = {"mode": submit.mode, "seed": 7}
        self.event(
            job, lambda seq: wire.Output(id, seq, 0, digest, *size, kind, place, "Cat", "generate", "soft", 7, info)
        )
        self.event(job, lambda seq: wire.Finished(id, seq, (digest,), (7,), {"generate": 0.1}, {"device": "none"}))
