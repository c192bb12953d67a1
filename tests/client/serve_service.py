"""The real service with an engine that only pretends, as a program: `serve_service.py HOME SYS.PATH...`.

With a file HOME/tls-port it has an encrypted door at that port too.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path


async def main(home: Path) -> None:
    from impasto_protocol.home import token_file, write_private
    from impasto_server.service.home import remove_endpoint, single_instance, write_endpoint

    from tests.service import fakes

    with single_instance(home):
        write_private(token_file(home), fakes.TOKEN)
        port = home / "tls-port"
        changes = {"tls": True, "port": int(port.read_text())} if port.exists() else {}
        async with fakes.running(fakes.settings_for(home, **changes)) as (_, endpoint):
            write_endpoint(home, endpoint)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and home.exists() and not (home / "stop").exists():
                await asyncio.sleep(0.05)
        remove_endpoint(home, os.getpid())


sys.path[:0] = sys.argv[2:]
asyncio.run(main(Path(sys.argv[1])))
