"""The server's spool folder, where this process sees the same files: pictures are written and read there.

Nothing is mapped: a file that the other side cuts short would kill the editor (SIGBUS); `read` and `write` say so.
"""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import threading
from pathlib import Path
from typing import Callable, Optional

from impasto_protocol.errors import AssetError, ImpastoError, JobError
from impasto_protocol.images import Buffer
from impasto_protocol.messages import PROOF_BYTES, SpoolInfo

__all__ = ["SpoolFolder"]

_PIECE = 16 * 1024 * 1024
"""Bytes between two looks at whether the upload is still wanted."""

_NAME = re.compile(r"[0-9a-z]{1,64}")
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))

_log = logging.getLogger("impasto.client")


class SpoolFolder:
    """Opens only files of this user's that are there already, by the names that the server gives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def prove(info: SpoolInfo, share: Callable[[bytes, bytes], None]) -> Optional[SpoolFolder]:
        """The folder, once `share(read, wrote)` has shown the server that both see the same probe; None where not.

        A sandboxed editor, another computer behind a tunnel or an older server end here: the socket does it all then.
        """
        found = SpoolFolder(Path(info.folder))
        try:
            with found._open(info.probe, 2 * PROOF_BYTES, write=True) as probe:
                read = probe.read(PROOF_BYTES) or b""
                wrote = os.urandom(PROOF_BYTES)
                probe.seek(PROOF_BYTES)
                probe.write(wrote)
            share(read, wrote)
        except (OSError, ValueError) as error:
            _log.info("pixels go through the connection, the spool is not to be seen from here: %s", error)
            return None
        except ImpastoError as error:
            if error.code in ("resource.connection_lost", "resource.no_answer"):
                raise
            _log.info("pixels go through the connection: %s", error)
            return None
        return found

    def write(self, name: str, data: Buffer, stop: threading.Event) -> None:
        """Fill a file from its beginning. Raises OSError, and JobError `job.cancelled` soon after `stop` was set."""
        view = memoryview(data).cast("B")
        with self._open(name, len(view), write=True) as file:
            at = 0
            while at < len(view):
                if stop.is_set():
                    raise JobError("job.cancelled", "The upload was given up.")
                at += file.write(view[at : at + _PIECE]) or 0

    def read(self, name: str, size: int) -> bytes:
        """The first `size` bytes of a file. Raises OSError, and AssetError `asset.bad_image` where there are fewer."""
        with self._open(name, size, write=False) as file:
            data = file.read(size)
        if data is None or len(data) != size:
            raise AssetError("asset.bad_image", "A result's file is shorter than it should be; fetch it again.")
        return data

    def _open(self, name: str, size: int, write: bool) -> io.FileIO:
        if _NAME.fullmatch(name) is None:
            raise OSError(f"the server named a file {name[:80]!r}")
        mode = os.O_RDWR if write else os.O_RDONLY
        file = io.FileIO(os.open(str(self._folder / name), mode | _FLAGS), "r+" if write else "r")
        found = os.fstat(file.fileno())
        ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
        if not (stat.S_ISREG(found.st_mode) and ours and found.st_size >= size):
            file.close()
            raise OSError(f"the file {name} is not what the server made")
        return file
