"""Kills of the server, its worker and the connection at random moments while a painter works in a real Krita.

After each one: the painter's own layers are as they were, each job has ended once, every result that was made lies in
the document as one undo step, and the plug-in has a server again. `IMPASTO_FAULTS` is the number of kills (default 6),
`IMPASTO_FAULTS_SEED` chooses the moments.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from impasto_client.client import Client
from impasto_client.endpoint import read_endpoint
from impasto_protocol.messages import ClientInfo

from tests.faults.ground import kill_workers, workers_of
from tests.krita import stub
from tests.krita.conftest import Painter

pytestmark = [
    pytest.mark.krita,
    pytest.mark.skipif(sys.platform != "linux", reason="the worker is found through /proc, its memory in /dev/shm"),
]

KILLS = min(200, int(os.environ.get("IMPASTO_FAULTS", "6")))
SEED = int(os.environ.get("IMPASTO_FAULTS_SEED", "1"))
SHM = Path("/dev/shm")
SERVER_DIED = ("resource.server_died", "resource.worker_died", "resource.connection_lost", "job.unknown")

PRELUDE = """
import hashlib

told = []                   # what the runner said of jobs: [job, "end", state, code] and [job, "result", index, digest]

def note(event):
    kind = type(event).__name__
    if kind == "Failed":
        told.append([event.ticket, "end", "failed", event.error.code])
    elif kind == "JobChanged" and event.state in ("finished", "failed", "cancelled"):
        told.append([event.job_id, "end", event.state, event.error.code if event.error else ""])
    elif kind == "ResultReady":
        told.append([event.job_id, "result", event.result.index, hashlib.blake2b(
            bytes(event.result.pixels), digest_size=16).hexdigest()])

controller().signals.arrived.connect(note, Qt.ConnectionType.DirectConnection)

def own_layers(doc):
    return {n.name(): hashlib.sha256(bytes(n.pixelData(0, 0, doc.width(), doc.height()))).hexdigest()
            for n in doc.rootNode().childNodes() if n.name() in ("Background", "painting")}

def begin(words, x, y, w, h):
    select(doc, x, y, w, h)
    prompt(words)
    yield (lambda: widget("inpaint").isEnabled(), 90)
    press("inpaint")
    return controller().jobs.active[-1].job_id

def drop():
    client = controller()._runner._link.client
    if client is not None:
        client._transport._socket.shutdown(2)

def settled():
    # A painter would press the button that the docker offers.
    if controller().connection.state in ("lost", "failed") and shown("retry"):
        press("retry")
    return connected() and not controller().jobs.active
"""


@pytest.fixture(scope="module")
def launch() -> list[str]:
    return stub.launch_command("process")


class Storm:
    """One Krita, and everything that must hold whatever is killed."""

    def __init__(self, painter: Painter) -> None:
        self.painter = painter
        self.own: dict[str, str] = {}
        """Digests of the painter's layers, as they were."""
        self.pids: set[int] = set()
        self.names: dict[str, str] = {}
        """Layer name by job."""
        self.pasted: set[str] = set()

    def server(self) -> int:
        """The present server, which is noted with its workers."""
        pid = self.painter.server_pid()
        self.pids.update((pid, *workers_of(pid)))
        return pid

    def ask(self, words: str, box: tuple[int, int, int, int]) -> None:
        job = self.painter.run(f"def gen():\n    return (yield from begin({words!r}, *{box!r}))", timeout=120)
        self.names[job] = f"Impasto: {words}"

    def kill(self, kind: str) -> None:
        if kind == "connection":
            self.painter.run("drop()")
            return
        pid = self.server()
        if kind == "server":
            os.kill(pid, signal.SIGKILL)
        else:
            kill_workers(pid)

    def settle(self) -> list[list[Any]]:
        """Wait for all ends, look at the document, undo the new layers; gives what the jobs were told."""
        told, own, names, untouched = self.painter.run(
            """
def gen():
    global told
    yield (settled, 120)
    doc.waitForDone()
    yield 0.1               # the active layer is put back
    said, told[:] = list(told), []
    names, own = layers(doc), own_layers(doc)
    made = [n for n in names if n.startswith("Impasto: ")]
    for count in range(len(made), 0, -1):
        doc.waitForDone()   # Krita takes no undo while it works
        app.action("edit_undo").trigger()
        yield (lambda: len([n for n in layers(doc) if n.startswith("Impasto: ")]) == count - 1, 20)
    return [said, [own, own_layers(doc)], made, projection(doc) == before and sorted(own_layers(doc)) == sorted(own)]
""",
            timeout=200,
        )
        assert own == [self.own, self.own], "a layer of the painter's was written to"
        assert untouched, "undo of the results does not give the document that was"
        assert len(set(names)) == len(names), f"a result was pasted twice: {names}"
        self.pasted.update(names)
        return list(told)

    def check(self, told: list[list[Any]], jobs: list[str]) -> dict[tuple[str, int], str]:
        """One end for each of the jobs, and each result pasted; the digests of the results."""
        results: dict[tuple[str, int], str] = {}
        for job in jobs:
            mine = [event[1:] for event in told if event[0] == job]
            ends = [event[1:] for event in mine if event[0] == "end"]
            assert len(ends) == 1, f"{self.names[job]} has the ends {ends}"
            assert mine[-1][0] == "end", f"{self.names[job]} was told of after its end: {mine}"
            got = {(job, index): digest for kind, index, digest in (e[:3] for e in mine if e[0] == "result")}
            state, code = ends[0]
            assert state == "finished" or (state == "failed" and code in SERVER_DIED), (self.names[job], ends)
            assert state != "finished" or len(got) == 1, f"{self.names[job]} finished with {len(got)} results"
            assert (self.names[job] in self.pasted) == bool(got), f"{self.names[job]}: {got}, {sorted(self.pasted)}"
            results.update(got)
        assert {event[0] for event in told} <= set(jobs), "a job was told of after it had ended"
        return results


def test_kills_at_random_moments(painter: Painter) -> None:
    chance, storm, began = random.Random(SEED), Storm(painter), time.monotonic()
    segments = {path.name for path in SHM.glob("impasto-*")}
    painter.run(PRELUDE)
    storm.own = painter.run(
        """
def gen():
    global doc, before
    yield (connected, 90)
    doc = yield from new_document()
    before = projection(doc)
    return own_layers(doc)
"""
    )
    kinds = [("server", "worker", "connection")[n % 3] for n in range(KILLS)]
    chance.shuffle(kinds)
    results: dict[tuple[str, int], str] = {}
    ends: dict[str, int] = {}
    for number, kind in enumerate(kinds):
        jobs = []
        for part in range(chance.randint(1, 2)):
            x, y = chance.randrange(0, 150), chance.randrange(0, 100)
            box = (x, y, chance.randrange(8, 100), chance.randrange(8, 80))
            storm.ask(f"{number}.{part} {chance.choice(['slow', 'slow', 'quick'])}", box)
            jobs.append(list(storm.names)[-1])
        storm.server()
        time.sleep(chance.random() * 0.8)  # the moment of the kill is what is tried
        storm.kill(kind)
        told = storm.settle()
        results.update(storm.check(told, jobs))
        for _, state in (event[1:3] for event in told if event[1] == "end"):
            ends[state] = ends.get(state, 0) + 1

    # In peace a job runs as if nothing had been.
    storm.ask("in peace", (20, 20, 40, 40))
    told = storm.settle()
    results.update(storm.check(told, [list(storm.names)[-1]]))
    assert [event[2] for event in told if event[1] == "end"] == ["finished"]

    check_history(painter, results)
    print(f"\n{KILLS} kills, seed {SEED}, {len(storm.names)} jobs: {ends}, {time.monotonic() - began:.0f} s")
    storm.server()
    stop_and_look(painter, storm.pids, segments)


def check_history(painter: Painter, results: dict[tuple[str, int], str]) -> None:
    """Each result that came is kept with its pixels. What else is kept was finished as the server died."""
    endpoint = read_endpoint(painter.home)
    assert endpoint is not None
    client = Client.connect(endpoint, ClientInfo("faults", "0"), lambda message: None, lambda error: None)
    try:
        kept = {(entry.job, entry.index): entry for entry in client.history()}
        for key, digest in results.items():
            assert kept[key].digest == digest
            assert len(client.fetch(digest)) == 4 * kept[key].width * kept[key].height
    finally:
        client.close()


def stop_and_look(painter: Painter, pids: set[int], before: set[str]) -> None:
    """The server is told to stop: no process, no shared memory and no half result is left."""
    endpoint = read_endpoint(painter.home)
    assert endpoint is not None
    client = Client.connect(endpoint, ClientInfo("faults", "0"), lambda message: None, lambda error: None)
    client.shutdown()
    client.close()
    deadline = time.monotonic() + 30
    while True:
        alive = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        segments = [p.name for p in SHM.glob("impasto-*") if p.name not in before and _pid_of(p.name) in pids]
        if not alive and not segments:
            break
        assert time.monotonic() < deadline, (alive, segments)
        time.sleep(0.1)
    left = [p.name for p in (painter.home / "history").iterdir() if p.suffix not in (".json", ".png", ".log")]
    spool = painter.home / "spool"
    assert not left and not (spool.exists() and any(spool.iterdir())), left


def _pid_of(segment: str) -> int:
    """Segments are called impasto-PID-..., by the server's process."""
    part = segment.split("-")[1]
    return int(part) if part.isdigit() else 0
