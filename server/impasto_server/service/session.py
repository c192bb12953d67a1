"""One connection: messages -> calls, answers and events -> outbox."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Protocol

from impasto_protocol.connection import ServerConnection, State
from impasto_protocol.errors import AssetError, AuthError, ProtocolError, RequestError, ResourceError
from impasto_protocol.images import Buffer
from impasto_protocol.messages import (
    Accepted,
    Attach,
    Cancel,
    CatalogRequest,
    Data,
    Doctor,
    DoctorOk,
    Error,
    File,
    Filled,
    Free,
    Further,
    Get,
    GetFile,
    Have,
    HaveOk,
    Hello,
    History,
    Jobs,
    JobsOk,
    Message,
    ModelsRequest,
    Ok,
    ParameterNote,
    Parameters,
    Plan,
    Put,
    PutNew,
    PutNewOk,
    PutOk,
    ReadParameters,
    Release,
    Room,
    RoomOk,
    Share,
    Shutdown,
    Star,
    Submit,
    Welcome,
    WordsRequest,
)
from impasto_protocol.pairing import Pair, Paired, PairOpen, PairOpened, PairRevoke
from impasto_protocol.version import Limits
from websockets.asyncio.server import ServerConnection as Socket
from websockets.exceptions import ConnectionClosed

from ..engine.prompt_tags import TagFiles
from ..engine.prompt_words import WordSources
from .answers import catalog_for, further_answer, models_for, plan_answer, words_for
from .arrivals import Arrivals
from .blobs import Blobs, Held, bytes_of
from .catalogue import Catalogue
from .diagnosis import Diagnosis
from .doors import Door
from .estimates import Estimates
from .history import page
from .incidents import as_impasto_error
from .journal import Journal
from .orders import check_inputs, check_order
from .outbox import Outbox
from .pairings import Caller, Pairings
from .queue import JobQueue
from .reading import CatalogueNames, read_parameters
from .spool import Spool, SpoolFile

__all__ = ["Services", "Session"]

log = logging.getLogger("impasto.session")

OUTBOX_ROOM = 8 << 20
HELLO_TIMEOUT = 10.0

CLOSE_POLICY = 1008
CLOSE_TRY_LATER = 1013


class Services(Protocol):
    """What a session needs of the server."""

    limits: Limits
    blobs: Blobs
    spool: Spool
    journal: Journal
    catalogue: Catalogue
    words: WordSources
    tags: TagFiles
    jobs: JobQueue
    estimates: Estimates
    diagnosis: Diagnosis
    pairings: Pairings
    slow_client: float

    @property
    def catalog_rev(self) -> str: ...

    @property
    def device(self) -> str: ...

    def welcome(self) -> Welcome: ...

    def who(self, token: str) -> Caller | None: ...

    def open_pairing(self, id: int) -> PairOpened: ...

    def revoke(self, name: str) -> None: ...

    def stop(self) -> None: ...

    async def free(self) -> None: ...


class Session:
    """A client from its hello to its end."""

    def __init__(self, services: Services, socket: Socket, door: Door) -> None:
        self.services = services
        self.socket = socket
        self.door = door
        self.caller: Caller | None = None
        """None before the hello."""
        self.connection = ServerConnection(services.limits, self._welcome, self._check_token, self._pair)
        self.arrivals = Arrivals(services.limits)
        self.outbox = Outbox(OUTBOX_ROOM)
        self.files = services.spool.line(services.limits.upload_bytes)
        self._aside: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        return self.connection.state is State.READY

    def send(self, message: Message) -> None:
        """Queue a message for the client; never waits, never raises."""
        self.outbox.put(message, self.connection.send(message))

    async def run(self) -> None:
        """Serve until the connection ends."""
        tasks = (
            asyncio.create_task(self._read(), name="impasto-reader"),
            asyncio.create_task(self._write(), name="impasto-writer"),
        )
        try:
            # Whichever ends first ends the session: a reader may be waiting for room that no writer will make.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.connection.closed()
            self.services.jobs.forget_listener(self.send)
            for task in (*tasks, *self._aside):
                task.cancel()
            try:
                ends = await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                # Now no submit can be looking at a file any more.
                self.files.close()
                self.arrivals.close()
                self.services.blobs.drop_files_of(self.files)
        for end in ends:
            # That the connection is closed is how most of them end.
            if isinstance(end, Exception) and not isinstance(end, ConnectionClosed):
                raise end

    def _welcome(self) -> Welcome:
        welcome = self.services.welcome()
        # Who comes from elsewhere cannot see the files, and need not know where they lie.
        return replace(welcome, spool=self.files.offer()) if self.door.inner else welcome

    def _check_token(self, token: str) -> bool:
        self.caller = self.services.who(token)
        return self.caller is not None

    def _pair(self, asked: Pair) -> Paired:
        if not self.door.may_pair:
            raise AuthError(
                "auth.denied",
                "This connection is not encrypted, and a token must not cross a network where others can read it; "
                "start the server with --tls.",
            )
        return self.services.pairings.pair(asked, self.door.fingerprint)

    def _only_owner(self) -> None:
        if self.caller is None or not self.caller.owner:
            raise AuthError(
                "auth.denied",
                "A paired computer cannot do this; do it on the server's computer (`impasto pair`, `impasto stop`).",
            )

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                while not self.ready:
                    if not await self._receive():
                        return
        except TimeoutError:
            await self.socket.close(CLOSE_POLICY, "no hello within 10 seconds")
            return
        while await self._receive():
            await self.outbox.has_room()

    async def _receive(self) -> bool:
        """Take one frame; False once the connection is over."""
        received = self.connection.receive(await self.socket.recv())
        if received.close:
            if received.reply is not None:
                await self.socket.send(received.reply)
            await self.socket.close(CLOSE_POLICY, "the hello was refused")
            return False
        if received.reply is not None:
            # The reply to a frame that was refused has an envelope like any lasting message.
            self.outbox.put(Ok(0), received.reply)
        if isinstance(received.message, Hello):
            client = received.message.client
            log.info("%s %s (%s) is connected", client.name, client.version, client.host or "no editor")
        elif received.message is not None:
            await self._handle(received.message)
        return True

    async def _write(self) -> None:
        while True:
            frame = await self.outbox.get()
            try:
                async with asyncio.timeout(self.services.slow_client):
                    await self.socket.send(frame)
            except TimeoutError:
                log.warning("a client did not read for %g s and is closed", self.services.slow_client)
                # An orderly close would wait for the same client.
                self.socket.transport.abort()
                return
            except ConnectionClosed:
                return

    async def _handle(self, message: Message) -> None:
        number = getattr(message, "id", None)
        try:
            answer = await self._answer(message)
        except Exception as e:  # every refusal goes back with its id; a defect becomes an incident in the log
            error = as_impasto_error(e, f"the message {message.TYPE!r}")
            if isinstance(message, Put):
                error.data.setdefault("digest", message.digest)
            self.send(Error.of(error, id=number, job=getattr(message, "job", None)))
            return
        if answer is not None:
            self.send(answer)

    async def _answer(self, message: Message) -> Message | None:
        match message:
            case Put() | PutNew():
                return await self._put(message)
            case Have():
                missing = self.services.blobs.missing(dict.fromkeys(message.assets))
                return HaveOk(message.id, tuple(missing))
            case Plan():
                return await asyncio.to_thread(plan_answer, self.services, message)
            case Submit():
                await self._submit(message)
                return None
            case Get():
                return await self._get(message)
            case Share():
                self.files.prove(bytes(message.read), bytes(message.wrote))
                return Ok(message.id)
            case Room():
                room = self.files.room(message.size)
                return RoomOk(message.id, room.name, room.generation, room.digest)
            case Filled():
                return self._filled(message)
            case GetFile():
                lent = await self.files.lend(await self._whole(message.digest))
                return File(message.id, message.digest, lent.name, lent.generation, lent.size)
            case Release():
                filled = self.files.release(message.name, message.generation)
                if filled is not None:
                    self.services.blobs.drop_files((filled,))
                return Ok(message.id)
            case Cancel():
                self.services.jobs.cancel(message.job)
                return Ok(message.id)
            case Jobs():
                return JobsOk(message.id, self.services.jobs.entries())
            case Attach():
                record = self.services.jobs.record(message.job)
                self.send(Ok(message.id))
                self.services.jobs.attach(record, message.after_seq, self.send)
                return None
            case History():
                return await asyncio.to_thread(page, self.services.journal, message)
            case Star():
                await asyncio.to_thread(self.services.journal.star, message.job, message.index, message.on)
                return Ok(message.id)
            case ModelsRequest():
                return models_for(self.services, message)
            case WordsRequest():
                return await asyncio.to_thread(words_for, self.services, message)
            case CatalogRequest():
                return catalog_for(self.services, message)
            case Further():
                return await asyncio.to_thread(further_answer, self.services, message)
            case ReadParameters():
                return await self._read_parameters(message)
            case Doctor():
                self._diagnose(message)
                return None
            case PairOpen():
                self._only_owner()
                return self.services.open_pairing(message.id)
            case PairRevoke():
                self._only_owner()
                self.services.revoke(message.name)
                return Ok(message.id)
            case Free():
                await self.services.free()
                return Ok(message.id)
            case Shutdown():
                self._only_owner()
                log.info("a client asked the server to stop")
                self.send(Ok(message.id))
                self.services.stop()
                return None
            case _:
                raise ProtocolError("protocol.bad_message", f"The message {message.TYPE!r} is not for a server.")

    async def _put(self, message: Put | PutNew) -> PutOk | PutNewOk:
        step = await self.arrivals.take(message)
        if step.data is not None:
            self.services.blobs.add(step.data, step.digest)
        if isinstance(message, PutNew):
            return PutNewOk(message.id, step.received, step.digest if step.data is not None else None)
        return PutOk(step.digest, step.received)

    async def _submit(self, message: Submit) -> None:
        services = self.services
        record = services.jobs.known(message)
        if record is None:
            check_inputs(message, services.limits)
            digests = tuple(picture.digest for picture in message.inputs.values())
            missing = services.blobs.missing(dict.fromkeys(digests))
            if missing:
                raise AssetError(
                    "asset.missing",
                    "The server does not have these pictures (any more); send them, then submit again.",
                    retryable=True,
                    path="inputs",
                    data={"digests": missing},
                )
            pictures = services.blobs.peek(digests)
            services.blobs.pin(digests)
            try:
                order = await asyncio.to_thread(check_order, message, services.catalogue, pictures, services.words)
                # Another connection may have sent the same job while the pixels were looked at.
                record = services.jobs.known(message) or services.jobs.add(order)
            finally:
                services.blobs.unpin(digests)
        self.send(Accepted(message.id, message.job, services.jobs.position(record)))
        if self.send not in record.listeners:
            services.jobs.attach(record, 0, self.send)

    def _diagnose(self, message: Doctor) -> None:
        """Answer when it is done; what else the client sends is not kept waiting."""

        async def answer() -> None:
            try:
                self.send(DoctorOk(message.id, *await self.services.diagnosis.page()))
            except Exception as e:
                self.send(Error.of(as_impasto_error(e, "the doctor"), id=message.id))

        task = asyncio.create_task(answer(), name="impasto-answer")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _read_parameters(self, message: ReadParameters) -> Parameters:
        sources = [source for source in (message.text, message.data, message.digest) if source is not None]
        if len(sources) != 1:
            raise RequestError(
                "request.invalid_param", "One of text, data and digest is needed, and no other.", path="text"
            )
        source = message.text
        names = CatalogueNames(self.services.catalogue, self.services.words)
        data = message.data if message.digest is None else await self._whole(message.digest)
        read = await asyncio.to_thread(read_parameters, source if source is not None else bytes(data or b""), names)
        notes = tuple(ParameterNote(note.kind, note.key, note.value, note.message) for note in read.notes)
        return Parameters(message.id, read.mode, dict(read.params), notes, read.source)

    def _filled(self, message: Filled) -> Ok:
        file = self.files.filled(message.name, message.generation)
        try:
            self.services.blobs.add(file, file.digest)
        except ResourceError:
            file.let_go()
            raise
        return Ok(message.id)

    async def _whole(self, digest: str) -> Buffer:
        """The bytes of a picture or result. Raises AssetError `asset.missing`."""
        services = self.services
        held: Held | None = services.blobs.get(digest) if digest in services.blobs else None
        if held is None:
            held = await asyncio.to_thread(services.journal.read, digest)
            try:
                if held is not None:
                    services.blobs.add(held, digest)
            except ResourceError as e:
                log.info("a result is read from the disk for each piece: %s", e)
        if held is None:
            held = services.blobs.get(digest)  # says what is missing
        if not isinstance(held, SpoolFile):
            return held
        services.blobs.pin((digest,))
        try:
            return await asyncio.to_thread(bytes_of, held)
        finally:
            services.blobs.unpin((digest,))

    async def _get(self, message: Get) -> Data:
        data, limit = await self._whole(message.digest), self.services.limits.chunk
        if message.offset > len(data) or not 1 <= message.length <= limit:
            raise RequestError(
                "request.invalid_param",
                f"A piece of at most {limit} bytes within the picture's {len(data)} can be had, "
                f"not {message.length} at {message.offset}.",
                path="length" if message.offset <= len(data) else "offset",
            )
        piece = memoryview(data)[message.offset : message.offset + message.length]
        return Data(message.id, message.digest, message.offset, len(data), piece)
