"""A server program for the tests of launching: `serve_fake.py HOME PORT WAY SYS.PATH...`.

WAY is `serve`, `die` (with a message) or `locked` (another one holds the lock).
Ends when HOME is gone, when there is a file HOME/stop, or after a minute.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main(home: str, port: str, way: str, *path: str) -> None:
    print("the fake server starts", flush=True)
    Path(home, "environment.json").write_text(json.dumps(dict(os.environ)))
    if way == "die":
        print("no card was found, and no luck either", file=sys.stderr, flush=True)
        sys.exit(3)
    if way == "locked":
        print("A server is already running. [resource.already_running]", file=sys.stderr, flush=True)
        sys.exit(1)
    sys.path[:0] = path
    from fake_server import FakeServer

    FakeServer(Path(home)).start(int(port))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and Path(home).exists() and not Path(home, "stop").exists():
        time.sleep(0.05)


main(*sys.argv[1:])
