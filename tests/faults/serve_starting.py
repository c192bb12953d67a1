"""`serve` as the command line calls it, with an engine that only pretends: `serve_starting.py HOME PORT SYS.PATH...`.

Ends by itself after two minutes, so that no test leaves one behind.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path


def main(home: Path, port: int) -> int:
    from impasto_protocol.errors import ImpastoError
    from impasto_server.service.serve import serve
    from impasto_server.service.server import Server

    from tests.service import fakes

    real = Server.__init__
    Server.__init__ = lambda self, settings, token: real(self, settings, token, fakes.identify)  # type: ignore[assignment, method-assign, misc]
    fakes.add_model(home)
    try:
        serve(fakes.settings_for(home, port=port), [sys.executable, *sys.argv])
    except ImpastoError as error:
        print(f"impasto: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.path[:0] = sys.argv[3:]
    quit_ = threading.Timer(120, os._exit, (9,))
    quit_.daemon = True
    quit_.start()
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
