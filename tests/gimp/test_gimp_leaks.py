"""Many calls in a row leave nothing behind: no processes, sockets or files. IMPASTO_CALLS says how many."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from impasto_protocol.home import read_endpoint

from tests.gimp.conftest import Painter
from tests.gimp.gdrive import until
from tests.gimp.test_gimp_refusals import running

pytestmark = [pytest.mark.gimp, pytest.mark.slow]

CALLS = int(os.environ.get("IMPASTO_CALLS", "12"))
"""100 where it is asked for: a call is a process of its own and takes a second."""


def files_of(pid: int) -> dict[str, int]:
    """How many sockets and other files a process holds open."""
    kinds = {"sockets": 0, "files": 0}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            kinds["sockets" if os.readlink(entry).startswith("socket:") else "files"] += 1
        except OSError:
            continue
    return kinds


def test_many_calls_leave_nothing_behind(painter: Painter) -> None:
    endpoint = read_endpoint(painter.home)
    assert endpoint is not None
    gimp = painter.gimp.processes[-1].pid
    # Large enough for the files through which client and server pass pixels where both see them.
    call = "image = new_image(600, 600)\nselect(image, 8, 8, 550, 550)\nlayers_of(call('inpaint', image, prompt='x'))"

    def one() -> None:
        painter.run(call + "\nclose_all()")

    for _ in range(3):
        one()
    settled = running(painter)
    until(lambda: not running(painter) - settled, 10)
    before = [files_of(endpoint.pid), files_of(gimp), temporary(painter)]
    for _ in range(CALLS):
        one()
    until(lambda: not running(painter) - settled, 10)
    until(lambda: files_of(endpoint.pid)["sockets"] <= before[0]["sockets"], 10)
    after = [files_of(endpoint.pid), files_of(gimp), temporary(painter)]
    for kind in ("sockets", "files"):
        assert after[0][kind] <= before[0][kind] + 1, (before[0], after[0])
        assert after[1][kind] <= before[1][kind] + 1, (before[1], after[1])
    assert after[2] <= before[2]


def temporary(painter: Painter) -> set[str]:
    """What lies in the folders for passing files: GIMP's own, and the server's spool."""
    folders = [painter.gimp.home / "tmp", painter.home / "spool"]
    return {str(path) for folder in folders if folder.is_dir() for path in folder.rglob("*") if path.is_file()}
