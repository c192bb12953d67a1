"""What happened to each job, written down before it is told, so that a killed server still knows it when it comes back.

One line of JSON for every accepted job and every lasting event. A line that a crash cut off is dropped at the next
start, and the file is written anew then with the jobs that are still known.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impasto_protocol.errors import ProtocolError, ResourceError
from impasto_protocol.home import write_private
from impasto_protocol.messages import (
    SERVER_MESSAGES,
    Cancelled,
    Failed,
    Finished,
    Message,
    Output,
    Queued,
    Started,
    parse,
)

__all__ = ["TERMINAL", "Ledger", "PastJob"]

log = logging.getLogger("impasto.ledger")

TERMINAL: Mapping[str, str] = {cls.TYPE: cls.TYPE for cls in (Finished, Failed, Cancelled)}
"""Type of a terminal event -> state of the job afterwards."""

_LASTING = {cls.TYPE for cls in (Queued, Started, Output)} | TERMINAL.keys()
_ACCEPTED = "accepted"


@dataclass
class PastJob:
    """A job as the ledger knows it; event n has seq n + 1. `fingerprint` stands for what the submit asked for."""

    job: str
    mode: str
    fingerprint: str
    created: float
    events: list[Message] = field(default_factory=list)

    @property
    def state(self) -> str:
        """ "" where no terminal event was written down."""
        return TERMINAL.get(self.events[-1].TYPE, "") if self.events else ""


class Ledger:
    """The file; None keeps nothing. Calls write a line each and belong to the event loop."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.byte_count = 0
        self._open: int | None = None
        self._torn = False

    def load(self) -> list[PastJob]:
        """The jobs of earlier runs, oldest first."""
        if self.file is None or not self.file.exists():
            return []
        jobs: dict[str, PastJob] = {}
        for number, line in enumerate(self.file.read_bytes().split(b"\n"), 1):
            if line:
                try:
                    _take(jobs, json.loads(line))
                except (ValueError, TypeError, KeyError, AttributeError, ProtocolError) as e:
                    log.warning("line %d of %s is dropped, it is damaged: %s", number, self.file.name, e)
        return list(jobs.values())

    def accept(self, job: str, mode: str, fingerprint: str, created: float) -> None:
        """Raises ResourceError `resource.disk_full`: a job that cannot be written down is not taken."""
        try:
            self._write(_line(PastJob(job, mode, fingerprint, created)))
        except OSError as e:
            raise ResourceError(
                "resource.disk_full",
                f"The job could not be written down in {self.file} ({e.strerror}); free some space and try again.",
                retryable=True,
            ) from e

    def tell(self, event: Message) -> None:
        """Write down a lasting event. Where that fails the job goes on: its results have files of their own."""
        try:
            self._write(_json(event.to_wire()))
        except OSError as e:
            log.error("an event of job %s could not be written down: %s", getattr(event, "job", ""), e)

    def rewrite(self, jobs: Iterable[PastJob]) -> None:
        """Replace the file by these jobs; it stays as it is where that fails."""
        if self.file is None:
            return
        lines = b"".join(line for job in jobs for line in (_line(job), *(_json(e.to_wire()) for e in job.events)))
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            for left in self.file.parent.glob(f"{self.file.name}.*.tmp"):
                left.unlink()  # of a server that was killed at this very place
            self.close()
            write_private(self.file, lines.decode())
            self.byte_count, self._torn = len(lines), False
        except OSError as e:
            log.error("%s could not be written anew: %s", self.file, e)

    def close(self) -> None:
        if self._open is not None:
            os.close(self._open)
            self._open = None

    def _write(self, line: bytes) -> None:
        if self.file is None:
            return
        if self._open is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._open = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
        # After a write that went wrong, a new line ends what it left.
        data = b"\n" + line if self._torn else line
        self._torn = True
        written = os.write(self._open, data)
        if written != len(data):
            raise OSError(28, "No space left on device")
        self._torn = False
        self.byte_count += written


def _line(job: PastJob) -> bytes:
    fields = {"job": job.job, "mode": job.mode, "fingerprint": job.fingerprint, "created": job.created}
    return _json({"type": _ACCEPTED, **fields})


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _take(jobs: dict[str, PastJob], fields: dict[str, Any]) -> None:
    kind, name = fields["type"], fields["job"]
    if kind == _ACCEPTED:
        jobs[name] = PastJob(name, str(fields["mode"]), str(fields["fingerprint"]), float(fields["created"]))
        return
    if kind not in _LASTING:
        raise ValueError(f"{kind!r} is no lasting event")
    job = jobs.get(name)
    if job is None or job.state or fields["seq"] != len(job.events) + 1:
        raise ValueError("it does not follow the events before it")
    job.events.append(parse(fields, SERVER_MESSAGES))
