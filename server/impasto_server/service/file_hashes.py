"""The hashes by which A1111's texts name files: worked out while nobody waits, kept by path, size and time.

A checkpoint or a VAE is named by the first 10 digits of the SHA-256 of its file, a LoRA by the first 12 of that of its
tensors (`engine.lora.lora_hash`). So an old picture finds its checkpoint also where the file has another name here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from impasto_protocol.errors import ImpastoError
from impasto_protocol.home import write_private

__all__ = ["FileHashes"]

log = logging.getLogger("impasto.catalogue")

_PIECE = 4 << 20
_PAUSE = 0.2
"""Seconds between two looks whether somebody still needs the disk."""
_VERSION = 1


class FileHashes:
    """What is known of the hashes of files. `file` keeps it between runs; with None it is forgotten.

    `look` is for one thread; asking is for any.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: dict[str, tuple[int, int, tuple[str, ...]]] | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def of(self, path: Path) -> tuple[str, ...]:
        """The hashes of the file as it is now, whole SHA-256s in hex; none where it was not looked at yet."""
        try:
            stat = path.stat()
        except OSError:
            return ()
        size, changed, digests = self._all().get(str(path), (-1, -1, ()))
        return digests if (size, changed) == (stat.st_size, stat.st_mtime_ns) else ()

    def stop(self) -> None:
        """Make `look` return at once."""
        self._stopping.set()

    def look(self, files: Iterable[tuple[Path, bool]], busy: Callable[[], bool]) -> None:
        """Work out what is not known yet, and wait where `busy` says that somebody needs the machine.

        Each file with whether its tensors have a hash of their own. Touches the disk for minutes.
        """
        for path, tensors in files:
            if self._stopping.is_set():
                return
            if not path.is_file() or self.of(path):
                continue
            try:
                stat = path.stat()
                digests = self._hashed(path, tensors, busy)
            except OSError as e:
                log.info("%s has no hash: %s", path.name, e.strerror)
                continue
            if digests:
                with self._lock:
                    known = {**(self._known or {}), str(path): (stat.st_size, stat.st_mtime_ns, digests)}
                    self._known = known
                self._save(known)

    def _hashed(self, path: Path, tensors: bool, busy: Callable[[], bool]) -> tuple[str, ...]:
        whole, rest = hashlib.sha256(), hashlib.sha256()
        with open(path, "rb") as file:
            header = 0
            if tensors and path.suffix.lower() == ".safetensors":
                whole.update(start := file.read(8))
                header = int.from_bytes(start, "little")
                while header > 0 and (piece := file.read(min(_PIECE, header))):
                    whole.update(piece)
                    header -= len(piece)
                tensors = len(start) == 8 and header == 0
            else:
                tensors = False
            while piece := file.read(_PIECE):
                whole.update(piece)
                if tensors:
                    rest.update(piece)
                while busy() and not self._stopping.is_set():
                    self._stopping.wait(_PAUSE)
                if self._stopping.is_set():
                    return ()
        return (whole.hexdigest(), rest.hexdigest()) if tensors else (whole.hexdigest(),)

    def _all(self) -> dict[str, tuple[int, int, tuple[str, ...]]]:
        with self._lock:
            if self._known is None:
                self._known = self._load()
            return self._known

    def _load(self) -> dict[str, tuple[int, int, tuple[str, ...]]]:
        if self._file is None or not self._file.exists():
            return {}
        try:
            raw = json.loads(self._file.read_text(encoding="utf-8"))
            if raw["version"] != _VERSION:
                return {}
            return {
                str(path): (int(size), int(changed), tuple(str(digest) for digest in digests))
                for path, (size, changed, digests) in raw["files"].items()
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            log.warning("the hashes of models are made anew: %s", e)
            return {}

    def _save(self, known: dict[str, tuple[int, int, tuple[str, ...]]]) -> None:
        if self._file is None:
            return
        try:
            write_private(self._file, json.dumps({"version": _VERSION, "files": known}))
        except (OSError, ImpastoError) as e:
            log.warning("the hashes of models could not be saved: %s", e)
