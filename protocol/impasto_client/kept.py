"""The results that the server keeps: listed, starred, fetched and written to files, without ever waiting."""

from __future__ import annotations

import itertools
import logging
from typing import Any, Callable, Dict

from impasto_protocol.errors import AssetError, ImpastoError, ResourceError

from .client import Client
from .events import Done, Event, HistoryListed, ResultFetched
from .lanes import Lane
from .link import Link, internal_error
from .transfers import fetch_result

__all__ = ["Kept"]

_log = logging.getLogger("impasto.client")


class Kept:
    """Part of a `Runner`: questions go over its link, pixels over its receiving thread, answers come as events."""

    def __init__(self, link: Link, receive: Lane, emit: Callable[[Event], None]) -> None:
        self._link, self._receive, self._emit = link, receive, emit

    def list(self, count: int, *, key: Any = None, search: str = "", starred: bool = False, begins: str = "") -> None:
        """Ask for the last `count` results, with their recipes: `HistoryListed` with `key` follows.

        Those alone that have all words of `search`, have a star, and whose job ids begin with `begins`.
        """

        def ask(client: Client) -> None:
            wishes: Dict[str, Any] = dict(search=search, starred=starred, begins=begins)
            entries = tuple(itertools.islice(client.history(info=True, page=count + 1, **wishes), count + 1))
            # A server that is older than `begins` lists them all.
            fitting = tuple(entry for entry in entries[:count] if entry.job.startswith(begins))
            self._emit(HistoryListed(fitting, key, more=len(entries) > count))

        self._link.ask(ask, _ignore)

    def star(self, job_id: str, index: int, on: bool) -> None:
        """Keep a result beyond the server's quota, or no longer."""
        self._link.ask(lambda client: client.star(job_id, index, on), _ignore)

    def fetch(self, job_id: str, index: int) -> None:
        """Ask for the pixels of a result: `ResultFetched` follows."""
        self._receive.put(lambda: self._fetch(job_id, index))

    def do(self, key: Any, work: Callable[[], None]) -> None:
        """Do something that takes long, such as writing a file, where it holds up nobody: `Done` with `key` follows."""

        def run() -> None:
            try:
                work()
            except Exception as error:
                self._emit(Done(key, error))
            else:
                self._emit(Done(key))

        self._receive.put(run)

    def _fetch(self, job_id: str, index: int) -> None:
        client = self._link.client
        try:
            if client is None:
                raise ResourceError("resource.connection_lost", "There is no connection to the server; try again.")
            entry = next((e for e in client.history(job=job_id, info=True) if e.index == index), None)
            if entry is None:
                raise AssetError("asset.missing", "The server does not keep this picture any more; make it again.")
            self._emit(ResultFetched(job_id, index, entry, fetch_result(client, entry)))
        except ImpastoError as error:
            self._emit(ResultFetched(job_id, index, error=error))
        except Exception as defect:
            _log.exception("a defect of Impasto's client")
            self._emit(ResultFetched(job_id, index, error=internal_error(defect)))


def _ignore(error: ImpastoError) -> None:
    _log.info("not answered: %s", error)
