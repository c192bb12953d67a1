"""The server: an asyncio websocket listener around catalogue, blobs, journal, jobs and a worker."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import http
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from impasto_protocol.errors import ImpastoError, ModelError, ResourceError
from impasto_protocol.home import (
    Endpoint,
    history_folder,
    kit_folder,
    models_folder,
    pairings_file,
    spool_folder,
    token_file,
)
from impasto_protocol.messages import CatalogChanged, ServerInfo, Welcome
from impasto_protocol.pairing import PairOpened
from impasto_protocol.version import PROTOCOL
from websockets.asyncio.server import ServerConnection as Socket
from websockets.http11 import Request, Response

from .. import __version__
from ..engine.prompt_tags import TagFiles, tag_files_of
from ..engine.prompt_words import WordSources
from ..engine.wildcards import WildcardFolders
from . import facts
from .blobs import Blobs
from .catalogue import NO_CHECKPOINT, Catalogue
from .diagnosis import Diagnosis
from .doors import Door, check_host, doors_of, is_loopback, open_door, warning_of
from .estimates import Estimates, needs_of
from .file_hashes import FileHashes
from .idle import LOOK_SECONDS, IdleWatch
from .journal import Journal
from .kit_files import checking, install_upscalers
from .ledger import Ledger
from .model_folders import a1111_folders, comfyui_folders, invokeai_folders
from .orders import Order
from .pairings import CODE_SECONDS, Caller, Pairings
from .queue import JobQueue
from .remembered import with_remembered
from .session import CLOSE_POLICY, Session
from .settings import Settings
from .spool import Spool
from .starter_model import install_starter
from .tls import identity_of
from .worker import ThreadWorker, Worker
from .worker_main import EngineSpec
from .worker_process import ProcessWorker

__all__ = ["Server", "catalogue_of", "make_worker", "word_sources_of"]

log = logging.getLogger("impasto.server")

MAX_CONNECTIONS = 32
MAX_BEYOND = 16
"""Connections from beyond loopback, so that no stranger can lock out the editors of this machine."""

CLOSE_RESTART = 1012


def catalogue_of(settings: Settings, identify: Callable[[Path], facts.Facts] | None = None) -> Catalogue:
    """The catalogue of the home's models/, of the folders in the settings and of the kit; not scanned yet."""
    settings = with_remembered(settings)

    def folders() -> list[Path]:
        found = [models_folder(settings.home), *settings.models]
        for roots, layout in (
            (settings.a1111, a1111_folders),
            (settings.comfyui, comfyui_folders),
            (settings.invokeai, invokeai_folders),
        ):
            for root in roots:
                found += layout(root)
        return [*found, kit_folder(settings.home)]

    for root in (*settings.models, *settings.a1111, *settings.comfyui, *settings.invokeai):
        if not root.exists():
            log.warning("there is no %s: its models are missing until it is there", root)
    known = checking(identify or facts.Identify(), settings.home)
    hashes = FileHashes(settings.home / "hashes.json")
    return Catalogue(folders, known, settings.home / "models.json", kit_folder(settings.home), hashes)


def word_sources_of(settings: Settings) -> WordSources:
    """Styles and wildcards of the home and of the folders in the settings."""
    settings = with_remembered(settings)
    styles = [settings.home / "styles.csv"]
    wildcards = [settings.home / "wildcards", *settings.wildcards]
    for root in settings.a1111:
        styles.append(root / "styles.csv")
        wildcards += [root / "wildcards", root / "scripts" / "wildcards"]
        # Where the extensions for wildcards keep theirs.
        wildcards += sorted((root / "extensions").glob("*/wildcards"))
    return WordSources(tuple(styles), WildcardFolders(tuple(wildcards)))


def tag_files_in(settings: Settings) -> TagFiles:
    """The lists of tags of the home and of the folders in the settings."""
    roots = with_remembered(settings).a1111
    return TagFiles([path for root in roots for path in tag_files_of(root)], [settings.home / "tags"])


def make_worker(settings: Settings) -> Worker:
    """The worker that the settings ask for; not started yet."""
    spec = EngineSpec(settings.engine, settings.device, settings.precision, settings.memory_budget)
    if settings.worker == "thread":
        return ThreadWorker(spec)
    return ProcessWorker(spec, settings.cancel_grace)


class Server:
    """One server. `token` is what a hello must show; the records in the user's folder are `serve.serve`'s business."""

    def __init__(self, settings: Settings, token: str, identify: Callable[[Path], facts.Facts] | None = None) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.slow_client = settings.slow_client
        self.blobs = Blobs(settings.blob_bytes)
        # A second server in the folder would take the first one's files for a dead one's.
        self.spool = Spool(spool_folder(settings.home) if settings.owns_home else None, settings.blob_bytes)
        self.journal = Journal(history_folder(settings.home), settings.history_bytes)
        self.catalogue = catalogue_of(settings, identify)
        self.words = word_sources_of(settings)
        self.tags = tag_files_in(settings)
        self.estimates = Estimates()
        self.diagnosis = Diagnosis(settings.home)
        self.worker = make_worker(settings)
        self.jobs = JobQueue(
            self.worker,
            self.blobs,
            self.journal,
            Ledger(self.journal.folder / "jobs.log" if settings.owns_home else None),
            limit=settings.limits.queue,
            keep_ended=settings.finished_jobs,
            measured=self._measured,
        )
        self.pairings = Pairings(pairings_file(settings.home) if settings.owns_home else None)
        self.doors: list[Door] = []
        """Where it listens, the inner door first; empty before."""
        self._token = token.encode()
        self._sessions: set[Session] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._idle = IdleWatch(settings.stop_after, self._in_use) if settings.stop_after else None
        self._went_idle = False

    def _in_use(self) -> bool:
        return bool(self._sessions) or self.jobs.busy

    def _measured(self, order: Order, seconds: float, load: float) -> None:
        self.estimates.measured(needs_of(order.settings, order.plans), seconds, load)

    async def run(
        self,
        listening: Callable[[Endpoint], None] = lambda endpoint: None,
        opened: Callable[[str], None] = lambda warning: None,
    ) -> None:
        """Serve until `stop`; `listening` is told where, once clients can connect, `opened` what lies open to others.

        Raises ResourceError `resource.cannot_listen`, or `resource.beyond_loopback` without `tls` or `insecure`;
        AuthError where the certificate's file is open to others.
        """
        settings = self.settings
        check_host(settings)
        await asyncio.to_thread(self._scan_first)
        if settings.owns_home:
            await asyncio.to_thread(self._recover)
            self.spool.open()
        async with contextlib.AsyncExitStack() as stack:
            await self._listen(stack)
            inner = self.doors[0]
            log.info("version %s listens on %s port %d, process %d", __version__, inner.host, inner.port, os.getpid())
            for door in self.doors:
                if is_loopback(door.host):
                    continue
                log.warning("%s", warning_of(door))
                opened(warning_of(door))
            token_path, here = str(token_file(settings.home)), (inner.host, inner.port, os.getpid(), sys.executable)
            listening(Endpoint(*here, token_path, __version__, PROTOCOL))
            background = [
                asyncio.create_task(self.jobs.run(), name="impasto-jobs"),
                asyncio.create_task(self._rescan(), name="impasto-rescan"),
                asyncio.create_task(self.worker.start(), name="impasto-worker-start"),
            ]
            if settings.free_after:
                background.append(asyncio.create_task(self._free_when_idle(settings.free_after), name="impasto-free"))
            if settings.hash_after:
                background.append(asyncio.create_task(self._hash_when_idle(settings.hash_after), name="impasto-hash"))
            if self._idle is not None:
                background.append(asyncio.create_task(self._stop_when_idle(self._idle), name="impasto-idle"))
            try:
                stopped = asyncio.create_task(self._stopping.wait())
                # A defect in the background must stop the server loudly, not leave it half alive.
                await asyncio.wait([stopped, background[0], background[1]], return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                await self._wind_down()
                for task in background[:2]:
                    if task.done() and not task.cancelled():
                        task.result()
            finally:
                self.catalogue.hashes.stop()
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)
                await self.worker.close()
                self.spool.close()
                await asyncio.to_thread(self.jobs.close_disk)
        log.info("stopped")

    def stop(self) -> None:
        """End `run`: the running job at its next step, waiting ones at once."""
        self._stopping.set()

    async def free(self) -> None:
        """Give back the memory of loaded models. Raises ResourceError `resource.busy` while a job runs or waits."""
        if self.jobs.busy:
            raise ResourceError(
                "resource.busy",
                "A job runs or waits; its models are needed. Try again when it has ended.",
                retryable=True,
            )
        await self.worker.free()
        log.info("the memory of loaded models was given back")

    async def _free_when_idle(self, after: float) -> None:
        """After each idle time that follows a job."""
        idle, runs = IdleWatch(after, lambda: self.jobs.busy), 0
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, max(0.01, after / 10)))
            if idle.over and self.worker.runs != runs:
                runs = self.worker.runs
                await self.free()

    async def _hash_when_idle(self, after: float) -> None:
        """After an idle time, and again when models have come; it waits while a job runs."""
        idle, told = IdleWatch(after, lambda: self.jobs.busy), ""
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, max(0.01, after / 10)))
            if idle.over and self.catalogue.rev != told:
                told = self.catalogue.rev
                await asyncio.to_thread(self.catalogue.hash_files, lambda: self.jobs.busy)

    async def _stop_when_idle(self, idle: IdleWatch) -> None:
        idle.used()  # the time begins when clients can come
        await idle.wait()
        log.info("no client and no job for %g minutes: the server stops by itself", idle.after / 60)
        self._went_idle = True
        self.stop()

    def welcome(self) -> Welcome:
        info = ServerInfo("impasto", __version__, self.worker.device)
        return Welcome(PROTOCOL, info, self.limits, self.catalog_rev)

    @property
    def device(self) -> str:
        """What jobs run on, in words; "starting" until the worker has told."""
        return self.worker.device

    @property
    def catalog_rev(self) -> str:
        """Revision of all that the catalogue message says: the models and the device."""
        return hashlib.blake2b(f"{self.catalogue.rev} {self.device}".encode(), digest_size=8).hexdigest()

    def who(self, token: str) -> Caller | None:
        """Whose token this is; None is nobody's."""
        if hmac.compare_digest(token.encode("utf-8", "replace"), self._token):
            return Caller(owner=True)
        name = self.pairings.who(token)
        if name is None:
            return None
        self.pairings.seen(name)
        return Caller(owner=False, name=name)

    def open_pairing(self, id: int) -> PairOpened:
        """A new code, and where it can be used."""
        doors = [door for door in self.doors if door.may_pair]
        fingerprint = next((door.fingerprint.hex() for door in doors if door.fingerprint), None)
        code = self.pairings.open()
        return PairOpened(id, code, CODE_SECONDS, tuple(door.address for door in doors), fingerprint)

    def revoke(self, name: str) -> None:
        """A paired client's token is worth nothing any more, and its connections end. Raises RequestError."""
        self.pairings.revoke(name)
        for session in self._sessions:
            if session.caller == Caller(owner=False, name=name):
                closing = asyncio.create_task(session.socket.close(CLOSE_POLICY, "the pairing was revoked"))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    def _scan_first(self) -> None:
        if self.settings.starter:
            try:
                install_upscalers(self.settings.home)
            except ImpastoError as e:
                log.error("%s", e)
        self.catalogue.scan()
        if self.catalogue.checkpoints() or not self.settings.starter:
            return
        try:
            install_starter(models_folder(self.settings.home))
        except ModelError as e:
            # The server is useful without it; who asks for a picture is told why there is no model.
            log.error("%s", e)
            self.catalogue.no_checkpoint = f"{NO_CHECKPOINT} {e.message}"
        self.catalogue.scan()

    def _recover(self) -> None:
        """Take up what an earlier run of the server left."""
        try:
            unfinished = self.journal.recover()
            self.jobs.restore(self.jobs.ledger.load(), list(self.journal.entries()))
        except OSError as e:
            # New jobs will be told that nothing can be saved; the server can say why.
            log.error("the history in %s cannot be read: %s", self.journal.folder, e)
            return
        self.jobs.finish_pictures(unfinished)

    async def _listen(self, stack: contextlib.AsyncExitStack) -> None:
        identity = await asyncio.to_thread(identity_of, self.settings.home) if self.settings.tls else None
        for wanted in doors_of(self.settings, identity):
            wish = self.pairings.port if wanted.inner else None
            listener, door = await open_door(wanted, self._serve_one, self._admit, self.limits.frame, wish)
            await stack.enter_async_context(listener)
            self.doors.append(door)
        self.pairings.listens(self.doors[0].port)

    def _admit(self, door: Door, socket: Socket, request: Request) -> Response | None:
        beyond = sum(not session.door.inner for session in self._sessions)
        if len(self._sessions) >= MAX_CONNECTIONS or (not door.inner and beyond >= MAX_BEYOND):
            return socket.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections; close some.\n")
        return None

    async def _serve_one(self, door: Door, socket: Socket) -> None:
        if self._went_idle:
            # Who comes in this very moment starts the server again; "stopped" would keep an editor from it.
            await socket.close(CLOSE_RESTART, "nobody was here; start the server again")
            return
        session = Session(self, socket, door)
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            if self._idle is not None:
                self._idle.used()

    async def _rescan(self) -> None:
        """Announce new, changed and vanished models, and the device once the worker knows it."""
        told, looked = self.catalog_rev, time.monotonic()
        while True:
            await asyncio.sleep(min(self.settings.rescan, 0.25))
            if time.monotonic() - looked >= self.settings.rescan:
                await asyncio.to_thread(self.catalogue.scan)
                looked = time.monotonic()
            if self.catalog_rev != told:
                told = self.catalog_rev
                self.announce_catalogue()

    def announce_catalogue(self) -> None:
        """Tell every client that the models or the device have changed."""
        for session in self._sessions:
            if session.ready:
                session.send(CatalogChanged(self.catalog_rev))

    async def _wind_down(self) -> None:
        """End the jobs, let the clients hear of it, then close."""
        await self.diagnosis.close()
        await self.jobs.close()
        try:
            async with asyncio.timeout(self.settings.cancel_grace + 2):
                while self.jobs.busy:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            log.warning("the running job did not end in time")
        for _ in range(50):
            if all(session.outbox.empty for session in self._sessions):
                return
            await asyncio.sleep(0.02)
