"""One connection to the server as plain blocking calls: requests and answers, uploads, downloads, events of jobs."""

from __future__ import annotations

import functools
import threading
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Optional, Sequence, Tuple, Union

from impasto_protocol import messages as wire
from impasto_protocol.connection import ClientConnection
from impasto_protocol.errors import ImpastoError, ProtocolError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.images import Buffer

from .endpoint import Endpoint
from .exchange import Exchange, expect
from .pictures import Pictures
from .transport import Transport

__all__ = ["DOCTOR_SECONDS", "Client"]

DOCTOR_SECONDS = 300.0


class Client(Exchange):
    """A connection after its welcome. All methods may be called from any thread and block until answered.

    `on_event` gets the messages that no request asked for (events of jobs, `catalog_changed`); `on_lost` is called
    once when the connection ends, also by `close`. Both run on the reading thread: they must not call the client.
    Every method raises the error that the server answered, ResourceError `resource.connection_lost` when the
    connection ends and `resource.no_answer` when it stays silent.
    """

    def __init__(
        self,
        transport: Transport,
        connection: ClientConnection,
        welcome: wire.Welcome,
        on_event: Callable[[wire.Message], None],
        on_lost: Callable[[ImpastoError], None],
    ) -> None:
        super().__init__(transport, connection, welcome, on_event, on_lost)
        self._pictures = Pictures(self)
        self.place = ""
        """The name of a paired server; "" is the user's own."""

    @staticmethod
    def connect(
        endpoint: Endpoint,
        client: wire.ClientInfo,
        on_event: Callable[[wire.Message], None],
        on_lost: Callable[[ImpastoError], None],
        timeout: float = 15.0,
        *,
        files: bool = True,
    ) -> Client:
        """Open the connection and say hello; with `files`, find out whether pixels can go through the spool.

        Raises AuthError `auth.denied`, ProtocolError `protocol.version`, ResourceError `resource.connection_lost`.
        """
        transport = Transport.connect(endpoint, timeout)
        connection = ClientConnection(client, endpoint.token)
        try:
            transport.send(connection.hello())
            while connection.welcome is None:
                connection.receive(transport.recv(timeout))
        except ImpastoError:
            transport.close()
            raise
        opened = Client(transport, connection, connection.welcome, on_event, on_lost)
        opened.place = endpoint.paired
        opened.start()
        if files:
            try:
                opened._pictures.find_spool()
            except ImpastoError:
                opened.close()
                raise
        return opened

    @property
    def through_files(self) -> bool:
        """Whether large pictures go through the spool: client and server see the same files."""
        return self._pictures.spool is not None

    # ---- requests

    def catalog(self, rev: Optional[str] = None) -> Optional[wire.Catalog]:
        """What the server can do; None where `rev` is still its revision."""
        answer = self.ask(lambda id: wire.CatalogRequest(id, rev), wire.Message)
        if isinstance(answer, wire.NotModified):
            return None
        return expect(answer, wire.Catalog)

    def plan(self, mode: str, params: Mapping[str, Any], canvas: Size, selection: Optional[Box] = None) -> wire.PlanOk:
        """The box to send for a job, and what to expect. RequestError for parameters that cannot work."""
        return self.ask(lambda id: wire.Plan(id, mode, dict(params), canvas, selection), wire.PlanOk)

    def have(self, digests: Iterable[str]) -> Tuple[str, ...]:
        """Those of the digests that the server does not hold."""
        return self.ask(lambda id: wire.Have(id, tuple(digests)), wire.HaveOk).missing

    def submit(
        self,
        job: str,
        mode: str,
        params: Mapping[str, Any],
        canvas: Size,
        inputs: Optional[Mapping[str, wire.InputPicture]] = None,
        output_format: str = "rgba8",
        preview: Optional[wire.PreviewWish] = None,
        *,
        box: Optional[Box] = None,
        on_disconnect: str = "keep",
        priority: str = "back",
        replaces: Optional[str] = None,
        then: Optional[Sequence[wire.ChainLink]] = None,
    ) -> int:
        """Hand in a job whose pictures are uploaded; the number of jobs before it. The same job again is harmless.

        `box`, `on_disconnect`, `priority`, `replaces` and `then` are those of `Submit`.
        """
        chain = tuple(then) if then else None
        pictures, rest = dict(inputs or {}), (box, on_disconnect, priority, replaces, chain)
        answer = self.ask(
            lambda id: wire.Submit(id, job, mode, dict(params), canvas, pictures, output_format, preview, *rest),
            wire.Accepted,
        )
        for picture in pictures.values():
            self._pictures.submitted(picture.digest)
        return answer.position

    def cancel(self, job: str) -> None:
        """Ask for the end of a job; its terminal event follows."""
        self.ask(lambda id: wire.Cancel(id, job), wire.Ok)

    def jobs(self) -> Tuple[wire.JobEntry, ...]:
        """The jobs that the server knows."""
        return self.ask(wire.Jobs, wire.JobsOk).jobs

    def attach(self, job: str, after_seq: int = 0) -> None:
        """Have the events of a job sent here: those after `after_seq` again, then new ones. JobError `job.unknown`."""
        self.ask(lambda id: wire.Attach(id, job, after_seq), wire.Ok)

    def models(self, kind: Optional[str] = None, search: str = "", page: int = wire.PAGE) -> Iterator[Dict[str, Any]]:
        """All models of a kind in which the words of `search` occur; each page is asked for when it is needed."""
        after: Optional[str] = None
        while True:
            ask = functools.partial(wire.ModelsRequest, kind=kind, search=search or None, after=after, limit=page)
            answer = self.ask(ask, wire.ModelsOk)
            yield from answer.models
            after = answer.next
            if after is None:
                return

    def history(
        self,
        search: str = "",
        job: Optional[str] = None,
        starred: bool = False,
        info: bool = False,
        page: int = wire.PAGE,
        *,
        begins: Optional[str] = None,
    ) -> Iterator[wire.HistoryEntry]:
        """The results that the server keeps, newest first; each page is asked for when it is needed.

        `begins` is how the ids of their jobs begin. Their pixels come by `fetch(entry.digest)`.
        """
        wishes: Dict[str, Any] = dict(search=search or None, job=job, starred=starred, info=info, limit=page)
        wishes["begins"] = begins or None
        after: Optional[str] = None
        while True:
            answer = self.ask(functools.partial(wire.History, after=after, **wishes), wire.HistoryOk)
            yield from answer.entries
            after = answer.next
            if after is None:
                return

    def words(self, kind: str, typed: str, limit: int = 12) -> Tuple[wire.Word, ...]:
        """What `typed` may become: "tag" from the user's lists of tags, "style" from styles.csv; the best first.

        A server before 1.12 knows none.
        """
        if tuple(self.welcome.protocol) < (1, 12):
            return ()
        return self.ask(lambda id: wire.WordsRequest(id, kind, typed, limit), wire.WordsOk).words

    def star(self, job: str, index: int, on: bool = True) -> None:
        """Keep a result beyond the quota, or no longer. JobError `job.unknown` where it is gone."""
        self.ask(lambda id: wire.Star(id, job, index, on), wire.Ok)

    def further(self, way: str, info: Mapping[str, Any]) -> wire.Parameters:
        """The mode and parameters of the job that takes the result with the recipe `info` further.

        `way` "hires" repeats that job with a hires pass and needs its pictures; "img2img", "inpaint" and "upscale"
        begin with the result as their `image`.
        """
        return self.ask(lambda id: wire.Further(id, way, info=dict(info)), wire.Parameters)

    def read_parameters(self, source: Union[str, Buffer]) -> wire.Parameters:
        """The job that a text, or the bytes of a picture's file, asks for. RequestError `request.no_parameters` where
        they say nothing, AssetError for a file that is no picture.
        """
        if isinstance(source, str):
            return self.ask(lambda id: wire.ReadParameters(id, text=source), wire.Parameters)
        if len(source) <= self.limits.chunk:
            return self.ask(lambda id: wire.ReadParameters(id, data=source), wire.Parameters)
        digest = self.upload(source)
        try:
            return self.ask(lambda id: wire.ReadParameters(id, digest=digest), wire.Parameters)
        finally:
            self.give_back(digest)

    def doctor(self) -> wire.DoctorOk:
        """The page of `impasto doctor`, to read and to copy. Takes seconds, on a busy computer a minute.

        Raises ProtocolError `protocol.unknown_type` for a server of before 1.4, which is not asked.
        """
        if tuple(self.welcome.protocol) < (1, 4):
            raise ProtocolError(
                "protocol.unknown_type",
                f"The server (Impasto {self.welcome.server.version}) is older than this plug-in and cannot do that; "
                "update it, then stop it and let the plug-in start it again.",
            )
        return self.ask(wire.Doctor, wire.DoctorOk, DOCTOR_SECONDS)

    def free(self) -> None:
        """Give back the memory of loaded models. Raises ResourceError `resource.busy` while a job runs or waits."""
        self.ask(wire.Free, wire.Ok)

    def shutdown(self) -> None:
        """Stop the server after its running step."""
        self.ask(wire.Shutdown, wire.Ok)

    # ---- pixels

    def upload(self, data: Buffer, stop: Optional[threading.Event] = None) -> str:
        """Make sure that the server holds `data`; what a submit calls it: its digest, or the name of a file's bytes.

        A large picture goes through the spool where that is shared. Else only what is missing is sent, with at most
        `limits.window` chunks on their way at a time, so that other messages get between them. Raises AssetError, and
        JobError `job.cancelled` soon after `stop` was set.
        """
        return self._pictures.upload(data, stop)

    def give_back(self, digest: str) -> None:
        """A picture that was uploaded will be in no job; nothing where the server forgets it by itself."""
        self._pictures.give_back(digest)

    def fetch(self, digest: str, size: Optional[int] = None) -> bytes:
        """The bytes of a digest, checked; `size` is what they are expected to be."""
        return self._pictures.fetch(digest, size)
